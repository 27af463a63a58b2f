"""Packets in nftables mode, in both layouts of its tables: they end where they end in iptables mode.

What differs on purpose: node ports do not answer on loopback, and other ports of a ClusterIP are refused.
"""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import pytest

from integration import manifests
from integration.blackbox import Rulegen
from integration.flows import REFUSED, Flow, Served, check, kept, masked
from integration.lab.namespaces import Namespaces
from integration.packets.test_flows import (
    ALLOWED,
    CLIENT,
    FLOWS,
    NODE,
    PLAIN,
    POD,
    PORTED,
    RANGED,
    RANGED_LOCAL,
    WORLD,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from integration.conftest import LabMaker
    from integration.lab.hosts import Family
    from integration.lab.lab import Lab

pytestmark = pytest.mark.skipif(shutil.which("nft") is None, reason="not installed: nft")

ALL = manifests.configuration(nodePortAddresses=["0.0.0.0/0", "::/0"])
"""Node ports on all addresses, as in iptables mode; the default is the node's primary address."""


TABLES = {"kube-proxy": "kube-proxy", "flat": "rulegen"}
"""The table of each layout."""
FOREIGN = """
table inet other {
    set clients { type ipv4_addr; elements = { 192.0.2.1 } }
    chain input { type filter hook input priority 5; policy accept; ip saddr @clients drop; }
}
"""
"""A table of another program."""


@pytest.fixture(scope="module", params=TABLES)
def nftables(labs: LabMaker, request: pytest.FixtureRequest) -> Iterator[Lab]:
    """Give a lab whose node serves the world of all flows in this mode."""
    lab = labs(Namespaces, f"nftables-{request.param}")
    rulegen = Rulegen(lab, "nftables")
    lab.node.run(["nft", FOREIGN]).check()
    before = nft(lab, "-s", "list", "ruleset")
    try:
        rulegen.serve(WORLD, ALL, "--nftables-layout", request.param)
        rulegen.check_converged()
        assert tables(lab) == [TABLES[request.param]] * 2
        listed = nft(lab, "-s", "list", "ruleset")
        assert listed.startswith(before), "the table of another program has changed"
        assert json.loads(nft(lab, "-j", "list", "ruleset"))["nftables"]
        yield lab
        assert nft(lab, "-s", "list", "ruleset") == listed, "packets have changed the tables"
    finally:
        rulegen.cleanup()
    assert nft(lab, "-s", "list", "ruleset") == before, "something is left over"


def nft(lab: Lab, *arguments: str) -> str:
    """Return what nft prints on the node."""
    return lab.node.run(["nft", *arguments]).check().stdout


def tables(lab: Lab) -> list[str]:
    """Return the names of rulegen's tables on the node, in all families."""
    return [name for name in nft(lab, "list", "tables").split() if name in TABLES.values()]


@pytest.mark.parametrize("flow", FLOWS, ids=str)
def test_flow(nftables: Lab, flow: Flow, family: Family) -> None:
    """A packet ends where the Service's rules of the API say, seen from both ends."""
    check(nftables, flow, family)


@pytest.mark.parametrize(
    ("app", "expect"), [(RANGED, masked("pod-a")), (RANGED_LOCAL, kept("pod-a"))], ids=["cluster", "local"]
)
def test_a_source_in_range_is_let_in(nftables: Lab, app: manifests.App, expect: Served, family: Family) -> None:
    check(nftables, Flow(CLIENT, app, "lb", expect, source=ALLOWED[family]), family)


def test_no_node_port_answers_on_loopback(nftables: Lab) -> None:
    check(nftables, Flow(NODE, PORTED, "loopback", REFUSED), 4)


def test_other_ports_of_a_cluster_ip_are_refused(nftables: Lab, family: Family) -> None:
    assert nftables[POD].request("TCP", PLAIN.cluster_ip(family), 81).outcome == "refused"
    assert nftables[CLIENT].request("TCP", nftables.node.addresses(family)[0], 8080).name == "node1"
