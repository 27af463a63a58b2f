"""The language of ipsets: sets and their entries, which are filled before rules match them."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

import msgspec

from rulegen.diff.changes import Change, diff
from rulegen.diff.items import Drift
from rulegen.languages.ipset.script import script
from rulegen.languages.ipset.state import (
    EntryKey,
    EntryValue,
    SetKey,
    SetValue,
    format_sets,
    needs_resize,
)
from rulegen.languages.keyed import KeyedLanguage, SharedHolder, SharedUnion
from rulegen.languages.language import Part, Phase, Print, Task

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

    from rulegen.languages.ipset.script import Order
    from rulegen.languages.keyed import WantedObjects
    from rulegen.languages.language import FrontendKey, Objects, PrintScope, References, Scene, Shape, WorkTerms
    from rulegen.net import Family

NAME = "ipset"


class RestoreIpsets(msgspec.Struct, frozen=True):
    """One call of `ipset restore`."""

    text: str


class SetsUnion(SharedUnion):
    """The wanted sets and entries of all owners, with the number of entries of each set."""

    def __init__(self, wanted: WantedObjects | None = None, sizes: Mapping[str, int] | None = None) -> None:
        """Start with these objects, by default with none."""
        super().__init__(wanted)
        self._sizes: dict[str, int] = defaultdict(int, sizes or {})

    def copy(self) -> SetsUnion:
        """Return a copy that later replacements do not change."""
        return SetsUnion(self._wanted, self._sizes)

    def objects(self) -> Objects:
        """Return all objects; each set has room for its entries."""
        objects = super().objects()
        for name, size in self._sizes.items():
            key = SetKey(name)
            if key in objects:
                objects[key] = objects[key].with_room(size)
        return objects

    def replace(self, owner: str, before: Mapping[Any, Any] | None, after: Mapping[Any, Any] | None) -> None:
        """Replace the objects of one owner."""
        for key, wants in self._replaced(((owner, before, after),)):
            if isinstance(key, EntryKey):
                self._sizes[key.name] += bool(wants) - self.wants(key)
            self._wanted.put(key, wants)

    @property
    def filled(self) -> frozenset[str]:
        """The names of the sets that have entries."""
        return frozenset(name for name, size in self._sizes.items() if size)

    def filled_after(self, changes: Iterable[Change[Any, Any]]) -> frozenset[str]:
        """Return the names of the sets that have entries after the changes."""
        sizes: dict[str, int] = {}
        for change in changes:
            if isinstance(change.key, EntryKey):
                name = change.key.name
                sizes.setdefault(name, self._sizes.get(name, 0))
                sizes[name] += (change.after is not None) - (change.before is not None)
        return (self.filled - sizes.keys()) | {name for name, size in sizes.items() if size}


class EntriesHolder(SharedHolder):
    """Finds the entries of a Service in the kernel: those that it wants, and those for its frontends."""

    def held(self, content: Mapping[Any, Any], frontends: Collection[FrontendKey]) -> Objects | None:
        """Return the entries of a Service in the kernel; None if it has no frontend there."""
        if not frontends:
            return None
        starts = {(str(each.address), f"{each.protocol.lower()}:{each.port}") for each in frontends}
        mine = {
            key: value
            for key, value in self._ours.items()
            if isinstance(key, EntryKey) and (key in content or tuple(key.entry.split(",")[:2]) in starts)
        }
        return mine or None


class Ipsets(KeyedLanguage):
    """The row of ipsets in the table of languages."""

    name = NAME

    def __init__(self, order: Callable[[Family], Order]) -> None:
        """Take the order in which the sets of a family are filled."""
        self._order = order

    def union(self) -> SetsUnion:
        """Return an empty union."""
        return SetsUnion()

    def pinned(self, desired: Objects, ours: Mapping[Any, Any], references: References) -> Objects:
        """Return the wanted objects and, empty, our other sets that foreign rules match: they cannot be deleted.

        If some rules could not be read, they may match any set, so all sets stay.
        """
        if references.unknown:
            return {**{key: value for key, value in ours.items() if isinstance(key, SetKey)}, **desired}
        named = (SetKey(name) for name in references.names.get(NAME, ()))
        return desired | {key: ours[key] for key in named if key in ours and key not in desired}

    def holder(self, ours: Objects, ownership: Any, others: Mapping[Any, Any]) -> EntriesHolder:  # noqa: ARG002 - the keys tell
        """Return what finds the entries of a Service in `ours`."""
        return EntriesHolder(ours, others)

    def compare(self, scene: Scene) -> Part:
        """Return the changes; a set without room for its entries is created again."""
        ours, desired = scene.ours[NAME], scene.desired.get(NAME, {})
        changes = tuple(sorted((*needs_resize(ours, desired), *diff(ours, desired)), key=lambda change: change.key))
        return Part(changes=changes, desired=desired)

    def named(self, key: Any) -> tuple[str, str]:
        """Return the kind of an object, and its name."""
        return ("set", key.name) if isinstance(key, SetKey) else ("entry", f"{key.name} {key.entry}")

    def text(self, key: Any, value: Any) -> str:
        """Return the text of an object as ipset prints it."""
        return str(value.options) if isinstance(value, SetValue) else f"{key.entry} {value.options}".rstrip()

    def drift(self, change: Change[Any, Any], scene: Scene) -> Drift | None:
        """Return the drift of a set or an entry, if it is certainly drift."""
        key, before, after = change
        match key:
            case SetKey() if before is None:
                return Drift.MISSING if any(isinstance(other, SetKey) for other in scene.ours[NAME]) else None
            case SetKey():
                return Drift.FOREIGN if after is not None and before != after else None
            case _ if isinstance(before, EntryValue) and isinstance(after, EntryValue):
                return Drift.FOREIGN
            case _ if before is None:
                return Drift.MISSING if scene.around.was_there(NAME, key) else None
            case _:
                return None

    def work(self, parts: Mapping[Family | None, Part], terms: WorkTerms) -> Iterator[Task]:
        """Yield the scripts for `ipset restore`."""
        for family, part in parts.items():
            texts = script(part.changes, part.desired, None if family is None else self._order(family))
            is_late = family in terms.taken_over
            yield from _restore(Phase.SETS_FILLED, f"{family} sets, filled", texts.grow)
            replaced = Phase.SETS_REPLACED_LATE if is_late else Phase.SETS_REPLACED_EARLY
            yield from _restore(replaced, f"{family} sets, replaced", texts.anew)
            yield from _restore(Phase.SETS_LATE, f"{family} sets that exempt from masquerading, filled", texts.late)
            yield from _restore(Phase.SETS_EMPTIED, f"{family} sets, emptied", texts.shrink)

    def unseen(self, state: Any) -> str:
        """Return which objects were not read; empty if they were."""
        return "sets (ipset save)" if state is None else ""

    def printed(self, wanted: PrintScope) -> Iterator[Print]:
        """Yield the sets for `ipset restore`."""
        yield Print("ipset.save", format_sets(wanted.objects), "ipset")

    def shapes(self, content: Mapping[Any, Any]) -> Iterator[Shape]:
        """Yield the kernel feature that each object needs: its set."""
        for key in content:
            yield frozenset((NAME, key.name if isinstance(key, EntryKey) else type(key).__name__))


def _restore(phase: Phase, title: str, text: str) -> Iterator[Task]:
    if text:
        yield Task(phase, f"{title}: {len(text.splitlines())} lines", RestoreIpsets(text))
