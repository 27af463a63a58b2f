"""The objects of nftables with their keys: tables, sets and maps, elements, chains with their rules.

A state holds the objects of one family by key. The family (`ip` or `ip6`) is therefore no part of a key.

| kind of key | value |
|---|---|
| table | `TableValue`: its flags |
| set | `NamedSet`: types, flags, timeout and size of a set or a map |
| element | `ElementValue`: a value in a map, nothing in a set |
| chain | `NftChain`: its hook, if it has one, and its rules in order |
| other | `OtherObject`: an object of a kind that rulegen does not write, as text |

A chain with its rules is one object, because their order matters. An element is an object, because its order does not.
Packets add elements to sets with a timeout; these are no objects.

The parts of elements are text in the spelling of nft: they sort, and need no conversion when they are read, compared,
shown and written. The types are names of nft (`ipv4_addr`, `inet_proto`, `inet_service`, `mark`). They say how the text
of an element becomes bytes. A table sorts before its sets, a set before its elements, and these before chains.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from operator import attrgetter, itemgetter
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from rulegen.languages.nftables.expressions import VerdictCode
from rulegen.net import Family

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from rulegen.diff.changes import Change
    from rulegen.languages.nftables.statements import NftRule

NAME_MAX: Final = 255
"""The longest name of a table, chain or set (NFT_NAME_MAXLEN without the NUL)."""

FAMILIES: Final = {Family.IPV4: "ip", Family.IPV6: "ip6"}
"""The names of nft for the families of tables."""

VERDICT: Final = "verdict"
"""The type of the values of a verdict map."""

PRIORITIES: Final = {"raw": -300, "mangle": -150, "dstnat": -100, "filter": 0, "security": 50, "srcnat": 100}
"""The names of priorities in the families ip and ip6 (nft(8), table 6)."""


class ObjectKind(IntEnum):
    """A kind of object, in the order of keys."""

    TABLE = 0
    SET = 1
    CHAIN = 2
    OTHER = 3


class NftKey(NamedTuple):
    """The key of an object. Make keys with the functions of this module.

    Attributes:
        element: The parts of an element's key; empty for all other objects.
    """

    table: str
    kind: ObjectKind
    name: str = ""
    element: tuple[str, ...] = ()

    @property
    def is_element(self) -> bool:
        """Whether it is the key of an element."""
        return bool(self.element) and self.kind is ObjectKind.SET


def table_key(table: str) -> NftKey:
    """Return the key of a table."""
    return NftKey(table, ObjectKind.TABLE)


def set_key(table: str, name: str) -> NftKey:
    """Return the key of a set or map."""
    return NftKey(table, ObjectKind.SET, name)


def element_key(table: str, name: str, element: tuple[str, ...]) -> NftKey:
    """Return the key of an element of a set or map."""
    return NftKey(table, ObjectKind.SET, name, element)


def chain_key(table: str, name: str) -> NftKey:
    """Return the key of a chain."""
    return NftKey(table, ObjectKind.CHAIN, name)


def other_key(table: str, kind: str, name: str) -> NftKey:
    """Return the key of an object of another kind, such as a counter."""
    return NftKey(table, ObjectKind.OTHER, kind, (name,))


def in_order(keys: Iterable[NftKey]) -> Iterator[NftKey]:
    """Yield keys in their order; the parts of elements alone are compared within a set, in a third of the time."""
    groups: dict[tuple[str, ObjectKind, str], list[NftKey]] = {}
    for key in keys:
        groups.setdefault((key.table, key.kind, key.name), []).append(key)
    for _, group in sorted(groups.items(), key=itemgetter(0)):
        yield from sorted(group, key=attrgetter("element"))


class TableValue(msgspec.Struct, frozen=True):
    """A table.

    Attributes:
        flags: `dormant`, `owner`, `persist`. Only the first one is read: the others say who may change the table, not
            what it does with packets, and nft before 1.1 prints them wrongly.
    """

    flags: frozenset[str] = frozenset()

    @classmethod
    def read(cls, flags: Iterable[str]) -> TableValue:
        """Return a table with these flags in a listing."""
        return cls(frozenset(flags) & {"dormant"})

    def __str__(self) -> str:
        """Return the flags."""
        return f"flags {','.join(sorted(self.flags))}" if self.flags else ""


_EXAMPLES: Final = {
    "ipv4_addr": "ip daddr",
    "ipv6_addr": "ip6 daddr",
    "inet_proto": "meta l4proto",
    "inet_service": "th dport",
    "mark": "numgen random mod 65536",
}
"""An expression of each type: nft looks up a number only in a map that is declared with such expressions."""


class NamedSet(msgspec.Struct, frozen=True):
    """A set, a map, or a verdict map, without its elements.

    Attributes:
        key: The types of the parts of a key.
        data: The types of the parts of a value; empty for a set; `("verdict",)` for a verdict map.
        flags: `constant`, `interval`, `timeout`. `dynamic` is left out: nft 1.0.6 does not print it as JSON, and the
            kernel sets it by itself if a rule updates the set.
        timeout_s: How long packets' elements stay, in seconds; None without `timeout`.
        size: The most elements; None for no limit.
    """

    key: tuple[str, ...]
    data: tuple[str, ...] = ()
    flags: frozenset[str] = frozenset()
    timeout_s: int | None = None
    size: int | None = None

    @property
    def is_map(self) -> bool:
        """Whether elements have values."""
        return bool(self.data)

    @property
    def word(self) -> str:
        """The word of nft: `set` or `map`."""
        return "map" if self.data else "set"

    @property
    def is_learnt(self) -> bool:
        """Whether packets add the elements, so that they are no objects."""
        return "timeout" in self.flags

    def __str__(self) -> str:
        """Return the definition, as in braces after the name."""
        return "; ".join(self.lines)

    @property
    def lines(self) -> tuple[str, ...]:
        """The definition line by line, as nft reads it."""
        has_numbers = "mark" in self.key and self.data not in {(), (VERDICT,)}
        key, data = (
            " . ".join(_EXAMPLES.get(name, name) if has_numbers else name for name in types)
            for types in (self.key, self.data)
        )
        lines = [f"{'typeof' if has_numbers else 'type'} {key}{f' : {data}' if data else ''}"]
        if self.size is not None:
            lines.append(f"size {self.size}")
        flags = sorted(self.flags | {"dynamic"} if self.is_learnt else self.flags)
        if flags:
            lines.append(f"flags {','.join(flags)}")
        if self.timeout_s is not None:
            lines.append(f"timeout {self.timeout_s}s")
        return tuple(lines)


ElementData = VerdictCode | tuple[str, ...]


class ElementValue(msgspec.Struct, frozen=True):
    """The value of an element.

    Attributes:
        data: A verdict; the parts of a value; or None in a set.
    """

    data: ElementData | None = None

    def __str__(self) -> str:
        """Return the value as text; empty in a set."""
        if self.data is None:
            return ""
        return " . ".join(self.data) if isinstance(self.data, tuple) else str(self.data)


IN_SET: Final = ElementValue()
"""The value of each element of a set."""


def element_text(key: NftKey, value: ElementValue) -> str:
    """Return an element as nft prints it: `10.96.0.1 . tcp . 443 : goto reject-chain`."""
    text = " . ".join(key.element)
    return text if value.data is None else f"{text} : {value}"


class BaseChain(msgspec.Struct, frozen=True):
    """Where packets enter a chain.

    Attributes:
        type: `filter`, `nat` or `route`.
        hook: `prerouting`, `input`, `forward`, `output` or `postrouting`.
        priority: Chains with lower numbers come first.
    """

    type: str
    hook: str
    priority: int
    policy: str = "accept"

    def __str__(self) -> str:
        """Return the line of nft, with the priority as number."""
        return f"type {self.type} hook {self.hook} priority {self.priority}; policy {self.policy};"


class NftChain(msgspec.Struct, frozen=True):
    """A chain with its rules; `base` is None for a chain that only rules and maps lead to."""

    rules: tuple[NftRule, ...] = ()
    base: BaseChain | None = None


@dataclass(frozen=True, slots=True)
class OtherObject:
    """An object of a kind that rulegen does not write, such as a counter or a flowtable.

    Attributes:
        text: Its definition as the dump has it; not compared.
    """

    text: str = field(default="", compare=False)


NftValue = TableValue | NamedSet | ElementValue | NftChain | OtherObject
NftObjects = dict[NftKey, NftValue]
"""The objects of one family."""


def in_tables(objects: Mapping[NftKey, NftValue], tables: frozenset[str]) -> NftObjects:
    """Return the objects in these tables."""
    return {key: value for key, value in objects.items() if key.table in tables}


class NftLoopbackGuard(msgspec.Struct, frozen=True):
    """A chain with one rule, which drops packets from outside to the loopback prefix.

    Attributes:
        key: The key of the chain.
        chain: The chain with its hook and its rule.
    """

    key: NftKey
    chain: NftChain

    def is_in(self, objects: Mapping[NftKey, NftValue]) -> bool:
        """Return whether these objects drop such packets. A table with flags may be dormant."""
        return self._guards(objects.get(self.key)) and objects.get(table_key(self.key.table)) == TableValue()

    def is_taken_by(self, changes: Iterable[Change[NftKey, NftValue]]) -> bool:
        """Return whether changes remove the chain or its rule."""
        return any(key == self.key and self._guards(was) and not self._guards(is_) for key, was, is_ in changes)

    def without(self, objects: NftObjects, *, keeps_table: bool) -> NftObjects:
        """Return objects without the chain; unless `keeps_table`, without its table too, which it needs."""
        left_out = {self.key} if keeps_table else {self.key, table_key(self.key.table)}
        return {key: value for key, value in objects.items() if key not in left_out}

    def _guards(self, value: NftValue | None) -> bool:
        return isinstance(value, NftChain) and value.base == self.chain.base and value.rules[:1] == self.chain.rules
