"""Every kind of Service and policy, asked from a pod, from the node and from outside: right endpoint, right source."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from integration.conftest import IPTABLES
from integration.flows import DROPPED, REFUSED, Flow, check, kept, masked, via
from integration.manifests import App

if TYPE_CHECKING:
    from integration.blackbox import Rulegen, Variant
    from integration.flows import Served, Turned
    from integration.lab.hosts import Family, Transport
    from integration.lab.lab import Lab

pytestmark = [pytest.mark.ipvs, pytest.mark.layouts]

Row = tuple[str, str, str]
"""Who asks, which Service, by which way."""

POD, NODE, CLIENT = "pod-c", "node1", "client"
"""Who asks: a pod on the node that is no endpoint itself, the node, and a host outside."""

ALLOWED = {4: "192.168.50.200", 6: "fd00:50::200"}
"""Another address of the client."""

PLAIN = App(name="plain", number=1, ready=("pod-a", "pod-b", "pod-x"))
SOLE = App(name="sole", number=2, ready=("pod-a",), external_ip=True, type="LoadBalancer")
PORTED = App(name="ported", number=3, ready=("pod-a", "pod-x"), type="NodePort")
BALANCED = App(name="balanced", number=4, ready=("pod-a", "pod-x"), type="LoadBalancer", external_ip=True)
LOCAL = App(
    name="local", number=5, ready=("pod-a", "pod-x"), type="LoadBalancer", external_ip=True, external="Local",
    health_check_port=32105,
)  # fmt: skip
AWAY = App(
    name="away", number=6, ready=("pod-x",), type="LoadBalancer", external_ip=True, external="Local",
    health_check_port=32106,
)  # fmt: skip
INSIDE = App(name="inside", number=7, ready=("pod-a", "pod-x"), type="NodePort", internal="Local")
OUTSIDE = App(name="outside", number=8, ready=("pod-x",), type="NodePort", internal="Local")
RANGED = App(
    name="ranged", number=9, ready=("pod-a",), type="LoadBalancer",
    ranges=("192.168.50.200/32", "fd00:50::200/128"),
)  # fmt: skip
RANGED_LOCAL = App(
    name="ranged-local", number=10, ready=("pod-a", "pod-x"), type="LoadBalancer", external="Local",
    health_check_port=32110, ranges=("192.168.50.200/32", "fd00:50::200/128"),
)  # fmt: skip
RANGED_NODE = App(
    name="ranged-node", number=11, ready=("pod-a",), type="LoadBalancer", ranges=("192.168.50.10/32", "fd00:50::10/128")
)
EMPTY = App(name="empty", number=12, type="LoadBalancer", external_ip=True)
UNREADY = App(name="unready", number=13, unready=("pod-a", "pod-x"), type="NodePort")
ENDING = App(name="ending", number=14, terminating=("pod-a",), unready=("pod-b",), type="NodePort")
ENDING_SOME = App(name="ending-some", number=15, ready=("pod-b",), terminating=("pod-a",), type="NodePort")
ENDING_HERE = App(
    name="ending-here", number=16, ready=("pod-x",), terminating=("pod-a",), type="LoadBalancer", external="Local",
    health_check_port=32116,
)  # fmt: skip
ENDING_INSIDE = App(name="ending-inside", number=17, ready=("pod-x",), terminating=("pod-a",), internal="Local")
HINTED = App(
    name="hinted", number=18, ready=("pod-a", "pod-x"), type="NodePort", hints={"pod-a": "zone-a", "pod-x": "zone-b"}
)
HALF_HINTED = App(name="half-hinted", number=19, ready=("pod-a", "pod-x"), hints={"pod-a": "zone-a"})
NAMED = App(name="named", number=20, ready=("pod-a", "pod-b"), targets={"pod-b": 8081})
OTHER_TARGET = App(name="other-target", number=21, ready=("pod-b",), target=8081, type="NodePort")
HOST_NETWORK = App(name="host-network", number=22, ready=("node1",), type="NodePort")
BOTH_LOCAL = App(
    name="both-local", number=23, ready=("pod-b", "pod-x"), type="LoadBalancer", external="Local", internal="Local",
    health_check_port=32123,
)  # fmt: skip

WORLD = (
    PLAIN, SOLE, PORTED, BALANCED, LOCAL, AWAY, INSIDE, OUTSIDE, RANGED, RANGED_LOCAL, RANGED_NODE, EMPTY, UNREADY,
    ENDING, ENDING_SOME, ENDING_HERE, ENDING_INSIDE, HINTED, HALF_HINTED, NAMED, OTHER_TARGET, HOST_NETWORK, BOTH_LOCAL,
)  # fmt: skip

CLUSTER_IP = [
    Flow(POD, PLAIN, "cluster", kept("pod-a", "pod-b", "pod-x")),
    Flow(NODE, PLAIN, "cluster", masked("pod-a", "pod-b", "pod-x")),
    Flow(CLIENT, PLAIN, "cluster", masked("pod-a", "pod-b", "pod-x")),
    Flow(POD, PLAIN, "cluster", kept("pod-a", "pod-b", "pod-x"), "UDP"),
    Flow(NODE, PLAIN, "cluster", masked("pod-a", "pod-b", "pod-x"), "UDP"),
    Flow(CLIENT, PLAIN, "cluster", masked("pod-a", "pod-b", "pod-x"), "UDP"),
    Flow(POD, PLAIN, "cluster", kept("pod-a", "pod-b", "pod-x"), "SCTP"),
    Flow(CLIENT, PLAIN, "cluster", masked("pod-a", "pod-b", "pod-x"), "SCTP"),
    Flow(POD, NAMED, "cluster", kept("pod-a", "pod-b")),
    Flow(POD, OTHER_TARGET, "cluster", kept("pod-b", port=8081)),
    Flow(POD, HOST_NETWORK, "cluster", kept("node1")),
    # What ends on the node itself passes no place where a source could be masqueraded.
    Flow(CLIENT, HOST_NETWORK, "cluster", kept("node1")),
]

# A pod that its own Service sends back to itself must see another source, or it would answer itself past the NAT.
HAIRPIN = [
    Flow("pod-a", SOLE, "cluster", masked("pod-a")),
    Flow("pod-a", SOLE, "cluster", masked("pod-a"), "UDP"),
    Flow("pod-a", SOLE, "cluster", masked("pod-a"), "SCTP"),
    Flow("pod-a", SOLE, "node", masked("pod-a")),
    Flow("pod-a", SOLE, "lb", masked("pod-a")),
    Flow("pod-a", SOLE, "external", masked("pod-a")),
]

EXTERNAL = [
    *(
        Flow(who, PORTED, way, masked("pod-a", "pod-x"), protocol)
        for who in (CLIENT, POD, NODE)
        for way in ("node", "second")
        for protocol in ("TCP", "UDP")
    ),
    Flow(CLIENT, PORTED, "node", masked("pod-a", "pod-x"), "SCTP"),
    *(Flow(who, BALANCED, "lb", masked("pod-a", "pod-x")) for who in (CLIENT, POD, NODE)),
    *(Flow(who, BALANCED, "external", masked("pod-a", "pod-x")) for who in (CLIENT, POD, NODE)),
    *(Flow(CLIENT, BALANCED, way, masked("pod-a", "pod-x"), "UDP") for way in ("lb", "external", "node")),
    *(Flow(CLIENT, BALANCED, way, masked("pod-a", "pod-x"), "SCTP") for way in ("lb", "external")),
    Flow(CLIENT, OTHER_TARGET, "node", masked("pod-b", port=8081)),
    Flow(CLIENT, HOST_NETWORK, "node", kept("node1")),
]

# From outside: endpoints here alone, and they see who asks. Pods and the node are inside: they may go anywhere.
EXTERNAL_LOCAL = [
    *(Flow(CLIENT, LOCAL, way, kept("pod-a")) for way in ("node", "second", "lb", "external")),
    *(Flow(CLIENT, LOCAL, way, kept("pod-a"), "UDP") for way in ("node", "lb")),
    Flow(CLIENT, LOCAL, "lb", kept("pod-a"), "SCTP"),
    *(Flow(POD, LOCAL, way, kept("pod-a", "pod-x")) for way in ("node", "lb", "external")),
    *(Flow(NODE, LOCAL, way, masked("pod-a", "pod-x")) for way in ("node", "lb", "external")),
    Flow(CLIENT, LOCAL, "cluster", masked("pod-a", "pod-x")),
    *(Flow(CLIENT, AWAY, way, DROPPED) for way in ("node", "second", "lb", "external")),
    *(Flow(POD, AWAY, way, kept("pod-x")) for way in ("node", "lb", "external")),
    *(Flow(NODE, AWAY, way, masked("pod-x")) for way in ("node", "lb", "external")),
    Flow(POD, AWAY, "cluster", kept("pod-x")),
]

INTERNAL_LOCAL = [
    *(Flow(POD, INSIDE, "cluster", kept("pod-a"), protocol) for protocol in ("TCP", "UDP", "SCTP")),
    Flow(NODE, INSIDE, "cluster", masked("pod-a")),
    Flow(CLIENT, INSIDE, "cluster", masked("pod-a")),
    Flow(CLIENT, INSIDE, "node", masked("pod-a", "pod-x")),
    *(Flow(who, OUTSIDE, "cluster", DROPPED) for who in (POD, NODE, CLIENT)),
    Flow(CLIENT, OUTSIDE, "node", masked("pod-x")),
    Flow(POD, BOTH_LOCAL, "cluster", kept("pod-b")),
    Flow(CLIENT, BOTH_LOCAL, "lb", kept("pod-b")),
    Flow(POD, BOTH_LOCAL, "lb", kept("pod-b", "pod-x")),
]

NOT_IN_RANGE = [
    *(Flow(who, RANGED, "lb", DROPPED) for who in (CLIENT, POD, NODE)),
    Flow(CLIENT, RANGED_LOCAL, "lb", DROPPED),
    Flow(CLIENT, RANGED_NODE, "lb", DROPPED),
    Flow(NODE, RANGED_NODE, "lb", masked("pod-a")),
    # The ranges are the balancer's: they close no other way.
    Flow(CLIENT, RANGED, "node", masked("pod-a")),
    Flow(POD, RANGED, "cluster", kept("pod-a")),
]

NO_ENDPOINTS = [
    *(Flow(who, EMPTY, "cluster", REFUSED) for who in (POD, NODE, CLIENT)),
    *(Flow(who, EMPTY, "cluster", REFUSED, "UDP") for who in (POD, NODE, CLIENT)),
    Flow(POD, EMPTY, "cluster", REFUSED, "SCTP"),
    *(Flow(CLIENT, EMPTY, way, REFUSED) for way in ("lb", "external", "node")),
    *(Flow(CLIENT, EMPTY, way, REFUSED, "UDP") for way in ("lb", "external", "node")),
    Flow(POD, UNREADY, "cluster", REFUSED),
    Flow(CLIENT, UNREADY, "node", REFUSED),
]

TERMINATING = [
    Flow(POD, ENDING, "cluster", kept("pod-a")),
    Flow(CLIENT, ENDING, "node", masked("pod-a")),
    Flow(POD, ENDING_SOME, "cluster", kept("pod-b")),
    Flow(CLIENT, ENDING_SOME, "node", masked("pod-b")),
    Flow(CLIENT, ENDING_HERE, "lb", kept("pod-a")),
    Flow(POD, ENDING_HERE, "cluster", kept("pod-x")),
    Flow(POD, ENDING_INSIDE, "cluster", kept("pod-a")),
]

HINTS = [
    Flow(POD, HINTED, "cluster", kept("pod-a")),
    Flow(CLIENT, HINTED, "node", masked("pod-a")),
    Flow(POD, HALF_HINTED, "cluster", kept("pod-a", "pod-x")),
]

FLOWS = (
    CLUSTER_IP
    + HAIRPIN
    + EXTERNAL
    + EXTERNAL_LOCAL
    + INTERNAL_LOCAL
    + NOT_IN_RANGE
    + NO_ENDPOINTS
    + TERMINATING
    + HINTS
)


# A virtual server has one pool, whoever asks; with local endpoints it is those.
POOLED: dict[Row, Served | Turned] = {
    **{(POD, LOCAL.name, way): kept("pod-a") for way in ("node", "lb", "external")},
    (NODE, LOCAL.name, "node"): masked("pod-a"),
    (NODE, LOCAL.name, "lb"): via("pod-a"),
    (NODE, LOCAL.name, "external"): via("pod-a"),
    (POD, BOTH_LOCAL.name, "lb"): kept("pod-b"),
}
IPVS = POOLED | {
    # Without local endpoints the others serve, unmasqueraded: the reply finds no way back to the node's own process.
    (NODE, AWAY.name, "lb"): DROPPED,
    (NODE, AWAY.name, "external"): DROPPED,
    # And so they do for internal traffic, where there is an external frontend too.
    (POD, OUTSIDE.name, "cluster"): kept("pod-x"),
    (NODE, OUTSIDE.name, "cluster"): masked("pod-x"),
    (CLIENT, OUTSIDE.name, "cluster"): masked("pod-x"),
}
"""What becomes of packets in kube-proxy's ipvs mode, where that is not what becomes of them in iptables mode."""

