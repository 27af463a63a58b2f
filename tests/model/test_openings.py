"""A warning names what a changed configuration opens; the resolved rules show whether something opened."""

from __future__ import annotations

import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

from rulegen.errors import RulegenError
from rulegen.kube.objects import structs as k
from rulegen.kube.proxyconfig.configuration import API_VERSION, KIND
from rulegen.kube.proxyconfig.reading import read_config
from rulegen.model.host.facts import HostFacts, Interface
from rulegen.model.services.ir import Masquerade
from rulegen.model.services.node.context import resolve_node, resolve_site
from rulegen.model.services.node.openings import openings
from rulegen.model.services.options import Options
from rulegen.net import Family, parse_address

FACTS = HostFacts(
    interfaces=(
        Interface("lo", ((parse_address("127.0.0.1"), 8), (parse_address("::1"), 128))),
        Interface("eth0", ((parse_address("192.168.50.10"), 24), (parse_address("fd00:50::10"), 64))),
    )
)
NODE = k.Node(
    metadata=k.ObjectMeta(name="node1"),
    spec=k.NodeSpec(pod_cidrs=("10.244.1.0/24", "fd00:10:244:1::/64")),
    status=k.NodeStatus(
        addresses=tuple(k.NodeAddress(type="InternalIP", address=each) for each in ("192.168.50.10", "fd00:50::10"))
    ),
)


def options(**fields: object) -> Options:
    config, unknown = read_config({"apiVersion": API_VERSION, "kind": KIND, **fields}, "test")
    assert not unknown
    return Options.of(config)


CLOSED = {
    "nodePortAddresses": ["192.168.50.0/24", "fd00:50::/64"],
    "clusterCIDR": "10.244.0.0/16,fd00:10:244::/56",
    "featureGates": {"AllowServiceExternalIPs": False},
    "healthzBindAddress": "127.0.0.1:10256",
    "metricsBindAddress": "127.0.0.1:10249",
    "iptables": {"localhostNodePorts": False},
    "hostnameOverride": "node1",
}
BOTH = ["IPv4", "IPv6"]


@pytest.mark.parametrize(
    ("before", "after", "named"),
    [
        ({}, {"nodePortAddresses": []}, [f"nodePortAddresses no longer restricts {family}" for family in BOTH]),
        ({}, {"nodePortAddresses": ["192.168.50.0/24"]}, ["nodePortAddresses no longer restricts IPv6"]),
        ({}, {"nodePortAddresses": ["0.0.0.0/0", "fd00:50::/64"]}, ["nodePortAddresses no longer restricts IPv4"]),
        ({"nodePortAddresses": ["primary"]}, {"nodePortAddresses": []}, [f"no longer restricts {f}" for f in BOTH]),
        ({}, {"nodePortAddresses": ["primary"]}, []),
        ({"nodePortAddresses": []}, {"nodePortAddresses": [], "iptables": {}}, ["node ports open on 127.0.0.0/8"]),
        ({}, {"nodePortAddresses": ["127.0.0.0/8", "fd00:50::/64"], "iptables": {}}, ["open on 127.0.0.0/8"]),
        ({}, {"clusterCIDR": ""}, [f"no longer identifies {family} traffic" for family in BOTH]),
        ({}, {"clusterCIDR": "10.244.0.0/16"}, ["no longer identifies IPv6 traffic"]),
        ({}, {"detectLocalMode": "NodeCIDR", "clusterCIDR": ""}, []),
        ({}, {"clusterCIDR": "", "iptables": {"masqueradeAll": True, "localhostNodePorts": False}}, []),
        ({}, {"featureGates": {}}, ["AllowServiceExternalIPs"]),
        ({}, {"healthzBindAddress": ""}, ["/healthz answers on every address"]),
        ({}, {"metricsBindAddress": "[::]:10249"}, ["/metrics answers on every address"]),
        ({}, {"metricsBindAddress": ""}, []),
        ({}, {"conntrack": {"tcpBeLiberal": True}}, ["INVALID"]),
        ({}, {"hostnameOverride": ""}, ["hostnameOverride changes from node1 to the host's name"]),
        (
            {"mode": "ipvs", "ipvs": {"excludeCIDRs": ["192.0.2.0/24"], "strictARP": True}},
            {"mode": "ipvs"},
            ["ipvs.excludeCIDRs no longer contains 192.0.2.0/24", "ipvs.strictARP is off"],
        ),
        (
            {"mode": "ipvs", "ipvs": {"excludeCIDRs": ["192.0.2.0/24"]}},
            {"mode": "ipvs", "ipvs": {"excludeCIDRs": ["192.0.0.0/16"]}},
            [],
        ),
    ],
)
def test_what_opens_is_named(before, after, named):
    sentences = list(openings(options(**{**CLOSED, **before}), options(**{**CLOSED, **after})))
    assert len(sentences) == len(named), sentences
    assert all(word in sentence for word, sentence in zip(named, sentences, strict=True)), sentences


fields = st.fixed_dictionaries(
    {},
    optional={
        "nodePortAddresses": st.sampled_from(
            [
                ["primary"],
                ["192.168.50.0/24"],
                ["fd00:50::/64"],
                ["192.168.50.0/24", "fd00:50::/64"],
                ["0.0.0.0/0", "::/0"],
                ["127.0.0.0/8"],
                ["10.0.0.0/8", "::/0"],
            ]
        ),
        "clusterCIDR": st.sampled_from(["10.244.0.0/16", "fd00:10:244::/56", "10.244.0.0/16,fd00:10:244::/56"]),
        "detectLocalMode": st.sampled_from(["ClusterCIDR", "NodeCIDR", "BridgeInterface", "InterfaceNamePrefix"]),
        "detectLocal": st.sampled_from([{"bridgeInterface": "cni0"}, {"interfaceNamePrefix": "veth"}]),
        "conntrack": st.sampled_from([{"tcpBeLiberal": True}, {}]),
        "iptables": st.fixed_dictionaries(
            {}, optional={"localhostNodePorts": st.booleans(), "masqueradeAll": st.booleans()}
        ),
    },
)


@settings(deadline=None)
@given(before=fields, after=fields, mode=st.sampled_from(["iptables", "ipvs"]))
def test_nothing_opens_without_a_warning(before, after, mode):
    try:
        old, new = (options(**{**each, "mode": mode}) for each in (before, after))
    except RulegenError:
        reject()  # a rejected configuration opens nothing
    said = " ".join(openings(old, new))
    for family in Family:
        was, now = (
            resolve_node(family, resolve_site(NODE, "node1", each), NODE, each, FACTS, [].append) for each in (old, new)
        )
        if now.node_port_addresses is None and was.node_port_addresses is not None:
            assert f"restricts {family}:" in said
        if mode == "iptables" and now.localhost_node_ports and not was.localhost_node_ports:
            assert "127.0.0.0/8" in said
        if now.masquerade_cluster_ip is Masquerade.NEVER and was.masquerade_cluster_ip is not Masquerade.NEVER:
            assert f"not masqueraded in {family}" in said
        if was.drop_invalid and not now.drop_invalid:
            assert "INVALID" in said
    assert list(openings(new, new)) == []
