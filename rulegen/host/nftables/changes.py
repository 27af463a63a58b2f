"""Changes of objects as transactions: what is deleted, made and filled, in the order that the kernel accepts.

All changes of a table are one transaction, and its readers see either all of them or none. Only a first load with very
many chains takes several, because the time of a transaction grows faster than the number of its rules: chains that
nothing leads to yet come first, and the last transaction leads packets to them.
"""

from __future__ import annotations

import socket
from enum import Enum
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from rulegen.diff.changes import Change
from rulegen.host.nftables.kernel import elements, objects
from rulegen.host.nftables.kernel.objects import OWNER, PERSIST, Hook, NftMessage, TableName
from rulegen.host.nftables.rules import RuleWriter
from rulegen.host.nftables.sets import add_members, delete_members, kernel_set
from rulegen.languages.nftables.state import (
    ElementValue,
    NamedSet,
    NftChain,
    NftKey,
    ObjectKind,
    OtherObject,
    TableValue,
    set_key,
)
from rulegen.net import Family

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from rulegen.languages.nftables.state import ElementData, NftValue

CHAINS_PER_TRANSACTION: Final = 2000
_TABLE_FLAGS: Final = {"dormant": 1, "owner": OWNER, "persist": PERSIST}
_HOOKS: Final = {"prerouting": 0, "input": 1, "forward": 2, "output": 3, "postrouting": 4}
_POLICIES: Final = {"drop": 0, "accept": 1}
_FAMILIES: Final = {Family.IPV4: socket.AF_INET, Family.IPV6: socket.AF_INET6}

T = TypeVar("T")


class ChangePart(Enum):
    """Which changes are written.

    Before Linux 6.2, a chain counts as referred to until the transaction is over that deletes the last reference. There
    deletions need a transaction of their own.
    """

    ALL = "all"
    WITHOUT_REMOVALS = "without removals"
    REMOVALS = "removals"


class Transaction(NamedTuple):
    """One transaction.

    Attributes:
        title: What it does, if there are several.
        requests: What is sent.
    """

    title: str
    requests: list[NftMessage]


def transactions(
    family: Family,
    changes: Sequence[Change[NftKey, NftValue]],
    desired: Mapping[NftKey, NftValue] | None = None,
    chains_per_transaction: int = CHAINS_PER_TRANSACTION,
    *,
    scope: ChangePart = ChangePart.ALL,
    find: Callable[[TableName, str], NamedSet | None] = lambda _table, _name: None,
) -> list[Transaction]:
    """Return the transactions that make these changes: one, unless very many chains are new.

    Args:
        family: The family of the tables.
        changes: The changes.
        desired: All objects after the changes; of those that do not change, only sets are looked up, unless a table or
            a set must be created again with its content. None if the changes contain all of them that are needed.
        chains_per_transaction: The most new chains whose rules are written in one transaction.
        scope: Which of the changes are written; removals are those of tables, sets and chains.
        find: Returns a set of the kernel that is not among the desired objects.

    Raises:
        ValueError: An object has something that rulegen does not write.
    """
    tables: dict[str, list[Change[NftKey, NftValue]]] = {}
    for table, adjacent in groupby(changes, attrgetter("key.table")):
        tables.setdefault(table, []).extend(adjacent)
    grown: list[list[NftMessage]] = []
    last: list[NftMessage] = []
    for name, of_table in sorted(tables.items()):
        work = _TableWork(TableName(_FAMILIES[family], name), of_table, desired, find)
        if scope is ChangePart.REMOVALS:
            last += work.removals()
            continue
        grown += work.grown(chains_per_transaction)
        last += work.switched(removes=scope is ChangePart.ALL)
    return [
        *(Transaction("new chains", requests) for requests in grown),
        *([Transaction("changes", last)] if last else []),
    ]


