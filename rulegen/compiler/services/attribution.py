"""Whose a line of a script or an object is, and what it needs of the kernel: to find the Service that is rejected."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from rulegen.languages.iptables.language import shape_of
from rulegen.languages.iptables.ruleset import ChainName, read_rule
from rulegen.languages.iptables.state import RulesFragment
from rulegen.plan.plan import PartKey, Plan

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from rulegen.diff.changes import Change
    from rulegen.languages.language import Changes, Language, Shape
    from rulegen.net import Family
    from rulegen.plan.fragments import OwnedObjects


class Belongings:
    """Which Service each rule and object of some fragments exists for."""

    def __init__(self, fragments: Iterable[OwnedObjects], languages: Mapping[str, Language]) -> None:
        """Take the fragments; those of the node belong to nobody."""
        self._languages = languages
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
        for language, content in fragment.objects.items():
            if isinstance(content, RulesFragment):
                self._take_rules(fragment, content)
                continue
            for key in content:
                self._objects.setdefault((language, key), fragment.owner)

    def _take_rules(self, fragment: OwnedObjects, rules: RulesFragment) -> None:
        for name in rules.exact:
            self._chains[fragment.family, name] = fragment.owner
        for block in rules.blocks:
            for rule in block.rules:
                self._rules.setdefault((fragment.family, block.name, rule.spec), fragment.owner)

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

    def shapes(self, owner: str) -> frozenset[Shape]:
        """Return all that a Service needs of the kernel."""
        if owner not in self._shapes:
            self._shapes[owner] = frozenset(
                shape
                for fragment in self._fragments[owner]
                for language, content in fragment.objects.items()
                for shape in self._languages[language].shapes(content)
            )
        return self._shapes[owner]


def shape_of_line(line: str) -> Shape | None:
    """Return what a line of a script that puts a rule into a chain needs of the kernel; None for another line."""
    word, _, rest = line.partition(" ")
    return shape_of(read_rule(rest.partition(" ")[2]).spec) if word in {"-A", "-I"} else None


class ServiceParts:
    """A plan, cut by Service. To take a part costs what the part holds."""

    def __init__(self, plan: Plan) -> None:
        """Cut a plan."""
        self._plan = plan
        owners = {(item.language, item.family, item.key): item.owner for item in plan.items if not item.is_leftover}
        self._owners: dict[PartKey, dict[Any, str]] = {}
        names: set[str] = set()
        for key, part in plan.parts.items():
            family = key.family.value if key.family is not None else ""
            mine = {change.key: owners.get((key.language, family, change.key), "") for change in part.all_changes}
            self._owners[key] = mine
            names.update(mine.values())
        self._names = sorted(names - {""})
        self._changes: dict[tuple[PartKey, int], dict[str, list[Change[Any, Any]]]] = {}

    @property
    def owners(self) -> list[str]:
        """The Services, `namespace/name`, for which anything changes."""
        return self._names

    def of(self, owners: Collection[str], *, with_node: bool) -> Plan:
        """Return what changes for some Services, and for the node with what nobody owns if that is requested.

        Connections are not deleted by it: that comes last, once all is written.
        """
        names = [*([""] if with_node else []), *sorted(owners)]
        parts = {
            key: part.only(lambda changes, key=key: self._kept(key, changes, names))  # type: ignore[misc]
            for key, part in self._plan.parts.items()
            if key.family is not None and not key.variant
        }
        if not with_node:
            return Plan(parts=parts)
        host = {key: part.only(_without_removals) for key, part in self._plan.parts.items() if key.family is None}
        return Plan(parts={**host, **parts}, sysctls=self._plan.sysctls, counters=self._plan.counters)

    def _kept(self, key: PartKey, changes: Changes, names: Collection[str]) -> Changes:
        """Return the changes of some owners, owner by owner."""
        at = (key, id(changes))
        if at not in self._changes:
            cut: defaultdict[str, list[Change[Any, Any]]] = defaultdict(list)
            for change in changes:
                cut[self._owners[key][change.key]].append(change)
            self._changes[at] = dict(cut)
        return tuple(change for name in names for change in self._changes[at].get(name, ()))


def _without_removals(changes: Changes) -> Changes:
    """Return what is added or changed: what belongs to no family goes when all else is written."""
    return tuple(change for change in changes if change.after is not None)
