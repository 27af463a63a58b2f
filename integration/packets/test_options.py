"""What the configuration changes about packets, and what rules of others on the node do to them."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from integration.conftest import IPTABLES
from integration.flows import REFUSED, Flow, check, kept, masked, via
from integration.manifests import App
from integration.saves import tool

if TYPE_CHECKING:
    from collections.abc import Iterator

    from integration.blackbox import Rulegen, Variant
    from integration.lab.hosts import Family
    from integration.lab.lab import Lab

POD, NODE, CLIENT = "pod-c", "node1", "client"
PORTED = App(name="ported", number=101, ready=("pod-a", "pod-x"), type="NodePort")
LOCAL = App(
    name="local", number=102, ready=("pod-a", "pod-x"), type="LoadBalancer", external="Local", health_check_port=32202
)
WORLD = (PORTED, LOCAL)

Fields = dict[str, object]
"""Fields of the configuration."""

PLAIN: Fields = {}
ALL_MASQUERADED: Fields = {"iptables": {"masqueradeAll": True}}
OTHER_BIT: Fields = {"iptables": {"masqueradeBit": 9}}
NOBODY_IS_LOCAL: Fields = {"clusterCIDR": None}
BY_NODE: Fields = {"detectLocalMode": "NodeCIDR", "clusterCIDR": None}
BY_PREFIX: Fields = {
    "detectLocalMode": "InterfaceNamePrefix", "detectLocal": {"interfaceNamePrefix": "pod-"}, "clusterCIDR": None,
}  # fmt: skip
SECOND_NETWORK: Fields = {"nodePortAddresses": ["10.77.0.0/16", "fd00:77::/64"]}
PRIMARY: Fields = {"nodePortAddresses": ["primary"]}
LOOPBACK: Fields = {"nodePortAddresses": ["127.0.0.0/8"]}
NO_LOOPBACK: Fields = {"iptables": {"localhostNodePorts": False}}

BOTH = ("pod-a", "pod-x")

Row = tuple[str, Fields, Flow]
"""What the option is called, its fields of the configuration, and what becomes of a packet."""

ROWS: list[Row] = [
    ("masquerade all", ALL_MASQUERADED, Flow(POD, PORTED, "cluster", masked(*BOTH))),
    ("masquerade all", ALL_MASQUERADED, Flow(POD, LOCAL, "cluster", masked(*BOTH))),
    ("another bit", OTHER_BIT, Flow(CLIENT, PORTED, "cluster", masked(*BOTH))),
    ("another bit", OTHER_BIT, Flow(POD, PORTED, "cluster", kept(*BOTH))),
    ("another bit", OTHER_BIT, Flow("pod-a", PORTED, "node", masked(*BOTH))),
    # Without a way to tell pods, nobody is inside: nothing is masqueraded for it, nobody may go past the policy.
    ("nobody local", NOBODY_IS_LOCAL, Flow(CLIENT, LOCAL, "lb", kept("pod-a"))),
    ("nobody local", NOBODY_IS_LOCAL, Flow(POD, LOCAL, "lb", kept("pod-a"))),
    ("nobody local", NOBODY_IS_LOCAL, Flow(NODE, LOCAL, "lb", masked(*BOTH))),
    ("by node", BY_NODE, Flow(POD, PORTED, "cluster", kept(*BOTH))),
    ("by node", BY_NODE, Flow(CLIENT, PORTED, "cluster", masked(*BOTH))),
    ("by node", BY_NODE, Flow(POD, LOCAL, "lb", kept(*BOTH))),
    ("by prefix", BY_PREFIX, Flow(POD, PORTED, "cluster", kept(*BOTH))),
    ("by prefix", BY_PREFIX, Flow(CLIENT, PORTED, "cluster", masked(*BOTH))),
    ("by prefix", BY_PREFIX, Flow(POD, LOCAL, "lb", kept(*BOTH))),
    ("second network", SECOND_NETWORK, Flow(CLIENT, PORTED, "second", masked(*BOTH))),
    ("second network", SECOND_NETWORK, Flow(CLIENT, PORTED, "node", REFUSED)),
    ("primary", PRIMARY, Flow(CLIENT, PORTED, "node", masked(*BOTH))),
    ("primary", PRIMARY, Flow(CLIENT, PORTED, "second", REFUSED)),
]


IPVS = {
    (POD, LOCAL.name, "lb"): kept("pod-a"),
    (NODE, LOCAL.name, "lb"): via("pod-a"),
    (NODE, PORTED.name, "loopback"): REFUSED,
}
"""What becomes of packets, whatever the options, where IPVS makes Services, if it is something else."""


def _in(variant: Variant, flow: Flow) -> Flow:
    return (
        replace(flow, expect=IPVS.get((flow.who, flow.app.name, flow.way), flow.expect)) if variant == "ipvs" else flow
    )


@pytest.mark.ipvs
@pytest.mark.layouts
@pytest.mark.same_rules(12)
@pytest.mark.of_nftables(14)
@pytest.mark.parametrize("row", ROWS, ids=[f"{option}: {flow}" for option, _, flow in ROWS])
def test_option(lab: Lab, rulegen: Rulegen, variant: Variant, row: Row, family: Family) -> None:
    """An option changes who answers, or which source is seen."""
    _, fields, flow = row
    rulegen.serve(WORLD, rulegen.configuration(**fields))
    check(lab, _in(variant, flow), family)


LOOPBACK_ROWS: list[Row] = [
    ("as it is", PLAIN, Flow(NODE, PORTED, "loopback", masked(*BOTH))),
    ("switched off", NO_LOOPBACK, Flow(NODE, PORTED, "loopback", REFUSED)),
    ("switched off", NO_LOOPBACK, Flow(NODE, PORTED, "node", masked(*BOTH))),
    ("alone", LOOPBACK, Flow(NODE, PORTED, "loopback", masked(*BOTH))),
    ("alone", LOOPBACK, Flow(CLIENT, PORTED, "node", REFUSED)),
    ("not among the addresses", PRIMARY, Flow(NODE, PORTED, "loopback", REFUSED)),
]


@pytest.mark.ipvs
@pytest.mark.variants(*IPTABLES)
@pytest.mark.same_rules(2)
@pytest.mark.parametrize("row", LOOPBACK_ROWS, ids=[f"{option}: {flow}" for option, _, flow in LOOPBACK_ROWS])
def test_node_ports_on_loopback(lab: Lab, rulegen: Rulegen, variant: Variant, row: Row) -> None:
    """127.0.0.1 answers, or not, as the options say; IPv4 alone has this."""
    _, fields, flow = row
    rulegen.serve(WORLD, rulegen.configuration(**fields))
    check(lab, _in(variant, flow), 4)


LOCALHOST = ("--nftables-extra", "localhost-node-ports")
EXTRA_ROWS: list[Row] = [
    ("anywhere", PLAIN, Flow(NODE, PORTED, "loopback", masked(*BOTH))),
    ("anywhere", PLAIN, Flow(NODE, LOCAL, "loopback", masked(*BOTH))),
    ("anywhere", PLAIN, Flow(CLIENT, PORTED, "node", masked(*BOTH))),
    ("primary", PRIMARY, Flow(NODE, PORTED, "loopback", masked(*BOTH))),
    ("primary", PRIMARY, Flow(CLIENT, PORTED, "second", REFUSED)),
]


@pytest.mark.variants("nftables")
@pytest.mark.parametrize("row", EXTRA_ROWS, ids=[f"{option}: {flow}" for option, _, flow in EXTRA_ROWS])
def test_node_ports_on_loopback_as_an_extra_of_nftables(lab: Lab, rulegen: Rulegen, row: Row) -> None:
    """127.0.0.1 answers beside all addresses of node ports, and UDP too."""
    _, fields, flow = row
    rulegen.serve(WORLD, rulegen.configuration(**fields), *LOCALHOST)
    for protocol in ("TCP", "UDP"):
        check(lab, replace(flow, protocol=protocol), 4)
    rulegen.check_converged()


@contextmanager
def _rule(lab: Lab, iptables: str, *rule: str) -> Iterator[None]:
    lab.node.run([iptables, "-A", *rule]).check()
    try:
        yield
    finally:
        lab.node.run([iptables, "-D", *rule]).check()


@pytest.mark.ipvs
@pytest.mark.variants(*IPTABLES)
def test_the_health_check_port_is_open_where_input_is_closed(
    lab: Lab, rulegen: Rulegen, family: Family, variant: Variant
) -> None:
    """A balancer's probe comes through a firewall that lets nothing in; the port beside it stays closed."""
    rulegen.serve(WORLD)
    node = lab.node.addresses(family)[0]
    lab.node.listen("TCP", family, 32202)
    lab.node.listen("TCP", family, 32203)
    with _rule(lab, tool(variant, family), "INPUT", "-p", "tcp", "--dport", "32202:32203", "-j", "DROP"):
        assert lab.client.request("TCP", node, 32202).outcome == "answered"
        assert lab.client.request("TCP", node, 32203, timeout_s=0.4).outcome == "timeout"


