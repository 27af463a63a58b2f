"""The rule that keeps neighbours from the loopback prefix while `route_localnet` lets their packets in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from rulegen.languages.iptables.ruleset import ChainName, Ruleset, target
from rulegen.languages.iptables.state import BlockValue, ChainKey, ChainValue

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rulegen.diff.changes import Change
    from rulegen.languages.iptables.state import Key, Value

_INPUT: Final = ChainName("filter", "INPUT")


@dataclass(frozen=True, slots=True)
class LoopbackGuard:
    """A rule that drops what comes to the loopback prefix from outside; it takes effect by a jump from INPUT.

    Attributes:
        chain: Where the rule stands, in the table filter.
        spec: The rule, without its comment.
    """

    chain: ChainName
    spec: str

    def is_in(self, ruleset: Ruleset) -> bool:
        """Return whether neighbours cannot reach the loopback addresses, whoever wrote the rules."""
        if self.chain not in ruleset.chains or _INPUT not in ruleset.chains:
            return False
        leads = any(target(rule) == self.chain.chain for rule in ruleset.chains[_INPUT].rules)
        return leads and any(rule.spec == self.spec for rule in ruleset.chains[self.chain].rules)

    def is_taken_by(self, changes: Iterable[Change[Key, Value]]) -> bool:
        """Return whether changes of IPv4's rules take away the guard, the chain that it is in, or what leads there."""
        return any(self._takes(change) for change in changes)

    def _takes(self, change: Change[Key, Value]) -> bool:
        key, before, after = change
        if before is None:
            return False
        if isinstance(key, ChainKey):
            if key.name != self.chain:
                return False
            # kept, empty, as others' rules lead there: the guard is gone all the same
            return not isinstance(after, ChainValue) or (
                isinstance(before, ChainValue)
                and bool(before.rules)
                and not any(rule.spec == self.spec for rule in after.rules)
            )
        is_of_guard = (key.name == self.chain and self.spec in key.specs) or (
            key.name == _INPUT and any(spec.endswith(f"-j {self.chain.chain}") for spec in key.specs)
        )
        return is_of_guard and not (isinstance(after, BlockValue) and after.copies)
