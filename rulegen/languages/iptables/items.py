"""Describes changes of iptables objects as items of a plan: with the owner, the comments, and the drift."""

from __future__ import annotations

import re
from difflib import SequenceMatcher
from functools import cached_property
from typing import TYPE_CHECKING, Final

from rulegen.diff.items import Action, Item, ItemEndpoint, Line
from rulegen.languages.iptables.drift import RuleDrift, rules_of
from rulegen.languages.iptables.frontends import frontend_of
from rulegen.languages.iptables.ruleset import ChainName, target
from rulegen.languages.iptables.state import BlockKey, BlockValue, ChainKey, ChainPosition

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from rulegen.diff.changes import Change
    from rulegen.languages.iptables.rules import Rule
    from rulegen.languages.iptables.state import Key, Layout, Objects, Value, Wanted
    from rulegen.languages.language import Scene, Surroundings
    from rulegen.net import Family

_CONTEXT = 2
_DESTINATION: Final = re.compile(r"-j DNAT --to-destination (\S+)")


def items(changes: Sequence[Change[Key, Value]], observed: Objects, desired: Wanted, scene: Scene) -> Iterator[Item]:
    """Yield an item for each change of one family, in the order of the changes.

    Args:
        changes: The changes.
        observed: Our objects in the kernel.
        desired: The wanted objects.
        scene: The input of the comparison.
    """
    layout = scene.ownership
    drift = RuleDrift(changes, observed, desired.objects, layout, scene.around.filled)
    assert scene.family is not None  # noqa: S101 - for the type checker: rules are of a family
    items = _Items(scene.family, observed, desired, layout, scene.around, drift)
    return (items.item(change) for change in changes)


class _Items:
    def __init__(
        self, family: Family, observed: Objects, desired: Wanted, layout: Layout, owners: Surroundings, drift: RuleDrift
    ) -> None:
        self._family, self._observed, self._desired, self._layout = family, observed, desired, layout
        self._owners, self._drift = owners, drift

    @cached_property
    def _users(self) -> Mapping[ChainName, list[ChainName]]:
        """By chain, the chains that jump to it; computed only if a change needs it."""
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
            kind="chain" if isinstance(key, ChainKey) else "jump" if place is ChainPosition.HEAD else "rule",
            name=str(key.name),
            owner=owner,
            is_leftover=is_leftover,
            drift=self._drift.of(change),
            lines=tuple(_lines(change)),
            endpoints=_endpoints(change) if isinstance(key, ChainKey) else (),
            frontend=_frontend(key) if isinstance(key, BlockKey) else "",
            key=key,
        )

    def _owner(self, change: Change[Key, Value]) -> tuple[str, bool]:
        """Return the owner of a changed object, and whether it is a leftover: no owner on this node wants it."""
        owner = self._desired.owners.get(change.key)
        if owner is not None:
            return owner, False
        rules = rules_of(change.before)
        for chain in self._chains_near(change.key, rules):
            owner = self._desired.owners.get(ChainKey(chain))
            if owner:
                return owner, False
        if isinstance(change.key, ChainKey) and change.key.name in self._layout.chains:
            return "", False
        if isinstance(change.key, BlockKey) and all(self._drift.is_foreign(change.key, rule) for rule in rules):
            return "", False
        owned_by = ""
        if isinstance(change.key, ChainKey):
            chains = (change.key.name, *self._chains_near(change.key, ()))
            owned_by = next((self._led_to[chain] for chain in chains if chain in self._led_to), "")
        for rule in rules:
            owned_by = owned_by or self._owners.rule_owner(change.key.name, rule, self._family)
        return owned_by, owned_by not in self._owners.names

    @cached_property
    def _led_to(self) -> Mapping[ChainName, str]:
        """By target of a dispatch rule, the owner that the rule shows."""
        return {
            ChainName(key.name.table, target(rule)): owner
            for key, value in self._observed.items()
            if isinstance(key, BlockKey)
            for rule in rules_of(value)
            if (owner := self._owners.rule_owner(key.name, rule, self._family))
        }

    def _chains_near(self, key: Key, rules: Sequence[Rule]) -> Iterator[ChainName]:
        """Yield the chains that show the owner of an object: its targets, then those that lead to it, nearest first."""
        yield from (ChainName(key.name.table, target(rule)) for rule in rules)
        seen: set[ChainName] = set()
        front = [key.name] if isinstance(key, ChainKey) else []
        while front:
            users = [user for chain in front for user in self._users.get(chain, ()) if user not in seen]
            seen.update(users)
            yield from users
            front = users


def _users(objects: Objects) -> Mapping[ChainName, list[ChainName]]:
    """Return by chain the chains that jump to it."""
    users: dict[ChainName, list[ChainName]] = {}
    for key, value in objects.items():
        for rule in rules_of(value):
            users.setdefault(ChainName(key.name.table, target(rule)), []).append(key.name)
    return users


def _endpoints(change: Change[Key, Value]) -> tuple[ItemEndpoint, ...]:
    """Return the endpoint of an added or removed chain, if the chain translates connections to one."""
    if change.before is not None and change.after is not None:
        return ()
    for rule in rules_of(change.after) or rules_of(change.before):
        if (match := _DESTINATION.search(rule.spec)) is not None:
            return (ItemEndpoint(change.before is None, rule.comment, match[1]),)
    return ()


def _frontend(key: BlockKey) -> str:
    """Return the frontend that rules of a shared chain match; empty if they match none."""
    return next((frontend.text for spec in key.specs if (frontend := frontend_of(spec)) is not None), "")


def _lines(change: Change[Key, Value]) -> Iterator[Line]:
    old, new = rules_of(change.before), rules_of(change.after)
    if isinstance(change.after, BlockValue) and change.before == BlockValue(change.after.copies, ChainPosition.ASTRAY):
        yield Line(" ", new[0].spec, "moved: it must be last")
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
