"""Expressions that load values into registers: from those of the language to those of the kernel."""

from __future__ import annotations

import struct
import sys
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

from rulegen.host.nftables.datatypes import HOST_ORDER, Datatype, concatenated, datatype
from rulegen.host.nftables.kernel.expressions import (
    EQUAL,
    GREATER,
    GREATER_OR_EQUAL,
    LESS,
    LESS_OR_EQUAL,
    NETWORK_HEADER,
    NOT_EQUAL,
    TRANSPORT_HEADER,
    BitwiseExpr,
    ByteorderExpr,
    CompareExpr,
    CtExpr,
    FibExpr,
    ImmediateExpr,
    MetaExpr,
    NumgenExpr,
    PayloadExpr,
    RangeExpr,
)
from rulegen.host.nftables.sets import interval
from rulegen.languages.nftables.expressions import Bits, Bitwise, Concat, Ct, Fib, Literal, Meta, Numgen, Payload

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rulegen.host.nftables.kernel.expressions import Expression as KernelExpression
    from rulegen.languages.nftables.expressions import Expression

FIRST_REGISTER: Final = 8
_LAST_REGISTER = 23
_L4PROTO = 16
_WHOLE = 0xFFFFFFFF


class Field(NamedTuple):
    """A field of a header: where it is, and its type in nft."""

    base: int
    offset: int
    type_name: str


_FIELDS: Final[Mapping[tuple[str, str], Field]] = MappingProxyType(
    {
        ("ip", "saddr"): Field(NETWORK_HEADER, 12, "ipv4_addr"),
        ("ip", "daddr"): Field(NETWORK_HEADER, 16, "ipv4_addr"),
        ("ip", "protocol"): Field(NETWORK_HEADER, 9, "inet_proto"),
        ("ip6", "saddr"): Field(NETWORK_HEADER, 8, "ipv6_addr"),
        ("ip6", "daddr"): Field(NETWORK_HEADER, 24, "ipv6_addr"),
        ("ip6", "nexthdr"): Field(NETWORK_HEADER, 6, "inet_proto"),
    }
    | {
        (header, name): Field(TRANSPORT_HEADER, offset, "inet_service")
        for header in ("th", "tcp", "udp", "sctp")
        for name, offset in (("sport", 0), ("dport", 2))
    }
)
_META: Final = {
    "mark": (3, "mark"),
    "iifname": (6, "ifname"),
    "oifname": (7, "ifname"),
    "nfproto": (15, "nf_proto"),
    "l4proto": (_L4PROTO, "inet_proto"),
}
_CT: Final = {
    "state": (0, "ct_state"),
    "status": (2, "ct_status"),
    "mark": (3, "mark"),
    "protocol": (10, "inet_proto"),
    "proto-src": (11, "inet_service"),
    "proto-dst": (12, "inet_service"),
    "ip saddr": (19, "ipv4_addr"),
    "ip daddr": (20, "ipv4_addr"),
    "ip6 saddr": (21, "ipv6_addr"),
    "ip6 daddr": (22, "ipv6_addr"),
}
_OPERATORS: Final = {
    "==": EQUAL,
    "!=": NOT_EQUAL,
    "<": LESS,
    "<=": LESS_OR_EQUAL,
    ">": GREATER,
    ">=": GREATER_OR_EQUAL,
}
_ADDRESS_NAMES: Final = {7: "ipv4_addr", 8: "ipv6_addr"}
_INTERFACE_NAME = 41
HOST_TO_NETWORK: Final = 1
_DIRECTIONS: Final = {"": None, "original": 0, "reply": 1}
_FIB_FLAGS: Final = {"saddr": 1, "daddr": 2, "mark": 4, "iif": 8, "oif": 16}
_FIB_RESULTS: Final = {"oifname": (2, "ifname"), "type": (3, "fib_addrtype")}
_NUMGEN_KINDS: Final = {"inc": 0, "random": 1}


class NotWrittenError(ValueError):
    """An expression or statement that rulegen does not write."""

    def __init__(self, what: object) -> None:
        super().__init__(f"not written by rulegen: {str(what)[:200]}")


