"""Rules of a Service proxy in the iptables variant that is not used: the kernel applies both."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rulegen.languages.iptables.ruleset import ChainName, target
from rulegen.ownership import chains

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rulegen.languages.iptables.ruleset import Ruleset
    from rulegen.net import Family


def beside_warning(beside: Mapping[Family, Ruleset], variant: str) -> str:
    """Return a warning if the other iptables variant has rules of a proxy; empty if it has none.

    Args:
        beside: The rules of the other variant.
        variant: The variant that rules are written in: `nft` or `legacy`.
    """
    rules = sum(
        chains.is_proxys(name) or chains.is_proxys(ChainName(name.table, target(rule)))
        for ruleset in beside.values()
        for name, rule in ruleset.rules()
    )
    if not rules:
        return ""
    other = "legacy" if variant == "nft" else "nft"
    return (
        f"iptables-{other} has {rules} rules of a Service proxy besides those in iptables-{variant}, and the kernel"
        f" applies both: stop that proxy, then remove its rules with `rulegen cleanup --variant {other}`"
    )
