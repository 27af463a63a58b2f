"""The scripts of changes of sets: the input of `ipset restore`, in parts with other writes between them.

A set is created before a rule refers to it, and destroyed after the last rule that does. Entries that accept or
masquerade packets are added early and deleted late. Entries that exempt packets from masquerading, so that they keep
their source, are added late and deleted early: a packet that is masqueraded needlessly still arrives, and one that is
not masqueraded may not. The kernel adds entries one by one, so the order within a part matters too.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from rulegen.languages.ipset.state import EntryKey, EntryValue, SetKey, SetValue

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from rulegen.diff.changes import Change
    from rulegen.languages.ipset.state import Key, Value

TEMPORARY = "KUBE-RULEGEN-TMP"
"""The temporary set that replaces, by a swap, a set whose entries have extensions that ours lack.

If a killed write has left this set behind, it is destroyed first: it may have another type, or entries.
"""


class Order(msgspec.Struct, frozen=True):
    """The order in which sets are filled.

    Attributes:
        names: The order of filling; sets are emptied in reverse. Other sets follow by name.
        late: The sets whose entries are added late and deleted early.
    """

    names: tuple[str, ...] = ()
    late: frozenset[str] = frozenset()


class IpsetScript(msgspec.Struct, frozen=True):
    """Input texts of `ipset restore`; a text is empty if there is no change for it.

    Attributes:
        grow: Creates and fills sets, and deletes exemptions.
        again: Destroys sets and creates them again, while no rule refers to them.
        late: Adds exemptions.
        shrink: Empties and destroys sets.
    """

    grow: str = ""
    anew: str = ""
    late: str = ""
    shrink: str = ""


def replaced(changes: Iterable[Change[Key, Value]]) -> frozenset[str]:
    """Return the names of sets that must be destroyed and created again; no rule may refer to them meanwhile."""
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
    """Return the texts for the changes of one family.

    Args:
        changes: As `rulegen.diff.changes.diff` has them.
        desired: All wanted objects; needed only if a set changes its type.
        order: The order in which sets are filled.
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
        """Add one change. The change of a set comes before those of its entries, because keys are sorted."""
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
            if before is not None:  # the entry has unwanted extensions: it is absent for a moment
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
    """Whether the kernel swaps these two sets: only their type and family must be equal."""
    return (before.type, before.family) == (after.type, after.family)


def _add(name: str, entry: str, value: EntryValue) -> str:
    return f"add {name} {entry} {value.options}".rstrip()


def _lines(by_set: Mapping[str, Sequence[str]], names: Iterable[str]) -> list[str]:
    return [line for name in names for line in by_set[name]]


def _text(lines: Sequence[str]) -> str:
    return "".join(f"{line}\n" for line in lines)
