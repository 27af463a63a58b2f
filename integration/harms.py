"""What other programs do to the rules of a node that is soaked, by mode."""

from __future__ import annotations

import random
import re
import subprocess
from collections.abc import Mapping

from integration.agent import Node, tool


class IptablesHarms:
    """What others do to the rules of iptables."""

    def __init__(self, node: Node) -> None:
        self._rules = node.rules

    def everything(self) -> list[str]:
        """Return all that is ours."""
        return sorted(self._rules.everything())

    def damage(self, chance: random.Random) -> bool:
        """Damage what belongs to a Service that nobody asks, or a chain of all; return whether it could be done."""
        lines = self._rules.lines()
        chains = sorted({line.split()[1] for line in lines if line.startswith("-A KUBE-S") and "lab/other-" in line})
        own = [name for name in chains if name.startswith(("KUBE-SVC-", "KUBE-SEP-"))]
        if own and chance.random() < 0.6:
            self._rules.change("-t", "nat", "-F", chance.choice(own))
        else:
            self._rules.change("-t", "nat", "-A", "KUBE-MARK-MASQ", "-j", "RETURN")
        return True

    def flush(self) -> None:
        """Flush all rules of nat."""
        for family in (4, 6):
            self._rules.change("-t", "nat", "-F", family=family)


class NftablesHarms:
    """What others do to a table of nftables, which the kernel protects while an agent runs."""

    CHANGES = (
        "add rule ip rulegen masquerading return",
        "add chain ip6 rulegen stranger",
        "add element ip rulegen service-nodeports { tcp . 31999 : drop }",
    )

    def __init__(self, node: Node) -> None:
        assert node.mode == "nftables"

    @staticmethod
    def everything() -> list[str]:
        """Return all that is ours, in any order."""
        return sorted(re.split(r"[,\s]+", tool("nft", "-s", "list", "ruleset")))

    @staticmethod
    def damage(chance: random.Random) -> bool:
        """Change what harms nobody; return whether the kernel has let it happen."""
        change = chance.choice(NftablesHarms.CHANGES)
        return subprocess.run(["nft", change], capture_output=True, check=False).returncode == 0

    @staticmethod
    def flush() -> None:
        """Flush all rules; those in a protected table stay."""
        tool("nft", "flush", "ruleset")


Harms = IptablesHarms | NftablesHarms
HARMS: Mapping[str, type[Harms]] = {"iptables": IptablesHarms, "nftables": NftablesHarms}
"""By mode."""
