"""Saved plans on a real kernel, in a network namespace: iptables of both variants, and both layouts of nftables."""

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
MODES = ["nft", "legacy", "kube-proxy", "flat"]
TABLES = {"kube-proxy": "kube-proxy", "flat": "rulegen"}
"""The tables of the layouts of nftables mode."""
SNAPSHOT = {
    "nft": "iptables-nft-save | grep '^[-:]'",
    "legacy": "iptables-legacy-save | grep -o '^-.*'",
    **dict.fromkeys(TABLES, "nft -s list ruleset"),
}


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def node(mode, tmp_path, capsys) -> SavedNode:
    words = ("--mode", "nftables", "--nftables-layout", mode) if mode in TABLES else ("--variant", mode)
    return SavedNode(tmp_path, capsys, *words)


def own_of_table(table: str) -> list[Change]:
    """Return changes of a table of Services: a rule that is added, an element that is removed."""

    def added(pick: random.Random) -> str:
        chains = [line.split()[1] for line in sh(f"nft list table ip {table}").splitlines() if "chain " in line]
        chain = pick.choice([name for name in chains if name.startswith(("service-", "cluster/"))])
        sh(f"nft insert rule ip {table} '{chain}' ip saddr 192.0.2.{pick.randrange(1, 255)} drop")
        handle = sh(f"nft -a list chain ip {table} '{chain}' | grep 192.0.2 | grep -o 'handle [0-9]*'").strip()
        return f"nft delete rule ip {table} '{chain}' {handle}"

    def removed(pick: random.Random) -> str:
        maps = re.findall(
            r"map (service-ips\S*|endpoints\S*) \{[^{}]*elements = \{ ([^}]*?) \}", sh(f"nft list table ip {table}")
        )
        elements = [(name, " ".join(each.split())) for name, listed in maps for each in listed.split(",")]
        name, element = pick.choice(elements)
        sh(f"nft delete element ip {table} {name} '{{ {element.partition(' : ')[0]} }}'")
        return f"nft add element ip {table} {name} '{{ {element} }}'"

    return [added, removed]


def own(mode: str, folder: Path) -> list[Change]:
    """Return changes of rules of Services."""
    if mode in TABLES:
        return own_of_table(TABLES[mode])

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
    if mode in TABLES:
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
    saved_node.seeded(node, SNAPSHOT[mode], saved_node.rounds(own(mode, node.folder)))


def test_changes_of_others_do_not_matter(node, mode):
    saved_node.foreign(node, saved_node.rounds(others(mode)))


def test_stale_flows_are_looked_up_again(node):
    saved_node.of_flows(node)