STRICT = POOLED | {
    **{(POD, AWAY.name, way): masked("pod-x") for way in ("node", "lb", "external")},
    # A virtual server without real ones says so to its own node, whose socket may be busy with sending the first time.
    (NODE, OUTSIDE.name, "cluster"): REFUSED,
}
"""The same with strict semantics."""


def _as_in(table: dict[Row, Served | Turned], flow: Flow) -> Flow:
    return replace(flow, expect=table.get((flow.who, flow.app.name, flow.way), flow.expect))


@pytest.mark.same_rules(40)
@pytest.mark.parametrize("flow", FLOWS, ids=str)
def test_flow(lab: Lab, rulegen: Rulegen, variant: Variant, flow: Flow, family: Family) -> None:
    """A packet ends where the Service's rules of the API say, seen from both ends."""
    rulegen.serve(WORLD)
    check(lab, _as_in(IPVS, flow) if variant == "ipvs" else flow, family)


@pytest.mark.variants
@pytest.mark.parametrize("flow", EXTERNAL_LOCAL + INTERNAL_LOCAL + TERMINATING, ids=str)
def test_flow_of_strict_semantics(lab: Lab, rulegen: Rulegen, flow: Flow, family: Family) -> None:
    """IPVS keeps to the policies too; but it has one pool for all who ask, and masquerades where that is all it can."""
    rulegen.serve(WORLD, None, "--ipvs-semantics", "strict")
    check(lab, _as_in(STRICT, flow), family)


