"""Expressions of nftables: the values that statements compare, look up and set.

Source: nft(8). `str` of an expression is its text in the spelling of `nft list ruleset` 1.0.6. Two expressions are
equal if the kernel evaluates them equally: the readers and the constructors of this module give each meaning one form.
"""

from __future__ import annotations

from ipaddress import ip_address, summarize_address_range
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from rulegen.net import Address, Network, parse_address, parse_network

if TYPE_CHECKING:
    from collections.abc import Iterable


class Literal(msgspec.Struct, frozen=True):
    """A constant as nft prints it: `10.0.0.1`, `10.0.0.0/8`, `tcp`, `80`, `new`, `local`, `"cbr0"`."""

    text: str

    def __str__(self) -> str:
        """Return the text."""
        return self.text


class Bits(msgspec.Struct, frozen=True):
    """A constant packet mark or bit mask."""

    value: int

    def __str__(self) -> str:
        """Return eight hexadecimal digits."""
        return f"0x{self.value:08x}"


class Payload(msgspec.Struct, frozen=True):
    """A field of a packet header, such as `ip saddr` or `th dport`."""

    header: str
    field: str

    def __str__(self) -> str:
        """Return header and field."""
        return f"{self.header} {self.field}"


_MOST_DIGITS = 10
"""Digits of a number of 32 bits."""
_BARE_META = frozenset({"iif", "oif", "iifname", "oifname", "iiftype", "oiftype", "skuid", "skgid", "iifgroup"})
"""Meta keys that nft prints without the word `meta`."""


class Meta(msgspec.Struct, frozen=True):
    """A property of a packet beside its headers: `l4proto`, `mark`, `iifname`."""

    key: str

    def __str__(self) -> str:
        """Return the text; some keys are printed without `meta`."""
        return self.key if self.key in _BARE_META else f"meta {self.key}"


class Ct(msgspec.Struct, frozen=True):
    """A property of the packet's connection in conntrack.

    Attributes:
        key: Such as `state`, `status`, `ip daddr`, `proto-dst`.
        direction: `original`, `reply`, or empty.
    """

    key: str
    direction: str = ""

    def __str__(self) -> str:
        """Return the text."""
        return f"ct {self.direction} {self.key}" if self.direction else f"ct {self.key}"


class Fib(msgspec.Struct, frozen=True):
    """The result of a lookup in the routing tables, such as the type of the source address.

    Attributes:
        flags: What is looked up, such as `saddr` or `daddr`, in the order of nft.
        result: `type`, `oif` or `oifname`.
    """

    flags: tuple[str, ...]
    result: str

    def __str__(self) -> str:
        """Return the text."""
        return f"fib {' . '.join(self.flags)} {self.result}"


class Numgen(msgspec.Struct, frozen=True):
    """A number from `offset` to `offset + modulus - 1`, `random` or `inc` (round robin)."""

    mode: str
    modulus: int
    offset: int = 0

    def __str__(self) -> str:
        """Return the text."""
        return f"numgen {self.mode} mod {self.modulus}" + (f" offset {self.offset}" if self.offset else "")


class Concat(msgspec.Struct, frozen=True):
    """Several expressions as one key or one value."""

    parts: tuple[Expression, ...]

    def __str__(self) -> str:
        """Return the parts, separated by dots."""
        return " . ".join(map(str, self.parts))


class Bitwise(msgspec.Struct, frozen=True):
    """Two values combined bit by bit; `operator` is `&`, `|` or `^`."""

    operator: str
    left: Expression
    right: Expression

    def __str__(self) -> str:
        """Return the text."""
        return f"{self.left} {self.operator} {self.right}"


class SetReference(msgspec.Struct, frozen=True):
    """A named set or map of the same table."""

    name: str

    def __str__(self) -> str:
        """Return the name after an at sign."""
        return f"@{self.name}"


class AnonymousSet(msgspec.Struct, frozen=True):
    """The elements of a set without a name, in order; see `addresses_in` for prefixes."""

    elements: tuple[Expression, ...]

    def __str__(self) -> str:
        """Return the elements in braces."""
        return "{ " + ", ".join(map(str, self.elements)) + " }"


