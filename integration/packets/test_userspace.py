"""Packets in userspace mode, with the proxy and the rules that `apply` has written.

The flows are those of the other modes, except for source addresses: the proxy connects from the node's own address.
SCTP and connections to a local pool stay with the kernel and keep theirs.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING

import pytest

from integration import manifests
from integration.blackbox import Rulegen
from integration.flows import DROPPED, Flow, Served, check, masked
from integration.lab.namespaces import Namespaces
from integration.packets.test_flows import ALLOWED, CLIENT, FLOWS, NODE, POD, PORTED, RANGED, RANGED_LOCAL, WORLD

if TYPE_CHECKING:
    from collections.abc import Iterator

    from integration.conftest import LabMaker
    from integration.lab.hosts import Family
    from integration.lab.lab import Lab

pytestmark = pytest.mark.skipif(shutil.which("haproxy") is None, reason="not installed: haproxy")

LISTENER = 10261
LEFT = "iptables-nft-save; ip6tables-nft-save; ip -6 rule; ip -6 route show table all; ss -ltn"


@pytest.fixture(scope="module")
def userspace(labs: LabMaker) -> Iterator[Lab]:
    """Give a lab whose node serves the world of all flows in this mode."""
    lab = labs(Namespaces, "userspace")
    rulegen = Rulegen(lab, "userspace")
    try:
        rulegen.serve(WORLD)
        rulegen.check_converged()
        yield lab
    finally:
        rulegen.cleanup()
    left = lab.node.run(["sh", "-c", LEFT]).check()
    assert not [line for line in left.stdout.splitlines() if "KUBE-P" in line or str(LISTENER) in line]


def in_this_mode(flow: Flow) -> Flow:
    """Return a flow with the source address that endpoints see in this mode."""
    if flow.protocol == "SCTP" or not isinstance(flow.expect, Served):
        return flow
    is_local = flow.app.internal == "Local" if flow.way == "cluster" else flow.app.external == "Local"
    if is_local and (flow.way == "cluster" or flow.who == CLIENT):
        return flow  # rules of the kernel
    return replace(flow, expect=replace(flow.expect, kept=False))


@pytest.mark.parametrize("flow", [in_this_mode(flow) for flow in FLOWS], ids=str)
def test_flow(userspace: Lab, flow: Flow, family: Family) -> None:
    """A packet ends where the Service's rules of the API say, seen from both ends."""
    check(userspace, flow, family)


@pytest.mark.parametrize("app", [RANGED, RANGED_LOCAL], ids=lambda app: app.name)
def test_a_source_in_range_is_let_in(userspace: Lab, app: manifests.App, family: Family) -> None:
    expect = replace(masked("pod-a"), kept=app.external == "Local")
    check(userspace, Flow(CLIENT, app, "lb", expect, source=ALLOWED[family]), family)


def test_a_node_port_answers_on_loopback(userspace: Lab) -> None:
    for protocol in ("TCP", "UDP"):
        check(userspace, Flow(NODE, PORTED, "loopback", masked("pod-a", "pod-x"), protocol), 4)


@pytest.mark.parametrize("who", [CLIENT, POD, NODE])
def test_nobody_speaks_to_the_listener_directly(userspace: Lab, who: str, family: Family) -> None:
    for address, protocol in product(userspace.node.addresses(family), ("TCP", "UDP")):
        answer = userspace[who].request(protocol, address, LISTENER, timeout_s=0.4)
        assert answer.outcome == DROPPED.outcome
