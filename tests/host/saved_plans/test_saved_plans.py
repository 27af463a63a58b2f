"""Saved plans on a real kernel, in a network namespace: iptables of both variants, and nftables."""

from __future__ import annotations

import random
import re
from pathlib import Path

import pytest

from tests.host.conftest import namespace
from tests.host.saved_plans import saved_node
from tests.host.saved_plans.saved_node import Change, SavedNode, sh

__all__ = ["namespace"]

pytestmark = pytest.mark.usefixtures("namespace")
MODES = ["nft", "legacy", "nftables"]
SNAPSHOT = {
    "nft": "iptables-nft-save | grep '^[-:]'",
    "legacy": "iptables-legacy-save | grep -o '^-.*'",
    "nftables": "nft -s list ruleset",
}


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def node(mode, tmp_path, capsys) -> SavedNode:
    words = ("--mode", "nftables", "--nftables-layout", "kube-proxy") if mode == "nftables" else ("--variant", mode)
    return SavedNode(tmp_path, capsys, *words)


def own(mode: str, folder: Path) -> list[Change]:
    """Return changes of rules of Services."""
    if mode == "nftables":

        def added(pick: random.Random) -> str:
            chains = [line.split()[1] for line in sh("nft list table ip kube-proxy").splitlines() if "chain " in line]
            chain = pick.choice([name for name in chains if name.startswith("service-")])
            sh(f"nft insert rule ip kube-proxy '{chain}' ip saddr 192.0.2.{pick.randrange(1, 255)} drop")
            handle = sh(f"nft -a list chain ip kube-proxy '{chain}' | grep 192.0.2 | grep -o 'handle [0-9]*'").strip()
            return f"nft delete rule ip kube-proxy '{chain}' {handle}"

        def removed(pick: random.Random) -> str:
            number = pick.choice((1, 3))
            (value,) = re.findall(
                rf"10\.96\.0\.{number} \. tcp \. 80 : [^ ,]+ [^ ,]+", sh("nft list map ip kube-proxy service-ips")
            )
            sh(f"nft delete element ip kube-proxy service-ips '{{ 10.96.0.{number} . tcp . 80 }}'")
            return f"nft add element ip kube-proxy service-ips '{{ {value} }}'"

        return [added, removed]

    def inserted(pick: random.Random) -> str:
        chain = pick.choice([word for word in sh(f"iptables-{mode} -t nat -S").split() if word[:8] == "KUBE-SEP"])
        rule = f"{chain} -s 192.0.2.{pick.randrange(1, 255)}/32 -j RETURN"
        sh(f"iptables-{mode} -t nat -I {rule.replace(' ', ' 1 ', 1)}")
        return f"iptables-{mode} -t nat -D {rule}"

    def deleted(pick: random.Random) -> str:
        table = sh(f"iptables-{mode}-save -t nat")
        rules = [line for line in table.splitlines() if line.startswith("-A KUBE-SEP")]
        rule = pick.choice([rules[-1], *(line for line in rules if "DNAT" in line)])
        sh(f"iptables-{mode} -t nat {rule.replace('-A', '-D', 1)}")
        (folder / "undo").write_text(table)
        return f"iptables-{mode}-restore < {folder}/undo"

    return [inserted, deleted]


def others(mode: str) -> list[Change]:
    """Return changes of other programs' rules."""
    if mode == "nftables":
        return [
            lambda pick: sh(f"nft add table ip other{pick.randrange(1000)}"),
            lambda pick: sh(f"nft add table inet o{pick.randrange(99)} '{{ chain c {{ tcp dport 1 accept; }}; }}'"),
        ]
    return [
        lambda pick: sh(f"iptables-{mode} -t nat -N OTHER-{pick.randrange(10**6)}"),
        lambda pick: sh(f"iptables-{mode} -t nat -A PREROUTING -s 192.0.2.{pick.randrange(1, 255)} -j ACCEPT"),
        lambda pick: sh(f"ip6tables-{mode} -A INPUT -p tcp --dport {pick.randrange(1, 65536)} -j ACCEPT"),
    ]


def test_a_saved_plan_is_applied_as_shown_and_refused_after_a_change_of_ours(node, mode):
    saved_node.seeded(node, SNAPSHOT[mode], own(mode, node.folder))


def test_changes_of_others_do_not_matter(node, mode):
    saved_node.foreign(node, others(mode))


def test_stale_flows_are_looked_up_again(node):
    saved_node.of_flows(node)
