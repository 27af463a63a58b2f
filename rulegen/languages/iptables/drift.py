"""Drift of rules: changes that other programs made, as opposed to changes that objects or options require.

There is no record of written rules, so a change counts as drift only if no other cause is possible. A rule is *foreign*
if neither rulegen nor kube-proxy writes such a rule to this chain with any options. A rule is *missing* if the other
rules show that it existed: a chain of a Service without a jump to it, or a chain with a part missing and nothing in
its place. A change that an option or object could have caused is no drift. A node where this mode was never active has
no drift.
"""

from __future__ import annotations

import re
from collections import defaultdict
from functools import cached_property
from typing import TYPE_CHECKING, Final

from rulegen.diff.items import Drift
from rulegen.languages.iptables.ruleset import ChainName, is_unreadable, target
from rulegen.languages.iptables.state import BlockKey, BlockValue, ChainKey, ChainPosition, ChainValue

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from rulegen.diff.changes import Change
    from rulegen.languages.iptables.rules import Rule
    from rulegen.languages.iptables.state import Key, Layout, Objects, Value

_FRONTEND: Final = re.compile(r"(?:-d \S+ )?(?:! -[si] \S+ )?(?:-d \S+ )?-p \S+ .*?--dport \d+")
_OF_A_SERVICE: Final = re.compile(r"(?:-d \S+ )|(?:-p \S+ )|(?:-m (?:tcp|udp|sctp) --dport \d+ )")
_TO: Final = re.compile(r"-d (\S+) (?:! -i \S+ )?-p (\S+) .*?--dport (\d+)")
_SET: Final = re.compile(r"--match-set (\S+)")
_COUNTER: Final = "--nfacct-name"


