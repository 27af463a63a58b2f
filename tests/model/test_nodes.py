"""Node-wide decisions: addresses of node ports, recognition of Pod traffic, masquerading."""

from __future__ import annotations

import pytest

from rulegen.kube.objects import structs as k
from rulegen.kube.proxyconfig.configuration import API_VERSION, KIND
from rulegen.kube.proxyconfig.reading import read_config
from rulegen.model.host.facts import HostFacts, Interface
from rulegen.model.services.ir import Masquerade, PodInterface, PodNetwork
from rulegen.model.services.node.context import resolve_node, resolve_site, resolve_sysctls
from rulegen.model.services.options import Options
from rulegen.net import Family, parse_address, parse_network

FACTS = HostFacts(
    interfaces=(
        Interface("lo", ((parse_address("127.0.0.1"), 8), (parse_address("::1"), 128))),
        Interface("eth0", ((parse_address("192.168.50.10"), 24), (parse_address("fd00:50::10"), 64))),
        Interface("eth1", ((parse_address("10.77.0.10"), 16),)),
    )
)
NODE = k.Node(
    metadata=k.ObjectMeta(name="node1"),
    spec=k.NodeSpec(pod_cidrs=("10.244.1.0/24", "fd00:10:244:1::/64")),
    status=k.NodeStatus(
        addresses=(
            k.NodeAddress(type="Hostname", address="node1"),
            k.NodeAddress(type="ExternalIP", address="203.0.113.1"),
            k.NodeAddress(type="InternalIP", address="192.168.50.10"),
        )
    ),
)


def options(**fields):
    config, unknown = read_config({"apiVersion": API_VERSION, "kind": KIND, **fields}, "test")
    assert not unknown
    return Options.of(config)


def resolved(family=Family.IPV4, facts=FACTS, node=NODE, **fields):
    chosen = options(**fields)
    return resolve_node(family, resolve_site(node, "node1", chosen), node, chosen, facts, [].append)


@pytest.mark.parametrize(
    ("given", "ipv4", "ipv6", "on_localhost"),
    [
        ([], None, None, True),
        (["0.0.0.0/0", "::/0"], None, None, True),
        (["10.77.0.0/16", "0.0.0.0/0"], None, None, True),
        (["192.168.50.0/24"], ["192.168.50.10"], None, False),
        (["172.31.0.0/16"], [], None, False),
        (["127.0.0.0/8"], ["127.0.0.1"], None, True),
        (["fd00:50::/64"], None, ["fd00:50::10"], True),
        (["primary"], ["192.168.50.10"], None, False),
    ],
)
def test_addresses_of_node_ports(given, ipv4, ipv6, on_localhost):
    for family, expected in ((Family.IPV4, ipv4), (Family.IPV6, ipv6)):
        resolved_ = resolved(family, nodePortAddresses=given).node_port_addresses
        assert (None if resolved_ is None else [str(address) for address in resolved_]) == expected
    assert resolved(nodePortAddresses=given).localhost_node_ports is on_localhost
    assert resolved(Family.IPV6, nodePortAddresses=given).localhost_node_ports is False


@pytest.mark.parametrize(
    ("given", "ipv4", "ipv6", "on_localhost"),
    [
        ([], [], [], False),
        ([("InternalIP", "fd00:50::10")], None, ["fd00:50::10"], True),
        ([("InternalIP", "192.168.50.10"), ("InternalIP", "fd00:50::10")], ["192.168.50.10"], ["fd00:50::10"], False),
        ([("InternalIP", "172.16.0.1")], [], None, False),
    ],
    ids=["node-without-address", "ipv6-only", "dual-stack", "address-on-no-interface"],
)
def test_primary_addresses_restrict_node_ports(given, ipv4, ipv6, on_localhost):
    status = k.NodeStatus(addresses=tuple(k.NodeAddress(type=kind, address=address) for kind, address in given))
    node = k.Node(metadata=k.ObjectMeta(name="node1"), status=status)
    for family, expected in ((Family.IPV4, ipv4), (Family.IPV6, ipv6)):
        resolved_ = resolved(family, node=node, nodePortAddresses=["primary"]).node_port_addresses
        assert (None if resolved_ is None else [str(address) for address in resolved_]) == expected
    assert resolved(node=node, nodePortAddresses=["primary"]).localhost_node_ports is on_localhost


