"""Values assigned for a preview are deterministic, not in use, and reported."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rulegen.kube.objects.names import ObjectName
from rulegen.kube.objects.structs import Service
from rulegen.kube.snapshot.build import build_world
from rulegen.kube.snapshot.preview import Preview, service_networks
from rulegen.kube.snapshot.world import ServiceInput
from rulegen.net import parse_network

DUAL = ["10.96.0.0/12", "fd00:10:96::/112"]


def service(name: str = "web", **spec: Any) -> Service:
    fields = {"ports": [{"name": "http", "port": 80}], **spec}
    return msgspec.convert({"metadata": {"name": name, "namespace": "shop"}, "spec": fields}, Service)


def assigned(*services: Service, cidrs: list[str] | None = None, ports: tuple[int, int] = (30000, 32767)) -> Any:
    networks = [parse_network(cidr) for cidr in cidrs or []]
    return build_world(services, service_cidrs=networks, node_port_range=ports)


def named(snapshot: Any, name: str = "web") -> ServiceInput:
    return snapshot.services[ObjectName("shop", name)]


def test_a_service_without_cluster_ip_gets_an_assigned_one() -> None:
    web = named(assigned(service()))
    spec = web.service.spec
    assert ip_address(spec.cluster_ip) in parse_network("10.96.0.0/12")
    assert spec.cluster_ips == (spec.cluster_ip,)
    assert spec.ip_families == ("IPv4",)
    assert web.assigned == (f"clusterIP {spec.cluster_ip}",)


def test_the_assigned_address_is_deterministic() -> None:
    assert named(assigned(service())).service.spec.cluster_ip == "10.102.92.158"


NOT_TOUCHED = {
    "headless": {"clusterIP": "None"},
    "external name": {"type": "ExternalName", "externalName": "example.org"},
    "address of its own": {"clusterIP": "10.96.0.1"},
    "address of its own, node port missing": {"clusterIP": "10.96.0.1", "type": "NodePort"},
    "only clusterIPs": {"clusterIPs": ["10.96.0.1"]},
}


@pytest.mark.parametrize("name", NOT_TOUCHED)
def test_services_without_assigned_values(name: str) -> None:
    web = named(assigned(service(**NOT_TOUCHED[name])))
    assert web.assigned == ()
    assert all(port.node_port == 0 for port in web.service.spec.ports)


FAMILIES = [
    # ipFamilies        ipFamilyPolicy      service CIDRs           families
    ([], None, DUAL, ["IPv4"]),
    ([], None, DUAL[::-1], ["IPv6"]),
    ([], None, DUAL[1:], ["IPv6"]),
    ([], "SingleStack", DUAL, ["IPv4"]),
    ([], "PreferDualStack", DUAL, ["IPv4", "IPv6"]),
    ([], "PreferDualStack", DUAL[::-1], ["IPv6", "IPv4"]),
    ([], "PreferDualStack", DUAL[:1], ["IPv4"]),
    ([], "RequireDualStack", DUAL, ["IPv4", "IPv6"]),
    (["IPv6"], None, DUAL, ["IPv6"]),
    (["IPv6"], "PreferDualStack", DUAL, ["IPv6", "IPv4"]),
    (["IPv6", "IPv4"], None, DUAL, ["IPv6", "IPv4"]),
    (["IPv6", "IPv4"], "SingleStack", DUAL, ["IPv6"]),
    (["IPv6", "IPv4"], "PreferDualStack", DUAL[:1], ["IPv4"]),
]


@pytest.mark.parametrize(("families", "policy", "cidrs", "expected"), FAMILIES)
def test_families(families: list[str], policy: str | None, cidrs: list[str], expected: list[str]) -> None:
    web = named(assigned(service(ipFamilies=families, ipFamilyPolicy=policy), cidrs=cidrs))
    spec = web.service.spec
    assert list(spec.ip_families) == expected
    assert [f"IPv{ip_address(ip).version}" for ip in spec.cluster_ips] == expected
    assert len(web.assigned) == len(expected)


@pytest.mark.parametrize(
    ("families", "policy"), [(["IPv6"], None), ([], "RequireDualStack"), (["IPv6", "IPv4"], "RequireDualStack")]
)
def test_a_family_without_a_service_cidr(families: list[str], policy: str | None) -> None:
    snapshot = assigned(service(ipFamilies=families, ipFamilyPolicy=policy), cidrs=DUAL[:1])
    assert snapshot.rejected[0].lines() == (
        "Service shop/web: spec.ipFamilies: contains IPv6, but no service CIDR of that family is known",
    )


def test_node_ports() -> None:
    ports = [
        {"name": "dns", "port": 53, "protocol": "UDP"},
        {"name": "dns-tcp", "port": 53, "protocol": "TCP"},
        {"name": "http", "port": 80, "nodePort": 30080},
    ]
    web = named(assigned(service(type="NodePort", ports=ports)))
    dns, dns_tcp, http = (port.node_port for port in web.service.spec.ports)
    assert dns == dns_tcp
    assert 30000 <= dns <= 32767
    assert http == 30080
    assert web.assigned[1:] == (f"nodePort {dns} for dns", f"nodePort {dns} for dns-tcp")


KINDS_OF_PORTS = [
    # spec                                                                          what is assigned besides the address
    ({}, []),
    ({"type": "NodePort"}, ["nodePort"]),
    ({"type": "LoadBalancer"}, ["nodePort"]),
    ({"type": "LoadBalancer", "allocateLoadBalancerNodePorts": False}, []),
    ({"type": "LoadBalancer", "externalTrafficPolicy": "Local"}, ["nodePort", "healthCheckNodePort"]),
    ({"type": "LoadBalancer", "externalTrafficPolicy": "Local", "healthCheckNodePort": 31000}, ["nodePort"]),
    ({"type": "NodePort", "externalTrafficPolicy": "Local"}, ["nodePort"]),
]


@pytest.mark.parametrize(("spec", "words"), KINDS_OF_PORTS)
def test_which_ports_are_assigned(spec: dict[str, Any], words: list[str]) -> None:
    assert [text.split()[0] for text in named(assigned(service(**spec))).assigned[1:]] == words


def test_a_requested_value_is_not_assigned_to_another_service() -> None:
    first = named(assigned(service(type="NodePort"))).service.spec
    rival = service(
        "a", clusterIP=first.cluster_ip, type="NodePort", ports=[{"port": 1, "nodePort": first.ports[0].node_port}]
    )
    second = named(assigned(service(type="NodePort"), rival)).service.spec
    assert second.cluster_ip != first.cluster_ip
    assert second.ports[0].node_port != first.ports[0].node_port


def test_other_protocols_may_have_the_same_node_port() -> None:
    first = named(assigned(service(type="NodePort"))).service.spec.ports[0].node_port
    rival = service(
        "a", clusterIP="10.0.0.1", type="NodePort", ports=[{"port": 1, "nodePort": first, "protocol": "UDP"}]
    )
    assert named(assigned(service(type="NodePort"), rival)).service.spec.ports[0].node_port == first


def test_a_small_network_is_used_to_its_last_address() -> None:
    snapshot = assigned(*(service(f"s{i}") for i in range(7)), cidrs=["10.0.0.0/29"])
    assert sorted(s.service.spec.cluster_ip for s in snapshot.services.values()) == [f"10.0.0.{i}" for i in range(1, 7)]
    assert [r.lines()[0] for r in snapshot.rejected] == [
        "Service shop/s6: spec.clusterIP: no free address of 10.0.0.0/29 is left for a preview"
    ]


def test_a_second_network_follows_the_first() -> None:
    snapshot = assigned(*(service(f"s{i}") for i in range(4)), cidrs=["10.0.0.0/30", "10.0.1.0/30"])
    assert len({s.service.spec.cluster_ip for s in snapshot.services.values()}) == 4


def test_a_small_range_of_node_ports_is_used_to_its_last() -> None:
    snapshot = assigned(*(service(f"s{i}", type="NodePort") for i in range(4)), ports=(30000, 30002))
    assert {s.service.spec.ports[0].node_port for s in snapshot.services.values()} == {30000, 30001, 30002}
    assert [r.lines()[0] for r in snapshot.rejected] == [
        "Service shop/s3: spec.ports: no node port from 30000 to 30002 is left for a preview"
    ]


@pytest.mark.parametrize("cidr", ["10.0.0.1/32", "10.0.0.0/31", "fd00::1/128"])
def test_a_network_without_free_addresses(cidr: str) -> None:
    assert "is left for a preview" in assigned(service(), cidrs=[cidr]).rejected[0].lines()[0]


def test_service_cidrs_of_the_cluster_precede_those_of_the_user() -> None:
    given = [parse_network("10.1.0.0/16")]
    assert service_networks(["10.2.0.0/16"], given) == (parse_network("10.2.0.0/16"),)
    assert service_networks([], given) == tuple(given)
    assert len(service_networks([], [])) == 2


NAMES = st.lists(st.integers(0, 40), unique=True, max_size=12)


@given(NAMES, st.integers(0, 40))
def test_assigned_addresses_are_unique_in_any_order(numbers: list[int], fixed: int) -> None:
    cidrs = (parse_network("10.0.0.0/26"),)
    services = [service(f"s{n}", type="NodePort") for n in numbers]
    services.append(service("fixed", clusterIP=f"10.0.0.{fixed + 1}"))
    forth = {s.metadata.name: s for s, _, _ in Preview(cidrs).assign(services)}
    back = {s.metadata.name: s for s, _, _ in Preview(cidrs).assign(reversed(services))}
    assert forth == back
    assert len({s.spec.cluster_ip for s in forth.values()}) == len(services)


@given(NAMES)
def test_a_new_service_does_not_change_the_values_of_others(numbers: list[int]) -> None:
    """In a network of usual size, no hashes collide."""
    services = [service(f"s{n}") for n in numbers]
    before = {s.metadata.name: s.spec.cluster_ip for s, _, _ in Preview().assign(services)}
    after = {s.metadata.name: s.spec.cluster_ip for s, _, _ in Preview().assign([*services, service("new")])}
    assert before.items() <= after.items()