class RuleDrift:
    """Decides which changes of one family's rules repair drift."""

    def __init__(
        self,
        changes: Iterable[Change[Key, Value]],
        observed: Objects,
        desired: Objects,
        layout: Layout,
        filled: Collection[str],
    ) -> None:
        """Take the result of a comparison.

        Args:
            changes: All changes of the family.
            observed: Our objects in the kernel.
            desired: The wanted objects.
            layout: Decides which chains and rules are ours.
            filled: The names of the sets that have entries in the kernel.
        """
        self._changes, self._observed, self._desired = tuple(changes), observed, desired
        self._layout, self._filled = layout, filled

    def of(self, change: Change[Key, Value]) -> Drift | None:
        """Return the drift that a change repairs; None if there is none, or if another cause is possible."""
        if change.before is None:
            return self._of_absent(change)
        key, old, new = change.key, rules_of(change.before), rules_of(change.after)
        wanted = {rule.spec for rule in new}
        surplus = [rule for rule in old if rule.spec not in wanted]
        if any(self.is_foreign(key, rule) for rule in surplus) or self._is_added(change, surplus):
            return Drift.FOREIGN
        if surplus or not self._has_ruled:
            return None
        left = {rule.spec for rule in old}
        missing = [rule for rule in new if rule.spec not in left]
        if not missing:  # the same rules, but in another order, another place, or another number
            return Drift.FOREIGN if self._is_by_hand(change) else None
        return self._of_missing(key, missing)

    def _of_absent(self, change: Change[Key, Value]) -> Drift | None:
        """Return the drift if a wanted object is absent."""
        if not self._has_ruled:
            return None
        if isinstance(change.key, ChainKey):
            return Drift.MISSING if self._is_missed(change.key) else None
        return self._of_missing(change.key, rules_of(change.after))

    def _of_missing(self, key: Key, missing: Sequence[Rule]) -> Drift | None:
        """Return the drift if wanted rules are missing from an object."""
        certain = [rule for rule in missing if not self._is_optional(key, rule)]
        return Drift.MISSING if certain and all(self._was_there(key, rule) for rule in certain) else None

    def is_foreign(self, key: Key, rule: Rule) -> bool:
        """Whether a rule jumps to no chain of ours and is none that rulegen or kube-proxy would write there."""
        if is_unreadable(rule) or self._layout.kind(ChainName(key.name.table, target(rule))) is not None:
            return False
        shape = self._layout.shape(key.name)
        if shape is not None and shape.fullmatch(rule.spec):
            return not self._leads_where_wanted(key, rule)
        return key in self._desired or key.name in self._layout.chains

    def _is_added(self, change: Change[Key, Value], surplus: Sequence[Rule]) -> bool:
        """Whether a chain has all wanted rules, and another verdict that depends on no option and no set.

        Only after this mode was active: other modes write their own verdicts to chains that the modes share.
        """
        if not self._has_ruled:
            return False
        if not isinstance(change.key, ChainKey) or change.before is None or change.after is None:
            return False
        if {rule.spec for rule in rules_of(change.after)} - {rule.spec for rule in rules_of(change.before)}:
            return False
        optional = (*self._layout.optional_rules, _SET)
        return any(
            self._layout.kind(ChainName(change.key.name.table, target(rule))) is None
            and not is_unreadable(rule)
            and not any(pattern.search(rule.spec) for pattern in optional)
            for rule in surplus
        )

    def _leads_where_wanted(self, key: Key, rule: Rule) -> bool:
        """Whether a DNAT rule leads to the endpoint of its chain; true for all other rules."""
        value = self._desired.get(key)
        if target(rule) != "DNAT" or not isinstance(value, ChainValue):
            return True
        to = rule.spec.partition(" -j ")[2]
        return any(wants.spec.endswith(f" -j {to}") for wants in value.rules)

    @cached_property
    def _has_ruled(self) -> bool:
        """Whether this mode was active: chains that only a proxy creates exist, and none of another mode."""
        names = {key.name for key in self._observed if isinstance(key, ChainKey)}
        return bool(names & self._layout.proof) and not names & self._layout.others

    @cached_property
    def _users(self) -> Mapping[ChainName, set[ChainName]]:
        """By chain, the chains that jump to it in the kernel."""
        users: dict[ChainName, set[ChainName]] = defaultdict(set)
        for key, value in self._observed.items():
            for rule in rules_of(value):
                users[ChainName(key.name.table, target(rule))].add(key.name)
        return users

    @cached_property
    def _frontends(self) -> set[tuple[str | None, ...]]:
        """Each target of a rule in a dispatch chain, with the address, protocol and port that the rule matches."""
        return {
            (target(rule), *to.groups())
            for key, value in self._observed.items()
            if isinstance(key, BlockKey)
            for rule in rules_of(value)
            if (to := _TO.search(rule.spec))
        }

    @cached_property
    def _forms(self) -> Mapping[tuple[str, str], set[ChainName]]:
        """By table and by rule text without address, protocol and port: the chains that have such a rule."""
        forms: dict[tuple[str, str], set[ChainName]] = defaultdict(set)
        for key, value in self._observed.items():
            for rule in rules_of(value):
                forms[key.name.table, _OF_A_SERVICE.sub("", rule.spec)].add(key.name)
        return forms

    @cached_property
    def _gone(self) -> set[tuple[str, ChainName | str]]:
        """The targets and the frontends of the dispatch rules that the changes remove."""
        gone: set[tuple[str, ChainName | str]] = set()
        for change in self._changes:
            if isinstance(change.key, BlockKey) and change.after is None:
                for rule in rules_of(change.before):
                    gone.add((str(change.key.name), ChainName(change.key.name.table, target(rule))))
                    gone.add(("", _frontend(rule)))
        return gone

    def _is_missed(self, key: ChainKey) -> bool:
        """Whether an absent chain existed before: chains of ours jump to it, or the node always has it."""
        if key.name in self._layout.chains:
            return key.name not in self._layout.optional
        return key.name in self._users

    def _is_optional(self, key: Key, rule: Rule) -> bool:
        """Whether the rule depends on an option or on filled sets, and no similar rule shows that it existed."""
        looked_into = _SET.search(rule.spec)
        if looked_into:
            return looked_into[1] not in self._filled
        if _COUNTER in rule.spec and not self._counts:
            return True
        optional = self._layout.optional_rules
        if not any(pattern.fullmatch(rule.spec) for pattern in optional):
            return False
        return not self._forms.get((key.name.table, _OF_A_SERVICE.sub("", rule.spec)), set()) - {key.name}

    @cached_property
    def _counts(self) -> bool:
        return any(_COUNTER in rule.spec for value in self._observed.values() for rule in rules_of(value))

    def _was_there(self, key: Key, rule: Rule) -> bool:
        """Whether other rules show that a missing rule existed."""
        name = ChainName(key.name.table, target(rule))
        kind = self._layout.kind(name)
        if kind is None:  # a verdict: it belongs to a chain that exists
            return isinstance(key, ChainKey) and key in self._observed
        chain = ChainKey(name)
        if chain not in self._observed or chain not in self._desired:
            return False
        users = self._users.get(name, set())
        if isinstance(key, ChainKey):
            if (to := _TO.search(rule.spec)) and (key.name.chain, *to.groups()) not in self._frontends:
                return False  # the frontend had another target, such as under an earlier internal traffic policy
            is_fixed = name in self._layout.chains
            return not users or ((is_fixed or users <= {key.name}) and self._observed[chain] == self._desired[chain])
        if self._has_half(key):  # counters were on, and the rules that lead here are unchanged
            return self._counts and not any(self._is_led_otherwise(key.name, change) for change in self._changes)
        if (str(key.name), name) in self._gone or ("", _frontend(rule)) in self._gone:
            return False  # another rule stood in its place, as an option or a policy required
        return not users or self._layout.leads_always(key.name, name)

    def _has_half(self, key: BlockKey) -> bool:
        """Whether only one rule of a pair exists."""
        return len(key.specs) > 1 and any(BlockKey(key.name, (spec,)) in self._observed for spec in key.specs)

    def _is_by_hand(self, change: Change[Key, Value]) -> bool:
        """Whether only another program can have moved or repeated rules that are wanted.

        A surplus copy may also be that of a deleted Service which wanted the same rule with its own comment.
        """
        before, after = change.before, change.after
        if not isinstance(before, BlockValue) or not isinstance(after, BlockValue):
            return before is not None and after is not None and self._unlisted(before) != self._unlisted(after)
        if before.place is not after.place or after.place is not ChainPosition.BODY:
            return True
        comments = [tuple(rule.comment for rule in copy) for copy in before.copies]
        return len(before.copies) > len(after.copies) and any(map(any, comments)) and len(set(comments)) < len(comments)

    def _unlisted(self, value: Value) -> list[str]:
        """Return the rules whose order and number no object decides."""
        listed = self._layout.listed_rules
        return [rule.spec for rule in rules_of(value) if not any(pattern.fullmatch(rule.spec) for pattern in listed)]

    @staticmethod
    def _is_led_otherwise(name: ChainName, change: Change[Key, Value]) -> bool:
        """Whether a change concerns a rule that jumps to the chain."""
        rules = (*rules_of(change.before), *rules_of(change.after))
        return any(ChainName(change.key.name.table, target(rule)) == name for rule in rules)


def rules_of(value: Value | None) -> tuple[Rule, ...]:
    """Return the rules of a chain, or of all copies of a block; none for None."""
    if isinstance(value, ChainValue):
        return value.rules
    return tuple(rule for copy in value.copies for rule in copy) if isinstance(value, BlockValue) else ()


def _frontend(rule: Rule) -> str:
    """Return the part of a rule that matches its frontend; the whole text if it matches none."""
    match = _FRONTEND.match(rule.spec)
    return match[0] if match else rule.spec
