"""Unusual but valid values of the API are accepted, and defaults are set."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from rulegen.errors import Rejected
from rulegen.kube.reading.decode import decode
from rulegen.kube.reading.documents import Document

SPEC = {"clusterIP": "10.96.0.9", "ports": [{"port": 80}]}


def checked(content: dict[str, Any], kind: str = "Service", api_version: str = "v1") -> Any:
    result = decode(Document("x", api_version, kind, {"metadata": {"name": "web"}, **content}))
    assert not isinstance(result, Rejected), result
    return result


PASSING_SPECS = {
    "headless": {"clusterIP": "None", "ports": [{"port": 80}]},
    "headless without ports": {"clusterIP": "None"},
    "headless in clusterIPs": {"clusterIPs": ["None"]},
    "external name": {"type": "ExternalName", "externalName": "example.org"},
    "external name with ports": {"type": "ExternalName", "externalName": "example.org", "ports": [{"port": 80}]},
    "external name of this host": {"type": "ExternalName", "externalName": "localhost"},
    "external name like an address": {"type": "ExternalName", "externalName": "127.0.0.1"},
    "external name of another type": {**SPEC, "externalName": "a;b"},
    "from git": {"ports": [{"port": 80, "targetPort": "http"}]},
    "from git, dual stack": {"ipFamilyPolicy": "RequireDualStack", "ports": [{"port": 80}]},
    "from git, families": {"ipFamilies": ["IPv6", "IPv4"], "ports": [{"port": 80}]},
    "no target port": {**SPEC, "ports": [{"port": 80, "targetPort": 0}]},
    "empty target port": {**SPEC, "ports": [{"port": 80, "targetPort": ""}]},
    "no node port": {**SPEC, "type": "NodePort", "ports": [{"port": 80, "nodePort": 0}]},
    "node port outside the usual range": {**SPEC, "type": "NodePort", "ports": [{"port": 80, "nodePort": 80}]},
    "node port without the type": {**SPEC, "ports": [{"port": 80, "nodePort": 3000}]},
    "one number, three protocols": {
        **SPEC,
        "ports": [{"name": p.lower(), "port": 53, "nodePort": 30053, "protocol": p} for p in ("TCP", "UDP", "SCTP")],
    },
    "one target, two ports": {
        **SPEC,
        "ports": [{"name": "a", "port": 80, "targetPort": 8080}, {"name": "b", "port": 81, "targetPort": 8080}],
    },
    "port name of digits": {**SPEC, "ports": [{"name": "80", "port": 80}]},
    "port name of 63": {**SPEC, "ports": [{"name": "p" * 63, "port": 80}]},
    "affinity without a config": {**SPEC, "sessionAffinity": "ClientIP"},
    "config without affinity": {**SPEC, "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 1}}},
    "affinity of a day": {**SPEC, "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 86400}}},
    "empty affinity config": {**SPEC, "sessionAffinityConfig": {}},
    "leading zeros": {**SPEC, "clusterIP": "010.096.000.009"},
    "leading zeros in one of two": {**SPEC, "clusterIP": "10.96.0.9", "clusterIPs": ["10.96.0.09"]},
    "capitals in IPv6": {**SPEC, "clusterIP": "FD00::A"},
    "policy without external access": {**SPEC, "externalTrafficPolicy": "Local"},
    "empty words": {**SPEC, "type": "", "sessionAffinity": "", "externalTrafficPolicy": "", "ipFamilyPolicy": ""},
    "selector of anything": {**SPEC, "selector": {"": "", "a b": "\n"}},
    "host names of load balancers": {**SPEC, "type": "LoadBalancer"},
}


@pytest.mark.parametrize("name", PASSING_SPECS)
def test_valid_services(name: str) -> None:
    assert checked({"spec": PASSING_SPECS[name]}).warnings == ()


DEFAULTS = [
    # field                given                                               completed
    ("type", {**SPEC, "type": ""}, "ClusterIP"),
    ("session_affinity", {**SPEC, "sessionAffinity": ""}, "None"),
    ("cluster_ips", SPEC, ("10.96.0.9",)),
    ("ip_families", SPEC, ("IPv4",)),
    ("cluster_ip", {"clusterIPs": ["fd00::1"], "ports": [{"port": 1}]}, "fd00::1"),
    ("ip_families", {"clusterIPs": ["fd00::1", "10.0.0.1"], "ports": [{"port": 1}]}, ("IPv6", "IPv4")),
    ("cluster_ips", {"clusterIP": "None"}, ("None",)),
    ("cluster_ip", {"clusterIPs": ["None"]}, "None"),
    ("ip_families", {"ipFamilies": ["IPv6"], "ports": [{"port": 1}]}, ("IPv6",)),
    ("external_name", {"type": "ExternalName", "externalName": "example.org."}, "example.org"),
    ("load_balancer_source_ranges", {**SPEC, "loadBalancerSourceRanges": [" 10.0.0.0/8\n"]}, ("10.0.0.0/8",)),
]


@pytest.mark.parametrize(("field", "spec", "value"), DEFAULTS)
def test_defaults(field: str, spec: dict[str, Any], value: Any) -> None:
    assert getattr(checked({"spec": spec}).object.spec, field) == value


def test_an_empty_protocol_is_tcp_everywhere() -> None:
    assert checked({"spec": {**SPEC, "ports": [{"port": 80, "protocol": ""}]}}).object.spec.ports[0].protocol == "TCP"
    slice_ = checked(
        {"addressType": "IPv4", "ports": [{"port": 80, "protocol": ""}]}, "EndpointSlice", "discovery.k8s.io/v1"
    )
    assert slice_.object.ports[0].protocol == "TCP"
    subset = {"ports": [{"port": 80, "protocol": ""}]}
    assert checked({"subsets": [subset]}, "Endpoints").object.subsets[0].ports[0].protocol == "TCP"


PASSING_SLICES = {
    "nothing in it": {},
    "ports of nothing": {"ports": [{}, {"name": None}, {"port": 0}, {"name": "a", "port": None}]},
    "endpoints of nothing": {"endpoints": [{}, {"addresses": []}]},
    "host names": {"addressType": "FQDN", "endpoints": [{"addresses": ["example.org"]}]},
    "a second address that nobody reads": {"endpoints": [{"addresses": ["10.0.0.1", "x"]}]},
    "no node, no zone": {"endpoints": [{"addresses": ["10.0.0.1"], "nodeName": "", "zone": ""}]},
    "leading zeros": {"endpoints": [{"addresses": ["010.0.0.01"]}]},
}


@pytest.mark.parametrize("name", PASSING_SLICES)
def test_valid_slices(name: str) -> None:
    content = msgspec.json.encode({"metadata": {"name": "s"}, "addressType": "IPv4", **PASSING_SLICES[name]})
    result = decode(Document("x", "discovery.k8s.io/v1", "EndpointSlice", msgspec.Raw(content)))
    assert not isinstance(result, Rejected), result
    assert result.warnings == ()


def test_invalid_entries_are_ignored_and_the_others_kept() -> None:
    spec = {**SPEC, "externalIPs": ["x", "192.0.2.1"], "loadBalancerSourceRanges": ["y", "10.0.0.0/8"]}
    ingress = [{"ip": "z"}, {"hostname": "lb.example.org"}, {"ip": "192.0.2.2", "ipMode": "Proxy"}]
    result = checked({"spec": spec, "status": {"loadBalancer": {"ingress": ingress}}})
    assert result.object.spec.external_ips == ("192.0.2.1",)
    assert result.object.spec.load_balancer_source_ranges == ("10.0.0.0/8",)
    assert [(entry.ip, entry.hostname) for entry in result.object.status.load_balancer.ingress] == [
        ("", "lb.example.org"),
        ("192.0.2.2", ""),
    ]
    assert len(result.warnings) == 3


def test_endpoints_with_an_invalid_address_are_ignored() -> None:
    endpoints = [{"addresses": [a]} for a in ("10.0.0.1", "nope", "fd00::1", "10.0.0.2")]
    result = checked({"addressType": "IPv4", "endpoints": endpoints}, "EndpointSlice", "discovery.k8s.io/v1")
    assert [endpoint.addresses for endpoint in result.object.endpoints] == [("10.0.0.1",), ("10.0.0.2",)]
    assert len(result.warnings) == 2


NAMES = [
    # kind        name                         is valid
    ("Service", "web", True),
    ("Service", "9web", True),
    ("Service", "w" * 63, True),
    ("Service", "w" * 64, False),
    ("Service", "web.shop", False),
    ("Service", "web-", False),
    ("Node", "ip-10-0-0-1.ec2.internal", True),
    ("Node", "n" * 253, True),
    ("Node", "n" * 254, False),
    ("Node", "a.-b", False),
    ("Node", "Node1", False),
    ("Namespace", "kube-system", True),
    ("Namespace", "a.b", False),
    ("Pod", "web-0.x", True),
    ("Pod", "web_0", False),
]


@pytest.mark.parametrize(("kind", "name", "passes"), NAMES)
def test_names(kind: str, name: str, passes: bool) -> None:
    result = decode(
        Document("x", "v1", kind, {"metadata": {"name": name}, **({"spec": SPEC} if kind == "Service" else {})})
    )
    assert isinstance(result, Rejected) is not passes
