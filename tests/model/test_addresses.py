"""Special addresses in objects are ignored; the ranges are the same in both families and in all fields.

The ranges are those of the API server (ValidateNonSpecialIP), and those that no host can have. If a node served a
loopback or link-local address, its Pods would reach programs on the node itself, or the metadata server of a cloud.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from rulegen.compiler.services.compile import compile_model
from rulegen.kube.reading.documents import Source
from rulegen.kube.snapshot.build import read_world
from rulegen.model.host.facts import HostFacts
from rulegen.model.services.options import Options
from rulegen.model.services.resolve import resolve
from rulegen.net import (
    AddressKind,
    AddressUse,
    Family,
    address_text,
    family_of,
    kind_of_address,
    parse_address,
    refusal,
)

SPECIAL = {
    Family.IPV4: {
        "0.0.0.0": "unspecified",
        "0.1.2.3": "0.0.0.0/8",
        "127.0.0.1": "loopback",
        "127.255.255.254": "loopback",
        "169.254.169.254": "link-local",
        "169.254.0.1": "link-local",
        "224.0.0.1": "link-local multicast",
        "224.0.1.1": "multicast",
        "239.1.1.1": "multicast",
        "255.255.255.255": "broadcast",
        "::ffff:127.0.0.1": "loopback",
        "::ffff:169.254.169.254": "link-local",
        "0127.0.0.01": "loopback",
    },
    Family.IPV6: {
        "::": "unspecified",
        "::1": "loopback",
        "fe80::1": "link-local",
        "febf::1": "link-local",
        "ff02::1": "link-local multicast",
        "ff05::1": "multicast",
        "ff0e::1": "multicast",
    },
}
USABLE = {
    Family.IPV4: ("10.244.1.7", "203.0.113.9", "169.253.255.255", "128.0.0.1", "100.64.0.1", "223.255.255.255"),
    Family.IPV6: ("fd00:10:244:1::7", "2001:db8::9", "fec0::1", "::2", "fe00::1"),
}
GOOD = {Family.IPV4: "10.244.1.1", Family.IPV6: "fd00:10:244:1::1"}
PLACES = ("EndpointSlice", "Endpoints", "Pod", "spec.externalIPs", "status.loadBalancer.ingress")
CASES = [
    (place, mode, family, address, word)
    for place in PLACES
    for mode in ("iptables", "ipvs")
    for family, addresses in SPECIAL.items()
    for address, word in addresses.items()
]


def world(place, family, address):
    """A Service of one family with a valid endpoint, and an address in one field of it or of its EndpointSlice."""
    metadata = {"name": "web", "namespace": "shop"}
    cluster_ip = "10.96.0.9" if family is Family.IPV4 else "fd00:10:96::9"
    spec = {"clusterIP": cluster_ip, "type": "LoadBalancer", "ports": [{"port": 80}], "selector": {"app": "web"}}
    service = {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": spec}
    endpoints = [GOOD[family]]
    if place == "spec.externalIPs":
        spec["externalIPs"] = [address]
    elif place == "status.loadBalancer.ingress":
        service["status"] = {"loadBalancer": {"ingress": [{"ip": address}]}}
    else:
        endpoints.append(address)
    objects = [service]
    if place == "Endpoints":
        subset = {"addresses": [{"ip": text} for text in endpoints], "ports": [{"port": 80}]}
        objects.append({"apiVersion": "v1", "kind": "Endpoints", "metadata": metadata, "subsets": [subset]})
    elif place == "Pod":
        for index, text in enumerate(endpoints):
            pod = {"name": f"web-{index}", "namespace": "shop", "labels": {"app": "web"}}
            status = {"podIPs": [{"ip": text}], "conditions": [{"type": "Ready", "status": "True"}]}
            objects.append({"apiVersion": "v1", "kind": "Pod", "metadata": pod, "status": status})
    else:
        labelled = {**metadata, "labels": {"kubernetes.io/service-name": "web"}}
        body = {
            "addressType": family.value,
            "endpoints": [{"addresses": [text]} for text in endpoints],
            "ports": [{"name": "", "port": 80}],
        }
        kind = {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice"}
        objects.append({**kind, "metadata": labelled, **body})
    text = msgspec.json.encode({"apiVersion": "v1", "kind": "List", "items": objects})
    return read_world([Source("x", text)])


def decided(place, family, address, mode):
    snapshot = world(place, family, address)
    model = resolve(snapshot, Options(node_name="node1", mode=mode), HostFacts())
    (service,) = model.services.values()
    (port,) = service.ports
    return snapshot, model, port


@pytest.mark.parametrize(("place", "mode", "family", "address", "word"), CASES)
def test_a_special_address_is_ignored_with_a_warning(place, mode, family, address, word):
    snapshot, model, port = decided(place, family, address, mode)
    assert [str(endpoint.address) for endpoint in port.endpoints] == [GOOD[family]]
    assert port.external_ips == port.load_balancer_ips == ()
    without = resolve(world("EndpointSlice", family, GOOD[family]), Options(node_name="node1", mode=mode), HostFacts())
    ours, theirs = compile_model(model, mode, counts=False), compile_model(without, mode, counts=False)
    assert {f: ours.rules(f) for f in Family} == {f: theirs.rules(f) for f in Family}
    (warning,) = [text for text in (*snapshot.warnings, *model.warnings) if "ignored" in text or "passed over" in text]
    assert "shop/web" in warning
    assert place in warning
    assert word in warning
    assert str(parse_address(address)) in warning


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(("family", "address"), [(f, a) for f, addresses in USABLE.items() for a in addresses])
def test_any_other_address_is_served_without_a_warning(place, family, address):
    snapshot, model, port = decided(place, family, address, "iptables")
    served = (*(endpoint.address for endpoint in port.endpoints), *port.external_ips, *port.load_balancer_ips)
    assert parse_address(address) in served
    assert not [text for text in (*snapshot.warnings, *model.warnings) if "ignored" in text]


@pytest.mark.parametrize(
    ("address", "is_served"),
    [
        ("127.0.0.1", False),
        ("224.0.0.9", False),
        ("0.0.0.0", False),
        ("169.254.20.10", True),
        ("::1", False),
        ("ff02::9", False),
        ("::", False),
        ("fe80::9", True),
    ],
)
def test_a_special_cluster_ip_serves_nothing(address, is_served):
    spec = {"clusterIP": address, "ports": [{"port": 80}]}
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": spec}
    snapshot = read_world([Source("x", msgspec.json.encode(service))])
    model = resolve(snapshot, Options(node_name="node1"), HostFacts())
    assert bool(next(iter(model.services.values())).ports) is is_served
    refused = [text for text in model.warnings if "spec.clusterIPs" in text and "not served" in text]
    assert bool(refused) is not is_served


def nearest_ipv6(address):
    """The corresponding range of the other family, if it has one."""
    return {
        AddressKind.UNSPECIFIED: IPv6Address("::"),
        AddressKind.LOOPBACK: IPv6Address("::1"),
        AddressKind.LINK_LOCAL: IPv6Address("fe80::1"),
        AddressKind.LINK_LOCAL_MULTICAST: IPv6Address("ff02::1"),
        AddressKind.MULTICAST: IPv6Address("ff05::1"),
        AddressKind.UNICAST: IPv6Address("2001:db8::1"),
    }.get(kind_of_address(address))


@given(st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)), st.sampled_from(AddressUse))
def test_ranges_are_those_of_the_standard_library(address, use):
    kind = kind_of_address(address)
    if family_of(address) is Family.IPV4:
        assert kind_of_address(IPv6Address(f"::ffff:{address}")) is kind
        other = nearest_ipv6(address)
        assert other is None or bool(refusal(other, use)) == bool(refusal(address, use))
    plain = getattr(address, "ipv4_mapped", None) or address
    assert (kind is AddressKind.LOOPBACK) == plain.is_loopback
    assert (kind is AddressKind.LINK_LOCAL) == plain.is_link_local
    assert (kind is AddressKind.UNSPECIFIED) == plain.is_unspecified
    assert (kind in {AddressKind.MULTICAST, AddressKind.LINK_LOCAL_MULTICAST}) == plain.is_multicast


@pytest.mark.parametrize("address", [IPv4Address("224.0.0.255"), IPv6Address("ff12::1"), IPv6Address("ff02::2:1")])
def test_link_local_multicast_is_distinguished_from_wider_scopes(address):
    assert kind_of_address(address) is AddressKind.LINK_LOCAL_MULTICAST


@given(st.ip_addresses() | st.integers(0, 2**33).map(lambda number: IPv6Address(0xFFFF00000000 ^ number)))
@example(IPv6Address("::1.2.3.4"))
@example(IPv6Address("fe80::1%eth0"))
def test_the_text_of_an_address_is_that_of_python(address):
    assert address_text(address) == str(address)