class Load(NamedTuple):
    """How a value gets into registers.

    Attributes:
        expressions: The expressions of the kernel.
        types: The types of its parts.
        register: The first register.
        requires: The protocol that the packet must have, by number; None for any.
    """

    expressions: tuple[KernelExpression, ...]
    types: tuple[Datatype, ...]
    register: int
    requires: int | None = None

    @property
    def length(self) -> int:
        """The length of the value in bytes."""
        return concatenated(self.types)[1]


def load(expression: Expression, register: int = FIRST_REGISTER) -> Load:
    """Return how an expression is loaded.

    Raises:
        ValueError: rulegen does not write it.
    """
    match expression:
        case Payload(header, field):
            return _payload(expression, header, field, register)
        case Meta(key) if key in _META:
            number, name = _META[key]
            return Load((MetaExpr(register, number),), (datatype(name),), register)
        case Ct(key, direction) if key in _CT and direction in _DIRECTIONS:
            number, name = _CT[key]
            return Load((CtExpr(register, number, _DIRECTIONS[direction]),), (datatype(name),), register)
        case Fib(flags, result) if result in _FIB_RESULTS and _FIB_FLAGS.keys() >= set(flags):
            number, name = _FIB_RESULTS[result]
            chosen = sum(_FIB_FLAGS[flag] for flag in flags)
            return Load((FibExpr(register, number, chosen),), (datatype(name),), register)
        case Numgen(mode, modulus, offset) if mode in _NUMGEN_KINDS:
            choice = NumgenExpr(register, modulus, _NUMGEN_KINDS[mode], offset)
            return Load((choice,), (datatype("integer"),), register)
        case Concat(parts):
            return _concat(expression, parts, register)
        case Bitwise():
            return _bitwise(expression, register)
        case _:
            raise NotWrittenError(expression)


def load_constant(expression: Expression, wanted: Datatype, register: int) -> Load:
    """Return how a constant of a type is loaded.

    Raises:
        ValueError: It is no constant of this type.
    """
    return Load((ImmediateExpr(register, constant(expression, wanted)),), (wanted,), register)


def constant(expression: Expression, wanted: Datatype) -> bytes:
    """Return the bytes of a constant.

    Raises:
        ValueError: It is no constant of this type.
    """
    match expression:
        case Bits(value):
            return wanted.parse(str(value))
        case Literal(text):
            return wanted.parse(text)
        case _:
            raise NotWrittenError(expression)


def needs_protocol(number: int) -> tuple[KernelExpression, ...]:
    """Return the expressions that end a rule for packets of other protocols; nft does not print them."""
    return MetaExpr(FIRST_REGISTER, _L4PROTO), CompareExpr(FIRST_REGISTER, EQUAL, bytes((number,)))


def _payload(expression: Payload, header: str, field: str, register: int) -> Load:
    if (header, field) not in _FIELDS:
        raise NotWrittenError(expression)
    base, offset, name = _FIELDS[header, field]
    kind = datatype(name)
    requires = datatype("inet_proto").parse(header)[0] if header in {"tcp", "udp", "sctp"} else None
    return Load((PayloadExpr(register, base, offset, kind.length),), (kind,), register, requires)


def _concat(expression: Concat, parts: tuple[Expression, ...], register: int) -> Load:
    expressions: list[KernelExpression] = []
    types: list[Datatype] = []
    requires, at = None, register
    for part in parts:
        if isinstance(part, Concat):
            raise NotWrittenError(expression)
        loaded = load(part, at)
        expressions += loaded.expressions
        types += loaded.types
        requires = requires or loaded.requires
        at += loaded.types[0].padded // 4
    if at > _LAST_REGISTER + 1:
        raise NotWrittenError(expression)
    return Load(tuple(expressions), tuple(types), register, requires)


