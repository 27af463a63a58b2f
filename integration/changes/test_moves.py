"""Moves between modes, and from kube-proxy: no connection fails that begins meanwhile, and nothing is left over.

A move to a mode ends with what kube-proxy writes in that mode (`test_takeover`): so it is one to kube-proxy too.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

import pytest
import yaml

from integration import rulesets, saves
from integration.blackbox import Rulegen
from integration.changes.test_continuity import changing
from integration.changes.test_takeover import PARITY
from integration.lab.namespaces import Namespaces
from integration.manifests import PORT, App, world
from integration.proxied import ProxyProcesses
from tests.sizes import sized

if TYPE_CHECKING:
    from collections.abc import Iterator

    from integration.blackbox import Variant
    from integration.conftest import LabMaker
    from integration.lab.lab import Lab

PAUSE_S = 0.01
FOLDER = PARITY / "010-nodeport-same-number-protocols"
"""A world whose endpoints are pods of the lab."""
CLUSTER_IP, NODE_PORT = "10.96.1.12", 30090
ITS_IPTABLES, ITS_NFTABLES = "iptables.save", "nftables.txt"
"""Files with what kube-proxy wrote in its modes."""

STICKY = App(name="sticky", number=803, ready=("pod-a", "pod-b"), affinity_s=600)
EMPTY = App(name="empty", number=804, type="NodePort")


class Move(NamedTuple):
    """From a variant, or from what kube-proxy wrote, to a variant."""

    before: str
    after: Variant

    def __str__(self) -> str:
        return f"{self.before} to {self.after}"


MOVES = (
    Move("nft", "nftables"),
    Move("nft", "kube-proxy"),
    Move("legacy", "nftables"),
    Move("nftables", "nft"),
    Move("nftables", "legacy"),
    Move("nftables", "kube-proxy"),
    Move("kube-proxy", "nft"),
    Move("kube-proxy", "nftables"),
    Move("nft", "userspace"),
    Move("nftables", "userspace"),
    Move("userspace", "nftables"),
    Move("userspace", "nft"),
)
TAKEOVERS = (
    Move(ITS_IPTABLES, "nft"),
    Move(ITS_IPTABLES, "nftables"),
    Move(ITS_IPTABLES, "kube-proxy"),
    Move(ITS_NFTABLES, "nft"),
    Move(ITS_NFTABLES, "nftables"),
    Move(ITS_NFTABLES, "kube-proxy"),
)


class Mover:
    """A node that moves, and all that a proxy has on it."""

    def __init__(self, lab: Lab) -> None:
        self.lab, self._proxy = lab, ProxyProcesses(lab)
        self._fresh: dict[tuple[str, str], object] = {}

    def apply(self, variant: Variant, objects: str, before: str = "") -> None:
        """Move the node to a variant; rules of iptables-legacy are removed if they are said to be there."""
        rulegen = Rulegen(self.lab, variant)
        rulegen.options = ("--variant", before) if before == "legacy" else ()
        rulegen.apply(objects)
        rulegen.check_converged()

    def wipe(self) -> None:
        """Take all away."""
        if self._proxy.folder.exists():
            Rulegen(self.lab, "userspace").cleanup()
        for variant in ("legacy", "nftables"):
            rulesets.wipe(self.lab.node, variant)
        self.lab.node.run(["conntrack", "-F"]).check()

    def begin(self, before: str, objects: str) -> None:
        """Have the node be as before the move."""
        self.wipe()
        if before == ITS_NFTABLES:
            self.lab.node.run(["nft", "-f", str(FOLDER / before)]).check()
        elif before == ITS_IPTABLES:
            texts = {4: (FOLDER / before).read_text(), 6: (FOLDER / f"ip6{before[2:]}").read_text()}
            saves.load(self.lab.node, "nft", texts)
        else:
            self.apply(before, objects)

    def observe(self) -> object:
        """Return all that a proxy has: rules in both variants of iptables, tables of nftables, routes, processes."""
        rules = {
            (variant, family): Counter(
                (line.table, rulesets.COMMENT.sub("", line.text)) for line in saves.lines(text) if line.is_proxys
            )
            for variant in ("nft", "legacy")
            for family, text in saves.save(self.lab.node, variant).items()
        }
        routing = [self.lab.node.run(["ip", family, "rule"]).check().stdout for family in ("-4", "-6")]
        return rules, rulesets.observe(self.lab.node, "nftables"), routing, self._proxy.folder.exists()

    def fresh(self, variant: Variant, objects: str) -> object:
        """Return what a node has that knew nothing before."""
        if (variant, objects) not in self._fresh:
            self.wipe()
            self.apply(variant, objects)
            self._fresh[variant, objects] = self.observe()
        return self._fresh[variant, objects]


@pytest.fixture(scope="module")
def mover(labs: LabMaker) -> Iterator[Mover]:
    made = Mover(labs(Namespaces, "moves"))
    yield made
    made.wipe()


@pytest.mark.parametrize("move", sized(quick=MOVES[::2], usual=MOVES[::2], full=MOVES), ids=str)
def test_a_move_between_modes_loses_no_connection(mover: Mover, move: Move) -> None:
    if "userspace" in move and shutil.which("haproxy") is None:
        pytest.skip("not installed: haproxy")
    lab, app = mover.lab, changing(("pod-a", "pod-x"))
    objects = world([app, STICKY, EMPTY])
    expected = mover.fresh(move.after, objects)
    mover.begin(move.before, objects)
    gate = lab.node.addresses(4)[0]
    asking = {
        "a pod by ClusterIP": lab["pod-c"].repeat("TCP", app.cluster_ip(4), PORT, pause_s=PAUSE_S),
        "a pod by ClusterIP, UDP": lab["pod-c"].repeat("UDP", app.cluster_ip(4), PORT, pause_s=PAUSE_S),
        "a pod by ClusterIP, IPv6": lab["pod-b"].repeat("TCP", app.cluster_ip(6), PORT, pause_s=PAUSE_S),
        "outside by node port": lab.client.repeat("TCP", gate, app.node_port, pause_s=PAUSE_S),
        "outside by balancer, IPv6": lab.client.repeat("TCP", app.lb_ip(6), PORT, pause_s=PAUSE_S),
        "the node by ClusterIP": lab.node.repeat("TCP", app.cluster_ip(4), PORT, pause_s=PAUSE_S),
    }
    mover.apply(move.after, objects, move.before)
    reports = {who: asker.stop() for who, asker in asking.items()}
    failures = {who: report.first_failures for who, report in reports.items() if report.failures}
    assert failures == {}
    # A client that had a timeout of five seconds has asked less often.
    asked = {who: sum(report.answered.values()) for who, report in reports.items() if not report.failures}
    assert min(asked.values()) > 20, reports
    assert mover.observe() == expected


@pytest.mark.skipif(not FOLDER.exists(), reason=f"no dumps of kube-proxy in {PARITY} (RULEGEN_SHARED)")
@pytest.mark.parametrize("move", sized(quick=TAKEOVERS[1::2], usual=TAKEOVERS[1::2], full=TAKEOVERS), ids=str)
def test_a_move_from_kube_proxy_loses_no_connection(mover: Mover, move: Move) -> None:
    lab = mover.lab
    documents = list(yaml.safe_load_all((FOLDER / "objects.yaml").read_text()))
    objects = json.dumps({"apiVersion": "v1", "kind": "List", "items": documents})
    expected = mover.fresh(move.after, objects)
    mover.begin(move.before, objects)
    asking = {
        "a pod by ClusterIP": lab["pod-c"].repeat("TCP", CLUSTER_IP, PORT, pause_s=PAUSE_S),
        "a pod by ClusterIP, UDP": lab["pod-c"].repeat("UDP", CLUSTER_IP, PORT, pause_s=PAUSE_S),
        "outside by node port": lab.client.repeat("TCP", lab.node.addresses(4)[0], NODE_PORT, pause_s=PAUSE_S),
        "the node by ClusterIP": lab.node.repeat("TCP", CLUSTER_IP, PORT, pause_s=PAUSE_S),
    }
    mover.apply(move.after, objects, move.before)
    reports = {who: asker.stop() for who, asker in asking.items()}
    assert {who: report.first_failures for who, report in reports.items() if report.failures} == {}
    assert all(sum(report.answered.values()) > 20 for report in reports.values()), reports
    assert mover.observe() == expected
