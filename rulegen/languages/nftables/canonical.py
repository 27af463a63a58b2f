"""The single form of constants that dumps spell in several ways; both readers use it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from rulegen.languages.nftables.expressions import (
    AnonymousSet,
    Bits,
    Bitwise,
    Ct,
    Expression,
    Literal,
    Meta,
    Payload,
    addresses_in,
    addresses_of,
)
from rulegen.net import parse_address

if TYPE_CHECKING:
    from collections.abc import Sequence

PROTOCOLS: Final = {"6": "tcp", "17": "udp", "132": "sctp", "1": "icmp", "58": "ipv6-icmp"}
_ADDRESS_TYPES: Final = frozenset({"ipv4_addr", "ipv6_addr"})
_TYPE_OF: Final = {
    "ip saddr": "ipv4_addr",
    "ip daddr": "ipv4_addr",
    "ip6 saddr": "ipv6_addr",
    "ip6 daddr": "ipv6_addr",
    "meta l4proto": "inet_proto",
    "th dport": "inet_service",
    "meta mark": "mark",
    "integer": "mark",
}
_NUMGEN: Final = re.compile(r"numgen random mod [0-9]{1,10}\Z")
_UNITS_MS: Final = {"d": 86_400_000, "h": 3_600_000, "m": 60_000, "s": 1_000, "ms": 1}
_TIME: Final = re.compile(r"(?:[0-9]{1,9}(?:d|h|ms|m|s))+\Z")
_TIME_PART: Final = re.compile(r"([0-9]{1,9})(d|h|ms|m|s)")
_NUMBER: Final = re.compile(r"(?:0x[0-9a-fA-F]{1,8}|[0-9]{1,10})\Z")
_INTERFACE_NAMES: Final = frozenset({"iifname", "oifname"})


def constant(left: Expression, text: str) -> Expression:
    """Return a constant that is compared with `left`.

    Raises:
        ValueError: `left` has no such value.
    """
    if has_mark(left):
        return Bits(number(text))
    if isinstance(left, Meta) and left.key in _INTERFACE_NAMES:
        return Literal(f'"{text.strip(chr(34))}"')
    if is_address(left):
        return addresses_in([addresses_of(text)])
    if isinstance(left, Meta) and left.key == "l4proto":
        return Literal(PROTOCOLS.get(text, text))
    if isinstance(left, Ct) and "," in text:
        return Literal(",".join(sorted(text.split(","))))
    return Literal(text)


def constants(left: Expression, texts: Sequence[str]) -> Expression:
    """Return the constants of an anonymous set.

    Raises:
        ValueError: `left` has no such value.
    """
    if is_address(left) and texts:
        return addresses_in(map(addresses_of, texts))
    elements = sorted((constant(left, text) for text in texts), key=str)
    return elements[0] if len(elements) == 1 else AnonymousSet(tuple(elements))


def type_name(text: str) -> str:
    """Return the type of a part of a set, which may be named by an expression that has it.

    Numbers have the type of marks: nft cannot read a set of numbers that is declared by the name of their type.
    """
    return "mark" if _NUMGEN.match(text) else _TYPE_OF.get(text, text)


def element_part(type_: str, text: str) -> str:
    """Return a part of an element in the spelling of the model."""
    if type_ in _ADDRESS_TYPES and ":" in text and "." in text:  # the tools print some with dotted octets
        try:
            return str(parse_address(text))
        except ValueError:
            return text
    if type_ == "mark" and _NUMBER.match(text):  # the JSON of nft has numbers
        return str(Bits(number(text)))
    return PROTOCOLS.get(text, text) if type_ == "inet_proto" else text


def has_mark(expression: Expression) -> bool:
    """Whether an expression is a packet mark, also combined with others bit by bit."""
    match expression:
        case Meta() | Ct():
            return expression.key == "mark"
        case Bitwise():
            return has_mark(expression.left) or has_mark(expression.right)
        case _:
            return isinstance(expression, Bits)


def is_address(expression: Expression) -> bool:
    """Whether an expression is an address of the packet."""
    return isinstance(expression, Payload) and expression.field in {"saddr", "daddr"}


def number(text: str) -> int:
    """Return a number in decimal or hexadecimal digits.

    Raises:
        ValueError: It is none.
    """
    if not _NUMBER.match(text):
        message = f"{text[:20]!r} is not a number"
        raise ValueError(message)
    return int(text, 0 if text[:2] == "0x" else 10)


def seconds(text: str) -> int:
    """Return the seconds in a time such as `3h` or `1m30s`.

    Raises:
        ValueError: It is no time.
    """
    if not _TIME.match(text):
        message = f"{text[:20]!r} is not a time such as 3h or 90s"
        raise ValueError(message)
    return sum(int(count) * _UNITS_MS[unit] for count, unit in _TIME_PART.findall(text)) // 1000