def _bitwise(expression: Bitwise, register: int) -> Load:
    """Join nested operations with constants to one: `(value & mask) ^ xor`."""
    operations: list[tuple[str, Expression]] = []
    inner: Expression = expression
    while isinstance(inner, Bitwise):
        operations.append((inner.operator, inner.right))
        inner = inner.left
    loaded = load(inner, register)
    if len(loaded.types) != 1 or loaded.types[0].length != 4:
        raise NotWrittenError(expression)
    kind, mask, xor = loaded.types[0], _WHOLE, 0
    for operator, right in reversed(operations):
        (value,) = struct.unpack("=I", constant(right, kind))
        match operator:
            case "&":
                mask, xor = mask & value, xor & value
            case "|":
                mask, xor = mask & ~value & _WHOLE, xor & ~value & _WHOLE | value
            case "^":
                xor ^= value
            case _:
                raise NotWrittenError(expression)
    applied = BitwiseExpr(register, register, 4, struct.pack("=I", mask), struct.pack("=I", xor))
    return loaded._replace(expressions=(*loaded.expressions, applied))


def compared(left: Expression, loaded: Load, right: Expression, operator: str) -> tuple[KernelExpression, ...]:
    """Return how a value is loaded and compared with a constant.

    Raises:
        ValueError: It is no constant of this type, or rulegen does not write this operator for it.
    """
    kind, register, before = loaded.types[0], loaded.register, loaded.expressions
    if isinstance(right, Literal) and kind.number in _ADDRESS_NAMES:
        return _compared_address(loaded, right.text, operator)
    if isinstance(right, Literal) and kind.number == _INTERFACE_NAME and right.text.strip('"').endswith("*"):
        return *before, CompareExpr(register, _OPERATORS[operator], _name_prefix(right.text))
    value = constant(right, kind)
    nothing = bytes(kind.length)
    if operator == "in":
        return *before, BitwiseExpr(register, register, kind.length, value, nothing), _not_equal(register, nothing)
    if operator not in _OPERATORS or (operator not in {"==", "!="} and kind.length > 4):
        raise NotWrittenError(left)
    if operator not in {"==", "!="} and kind.order == HOST_ORDER and kind.length > 1:
        swapped = ByteorderExpr(register, register, HOST_TO_NETWORK, kind.length, kind.length)
        value = int.from_bytes(value, sys.byteorder).to_bytes(kind.length, "big")
        before = (*before, swapped)
    return *before, CompareExpr(register, _OPERATORS[operator], value)


def _name_prefix(text: str) -> bytes:
    """Return the start of the names that a pattern such as `"cali*"` matches, or the name with an escaped star."""
    name = text.strip('"')[:-1]
    if name.endswith("\\"):
        return datatype("ifname").parse(f"{name[:-1]}*")
    return datatype("ifname").parse(name).rstrip(b"\0")


def _compared_address(loaded: Load, text: str, operator: str) -> tuple[KernelExpression, ...]:
    """Compare with an address, a prefix or a range; nft recognises these forms when it lists them."""
    first, last = interval(_ADDRESS_NAMES[loaded.types[0].number], text)
    register, before, length = loaded.register, loaded.expressions, len(first)
    if operator not in {"==", "!="}:
        raise NotWrittenError(text)
    if first == last:
        return *before, CompareExpr(register, _OPERATORS[operator], first)
    if "-" in text:
        if operator == "!=":
            return *before, RangeExpr(register, NOT_EQUAL, first, last)
        return *before, CompareExpr(register, GREATER_OR_EQUAL, first), CompareExpr(register, LESS_OR_EQUAL, last)
    mask = bytes(0xFF ^ low ^ high for low, high in zip(first, last, strict=True))
    if set(mask) <= {0, 0xFF} and mask[0] and len(before) == 1 and isinstance(before[0], PayloadExpr):
        size = mask.count(0xFF)
        return before[0]._replace(length=size), CompareExpr(register, _OPERATORS[operator], first[:size])
    masked = BitwiseExpr(register, register, length, mask, bytes(length))
    return *before, masked, CompareExpr(register, _OPERATORS[operator], first)


def _not_equal(register: int, value: bytes) -> CompareExpr:
    return CompareExpr(register, NOT_EQUAL, value)
