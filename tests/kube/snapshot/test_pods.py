"""Endpoints derived from Pods are those that the EndpointSlice controller would write."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from rulegen.kube.objects.structs import EndpointSlice, Node, Pod, Service
from rulegen.kube.snapshot.pods import PodIndex, derive_slices

READY = [{"type": "Ready", "status": "True"}]


def pod(name: str = "web-1", **parts: Any) -> Pod:
    metadata = {"name": name, "namespace": "shop", "labels": {"app": "web", "tier": "a"}, **parts.pop("metadata", {})}
    status = {"podIP": "10.244.0.1", "phase": "Running", "conditions": READY, **parts.pop("status", {})}
    spec = {"nodeName": "node1", "containers": [], **parts.pop("spec", {})}
    return msgspec.convert({"metadata": metadata, "spec": spec, "status": status}, Pod)


def service(*ports: dict[str, Any], **spec: Any) -> Service:
    fields = {
        "clusterIP": "10.96.0.1",
        "ipFamilies": ["IPv4"],
        "selector": {"app": "web"},
        "ports": list(ports),
        **spec,
    }
    metadata = {"name": "web", "namespace": "shop", "labels": spec.pop("labels", {})}
    return msgspec.convert({"metadata": metadata, "spec": {k: v for k, v in fields.items() if k != "labels"}}, Service)


HTTP = {"name": "http", "port": 80, "targetPort": 8080}
NODES = {
    "node1": msgspec.convert({"metadata": {"name": "node1", "labels": {"topology.kubernetes.io/zone": "a"}}}, Node),
    "node2": msgspec.convert({"metadata": {"name": "node2"}}, Node),
}


def derive(owner: Service, *pods: Pod) -> tuple[EndpointSlice, ...]:
    return derive_slices(owner, PodIndex(pods), NODES)


def by_slice(slices: tuple[EndpointSlice, ...]) -> list[Any]:
    return [
        (s.address_type, [(p.name, p.port) for p in s.ports], [e.addresses[0] for e in s.endpoints]) for s in slices
    ]


def container(*ports: tuple[str, int, str], restart: str | None = None) -> dict[str, Any]:
    container_ports = [{"name": n, "containerPort": c, "protocol": p} for n, c, p in ports]
    return {"name": "c", "ports": container_ports, "restartPolicy": restart}


CONDITIONS = [
    # what, the Pod, the Service, then ready, serving, terminating
    ("ready", {}, {}, (True, True, False)),
    ("not ready", {"status": {"conditions": [{"type": "Ready", "status": "False"}]}}, {}, (False, False, False)),
    ("unknown", {"status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}}, {}, (False, False, False)),
    ("no conditions", {"status": {"conditions": []}}, {}, (False, False, False)),
    ("pending", {"status": {"phase": "Pending", "conditions": []}}, {}, (False, False, False)),
    ("terminating", {"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}}, {}, (False, True, True)),
    (
        "terminating, not ready",
        {"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}, "status": {"conditions": []}},
        {},
        (False, False, True),
    ),
    ("published not ready", {"status": {"conditions": []}}, {"publishNotReadyAddresses": True}, (True, False, False)),
    (
        "published terminating",
        {"metadata": {"deletionTimestamp": "2026-01-01T00:00:00Z"}},
        {"publishNotReadyAddresses": True},
        (True, True, True),
    ),
]


@pytest.mark.parametrize(("parts", "spec", "expected"), [c[1:] for c in CONDITIONS], ids=[c[0] for c in CONDITIONS])
def test_conditions(parts: dict[str, Any], spec: dict[str, Any], expected: tuple[bool, bool, bool]) -> None:
    (derived,) = derive(service(HTTP, **spec), pod(**parts))
    (endpoint,) = derived.endpoints
    conditions = endpoint.conditions
    assert (conditions.ready, conditions.serving, conditions.terminating) == expected


LEFT_OUT = {
    "succeeded": {"status": {"phase": "Succeeded"}},
    "failed": {"status": {"phase": "Failed"}},
    "no address": {"status": {"podIP": ""}},
    "other namespace": {"metadata": {"namespace": "other"}},
    "other labels": {"metadata": {"labels": {"app": "other"}}},
    "no labels": {"metadata": {"labels": {}}},
}


@pytest.mark.parametrize("name", LEFT_OUT)
def test_pods_that_are_not_endpoints(name: str) -> None:
    assert derive(service(HTTP), pod(**LEFT_OUT[name])) == ()


@pytest.mark.parametrize(
    ("selector", "count"),
    [({"app": "web"}, 1), ({"app": "web", "tier": "a"}, 1), ({"app": "web", "tier": "b"}, 0), ({"x": "y"}, 0), ({}, 0)],
)
def test_selectors(selector: dict[str, str], count: int) -> None:
    assert len(derive(service(HTTP, selector=selector), pod())) == count


PORTS = [
    # target port   containers of the Pod                                     port of the endpoint
    (8080, [], 8080),
    (0, [], 80),
    ("", [], 80),
    ("http", [container(("http", 8081, "TCP"))], 8081),
    ("http", [container(("x", 1, "TCP")), container(("http", 8082, "TCP"))], 8082),
    ("http", [container(("http", 1, "UDP"), ("http", 8083, "TCP"))], 8083),
    ("http", [container(("http", 8084, ""))], 8084),
    ("http", [container(("http", 1, "UDP"))], None),
    ("http", [], None),
]


@pytest.mark.parametrize(("target", "containers", "number"), PORTS)
def test_target_ports(target: Any, containers: list[Any], number: int | None) -> None:
    derived = derive(service({"name": "http", "port": 80, "targetPort": target}), pod(spec={"containers": containers}))
    assert [p.port for s in derived for p in s.ports] == ([number] if number else [])


def test_ports_of_sidecars_are_used_but_not_of_init_containers() -> None:
    named = service({"name": "http", "port": 80, "targetPort": "http"})
    for restart, count in ((None, 0), ("Always", 1)):
        init = [container(("http", 8080, "TCP"), restart=restart)]
        assert len(derive(named, pod(spec={"initContainers": init}))) == count


def test_a_port_name_can_have_different_numbers_in_pods() -> None:
    """There is one slice for each set of port numbers; a Pod without a named port serves the others."""
    ports = ({"name": "http", "port": 80, "targetPort": "http"}, {"name": "metrics", "port": 90, "targetPort": 9090})
    derived = derive(
        service(*ports),
        pod("a", spec={"containers": [container(("http", 8080, "TCP"))]}, status={"podIP": "10.244.0.1"}),
        pod("b", spec={"containers": [container(("http", 8081, "TCP"))]}, status={"podIP": "10.244.0.2"}),
        pod("c", spec={"containers": [container(("http", 8080, "TCP"))]}, status={"podIP": "10.244.0.3"}),
        pod("d", status={"podIP": "10.244.0.4"}),
    )
    assert by_slice(derived) == [
        ("IPv4", [("http", 8080), ("metrics", 9090)], ["10.244.0.1", "10.244.0.3"]),
        ("IPv4", [("http", 8081), ("metrics", 9090)], ["10.244.0.2"]),
        ("IPv4", [("metrics", 9090)], ["10.244.0.4"]),
    ]
    assert len({s.metadata.name for s in derived}) == 3


def test_families() -> None:
    both = {"podIP": "10.244.0.1", "podIPs": [{"ip": "10.244.0.1"}, {"ip": "fd00::1"}]}
    for families, expected in (
        (["IPv4"], [("IPv4", ["10.244.0.1"])]),
        (["IPv6"], [("IPv6", ["fd00::1"])]),
        (["IPv6", "IPv4"], [("IPv4", ["10.244.0.1"]), ("IPv6", ["fd00::1"])]),
        ([], [("IPv4", ["10.244.0.1"]), ("IPv6", ["fd00::1"])]),
    ):
        derived = derive(service(HTTP, ipFamilies=families), pod(status=both))
        assert [(kind, ips) for kind, _, ips in by_slice(derived)] == expected
    assert derive(service(HTTP, ipFamilies=["IPv6"]), pod()) == ()


def test_a_pod_in_the_host_network_has_the_address_of_its_node() -> None:
    (derived,) = derive(
        service(HTTP), pod(spec={"hostNetwork": True}, status={"podIP": "192.0.2.10", "hostIP": "192.0.2.10"})
    )
    assert derived.endpoints[0].addresses == ("192.0.2.10",)


def test_nodes_and_zones() -> None:
    pods = [
        pod(name, spec={"nodeName": node}) for name, node in (("a", "node1"), ("b", "node2"), ("c", "x"), ("d", ""))
    ]
    (derived,) = derive(service(HTTP), *pods)
    assert [(e.node_name, e.zone) for e in derived.endpoints] == [
        ("node1", "a"),
        ("node2", None),
        ("x", None),
        (None, None),
    ]


@pytest.mark.parametrize(
    ("distribution", "zones", "nodes"),
    [(None, [], []), ("PreferClose", ["a"], []), ("PreferSameZone", ["a"], []), ("PreferSameNode", ["a"], ["node1"])],
)
def test_traffic_distribution_becomes_hints(distribution: str | None, zones: list[str], nodes: list[str]) -> None:
    (derived,) = derive(service(HTTP, trafficDistribution=distribution), pod())
    hints = derived.endpoints[0].hints
    assert ([z.name for z in hints.for_zones], [n.name for n in hints.for_nodes]) == (zones, nodes)


def test_slices_have_the_labels_of_the_service() -> None:
    (derived,) = derive(service(HTTP, labels={"a": "b", "endpointslice.kubernetes.io/managed-by": "me"}), pod())
    assert derived.metadata.labels == {"a": "b", "kubernetes.io/service-name": "web"}
    (derived,) = derive(service(HTTP, clusterIP="None"), pod())
    assert derived.metadata.labels["service.kubernetes.io/headless"] == ""


def test_a_headless_service_without_ports_has_endpoints_too() -> None:
    assert by_slice(derive(service(clusterIP="None"), pod())) == [("IPv4", [], ["10.244.0.1"])]


def test_endpoints_are_sorted_by_the_name_of_the_pod() -> None:
    pods = [pod(n, status={"podIP": f"10.244.0.{i}"}) for i, n in enumerate(["c", "a", "b"])]
    assert by_slice(derive(service(HTTP), *pods)) == by_slice(derive(service(HTTP), *reversed(pods)))
