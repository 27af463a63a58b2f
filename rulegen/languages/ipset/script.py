"""The script that makes changes of sets: what `ipset restore` is fed, in three parts with other work in between.

A set exists before a rule names it, and is destroyed when no rule does any more. Entries that let something pass or
have it masqueraded come early and go late; entries by which something is passed over (the source is kept, so no
masquerading) come late and go early, as a packet that is masqueraded too often arrives, and one too seldom may not.
A kernel takes entries one by one, so the order inside a part is kept too.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rulegen.languages.ipset.state import EntryKey, EntryValue, SetKey, SetValue

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from rulegen.diff.changes import Change
    from rulegen.languages.ipset.state import Key, Value

TEMPORARY = "KUBE-RULEGEN-TMP"
"""The set that is filled in place of one whose entries bear what ours do not, and then swapped with it.

One that was left behind, by a write that was killed, goes before all else: it may be of another type, or filled.
"""


@dataclass(frozen=True, slots=True)
class Order:
    """In which order sets are filled.

    Attributes:
        names: First to last; emptied last to first. Others come behind, by name.
        late: Those whose entries come late and go early.
    """

    names: tuple[str, ...] = ()
    late: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class IpsetScript:
    """Texts for `ipset restore`, each empty where nothing is to be done.

    Attributes:
        grow: What is created, filled, and what must not be passed over any more.
        again: Sets that are destroyed and made again, when no rule names them.
        late: What may be passed over from now on.
        shrink: What is emptied and destroyed.
    """

    grow: str = ""
    anew: str = ""
    late: str = ""
    shrink: str = ""


def replaced(changes: Iterable[Change[Key, Value]]) -> frozenset[str]:
    """Return the names of sets that must be destroyed before they can be created: nothing may name them then."""
    return frozenset(
        change.key.name
        for change in changes
        if isinstance(change.before, SetValue)
        and isinstance(change.after, SetValue)
        and not _can_swap(change.before, change.after)
    )


def script(
    changes: Iterable[Change[Key, Value]], desired: Mapping[Key, Value] | None = None, order: Order | None = None
) -> IpsetScript:
    """Return the texts that make the changes of one family.

    Args:
        changes: As `rulegen.diff.changes.diff` has them.
        desired: All that is wanted; needed only where a set changes its type.
        order: In which order sets are filled.
    """
    work = _Work(order or Order())
    for change in changes:
        work.take(change, desired or {})
    return work.script()


@dataclass(slots=True)
class _Work:
    order: Order
    created: list[str] = field(default_factory=list)
    anew: list[str] = field(default_factory=list)
    destroyed: list[str] = field(default_factory=list)
    added: dict[str, list[str]] = field(default_factory=dict)
    removed: dict[str, list[str]] = field(default_factory=dict)
    rewritten: set[str] = field(default_factory=set)

    def take(self, change: Change[Key, Value], desired: Mapping[Key, Value]) -> None:
        """Sort one change in; that of a set comes before those of its entries, as keys are sorted."""
        key, before, after = change
        if isinstance(key, SetKey):
            if isinstance(after, SetValue):
                self._create(key.name, before, after, desired)
            else:
                self.destroyed.append(key.name)
            return
        if key.name in self.rewritten:
            return
        if before is not None:
            self.removed.setdefault(key.name, []).append(f"del {key.name} {key.entry}")
        if isinstance(after, EntryValue):
            if before is not None:  # the same entry, bearing what it should not: an instant without it
                self.removed[key.name].pop()
                self.added.setdefault(key.name, []).append(f"del {key.name} {key.entry}")
            self.added.setdefault(key.name, []).append(_add(key.name, key.entry, after))

    def _create(self, name: str, before: Value | None, after: SetValue, desired: Mapping[Key, Value]) -> None:
        if not isinstance(before, SetValue):
            self.created.append(f"create {name} {after.options}")
            return
        self.rewritten.add(name)
        entries = [
            (key.entry, value)
            for key, value in sorted(desired.items(), key=lambda item: item[0])
            if isinstance(key, EntryKey) and isinstance(value, EntryValue) and key.name == name
        ]
        if _can_swap(before, after):
            self.created += [
                f"create {TEMPORARY} {after.options}",
                *(_add(TEMPORARY, entry, value) for entry, value in entries),
                f"swap {TEMPORARY} {name}",
                f"destroy {TEMPORARY}",
            ]
        else:
            self.anew += [f"destroy {name}", f"create {name} {after.options}"]
            self.anew += (_add(name, entry, value) for entry, value in entries)

    def script(self) -> IpsetScript:
        """Return the texts."""
        early = [name for name in self._sorted(self.added) if name not in self.order.late]
        late = [name for name in self._sorted(self.added) if name in self.order.late]
        gone = [name for name in reversed(self._sorted(self.removed)) if name not in self.destroyed]
        first = [name for name in gone if name in self.order.late]
        rest = [name for name in gone if name not in self.order.late]
        stale = [f"destroy {name}" for name in self.destroyed if name == TEMPORARY]
        grow = [*stale, *self.created, *_lines(self.removed, first), *_lines(self.added, early)]
        shrink = [
            *_lines(self.removed, rest),
            *(f"destroy {name}" for name in sorted(self.destroyed) if name != TEMPORARY),
        ]
        return IpsetScript(_text(grow), _text(self.anew), _text(_lines(self.added, late)), _text(shrink))

    def _sorted(self, names: Iterable[str]) -> list[str]:
        ranks = {name: rank for rank, name in enumerate(self.order.names)}
        return sorted(names, key=lambda name: (ranks.get(name, len(ranks)), name))


def _can_swap(before: SetValue, after: SetValue) -> bool:
    """Whether the kernel would swap the two: it looks at type and family alone."""
    return (before.type, before.family) == (after.type, after.family)


def _add(name: str, entry: str, value: EntryValue) -> str:
    return f"add {name} {entry} {value.options}".rstrip()


def _lines(by_set: Mapping[str, Sequence[str]], names: Iterable[str]) -> list[str]:
    return [line for name in names for line in by_set[name]]


def _text(lines: Sequence[str]) -> str:
    return "".join(f"{line}\n" for line in lines)
