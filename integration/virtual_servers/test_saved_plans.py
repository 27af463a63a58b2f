"""Saved plans in ipvs mode: refused after a change of our servers, sets or addresses, not after one of others."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from rulegen.host.commands.runner import run
from rulegen.host.ipvs import servers
from tests.host.conftest import namespace
from tests.host.saved_plans import saved_node
from tests.host.saved_plans.saved_node import Round, SavedNode, sh

__all__ = ["namespace"]

pytestmark = [pytest.mark.uml, pytest.mark.xdist_group("ipvs"), pytest.mark.usefixtures("namespace")]

SNAPSHOT = "ipvsadm -Sn; ipset save; ip -br addr show kube-ipvs0; iptables-legacy-save | grep -o '^-.*'"
WEB = "10.96.0.1:80"


@pytest.fixture
def node(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> SavedNode:
    servers.load(run)
    return SavedNode(tmp_path, capsys, "--mode", "ipvs", "--variant", "legacy")


def real_server_removed(pick: random.Random) -> str:
    end = f"10.244.1.{pick.choice((1, 2))}:8080"
    sh(f"ipvsadm -d -t {WEB} -r {end}")
    return f"ipvsadm -a -t {WEB} -r {end} -m -w 1"


def real_server_added(pick: random.Random) -> str:
    end = f"192.0.2.{pick.randrange(1, 255)}:80"
    sh(f"ipvsadm -a -t {WEB} -r {end} -m")
    return f"ipvsadm -d -t {WEB} -r {end}"


def scheduler_changed(pick: random.Random) -> str:
    sh(f"ipvsadm -E -t {WEB} -s {pick.choice(('lc', 'wrr', 'sh'))}")
    return f"ipvsadm -E -t {WEB} -s rr"


def entry_removed(pick: random.Random) -> str:
    entry = f"KUBE-CLUSTER-IP 10.96.0.{pick.choice((1, 3))},tcp:80"
    sh(f"ipset del {entry}")
    return f"ipset add {entry}"


def address_removed(pick: random.Random) -> str:
    address = f"10.96.0.{pick.choice((1, 3))}/32 dev kube-ipvs0"
    sh(f"ip addr del {address}")
    return f"ip addr add {address}"


def server_of_others(pick: random.Random) -> str:
    return sh(f"ipvsadm -A -t 192.0.2.{pick.randrange(1, 255)}:{pick.randrange(1, 65536)} -s rr")


def set_of_others(pick: random.Random) -> str:
    return sh(f"ipset create other-{pick.randrange(10**6)} hash:ip")


def rule_of_others(pick: random.Random) -> str:
    return sh(f"iptables-legacy -t nat -A PREROUTING -s 192.0.2.{pick.randrange(1, 255)} -j ACCEPT")


OWN = saved_node.rounds([real_server_removed, real_server_added, scheduler_changed, entry_removed, address_removed])
FOREIGN = saved_node.rounds([server_of_others, set_of_others, rule_of_others])


@pytest.mark.parametrize("chosen", OWN, ids=str)
def test_a_saved_plan_is_applied_as_shown_or_refused_when_stale(node: SavedNode, chosen: Round) -> None:
    saved_node.seeded(node, SNAPSHOT, [chosen])


@pytest.mark.parametrize("chosen", FOREIGN, ids=str)
def test_changes_of_others_do_not_matter(node: SavedNode, chosen: Round) -> None:
    saved_node.foreign(node, [chosen])
