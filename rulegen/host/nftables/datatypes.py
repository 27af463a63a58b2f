"""Types of nft: how texts of constants become the bytes of keys and data, and what nft needs to print them.

The kernel knows lengths only. nft stores the number of a type with a set, and in its user data the byte order of
numbers, and reads both to print the elements.
"""

from __future__ import annotations

import socket
import struct
from functools import cache
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

UNORDERED, HOST_ORDER, NETWORK_ORDER = 0, 1, 2
"""Byte orders in user data; the first is that of concatenations and verdicts."""
_TYPE_BITS = 6
_MOST_CACHED = 1 << 16
_PROTOCOLS: Final = {"icmp": 1, "tcp": 6, "udp": 17, "udplite": 136, "sctp": 132, "dccp": 33, "ipv6-icmp": 58}
_ADDRESS_TYPES: Final = {"unspec": 0, "unicast": 1, "local": 2, "broadcast": 3, "anycast": 4, "multicast": 5}
_ADDRESS_TYPES_SPECIAL: Final = {"blackhole": 6, "unreachable": 7, "prohibit": 8}
_CT_STATES: Final = {"invalid": 1, "established": 2, "related": 4, "new": 8, "untracked": 64}
_CT_STATUSES: Final = {
    "expected": 1,
    "seen-reply": 2,
    "assured": 4,
    "confirmed": 8,
    "snat": 16,
    "dnat": 32,
    "dying": 512,
}
_NAME_LENGTH = 16


class Datatype(NamedTuple):
    """A type of nft.

    Attributes:
        number: Its number in nft (enum datatypes).
        length: The length of a value in bytes.
        order: The byte order of its numbers.
        parse: Returns the value of a text, or raises ValueError.
    """

    number: int
    length: int
    order: int
    parse: Callable[[str], bytes]

    @property
    def padded(self) -> int:
        """The length of a value in a concatenation."""
        return (self.length + 3) & ~3


class Texts(dict[str, bytes]):
    """The padded values of texts, made when they are first looked up: elements share most of their parts."""

    def __init__(self, datatype: Datatype) -> None:
        super().__init__()
        self._parse, self._padding = datatype.parse, bytes(datatype.padded - datatype.length)

    def __missing__(self, text: str) -> bytes:
        """Return the value of a new text.

        Raises:
            ValueError: The type has no such value.
        """
        if len(self) >= _MOST_CACHED:
            self.clear()
        value = self[text] = self._parse(text) + self._padding
        return value


def _number_of(text: str, most: int) -> int:
    value = int(text, 0) if text.isascii() and not text.startswith("-") else -1
    if not 0 <= value <= most:
        raise ValueError(f"{text[:40]!r} is not a number up to {most}")
    return value


def _ipv4(text: str) -> bytes:
    try:
        return socket.inet_pton(socket.AF_INET, text)
    except OSError:
        raise ValueError(f"{text[:60]!r} is not an IPv4 address") from None


def _ipv6(text: str) -> bytes:
    try:
        return socket.inet_pton(socket.AF_INET6, text)
    except OSError:
        raise ValueError(f"{text[:60]!r} is not an IPv6 address") from None


def _names(values: dict[str, int], form: str) -> Callable[[str], bytes]:
    """Return a parser of names joined by commas, and of numbers."""
    most = (1 << 8 * struct.calcsize(form)) - 1

    def parse(text: str) -> bytes:
        value = 0
        for name in text.split(","):
            value |= values[name] if name in values else _number_of(name, most)
        return struct.pack(form, value)

    return parse


def _name(text: str) -> bytes:
    content = text.strip('"').encode()
    if not 0 < len(content) < _NAME_LENGTH:
        raise ValueError(f"{text[:40]!r} is not a name of an interface")
    return content.ljust(_NAME_LENGTH, b"\0")


INTEGER: Final = Datatype(4, 4, HOST_ORDER, lambda text: struct.pack("=I", _number_of(text, 0xFFFFFFFF)))
DATATYPES: Final = {
    "nf_proto": Datatype(2, 1, HOST_ORDER, _names({"ipv4": 2, "ipv6": 10}, ">B")),
    "integer": INTEGER,
    "ipv4_addr": Datatype(7, 4, NETWORK_ORDER, _ipv4),
    "ipv6_addr": Datatype(8, 16, NETWORK_ORDER, _ipv6),
    "inet_proto": Datatype(12, 1, NETWORK_ORDER, _names(_PROTOCOLS, ">B")),
    "inet_service": Datatype(13, 2, NETWORK_ORDER, lambda text: struct.pack(">H", _number_of(text, 0xFFFF))),
    "mark": INTEGER._replace(number=19),
    "ct_state": Datatype(26, 4, HOST_ORDER, _names(_CT_STATES, "=I")),
    "ct_status": Datatype(28, 4, HOST_ORDER, _names(_CT_STATUSES, "=I")),
    "fib_addrtype": Datatype(38, 4, HOST_ORDER, _names(_ADDRESS_TYPES | _ADDRESS_TYPES_SPECIAL, "=I")),
    "ifname": Datatype(41, _NAME_LENGTH, HOST_ORDER, _name),
}


def datatype(name: str) -> Datatype:
    """Return a type by its name in nft.

    Raises:
        ValueError: rulegen does not write values of this type.
    """
    if name not in DATATYPES:
        raise ValueError(f"unknown type {name[:40]!r}")
    return DATATYPES[name]


@cache
def texts(name: str) -> Texts:
    """Return the padded values of a type's texts, kept for the process."""
    return Texts(datatype(name))


def concatenated(types: Sequence[Datatype]) -> tuple[int, int, int]:
    """Return the number, the length and the byte order of a concatenation of types, or of a single type."""
    if len(types) == 1:
        return types[0].number, types[0].length, types[0].order
    number = 0
    for each in types:
        number = number << _TYPE_BITS | each.number
    return number & 0xFFFFFFFF, sum(each.padded for each in types), UNORDERED


_NAMES: Final = {each.number: name for name, each in DATATYPES.items()}


def type_names(number: int) -> tuple[str, ...] | None:
    """Return the types that a number stands for; None if rulegen writes none of them, or for more than five types."""
    names: list[str] = []
    while number:
        name = _NAMES.get(number & ((1 << _TYPE_BITS) - 1))
        if name is None:
            return None
        names.insert(0, name)
        number >>= _TYPE_BITS
    return tuple(names) or None
