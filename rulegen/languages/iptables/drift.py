"""Drift of rules: what others did to the node, told apart from what objects or options ask for.

There is no record of what was written, so only what is certain counts. A rule that neither rulegen nor kube-proxy
writes in a chain, whatever the options, is *foreign*. A rule is *missing* where what is there shows that it was there:
a chain of a Service that nothing leads to any more, part of a chain without anything in its place. What a changed
option or object may have caused as well is no drift, and nothing is on a node where this mode has not ruled.
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
    """Tells drift of one family's rules."""

    def __init__(
        self,
        changes: Iterable[Change[Key, Value]],
        observed: Objects,
        desired: Objects,
        layout: Layout,
        filled: Collection[str],
    ) -> None:
        """Take all that changes.

        Args:
            changes: Of the family.
            observed: Our objects as they are.
            desired: Our objects as they should be.
            layout: What of the rules is ours.
            filled: The sets that have entries now.
        """
        self._changes, self._observed, self._desired = tuple(changes), observed, desired
        self._layout, self._filled = layout, filled

    def of(self, change: Change[Key, Value]) -> Drift | None:
        """Return what drift a change undoes; None if it is none, or where that cannot be known."""
        if change.before is None:
            return self._of_absent(change)
        key, old, new = change.key, rules_of(change.before), rules_of(change.after)
        wanted = {rule.spec for rule in new}
        surplus = [rule for rule in old if rule.spec not in wanted]
        if any(self.is_foreign(key, rule) for rule in surplus) or self._is_added(change, surplus):
            return Drift.FOREIGN
        if surplus or not self._has_ruled or (change.after is None and not old):
            return None
        left = {rule.spec for rule in old}
        missing = [rule for rule in new if rule.spec not in left]
        if not missing:  # the same rules, but in another order, another place, or another number
            return Drift.FOREIGN if self._is_by_hand(change) else None
        return self._of_missing(key, missing)

    def _of_absent(self, change: Change[Key, Value]) -> Drift | None:
        """Return what drift it is that an object is not there."""
        if not self._has_ruled:
            return None
        if isinstance(change.key, ChainKey):
            return Drift.MISSING if self._is_missed(change.key) else None
        return self._of_missing(change.key, rules_of(change.after))

    def _of_missing(self, key: Key, missing: Sequence[Rule]) -> Drift | None:
        """Return what drift it is that rules lack."""
        certain = [rule for rule in missing if not self._is_optional(key, rule)]
        return Drift.MISSING if certain and all(self._was_there(key, rule) for rule in certain) else None

    def is_foreign(self, key: Key, rule: Rule) -> bool:
        """Whether neither rulegen nor kube-proxy puts such a rule there: it goes to no chain of ours."""
        if is_unreadable(rule) or self._layout.kind(ChainName(key.name.table, target(rule))) is not None:
            return False
        shape = self._layout.shape(key.name)
        if shape is not None and shape.fullmatch(rule.spec):
            return not self._leads_where_wanted(key, rule)
        return key in self._desired or key.name in self._layout.chains

    def _is_added(self, change: Change[Key, Value], surplus: Sequence[Rule]) -> bool:
        """Whether a chain has all that it should, and a verdict besides that no option and no set decides about.

        Another mode writes verdicts of its own into the chains that the modes share, so this mode must have ruled.
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
        """Whether a rewriting rule goes to the endpoint that its chain is named by; true of any other rule."""
        value = self._desired.get(key)
        if target(rule) != "DNAT" or not isinstance(value, ChainValue):
            return True
        to = rule.spec.partition(" -j ")[2]
        return any(wants.spec.endswith(f" -j {to}") for wants in value.rules)

    @cached_property
    def _has_ruled(self) -> bool:
        """Whether this mode has ruled here: chains that only a proxy makes are there, and none of another mode."""
        names = {key.name for key in self._observed if isinstance(key, ChainKey)}
        return bool(names & self._layout.proof) and not names & self._layout.others

    @cached_property
    def _users(self) -> Mapping[ChainName, set[ChainName]]:
        """For each chain those that jump to it now."""
        users: dict[ChainName, set[ChainName]] = defaultdict(set)
        for key, value in self._observed.items():
            for rule in rules_of(value):
                users[ChainName(key.name.table, target(rule))].add(key.name)
        return users

    @cached_property
    def _frontends(self) -> set[tuple[str | None, ...]]:
        """Each chain that rules of dispatch chains lead to now, with the address, protocol and port of the rule."""
        return {
            (target(rule), *to.groups())
            for key, value in self._observed.items()
            if isinstance(key, BlockKey)
            for rule in rules_of(value)
            if (to := _TO.search(rule.spec))
        }

    @cached_property
    def _forms(self) -> Mapping[tuple[str, str], set[ChainName]]:
        """By table, for each rule that is there, less what tells one Service from another: in which chains it is."""
        forms: dict[tuple[str, str], set[ChainName]] = defaultdict(set)
        for key, value in self._observed.items():
            for rule in rules_of(value):
                forms[key.name.table, _OF_A_SERVICE.sub("", rule.spec)].add(key.name)
        return forms

    @cached_property
    def _gone(self) -> set[tuple[str, ChainName | str]]:
        """What rules of dispatch chains that go had to do with: by table where they led, and which frontend."""
        gone: set[tuple[str, ChainName | str]] = set()
        for change in self._changes:
            if isinstance(change.key, BlockKey) and change.after is None:
                for rule in rules_of(change.before):
                    gone.add((str(change.key.name), ChainName(change.key.name.table, target(rule))))
                    gone.add(("", _frontend(rule)))
        return gone

    def _is_missed(self, key: ChainKey) -> bool:
        """Whether a chain is gone that others of ours jump to, or that stands with the node's others."""
        if key.name in self._layout.chains:
            return key.name not in self._layout.optional
        return key.name in self._users

    def _is_optional(self, key: Key, rule: Rule) -> bool:
        """Whether an option decides about the rule, or which sets are filled, and nothing shows that it was there."""
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
        """Whether what is there shows that a rule which lacks was there."""
        name = ChainName(key.name.table, target(rule))
        kind = self._layout.kind(name)
        if kind is None:  # a verdict: it is part of a chain that is there
            return isinstance(key, ChainKey) and key in self._observed
        chain = ChainKey(name)
        if chain not in self._observed or chain not in self._desired:
            return False
        users = self._users.get(name, set())
        if isinstance(key, ChainKey):
            if (to := _TO.search(rule.spec)) and (key.name.chain, *to.groups()) not in self._frontends:
                return False  # the frontend led elsewhere, as an internal traffic policy of before asked for
            is_fixed = name in self._layout.chains
            return not users or ((is_fixed or users <= {key.name}) and self._observed[chain] == self._desired[chain])
        if self._has_half(key):  # counters were on, and what leads here is as it was
            return self._counts and not any(self._is_led_otherwise(key.name, change) for change in self._changes)
        if (str(key.name), name) in self._gone or ("", _frontend(rule)) in self._gone:
            return False  # another rule stood in its place, as an option or a policy asked for
        return not users or self._layout.leads_always(key.name, name)

    def _has_half(self, key: BlockKey) -> bool:
        """Whether of a pair of rules one is there without the other."""
        return len(key.specs) > 1 and any(BlockKey(key.name, (spec,)) in self._observed for spec in key.specs)

    def _is_by_hand(self, change: Change[Key, Value]) -> bool:
        """Whether nobody but others can have put rules that are wanted otherwise, or too often.

        Two Services may want the same rule, each with a comment of its own, and one of them may be gone.
        """
        before, after = change.before, change.after
        if not isinstance(before, BlockValue) or not isinstance(after, BlockValue):
            return before is not None and after is not None and self._unlisted(before) != self._unlisted(after)
        if before.place is not after.place or after.place is not ChainPosition.BODY:
            return True
        comments = [tuple(rule.comment for rule in copy) for copy in before.copies]
        return len(before.copies) > len(after.copies) and any(map(any, comments)) and len(set(comments)) < len(comments)

    def _unlisted(self, value: Value) -> list[str]:
        """Return the rules but those of which an object decides in which order and how often they stand there."""
        listed = self._layout.listed_rules
        return [rule.spec for rule in rules_of(value) if not any(pattern.fullmatch(rule.spec) for pattern in listed)]

    @staticmethod
    def _is_led_otherwise(name: ChainName, change: Change[Key, Value]) -> bool:
        """Whether a change is one of the rules that lead to a chain."""
        rules = (*rules_of(change.before), *rules_of(change.after))
        return any(ChainName(change.key.name.table, target(rule)) == name for rule in rules)


def rules_of(value: Value | None) -> tuple[Rule, ...]:
    """Return the rules of an object, those of each copy."""
    if isinstance(value, ChainValue):
        return value.rules
    return tuple(rule for copy in value.copies for rule in copy) if isinstance(value, BlockValue) else ()


def _frontend(rule: Rule) -> str:
    """Return what a rule matches of a frontend; empty-handed rules are told by all of their text."""
    match = _FRONTEND.match(rule.spec)
    return match[0] if match else rule.spec