@pytest.mark.parametrize(
    ("given", "ipv4", "ipv6"),
    [
        ([], ["192.168.50.10", "169.254.20.10"], ["fd00:50::10"]),
        (["169.254.0.0/16"], ["169.254.20.10"], ["fd00:50::10"]),
        (["fe80::/10", "127.0.0.0/8"], [], ["fe80::1"]),
    ],
)
def test_ipvs_listens_on_link_local_ipv6_only_where_chosen(given, ipv4, ipv6):
    addresses = (("192.168.50.10", 24), ("fd00:50::10", 64), ("169.254.20.10", 32), ("fe80::1", 64), ("127.0.0.1", 8))
    facts = HostFacts(interfaces=(Interface("eth0", tuple((parse_address(a), n) for a, n in addresses)),))
    for family, expected in ((Family.IPV4, ipv4), (Family.IPV6, ipv6)):
        resolved_ = resolved(family, facts, nodePortAddresses=given).listening
        assert [str(address) for address in resolved_] == expected


def test_localhost_node_ports_need_a_kernel_parameter():
    on, off = resolved(), resolved(iptables={"localhostNodePorts": False})
    assert resolve_sysctls([on], options(), HostFacts()) == {"net.ipv4.conf.all.route_localnet": "1"}
    assert resolve_sysctls([off], options(), HostFacts()) == {}


@pytest.mark.parametrize(
    ("fields", "pods"),
    [
        ({}, None),
        ({"clusterCIDR": "10.244.0.0/16,fd00:10:244::/56"}, PodNetwork(parse_network("10.244.0.0/16"))),
        ({"clusterCIDR": "fd00:10:244::/56"}, None),
        ({"detectLocalMode": "NodeCIDR"}, PodNetwork(parse_network("10.244.1.0/24"))),
        ({"detectLocalMode": "BridgeInterface", "detectLocal": {"bridgeInterface": "cbr0"}}, PodInterface("cbr0")),
        (
            {"detectLocalMode": "InterfaceNamePrefix", "detectLocal": {"interfaceNamePrefix": "cali"}},
            PodInterface("cali", prefix=True),
        ),
    ],
)
def test_how_pods_traffic_is_recognised(fields, pods):
    resolved_ = resolved(**fields)
    assert resolved_.pods == pods
    assert resolved_.masquerade_cluster_ip is (Masquerade.OFF_CLUSTER if pods else Masquerade.NEVER)
    assert resolved(**fields, iptables={"masqueradeAll": True}).masquerade_cluster_ip is Masquerade.ALWAYS


def test_marks_and_invalid_packets():
    assert resolved().masquerade_mark == 0x4000
    assert resolved(iptables={"masqueradeBit": 0}).masquerade_mark == 1
    assert resolved().drop_invalid
    assert not resolved(conntrack={"tcpBeLiberal": True}).drop_invalid
    liberal = HostFacts(sysctls={"net.netfilter.nf_conntrack_tcp_be_liberal": "1"})
    assert not resolved(facts=liberal).drop_invalid


@pytest.mark.parametrize(
    ("node", "bind", "address"),
    [
        (NODE, "", "192.168.50.10"),
        (NODE, "0.0.0.0", "192.168.50.10"),
        (NODE, "10.77.0.10", "10.77.0.10"),
        (None, "", "127.0.0.1"),
    ],
)
def test_the_nodes_own_address(node, bind, address):
    site = resolve_site(node, "node1", options(bindAddress=bind))
    assert str(site.addresses[Family.IPV4]) == address
    assert str(site.addresses[Family.IPV6]) == "::1"
