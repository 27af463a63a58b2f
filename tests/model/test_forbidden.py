"""Addresses that tenants may not use, in every spelling: node, gateways, API and metadata servers, Pod networks."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rulegen.kube.reading.documents import Source
from rulegen.kube.snapshot.build import read_world
from rulegen.model.forbidden import KUBERNETES, METADATA, NOTHING, Forbidden, forbidden
from rulegen.model.host.facts import SERVICE_DEVICE, HostFacts, Interface
from rulegen.net import AddressUse, parse_address, parse_network, refusal

FACTS = HostFacts(
    interfaces=(
        Interface("lo", ((IPv4Address("127.0.0.1"), 8), (IPv6Address("::1"), 128))),
        Interface("eth0", ((IPv4Address("192.0.2.7"), 24), (IPv6Address("2001:db8::7"), 64))),
        Interface(SERVICE_DEVICE, ((IPv4Address("10.96.0.10"), 32), (IPv4Address("203.0.113.5"), 32))),
    ),
    gateways=frozenset({IPv4Address("192.0.2.1"), IPv6Address("2001:db8::1")}),
)
NODE = {
    "apiVersion": "v1",
    "kind": "Node",
    "metadata": {"name": "node1"},
    "spec": {"podCIDRs": ["10.244.1.0/24", "fd00:244:1::/64"]},
    "status": {
        "addresses": [
            {"type": "InternalIP", "address": "192.0.2.7"},
            {"type": "ExternalIP", "address": "198.51.100.7"},
            {"type": "Hostname", "address": "node1"},
        ]
    },
}
API = [
    {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "kubernetes", "namespace": "default"},
     "spec": {"clusterIP": "10.96.0.1", "ports": [{"name": "https", "port": 443, "targetPort": 6443}]}},
    {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
     "metadata": {"name": "kubernetes", "namespace": "default", "labels": {"kubernetes.io/service-name": "kubernetes"}},
     "ports": [{"name": "https", "port": 6443, "protocol": "TCP"}], "endpoints": [{"addresses": ["192.0.2.100"]}]},
]  # fmt: skip


@pytest.fixture(scope="module")
def judge() -> Forbidden:
    world = read_world([Source("x", b"\n---\n".join(msgspec.json.encode(each) for each in (NODE, *API)))])
    return forbidden(
        FACTS,
        world.nodes["node1"],
        world.services[KUBERNETES],
        pod_networks=(parse_network("10.244.0.0/16"),),
    )


E, U, X, L, C = (
    AddressUse.ENDPOINT,
    AddressUse.UPSTREAM,
    AddressUse.EXTERNAL_IP,
    AddressUse.LOAD_BALANCER_IP,
    AddressUse.CLUSTER_IP,
)
CASES = [
    # address, the uses that are refused, words of the reason
    ("192.0.2.7", {U, X}, "an address of this node"),
    ("2001:db8::7", {U, X}, "an address of this node"),
    ("198.51.100.7", {U, X}, "an address of this node"),
    ("192.0.2.1", {U, X, L}, "the gateway of this node"),
    ("2001:db8::1", {U, X, L}, "the gateway of this node"),
    ("192.0.2.100", {U, X, L}, "an address of the API server"),
    ("10.244.1.9", {X, L}, "an address of the Pod network 10.244.1.0/24"),
    ("10.244.9.9", {X, L}, "an address of the Pod network 10.244.0.0/16"),
    ("fd00:244:1::9", {X, L}, "an address of the Pod network fd00:244:1::/64"),
    *((str(address), {U, X, L}, f"the metadata server of {cloud}") for address, cloud in METADATA.items()),
    ("169.254.169.254", {E, U, X, L}, "a link-local address"),
    ("127.0.0.1", {E, U, X, L, C}, "a loopback address"),
    ("192.0.2.8", set(), ""),  # another node
    ("10.96.0.10", set(), ""),  # a ClusterIP that ipvs mode binds to this node
    ("203.0.113.5", set(), ""),  # an external IP that ipvs mode binds to this node
    ("64:ff9b::a9fe:a9fe", {U, X, L}, "a link-local address"),  # NAT64
    ("2002:c000:207::1", {U, X}, "an address of this node"),  # 6to4
]


@pytest.mark.parametrize(("address", "refused", "why"), CASES, ids=[case[0] for case in CASES])
def test_what_is_refused_for_which_use(address, refused, why, judge):
    said = {use: judge.refusal(ip_address(address), use) for use in (E, U, X, L, C)}
    assert {use for use, text in said.items() if text} == refused
    for use in refused:
        assert said[use].startswith(f"{address} ")
        assert why in said[use]


@pytest.mark.parametrize("address", [case[0] for case in CASES if ":" not in case[0]])
@pytest.mark.parametrize("use", AddressUse)
def test_an_ipv4_mapped_address_is_checked_as_ipv4(address, use, judge):
    mapped = IPv6Address(f"::ffff:{address}")
    assert judge.refusal(mapped, use) == judge.refusal(IPv4Address(address), use)


def test_an_api_server_is_refused_at_its_known_port_alone(judge):
    address = parse_address("192.0.2.100")
    assert judge.refusal(address, U, 6443)
    assert not judge.refusal(address, U, 8080)


def test_an_allowed_prefix_opens_no_ranges_and_no_ports_of_nginx():
    own = parse_address("192.0.2.7")
    judge = Forbidden(own=frozenset({own}), allowed=(parse_network("0.0.0.0/0"),), ports=(80, 443))
    assert not judge.refusal(own, U, 9100)
    assert "nginx listens on port" in judge.refusal(own, U, 443)
    assert judge.refusal(own, X)
    assert judge.refusal(parse_address("127.0.0.1"), U, 9100)
    assert judge.refusal(parse_address("169.254.169.254"), U, 80)
    assert not judge.refusal(parse_address("100.100.100.200"), U, 80)


@given(st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)), st.sampled_from(AddressUse), st.integers(0, 65535))
def test_what_a_range_refuses_is_refused_with_any_knowledge(address, use, port):
    by_range = refusal(address, use)
    assert bool(NOTHING.refusal(address, use, port)) >= bool(by_range)
    everything = Forbidden(allowed=(parse_network("0.0.0.0/0"), parse_network("::/0")))
    assert bool(everything.refusal(address, AddressUse.UPSTREAM, port)) >= bool(refusal(address, AddressUse.UPSTREAM))