@pytest.mark.parametrize(
    ("app", "expect"), [(RANGED, masked("pod-a")), (RANGED_LOCAL, kept("pod-a"))], ids=["cluster", "local"]
)
def test_a_source_in_range_is_let_in(lab: Lab, rulegen: Rulegen, app: App, expect: Served, family: Family) -> None:
    rulegen.serve(WORLD)
    check(lab, Flow(CLIENT, app, "lb", expect, source=ALLOWED[family]), family)


@pytest.mark.parametrize("protocol", ["TCP", "UDP"])
def test_a_node_port_answers_on_loopback(lab: Lab, rulegen: Rulegen, variant: Variant, protocol: Transport) -> None:
    """IPv4 alone: the kernel never routes ::1 off the node. No virtual server listens there, no map of nftables."""
    rulegen.serve(WORLD)
    expect = masked("pod-a", "pod-x") if variant in IPTABLES else REFUSED
    check(lab, Flow(NODE, PORTED, "loopback", expect, protocol), 4)


def test_what_is_no_port_of_a_service_is_left_alone(
    lab: Lab, rulegen: Rulegen, variant: Variant, family: Family
) -> None:
    """It is refused in nftables mode, and where the address is the node's own, lest the node's programs answer."""
    rulegen.serve(WORLD)
    expected = "unreachable" if variant in IPTABLES else "refused"
    assert lab[POD].request("TCP", PLAIN.cluster_ip(family), 81).outcome == expected
    assert lab[CLIENT].request("TCP", lab.node.addresses(family)[0], 8080).name == "node1"
