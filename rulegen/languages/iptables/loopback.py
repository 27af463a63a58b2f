"""The rule that drops packets from outside to 127.0.0.0/8, which `route_localnet` would accept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from rulegen.languages.iptables.ruleset import ChainName, Ruleset, target
from rulegen.languages.iptables.state import BlockValue, ChainKey, ChainValue

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rulegen.diff.changes import Change
    from rulegen.languages.iptables.state import Key, Value

_INPUT: Final = ChainName("filter", "INPUT")


class LoopbackGuard(msgspec.Struct, frozen=True):
    """A rule that drops packets from outside to the loopback prefix; INPUT jumps to its chain.

    Attributes:
        chain: The chain of the rule, in the table filter.
        spec: The rule, without its comment.
    """

    chain: ChainName
    spec: str

    def is_in(self, ruleset: Ruleset) -> bool:
        """Return whether a ruleset has the rule and the jump to its chain, whoever wrote them."""
        if self.chain not in ruleset.chains or _INPUT not in ruleset.chains:
            return False
        leads = any(target(rule) == self.chain.chain for rule in ruleset.chains[_INPUT].rules)
        return leads and any(rule.spec == self.spec for rule in ruleset.chains[self.chain].rules)

    def is_taken_by(self, changes: Iterable[Change[Key, Value]]) -> bool:
        """Return whether IPv4 changes remove the rule, its chain, or the jump to its chain."""
        return any(self._takes(change) for change in changes)

    def _takes(self, change: Change[Key, Value]) -> bool:
        key, before, after = change
        if before is None:
            return False
        if isinstance(key, ChainKey):
            if key.name != self.chain:
                return False
            # the chain stays empty because foreign rules jump to it: the rule is gone nevertheless
            return not isinstance(after, ChainValue) or (
                isinstance(before, ChainValue)
                and bool(before.rules)
                and not any(rule.spec == self.spec for rule in after.rules)
            )
        is_of_guard = (key.name == self.chain and self.spec in key.specs) or (
            key.name == _INPUT and any(spec.endswith(f"-j {self.chain.chain}") for spec in key.specs)
        )
        return is_of_guard and not (isinstance(after, BlockValue) and after.copies)
