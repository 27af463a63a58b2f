"""Whose a line of a script or an object is, and what it needs of the kernel: to find the Service that is refused."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from rulegen.languages.ipset.state import EntryKey
from rulegen.languages.iptables.ruleset import ChainName, read_rule
from rulegen.languages.ipvs.state import VirtualServer
from rulegen.plan.fragments import IPSET, IPVS
from rulegen.plan.plan import Plan

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from rulegen.diff import Change
    from rulegen.net import Family
    from rulegen.plan.fragments import OwnedObjects

Shape = frozenset[str]
"""What one rule or object needs of the kernel, without any value: its matches, its target, their options."""

_WITH_NAME: Final = {"-m", "-j", "-g", "-p"}
"""Options of a rule whose value names a part of the kernel."""

_OURS: Final = "KUBE-"
_RULES: Final = "iptables"


class Belongings:
    """Which Service each rule and object of some fragments exists for."""

    def __init__(self, fragments: Iterable[OwnedObjects]) -> None:
        """Take the fragments; those of the node belong to nobody."""
        self._chains: dict[tuple[Family, ChainName], str] = {}
        self._rules: dict[tuple[Family, ChainName, str], str] = {}
        self._objects: dict[tuple[str, Any], str] = {}
        self._fragments: defaultdict[str, list[OwnedObjects]] = defaultdict(list)
        self._shapes: dict[str, frozenset[Shape]] = {}
        for fragment in fragments:
            if fragment.owner:
                self._take(fragment)

    def _take(self, fragment: OwnedObjects) -> None:
        self._fragments[fragment.owner].append(fragment)
        for name in fragment.rules.exact:
            self._chains[fragment.family, name] = fragment.owner
        for block in fragment.rules.blocks:
            for rule in block.rules:
                self._rules.setdefault((fragment.family, block.name, rule.spec), fragment.owner)
        for language, objects in fragment.objects.items():
            for key in objects:
                self._objects.setdefault((language, key), fragment.owner)

    @property
    def owners(self) -> list[str]:
        """The Services, `namespace/name`, that any of the fragments is of."""
        return sorted(self._fragments)

    def of_line(self, family: Family, table: str, line: str) -> str:
        """Return the Service that a line of a script for `iptables-restore` is written for; empty for none."""
        word, _, rest = line.partition(" ")
        chain, _, rule = rest.partition(" ")
        name = ChainName(table, word[1:] if word.startswith(":") else chain)
        owner = self._chains.get((family, name), "")
        if owner or word not in {"-A", "-I"}:
            return owner
        return self._rules.get((family, name, read_rule(rule).spec), "")

    def of_object(self, language: str, key: Any) -> str:
        """Return the Service that an object exists for, the first by name of several; empty for none."""
        return self._objects.get((language, key), "")

    def of_set_line(self, line: str) -> str:
        """Return the Service that a line of a script for `ipset restore` is written for; empty for none."""
        words = line.split(" ")
        return self.of_object(IPSET, EntryKey(words[1], words[2])) if len(words) > 2 else ""

    def shapes(self, owner: str) -> frozenset[Shape]:
        """Return all that a Service needs of the kernel."""
        if owner not in self._shapes:
            self._shapes[owner] = frozenset(shape for one in self._fragments[owner] for shape in _shapes(one))
        return self._shapes[owner]


def shape_of_line(line: str) -> Shape | None:
    """Return what a line of a script that puts a rule into a chain needs of the kernel; None for another line."""
    word, _, rest = line.partition(" ")
    return _shape(read_rule(rest.partition(" ")[2]).spec) if word in {"-A", "-I"} else None


class Parts:
    """A plan, cut by Service. To take a part costs what the part holds."""

    def __init__(self, plan: Plan) -> None:
        """Cut a plan."""
        self._plan = plan
        owners = {(item.language, item.family, item.key): item.owner for item in plan.items if not item.is_leftover}
        self._changes: dict[_Where, dict[str, list[Change[Any, Any]]]] = {}
        for where, changes in _changes(plan):
            mine: defaultdict[str, list[Change[Any, Any]]] = defaultdict(list)
            for change in changes:
                mine[owners.get((where.language, where.family.value, change.key), "")].append(change)
            self._changes[where] = dict(mine)

    @property
    def owners(self) -> list[str]:
        """The Services, `namespace/name`, for which anything changes."""
        return sorted({owner for mine in self._changes.values() for owner in mine} - {""})

    def of(self, owners: Collection[str], *, with_node: bool) -> Plan:
        """Return what changes for some Services, and for the node with what nobody owns if that is asked for.

        Connections are not forgotten by it: that comes last, once all is written.
        """
        names = [*([""] if with_node else []), *sorted(owners)]
        kept = {
            where: tuple(change for name in names for change in mine.get(name, ()))
            for where, mine in self._changes.items()
        }
        rules = {
            family: replace(
                part,
                changes=kept[_Where(_RULES, family)],
                desired={},
                bridge=part.bridge and (kept[_Where(_RULES, family, 1)], kept[_Where(_RULES, family, 2)]),
            )
            for family, part in self._plan.iptables.items()
        }
        objects = {
            family: replace(part, changes={name: kept[_Where(name, family)] for name in part.changes})
            for family, part in self._plan.objects.items()
        }
        part = Plan(iptables=rules, objects=objects)
        if not with_node:
            return part
        return replace(
            part,
            devices=tuple(change for change in self._plan.devices if change.after is not None),
            timeouts=self._plan.timeouts,
            sysctls=self._plan.sysctls,
            counters=self._plan.counters,
        )


class _Where(NamedTuple):
    """A place of changes in a plan: the language, the family, and of rules by a bridge which half of it."""

    language: str
    family: Family
    half: int = 0


def _changes(plan: Plan) -> Iterator[tuple[_Where, Iterable[Change[Any, Any]]]]:
    for family, part in plan.iptables.items():
        for half, changes in enumerate((part.changes, *(part.bridge or ()))):
            yield _Where(_RULES, family, half), changes
    for family, objects in plan.objects.items():
        for language, told in objects.changes.items():
            yield _Where(language, family), told


def _shapes(fragment: OwnedObjects) -> Iterable[Shape]:
    for rules in fragment.rules.exact.values():
        yield from (_shape(rule.spec) for rule in rules)
    for block in fragment.rules.blocks:
        yield from (_shape(rule.spec) for rule in block.rules)
    for language, objects in fragment.objects.items():
        for key, value in objects.items():
            yield _shape_of_object(language, key, value)


def _shape_of_object(language: str, key: Any, value: Any) -> Shape:
    if language == IPVS and isinstance(value, VirtualServer):
        return frozenset((language, f"protocol {key.frontend.protocol}", value.scheduler, value.engine))
    return frozenset((language, key.name if isinstance(key, EntryKey) else type(key).__name__))


def _shape(spec: str) -> Shape:
    """Return what a rule needs; rules that differ in addresses, ports and numbers alone need the same."""
    return _shape_of_words(_without_values(spec))


def _without_values(spec: str) -> tuple[str, ...]:
    words = spec.split(" ")
    kept: list[str] = []
    for at, word in enumerate(words):
        if not word.startswith("-"):
            continue
        value = words[at + 1] if at + 1 < len(words) else ""
        if word not in _WITH_NAME:
            kept.append(word)
        else:  # to which chain a rule jumps makes no difference
            kept.append(f"{word} {'a chain' if value.startswith(_OURS) else value}")
    return tuple(kept)


@cache
def _shape_of_words(words: tuple[str, ...]) -> Shape:
    return frozenset(words)