@pytest.mark.ipvs
@pytest.mark.variants(*IPTABLES)
def test_masqueraded_packets_pass_a_closed_forward_chain(
    lab: Lab, rulegen: Rulegen, family: Family, variant: Variant
) -> None:
    """Node ports work although the node forwards nothing of its own accord; plain forwarding stays closed."""
    rulegen.serve(WORLD)
    iptables = tool(variant, family)
    lab.node.run([iptables, "-P", "FORWARD", "DROP"]).check()
    try:
        check(lab, Flow(CLIENT, PORTED, "node", masked(*BOTH)), family)
        pod = lab["pod-a"].addresses(family)[0]
        assert lab.client.request("TCP", pod, 8080, timeout_s=0.4).outcome == "timeout"
    finally:
        lab.node.run([iptables, "-P", "FORWARD", "ACCEPT"]).check()


@contextmanager
def sends_to_loopback_of_node(lab: Lab) -> Iterator[None]:
    """Let the client send to 127.0.0.0/8 of others, as nobody does who means well."""
    switch = "/proc/sys/net/ipv4/conf/eth0/route_localnet"
    route = "127.0.0.0/8 via 192.168.50.10"
    begin = f"ip address del 127.0.0.1/8 dev lo; ip route add {route}; echo 1 > {switch}"
    end = f"ip route del {route}; ip address add 127.0.0.1/8 dev lo; echo 0 > {switch}"
    lab.client.run(["sh", "-ec", begin]).check()
    try:
        yield
    finally:
        lab.client.run(["sh", "-ec", end]).check()


FLUSH = "flush chain ip rulegen loopback-guard"


def test_node_ports_on_loopback_open_no_loopback_to_others(lab: Lab, rulegen: Rulegen, variant: Variant) -> None:
    """127.0.0.1 must be routable for node ports, which lets neighbours in too: a rule guards it (CVE-2020-8558)."""
    options = () if variant in IPTABLES else LOCALHOST
    flush = [tool(variant, 4), "-F", "KUBE-FIREWALL"] if variant in IPTABLES else ["nft", FLUSH]
    rulegen.serve(WORLD, None, *options)
    lab.node.listen("TCP", 4, 32299, "127.0.0.1")
    with sends_to_loopback_of_node(lab):
        assert lab.client.request("TCP", "127.0.0.1", 32299, timeout_s=0.4).outcome == "timeout"
        lab.node.run(flush).check()
        rulegen.served = None
        assert lab.client.request("TCP", "127.0.0.1", 32299).outcome == "answered"
        rulegen.serve(WORLD, None, *options)
        assert lab.client.request("TCP", "127.0.0.1", 32299, timeout_s=0.4).outcome == "timeout"
    assert lab.node.request("TCP", "127.0.0.1", 32299).outcome == "answered"