class _TableWork:
    """The requests for the changes of one table."""

    def __init__(
        self,
        table: TableName,
        changes: Sequence[Change[NftKey, NftValue]],
        desired: Mapping[NftKey, NftValue] | None,
        find: Callable[[TableName, str], NamedSet | None],
    ) -> None:
        self._table, self._all, self._desired, self._find = table, changes, desired, find
        self._sets: dict[str, NamedSet | None] = {}
        self._writer = RuleWriter(table, self._set)
        self._changes: dict[NftKey, Change[NftKey, NftValue]] = {}
        self._removed: dict[str, list[NftKey]] = {}
        self._added: dict[str, tuple[list[NftKey], list[ElementData | None]]] = {}
        for (kind, name), adjacent in groupby(changes, attrgetter("key.kind", "key.name")):
            if kind is not ObjectKind.SET:
                self._changes.update((change.key, change) for change in adjacent)
            else:
                self._take_set(name, adjacent)
        self._grown: set[NftKey] = set()
        self._is_grown = False
        self._remake()

    def _take_set(self, name: str, changes: Iterable[Change[NftKey, NftValue]]) -> None:
        """Take the changes of a set and of its elements."""
        keys, data = self._added.get(name, ([], []))
        removed = self._removed.get(name, [])
        for change in changes:
            key, before, after = change
            if not key.element:
                self._changes[key] = change
                continue
            if before is not None:
                removed.append(key)
            if isinstance(after, ElementValue):
                keys.append(key)
                data.append(after.data)
        if keys:
            self._added[name] = keys, data
        if removed:
            self._removed[name] = removed

    def _add(self, key: NftKey, value: ElementValue) -> None:
        keys, data = self._added.setdefault(key.name, ([], []))
        keys.append(key)
        data.append(value.data)

    def _set(self, name: str) -> NamedSet | None:
        if name not in self._sets:
            key = set_key(self._table.name, name)
            if key in self._changes:
                known = self._changes[key].after
            else:
                known = self._desired.get(key) if self._desired is not None else None
                known = known or self._find(self._table, name)
            self._sets[name] = known if isinstance(known, NamedSet) else None
        return self._sets[name]

    def _remake(self) -> None:
        """Add changes for objects that the kernel cannot change and that must be created again: tables, sets."""
        table = self._changes.get(NftKey(self._table.name, ObjectKind.TABLE))
        self._begin = [] if table is None else self._table_requests(table)
        self._is_remade = table is not None and table.before is not None
        self._is_deleted = table is not None and table.after is None
        remade = {
            key.name
            for key, change in self._changes.items()
            if isinstance(change.before, NamedSet) and isinstance(change.after, NamedSet)
        }
        if not self._is_remade and not remade:
            return
        for name in [*self._added] if self._is_remade else remade & self._added.keys():
            del self._added[name]
        for key, value in self._content():
            if key.table != self._table.name or self._is_deleted:
                continue
            if isinstance(value, ElementValue):
                if self._is_remade or key.name in remade:
                    self._add(key, value)
            elif self._is_remade or _uses(value, remade):
                change = self._changes.get(key)
                before = None if self._is_remade else value if change is None else change.before
                self._changes[key] = Change(key, before, value)

    def _content(self) -> Iterable[tuple[NftKey, NftValue]]:
        """Return all objects after the changes."""
        if self._desired is not None:
            return self._desired.items()
        return [(key, after) for key, _, after in self._all if after is not None]

    def _table_requests(self, change: Change[NftKey, NftValue]) -> list[NftMessage]:
        requests = [] if change.before is None else [objects.delete_table(self._table)]
        if isinstance(change.after, TableValue):
            unknown = change.after.flags - _TABLE_FLAGS.keys()
            if unknown:
                raise ValueError(f"unknown flags of a table: {', '.join(sorted(unknown))}")
            requests.append(objects.new_table(self._table, sum(_TABLE_FLAGS[flag] for flag in change.after.flags)))
        return requests

    def grown(self, chains_per_transaction: int) -> Iterator[list[NftMessage]]:
        """Yield transactions that make new chains which nothing leads to, if there are too many for one."""
        new = [
            (key, change.after)
            for key, change in self._changes.items()
            if isinstance(change.after, NftChain) and change.before is None and change.after.base is None
        ]
        if len(new) <= chains_per_transaction or self._is_remade or self._replaced_sets():
            return
        self._is_grown = True
        self._grown = {key for key, _ in new}
        yield [*self._begin, *self._new_sets(), *(objects.new_chain(self._table, key.name) for key, _ in new)]
        for start in range(0, len(new), chains_per_transaction):
            requests: list[NftMessage] = []
            for key, chain in new[start : start + chains_per_transaction]:
                requests += self._rules(key, chain)
            yield requests

    def switched(self, *, removes: bool = True) -> list[NftMessage]:
        """Return the transaction that makes all changes, or those that are left; maybe without removals."""
        if self._is_deleted:
            return self._begin if removes else []
        requests: list[NftMessage] = [] if self._is_grown else [*self._begin]
        if not self._is_remade:
            requests += self._cleared()
            requests += self._deletions(removes=removes)
        if not self._is_grown:
            requests += self._new_sets()
        chains = [(key, chain) for key, chain in self._after(NftChain) if key not in self._grown]
        requests += (self._new_chain(key, chain) for key, chain in chains if self._is_new_chain(key))
        requests += self._elements()
        for key, chain in chains:
            requests += self._rules(key, chain)
        return requests

    def removals(self) -> list[NftMessage]:
        """Return the transaction that deletes the table, or sets and chains that nothing refers to any more."""
        if self._is_deleted:
            return self._begin
        return [] if self._is_remade else [*self._deletions(removes=True, replaces=False)]

    def _cleared(self) -> Iterator[NftMessage]:
        """Yield the deletions of rules and elements, which refer to other objects."""
        for key, change in self._changes.items():
            if isinstance(change.before, NftChain) and change.before.rules:
                yield objects.flush_chain(self._table, key.name)._replace(subject=key)
            if isinstance(change.before, OtherObject):
                message = f"{key.name} {key.element[0]}: rulegen does not delete such objects"
                raise ValueError(message)  # noqa: TRY004 - callers treat all faults alike
        gone = {key.name for key in self._gone_sets()}
        for name, keys in self._removed.items():
            known = self._set(name)
            if name in gone:
                yield elements.flush(self._table, name)._replace(subject=set_key(self._table.name, name))
            elif known is not None:
                yield from delete_members(self._table, name, known, keys)

    def _deletions(self, *, removes: bool, replaces: bool = True) -> Iterator[NftMessage]:
        """Yield the deletions of sets and chains: unneeded ones, and those that are created again."""
        for key in self._gone_sets():
            if removes if self._changes[key].after is None else replaces:
                yield objects.delete_set(self._table, key.name)._replace(subject=key)
        for key, change in self._changes.items():
            is_gone = isinstance(change.before, NftChain) and self._is_gone_chain(change)
            if is_gone and (removes if change.after is None else replaces):
                yield objects.delete_chain(self._table, key.name)._replace(subject=key)

    def _gone_sets(self) -> list[NftKey]:
        return [key for key, change in self._changes.items() if isinstance(change.before, NamedSet)]

    def _replaced_sets(self) -> bool:
        return any(self._changes[key].after is not None for key in self._gone_sets())

    @staticmethod
    def _is_gone_chain(change: Change[NftKey, NftValue]) -> bool:
        before, after = change.before, change.after
        return not (isinstance(before, NftChain) and isinstance(after, NftChain) and before.base == after.base)

    def _is_new_chain(self, key: NftKey) -> bool:
        change = self._changes[key]
        return change.before is None or self._is_gone_chain(change)

    def _after(self, kind: type[T]) -> Iterator[tuple[NftKey, T]]:
        return ((key, change.after) for key, change in self._changes.items() if isinstance(change.after, kind))

    def _new_sets(self) -> Iterator[NftMessage]:
        for key, wanted in self._after(NamedSet):
            yield objects.new_set(self._table, kernel_set(key.name, wanted))._replace(subject=key)

    def _new_chain(self, key: NftKey, chain: NftChain) -> NftMessage:
        hook, base = None, chain.base
        if base is not None:
            if base.hook not in _HOOKS or base.policy not in _POLICIES:
                raise ValueError(f"chain {key.name}: {base}")
            hook = Hook(base.type, _HOOKS[base.hook], base.priority, _POLICIES[base.policy])
        return objects.new_chain(self._table, key.name, hook)._replace(subject=key)

    def _elements(self) -> Iterator[NftMessage]:
        for name, (keys, data) in self._added.items():
            known = self._set(name)
            if known is None:
                raise ValueError(f"no set or map {name[:60]!r} in the table")
            yield from add_members(self._table, name, known, keys, data)

    def _rules(self, key: NftKey, chain: NftChain) -> Iterator[NftMessage]:
        for rule in chain.rules:
            sets, expressions = self._writer.written(rule)
            yield from (request._replace(subject=key) for request in sets)
            yield objects.append_rule(self._table, key.name, expressions, subject=key)


def _uses(value: NftValue, sets: set[str]) -> bool:
    """Whether a chain has a rule that refers to one of these sets."""
    return isinstance(value, NftChain) and any(
        f"@{name}" in words for rule in value.rules if (words := str(rule).split(" ")) for name in sets
    )
