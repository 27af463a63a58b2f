"""Fragments: what one owner wants of a node, in all languages; and their union, which counts owners.

iptables has a union of its own, since a rule may stand in a chain twice. Everything else is an object with a key, that
is there while anybody wants it.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from rulegen.diff import Change
from rulegen.languages.ipset.state import EntryKey, SetKey

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from rulegen.languages.iptables import state as iptables
    from rulegen.net import Family

IPSET, IPVS, LINKS = "ipset", "ipvs", "links"
LANGUAGES = (IPSET, IPVS, LINKS)
"""Languages of keyed objects; each has its state in `rulegen.languages`."""

Objects = dict[Any, Any]
"""Objects of one language by key; which types they are, the language's own state says."""
Changes = tuple[Change[Any, Any], ...]


@dataclass(frozen=True, slots=True)
class OwnedObjects:
    """What one owner wants in one family: a Service, or the node itself.

    Attributes:
        owner: `namespace/name` of the Service; empty for the node.
        rules: What it wants of iptables.
        objects: What it wants in other languages, by language; several owners may want the same.
    """

    owner: str
    family: Family
    rules: iptables.RulesFragment
    objects: Mapping[str, Mapping[Any, Any]] = field(default_factory=dict)


@dataclass(slots=True)
class Union:
    """The union of the fragments of one family, in one language or all.

    Where two owners want one object but not alike, it is as the first of them by name wants it.

    Attributes:
        _wants: By language and key, what each owner wants.
        _sizes: How many entries each set has.
    """

    _wants: dict[str, dict[Any, tuple[tuple[str, Any], ...]]] = field(default_factory=lambda: defaultdict(dict))
    _sizes: dict[str, int] = field(default_factory=lambda: defaultdict(int))

    @classmethod
    def of(cls, fragments: Iterable[OwnedObjects]) -> Union:
        """Return the union of fragments."""
        union = cls()
        for fragment in fragments:
            union.replace(None, fragment)
        return union

    def copy(self) -> Union:
        """Return the same as of now, which nobody changes."""
        wants = defaultdict(dict, {language: dict(told) for language, told in self._wants.items()})
        return Union(wants, defaultdict(int, self._sizes))

    def objects(self, language: str) -> Objects:
        """Return all objects of a language, sets with room for their entries."""
        objects = {key: wants[0][1] for key, wants in self._wants[language].items()}
        if language == IPSET:
            for name, size in self._sizes.items():
                key = SetKey(name)
                if key in objects:
                    objects[key] = objects[key].with_room(size)
        return objects

    def owners(self, language: str) -> dict[Any, str]:
        """Return of each object who wants it; the first of several."""
        return {key: wants[0][0] for key, wants in self._wants[language].items()}

    def wants(self, language: str, key: Any) -> bool:
        """Return whether anybody wants an object."""
        return key in self._wants[language]

    @property
    def filled(self) -> frozenset[str]:
        """The names of the sets that have entries."""
        return frozenset(name for name, size in self._sizes.items() if size)

    def replace(self, before: OwnedObjects | None, after: OwnedObjects | None) -> None:
        """Take one owner's fragment for another; None for none. It costs what the two hold."""
        for language, key, wants in self._replaced(((before, after),)):
            known = self._wants[language]
            if isinstance(key, EntryKey):
                self._sizes[key.name] += bool(wants) - (key in known)
            if wants:
                known[key] = wants
            else:
                known.pop(key, None)

    def changes(self, pairs: Iterable[tuple[OwnedObjects | None, OwnedObjects | None]]) -> dict[str, Changes]:
        """Return by language what it comes to if fragments are taken for others, without doing so.

        It is the difference of the whole, seen where it is.
        """
        found: dict[str, list[Change[Any, Any]]] = defaultdict(list)
        for language, key, wants in self._replaced(pairs):
            had = self._wants[language].get(key)
            before, after = had[0][1] if had else None, wants[0][1] if wants else None
            if before != after:
                found[language].append(Change(key, before, after))
        return {language: tuple(sorted(changes, key=lambda c: c.key)) for language, changes in found.items()}

    def filled_after(self, changes: Iterable[Change[Any, Any]]) -> frozenset[str]:
        """Return the names of the sets that have entries once changes of sets are made."""
        sizes: dict[str, int] = {}
        for change in changes:
            if isinstance(change.key, EntryKey):
                name = change.key.name
                sizes.setdefault(name, self._sizes.get(name, 0))
                sizes[name] += (change.after is not None) - (change.before is not None)
        return (self.filled - sizes.keys()) | {name for name, size in sizes.items() if size}

    def _replaced(
        self, pairs: Iterable[tuple[OwnedObjects | None, OwnedObjects | None]]
    ) -> Iterator[tuple[str, Any, tuple[tuple[str, Any], ...]]]:
        """Yield the objects that the fragments hold, and who wants each, if they are taken for one another."""
        touched: dict[tuple[str, Any], dict[str, Any]] = {}
        for before, after in pairs:
            for fragment, is_wanted in ((before, False), (after, True)):
                if fragment is None:
                    continue
                for language, objects in fragment.objects.items():
                    for key, value in objects.items():
                        if (language, key) not in touched:
                            touched[language, key] = dict(self._wants[language].get(key, ()))
                        wants = touched[language, key]
                        if is_wanted:
                            wants[fragment.owner] = value
                        else:
                            wants.pop(fragment.owner, None)
        for (language, key), wants in touched.items():
            yield (
                language,
                key,
                tuple(sorted(wants.items(), key=lambda want: want[0])) if len(wants) > 1 else tuple(wants.items()),
            )
