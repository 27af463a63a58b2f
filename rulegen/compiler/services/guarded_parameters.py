"""Kernel parameters that are dangerous without a rule, and the order of both.

`route_localnet` accepts packets to 127.0.0.0/8 from the network. A rule in KUBE-FIREWALL, or in the chain
`loopback-guard` of nftables mode, drops those that do not belong to an accepted connection (CVE-2020-8558). The
parameter is therefore set after the rule is written, and reset before the rule is removed. If it cannot be reset, or
other programs need it, the rule stays.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from rulegen.diff.changes import Change
from rulegen.model.services.node.context import ROUTE_LOCALNET
from rulegen.ownership import chains

if TYPE_CHECKING:
    from rulegen.model.host.facts import HostFacts


class LoopbackDecision(msgspec.Struct, frozen=True):
    """Result for the loopback prefix and its protecting rule if a plan would remove that rule.

    Attributes:
        closing: The change of the parameter, before the rules; None if it stays.
        keeps_guard: Whether the rule must stay.
        note: A note about what stays open, with the reason; empty if nothing does.
    """

    closing: Change[str, str] | None = None
    keeps_guard: bool = False
    note: str = ""


def decide(
    facts: HostFacts, *, is_wanted: bool, goes: bool, stays: bool, guarded_beside: bool, chain: str = ""
) -> LoopbackDecision:
    """Return what happens to an open loopback prefix.

    Args:
        facts: The current parameters, and which of them cannot be set here.
        is_wanted: Whether node ports must answer on 127.0.0.1: then nothing is closed.
        goes: Whether the plan removes rulegen's protecting rule.
        stays: Whether a kubelet has added a protecting rule that the plan keeps.
        guarded_beside: Whether the other iptables variant has a protecting rule that stays.
        chain: The chain of the protecting rule.
    """
    value = facts.sysctls.get(ROUTE_LOCALNET, "0")
    if is_wanted or value == "0" or not (goes or stays):
        return LoopbackDecision()
    whole = f"{ROUTE_LOCALNET} = {value} and the rule of {chain or chains.FIREWALL} that protects it stay"
    if stays:
        return LoopbackDecision(note=f"{whole}: a kubelet on this host shares them")
    if guarded_beside:
        return LoopbackDecision(
            note=f"{ROUTE_LOCALNET} = {value} stays: a proxy's rules in the other iptables variant protect it"
        )
    if ROUTE_LOCALNET in facts.fixed_sysctls:
        return LoopbackDecision(
            keeps_guard=True,
            note=f"{whole}: the parameter cannot be set to 0 here, and without the rule neighbours can reach 127.0.0.1",
        )
    return LoopbackDecision(closing=Change(ROUTE_LOCALNET, value, "0"))