class AnonymousMap(msgspec.Struct, frozen=True):
    """The keys and values of a map without a name, sorted by key; numbers sort as numbers."""

    items: tuple[tuple[Expression, Expression], ...]

    @classmethod
    def of(cls, items: Iterable[tuple[Expression, Expression]]) -> AnonymousMap:
        """Return the map with its items sorted."""
        return cls(tuple(sorted(items, key=lambda item: _rank(str(item[0])))))

    def __str__(self) -> str:
        """Return the items in braces."""
        return "{ " + ", ".join(f"{key} : {value}" for key, value in self.items) + " }"


class MapLookup(msgspec.Struct, frozen=True):
    """The value that a map has for a key."""

    key: Expression
    map: SetReference | AnonymousMap

    def __str__(self) -> str:
        """Return the text."""
        return f"{self.key} map {self.map}"


class VerdictCode(msgspec.Struct, frozen=True):
    """What happens to a packet: a statement of a rule, or the value of a verdict map.

    Attributes:
        code: `accept`, `drop`, `return`, `continue`, `jump` or `goto`.
        target: The chain of a jump or goto.
    """

    code: str
    target: str = ""

    def __str__(self) -> str:
        """Return the text."""
        return f"{self.code} {self.target}" if self.target else self.code


Expression = (
    Literal
    | Bits
    | Payload
    | Meta
    | Ct
    | Fib
    | Numgen
    | Concat
    | Bitwise
    | SetReference
    | AnonymousSet
    | AnonymousMap
    | MapLookup
    | VerdictCode
)


def _rank(text: str) -> tuple[int, str]:
    first = text.partition("-")[0]
    return (int(first), "") if first.isascii() and first.isdigit() and len(first) <= _MOST_DIGITS else (-1, text)


class Interval(NamedTuple):
    """The first and the last address of an interval, as numbers."""

    first: int
    last: int


def addresses_in(members: Iterable[Address | Network | tuple[Address, Address]]) -> Expression:
    """Return the addresses of these members as an expression: one literal, or a set.

    nft merges intervals that overlap or touch, and prints the result as prefixes where it is one, else as ranges.
    """
    members = list(members)
    intervals = sorted(map(_interval, members))
    version = 4 if not members or _version(members[0]) == 4 else 6
    merged: list[Interval] = []
    for interval in intervals:
        if merged and interval.first <= merged[-1].last + 1:
            merged[-1] = Interval(merged[-1].first, max(merged[-1].last, interval.last))
        else:
            merged.append(interval)
    literals = tuple(Literal(_interval_text(interval, version)) for interval in merged)
    return literals[0] if len(literals) == 1 else AnonymousSet(literals)


def addresses_of(text: str) -> Address | Network | tuple[Address, Address]:
    """Return the address, prefix or range that a text contains.

    Raises:
        ValueError: It contains neither.
    """
    first, dash, last = text.partition("-")
    if dash:
        start, end = parse_address(first), parse_address(last)
        if start.version != end.version or int(start) > int(end):
            message = f"{text!r} is not a range of addresses"
            raise ValueError(message)
        return start, end
    return parse_network(text) if "/" in text else parse_address(text)


def _version(member: Address | Network | tuple[Address, Address]) -> int:
    return member[0].version if isinstance(member, tuple) else member.version


def _interval(member: Address | Network | tuple[Address, Address]) -> Interval:
    if isinstance(member, tuple):
        return Interval(int(member[0]), int(member[1]))
    if isinstance(member, Address):
        return Interval(int(member), int(member))
    return Interval(int(member.network_address), int(member.broadcast_address))


def _interval_text(interval: Interval, version: int) -> str:
    size = 32 if version == 4 else 128
    first, last = (ip_address(value.to_bytes(size // 8, "big")) for value in interval)
    networks: list[Network] = list(summarize_address_range(first, last))
    if len(networks) > 1:
        return f"{first}-{last}"
    return str(first) if networks[0].prefixlen == size else str(networks[0])
