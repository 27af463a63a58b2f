"""Finds the Service of a script line or object, and the kernel features that it needs."""

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
    """The Service of each rule and object of some fragments."""

    def __init__(self, fragments: Iterable[OwnedObjects], languages: Mapping[str, Language]) -> None:
        """Take the fragments; those of the node have no Service."""
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
        """The Services (`namespace/name`) of all fragments."""
        return sorted(self._fragments)

    def of_line(self, family: Family, table: str, line: str) -> str:
        """Return the Service of a line of a script for `iptables-restore`; empty if there is none."""
        word, _, rest = line.partition(" ")
        chain, _, rule = rest.partition(" ")
        name = ChainName(table, word[1:] if word.startswith(":") else chain)
        owner = self._chains.get((family, name), "")
        if owner or word not in {"-A", "-I"}:
            return owner
        return self._rules.get((family, name, read_rule(rule).spec), "")

    def of_object(self, language: str, key: Any) -> str:
        """Return the Service of an object, the first by name of several; empty if there is none."""
        return self._objects.get((language, key), "")

    def shapes(self, owner: str) -> frozenset[Shape]:
        """Return all kernel features that a Service needs."""
        if owner not in self._shapes:
            self._shapes[owner] = frozenset(
                shape
                for fragment in self._fragments[owner]
                for language, content in fragment.objects.items()
                for shape in self._languages[language].shapes(content)
            )
        return self._shapes[owner]


def shape_of_line(line: str) -> Shape | None:
    """Return the kernel features that a script line needs if it adds a rule; None for other lines."""
    word, _, rest = line.partition(" ")
    return shape_of(read_rule(rest.partition(" ")[2]).spec) if word in {"-A", "-I"} else None


class ServiceParts:
    """A plan, split by Service. The cost of a part depends only on its size."""

    def __init__(self, plan: Plan) -> None:
        """Split a plan."""
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
        """The Services (`namespace/name`) with changes."""
        return self._names

    def of(self, owners: Collection[str], *, with_node: bool) -> Plan:
        """Return the changes for some Services, and for the node and unowned objects if requested.

        Conntrack entries are not included: they are deleted last, after everything is written.
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
    """Return the additions and changes: objects without a family are deleted after everything else."""
    return tuple(change for change in changes if change.after is not None)
