"""The modes of Services in a sequence of faults: one row for each."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from integration import forks
from integration.agent import Node, tool
from integration.harms import HARMS, NftablesHarms
from integration.manifests import PORT

if TYPE_CHECKING:
    from random import Random

    from integration.lab.hosts import Family
    from integration.manifests import App

BOTH = frozenset({"IPv4", "IPv6"})
IPTABLES = {
    "iptables-nft-restore": frozenset({"IPv4"}),
    "iptables-nft-save": frozenset({"IPv4"}),
    "ip6tables-nft-restore": frozenset({"IPv6"}),
    "ip6tables-nft-save": frozenset({"IPv6"}),
}


class NftablesNode(Node):
    """A node in nftables mode."""

    mode = "nftables"

    def argv(self, verb: str, *more: str) -> list[str]:
        """Return a command line that leaves the choice of iptables to rulegen: there may be none."""
        argv = super().argv(verb, *more)
        number = argv.index("--variant")
        return argv[:number] + argv[number + 2 :]


@dataclass(frozen=True)
class ServiceMode:
    """A mode of Services.

    Attributes:
        node: Makes a node.
        tools: The parts that each tool harms if it is broken.
        needed: The tools without which an agent that starts writes nothing.
        sent: Returns the addresses of the endpoints that TCP of an App is sent to in a family, or the rules for them.
        damage: Does what others do to rules, which nobody asks for at that moment.
        wipe: Removes all rules.
        fields: Fields of the configuration.
    """

    node: type[Node]
    tools: Mapping[str, frozenset[str]]
    needed: frozenset[str]
    sent: Callable[[Node, App, Family], set[str]]
    damage: Callable[[Node, Random], object]
    wipe: Callable[[Node], None]
    fields: Mapping[str, object] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.node.mode

    def everything(self, node: Node) -> list[str]:
        """Return all rules."""
        return HARMS[self.name](node).everything()

    def broken_at_start(self, broken: list[str]) -> frozenset[str]:
        """Return the parts that an agent which starts now may not write before broken tools work."""
        return BOTH if self.needed & set(broken) else frozenset()


def _by_rules(node: Node, app: App, family: Family) -> set[str]:
    lines = node.rules.lines(family=family)
    return {line for line in lines if f"lab/{app.name}:tcp" in line and "DNAT" in line}


def _by_elements(_: Node, app: App, family: Family) -> set[str]:
    listed = tool("nft", "list", "table", "ip" if family == 4 else "ip6", "rulegen")
    key = re.escape(f"{app.cluster_ip(family)} . tcp . {PORT} . ")
    return set(re.findall(rf"{key}0x[0-9a-f]+ : (\S+) \. ", listed))


def _damage_rules(node: Node, chance: Random) -> None:
    """Flush chains of a Service that nobody asks, and add to a chain of all."""
    family = chance.choice((4, 6))
    lines = node.rules.lines(family=family)
    chains = sorted({line.split()[1] for line in lines if line.startswith("-A KUBE-S") and "lab/other" in line})
    own = [name for name in chains if name.startswith(("KUBE-SVC-", "KUBE-SEP-"))]
    if own:
        node.rules.change("-t", "nat", "-F", chance.choice(own), family=family)
    node.rules.change("-t", "nat", "-A", "KUBE-MARK-MASQ", "-j", "RETURN", family=family)


def _wipe_rules(node: Node) -> None:
    for family, table in ((family, table) for family in (4, 6) for table in ("nat", "filter", "mangle")):
        node.rules.change("-t", table, "-F", family=family)
        node.rules.change("-t", table, "-X", family=family)


def _wipe_tables(node: Node) -> None:
    """Only rulegen may delete a table that the kernel protects."""
    done = forks.run([*node.argv("cleanup")[:6], "-y"])
    assert done.returncode == 0, done.stdout + done.stderr
    tool("nft", "flush", "ruleset")


MODES = (
    ServiceMode(
        node=Node,
        tools={**IPTABLES, "conntrack": BOTH},
        needed=frozenset({"iptables-nft-save"}),
        sent=_by_rules,
        damage=_damage_rules,
        wipe=_wipe_rules,
    ),
    ServiceMode(
        node=NftablesNode,
        tools={"nft": BOTH, **dict.fromkeys(IPTABLES, frozenset()), "conntrack": BOTH},
        needed=frozenset({"iptables-nft-save", "ip6tables-nft-save", "nft"}),
        sent=_by_elements,
        damage=lambda _, chance: NftablesHarms.damage(chance),
        wipe=_wipe_tables,
        fields={"nodePortAddresses": ["0.0.0.0/0", "::/0"], "nftables": {"minSyncPeriod": "0s", "syncPeriod": "30s"}},
    ),
)


def drawn(layout: int, seed: int) -> ServiceMode:
    """Return the mode for a sequence: each layout gets another one, and each second seed the next one."""
    return MODES[(layout + seed // 2) % len(MODES)]
