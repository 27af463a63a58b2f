"""Core Endpoints are converted to equivalent EndpointSlices."""

from __future__ import annotations

from rulegen.kube.objects.structs import EndpointAddress, EndpointPort, Endpoints, EndpointSubset, ObjectMeta
from rulegen.kube.snapshot.endpoints import slices_of

METADATA = ObjectMeta(name="db", namespace="shop", labels={"a": "b", "service.kubernetes.io/headless": ""})


def test_each_subset_and_family_is_a_slice() -> None:
    subsets = (
        EndpointSubset(
            addresses=(EndpointAddress(ip="10.0.0.1", node_name="node1"), EndpointAddress(ip="fd00::1")),
            not_ready_addresses=(EndpointAddress(ip="10.0.0.2"),),
            ports=(EndpointPort(name="sql", port=5432), EndpointPort(name="dns", port=53, protocol="UDP")),
        ),
        EndpointSubset(addresses=(EndpointAddress(ip="10.0.0.3"),), ports=(EndpointPort(name="sql", port=5433),)),
    )
    slices = slices_of(Endpoints(metadata=METADATA, subsets=subsets))
    parts = [
        (
            s.metadata.name,
            s.address_type,
            [(e.addresses[0], e.conditions.ready, e.node_name) for e in s.endpoints],
            [(p.name, p.port, p.protocol) for p in s.ports],
        )
        for s in slices
    ]
    ports = [("sql", 5432, "TCP"), ("dns", 53, "UDP")]
    assert parts == [
        ("db-ipv4-0", "IPv4", [("10.0.0.1", True, "node1"), ("10.0.0.2", False, None)], ports),
        ("db-ipv6-0", "IPv6", [("fd00::1", True, None)], ports),
        ("db-ipv4-1", "IPv4", [("10.0.0.3", True, None)], [("sql", 5433, "TCP")]),
    ]


def test_slices_have_the_labels_of_the_endpoints() -> None:
    (derived,) = slices_of(
        Endpoints(metadata=METADATA, subsets=(EndpointSubset(addresses=(EndpointAddress(ip="10.0.0.1"),)),))
    )
    assert derived.metadata.namespace == "shop"
    assert derived.metadata.labels == {
        "a": "b",
        "service.kubernetes.io/headless": "",
        "kubernetes.io/service-name": "db",
    }


def test_no_addresses_no_slices() -> None:
    assert slices_of(Endpoints(metadata=METADATA, subsets=(EndpointSubset(ports=(EndpointPort(port=1),)),))) == ()
