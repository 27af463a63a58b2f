"""Rules that a kernel parameter must not be without, and which of the two goes first.

`route_localnet` lets packets to 127.0.0.0/8 in from the network; a rule of KUBE-FIREWALL drops those that no connection
of ours has brought (CVE-2020-8558). Whoever opens the prefix writes the rule before; whoever takes the rule away closes
the prefix before. Where it cannot be closed, or others rely on it, the rule stays.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from rulegen.diff.changes import Change
from rulegen.languages.iptables.ruleset import ChainName, target
from rulegen.languages.iptables.state import BlockKey, BlockValue, ChainKey, ChainValue
from rulegen.model.services.node.context import ROUTE_LOCALNET
from rulegen.net import Family
from rulegen.ownership import chains

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rulegen.languages.iptables.ruleset import Ruleset
    from rulegen.languages.iptables.state import Key, Value
    from rulegen.model.host.facts import HostFacts

FIREWALL: Final = chains.filter_(chains.FIREWALL)
_INPUT: Final = ChainName("filter", "INPUT")
_DROP: Final = chains.martian_drop(Family.IPV4).spec


@dataclass(frozen=True, slots=True)
class LoopbackDecision:
    """What happens to the loopback prefix and its guard where a plan would take the guard away.

    Attributes:
        closing: The change of the parameter, to be made before the rules; None where it stays as it is.
        keeps_guard: Whether the guard must stay.
        note: What stays, and why, for people; empty where nothing stays that is open.
    """

    closing: Change[str, str] | None = None
    keeps_guard: bool = False
    note: str = ""


def is_guarded(ruleset: Ruleset | None) -> bool:
    """Return whether neighbours cannot reach the loopback addresses, whoever wrote the rules; None has no rules."""
    if ruleset is None or FIREWALL not in ruleset.chains or _INPUT not in ruleset.chains:
        return False
    leads = any(target(rule) == FIREWALL.chain for rule in ruleset.chains[_INPUT].rules)
    return leads and any(rule.spec == _DROP for rule in ruleset.chains[FIREWALL].rules)


def takes_guard(changes: Iterable[Change[Key, Value]]) -> bool:
    """Return whether changes of IPv4's rules take away the guard, the chain that it is in, or what leads there."""
    return any(_takes(change) for change in changes)


def _takes(change: Change[Key, Value]) -> bool:
    key, before, after = change
    if before is None or not isinstance(key, ChainKey | BlockKey):
        return False
    if isinstance(key, ChainKey):
        if key.name != FIREWALL:
            return False
        # kept, empty, as others' rules lead there: the guard is gone all the same
        return not isinstance(after, ChainValue) or (
            isinstance(before, ChainValue)
            and bool(before.rules)
            and not any(rule.spec == _DROP for rule in after.rules)
        )
    is_of_guard = (key.name == FIREWALL and _DROP in key.specs) or (
        key.name == _INPUT and any(spec.endswith(f"-j {FIREWALL.chain}") for spec in key.specs)
    )
    return is_of_guard and not (isinstance(after, BlockValue) and after.copies)


def decide(facts: HostFacts, *, is_wanted: bool, goes: bool, stays: bool, guarded_beside: bool) -> LoopbackDecision:
    """Return what becomes of an open loopback prefix.

    Args:
        facts: The parameters as they are, and which of them cannot be set here.
        is_wanted: Whether node ports are to answer on 127.0.0.1: then nothing is to be closed.
        goes: Whether the plan takes our guard away.
        stays: Whether a kubelet has put a guard there that the plan leaves alone.
        guarded_beside: Whether a guard is in the other variant of iptables and stays there.
    """
    value = facts.sysctls.get(ROUTE_LOCALNET, "0")
    if is_wanted or value == "0" or not (goes or stays):
        return LoopbackDecision()
    whole = f"{ROUTE_LOCALNET} = {value} and the rule of {FIREWALL.chain} that protects it stay"
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
