"""Changes of iptables objects, told as items of a plan: for which Service, why, and whether it is drift."""

from __future__ import annotations

import re
from difflib import SequenceMatcher
from functools import cached_property
from typing import TYPE_CHECKING

from rulegen.languages.iptables.ruleset import ChainName, is_unreadable, target
from rulegen.languages.iptables.state import BlockKey, BlockValue, ChainKey, ChainValue, Place
from rulegen.plan.items import Action, Drift, Item, Line

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from rulegen.diff import Change
    from rulegen.languages.iptables.rules import Rule
    from rulegen.languages.iptables.state import Key, Layout, Objects, Value, Wanted
    from rulegen.net import Family

_OWNER = re.compile(r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?)(:|\s|\Z)")
_CONTEXT = 2


def items(
    family: Family, changes: Iterable[Change[Key, Value]], observed: Objects, desired: Wanted, layout: Layout
) -> Iterator[Item]:
    """Yield an item for each change of one family, in the order of the changes."""
    teller = _Teller(family, observed, desired, layout)
    return (teller.item(change) for change in changes)


class _Teller:
    def __init__(self, family: Family, observed: Objects, desired: Wanted, layout: Layout) -> None:
        self._family, self._observed, self._desired, self._layout = family, observed, desired, layout
        self._led_to = _led_to(observed)
        self._has_chains = any(isinstance(key, ChainKey) and key.name in layout.chains for key in observed)

    @cached_property
    def _users(self) -> Mapping[ChainName, list[ChainName]]:
        """For each chain those that jump to it; where nothing changes nobody asks."""
        return _users(self._observed)

    def item(self, change: Change[Key, Value]) -> Item:
        key = change.key
        action = Action.ADD if change.before is None else Action.DELETE if change.after is None else Action.CHANGE
        owner, is_leftover = self._owner(change)
        place = next((v.place for v in (change.after, change.before) if isinstance(v, BlockValue)), None)
        return Item(
            action=action,
            language="iptables",
            family=self._family.value,
            kind="chain" if isinstance(key, ChainKey) else "jump" if place is Place.HEAD else "rule",
            name=str(key.name),
            owner=owner,
            is_leftover=is_leftover,
            drift=self._drift(change),
            lines=tuple(_lines(change)),
            key=key,
        )

    def _owner(self, change: Change[Key, Value]) -> tuple[str, bool]:
        """Return the owner of what changes, and whether it is a leftover of nobody that is served here."""
        owner = self._desired.owners.get(change.key)
        if owner is not None:
            return owner, False
        rules = _rules(change.before)
        for chain in self._chains_near(change.key, rules):
            owner = self._desired.owners.get(ChainKey(chain))
            if owner:
                return owner, False
        if isinstance(change.key, ChainKey) and change.key.name in self._layout.chains:
            return "", False
        if isinstance(change.key, BlockKey) and all(self._is_foreign(change.key, rule) for rule in rules):
            return "", False
        told = next(filter(None, map(_told, rules)), "")
        if not told and isinstance(change.key, ChainKey):
            chains = (change.key.name, *self._chains_near(change.key, ()))
            told = next((self._led_to[chain] for chain in chains if chain in self._led_to), "")
        return told, True

    def _chains_near(self, key: Key, rules: Sequence[Rule]) -> Iterator[ChainName]:
        """Yield the chains that tell whose an object is: those it jumps to, then those that jump to it, and so on."""
        yield from (ChainName(key.name.table, target(rule)) for rule in rules)
        seen: set[ChainName] = set()
        front = [key.name] if isinstance(key, ChainKey) else []
        while front:
            users = [user for chain in front for user in self._users.get(chain, ()) if user not in seen]
            seen.update(users)
            yield from users
            front = users

    def _drift(self, change: Change[Key, Value]) -> Drift | None:
        """Tell what somebody did to the node from what a change of objects asks for."""
        if not self._observed:  # a node that has nothing of ours has nothing to drift
            return None
        key, old, new = change.key, _rules(change.before), _rules(change.after)
        kept = {rule.spec for rule in new}
        surplus = [rule for rule in old if rule.spec not in kept]
        if any(self._is_foreign(key, rule) for rule in surplus):
            return Drift.FOREIGN
        if surplus or (change.after is None and not old):
            return None
        if change.before is None and isinstance(key, ChainKey):
            return Drift.MISSING if self._is_missed(key) else None
        had = {rule.spec for rule in old}
        lost = [rule for rule in new if rule.spec not in had]
        if not lost:  # the same rules, but in another order, another place, or too often
            return Drift.FOREIGN
        return Drift.MISSING if all(self._was_there(key, rule) for rule in lost) else None

    def _is_foreign(self, key: Key, rule: Rule) -> bool:
        """Whether no Service could have put the rule there: it goes to no chain of ours and refuses nothing for one."""
        verdict = target(rule)
        if is_unreadable(rule) or self._layout.kind(ChainName(key.name.table, verdict)) is not None:
            return False
        if key.name.table == "filter" and isinstance(key, BlockKey):
            return not (verdict in {"REJECT", "DROP", "ACCEPT"} and "--dport" in rule.spec)
        return key in self._desired.objects or key.name in self._layout.chains

    def _is_missed(self, key: ChainKey) -> bool:
        """Whether a chain is gone that others of ours still jump to, or that was there with the node's others."""
        if key.name in self._layout.chains:
            return self._has_chains
        return key.name in self._users

    def _was_there(self, key: Key, rule: Rule) -> bool:
        """Whether a rule lacks although what it goes to is there, as it should be."""
        chain = ChainKey(ChainName(key.name.table, target(rule)))
        if self._layout.kind(chain.name) is None:  # a verdict: it is part of a chain that is there
            return isinstance(key, ChainKey) and key in self._observed
        value = self._desired.objects.get(chain)
        return value is not None and self._observed.get(chain) == value


def _users(objects: Objects) -> Mapping[ChainName, list[ChainName]]:
    """Return for each chain those that jump to it."""
    users: dict[ChainName, list[ChainName]] = {}
    for key, value in objects.items():
        for rule in _rules(value):
            users.setdefault(ChainName(key.name.table, target(rule)), []).append(key.name)
    return users


def _led_to(objects: Objects) -> Mapping[ChainName, str]:
    """Return for chains that a dispatch leads to the owners that its comments tell."""
    return {
        ChainName(key.name.table, target(rule)): owner
        for key, value in objects.items()
        if isinstance(key, BlockKey)
        for rule in _rules(value)
        if (owner := _told(rule))
    }


def _told(rule: Rule) -> str:
    """Return the owner that a rule's comment tells; empty where it tells none."""
    found = _OWNER.match(rule.comment)
    return found.group(1) if found else ""


def _rules(value: Value | None) -> tuple[Rule, ...]:
    if isinstance(value, ChainValue):
        return value.rules
    return tuple(rule for copy in value.copies for rule in copy) if value else ()


def _lines(change: Change[Key, Value]) -> Iterator[Line]:
    old, new = _rules(change.before), _rules(change.after)
    if isinstance(change.after, BlockValue) and change.before == BlockValue(change.after.copies, Place.ASTRAY):
        yield Line(" ", new[0].spec, "moved: it must come last")
        return
    if not old or not new:
        yield from (Line("-" if old else "+", rule.spec, rule.comment) for rule in old or new)
        return
    matcher = SequenceMatcher(None, [r.spec for r in old], [r.spec for r in new], autojunk=False)
    for group in matcher.get_grouped_opcodes(_CONTEXT):
        for tag, old_from, old_to, new_from, new_to in group:
            if tag == "equal":
                yield from (Line(" ", rule.spec, rule.comment) for rule in new[new_from:new_to])
                continue
            yield from (Line("-", rule.spec, rule.comment) for rule in old[old_from:old_to])
            yield from (Line("+", rule.spec, rule.comment) for rule in new[new_from:new_to])
