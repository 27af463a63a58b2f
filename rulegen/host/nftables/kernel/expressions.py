"""The expressions of rules, one class for each; one table says how they are written and read.

An expression reads registers and writes one. Registers of 32 bits have the numbers 8 to 23; an IPv6 address takes four.
A verdict goes to register 0. A field that is None is
left out.
"""

from __future__ import annotations

from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from rulegen.host.netlink.messages import NESTED, attribute, attributes_of
from rulegen.host.nftables.kernel.attributes import (
    BYTE,
    DATA,
    NUMBER,
    NUMBER64,
    REGISTER,
    TEXT,
    Codec,
    KernelVerdict,
    nested,
    read_list,
    read_text,
    text,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_NAME, _DATA = 1, 2
_LIST_ELEMENT = 1

NETWORK_HEADER, TRANSPORT_HEADER = 1, 2
"""Bases of a payload."""
EQUAL, NOT_EQUAL, LESS, LESS_OR_EQUAL, GREATER, GREATER_OR_EQUAL = range(6)
"""Operators of comparisons; ranges use the first two."""
SOURCE_NAT, DESTINATION_NAT = 0, 1
"""Types of address translation."""


class PayloadExpr(NamedTuple):
    """Load bytes of the packet."""

    register: int
    base: int
    offset: int
    length: int


class MetaExpr(NamedTuple):
    """Load a property of the packet, or set it from a register."""

    register: int | None
    key: int
    source: int | None = None


class CtExpr(NamedTuple):
    """Load a property of the connection; the direction is 0 for original, 1 for reply."""

    register: int | None
    key: int
    direction: int | None = None
    source: int | None = None


class BitwiseExpr(NamedTuple):
    """Compute `(source & mask) ^ xor`."""

    source: int
    register: int
    length: int
    mask: bytes
    xor: bytes
    operation: int = 0


class ByteorderExpr(NamedTuple):
    """Convert numbers between host and network byte order."""

    source: int
    register: int
    operation: int
    length: int
    size: int


class CompareExpr(NamedTuple):
    """Continue with the rule only if the comparison holds."""

    source: int
    operator: int
    content: bytes


class RangeExpr(NamedTuple):
    """Continue with the rule only if a value is in a range, or not in it."""

    source: int
    operator: int
    first: bytes
    last: bytes


class ImmediateExpr(NamedTuple):
    """Load a constant, or end the rule with a verdict (register 0)."""

    register: int
    content: bytes | KernelVerdict


class LookupExpr(NamedTuple):
    """Continue with the rule only if a set has the key; a map loads its data, or a verdict to register 0."""

    set_name: str
    source: int
    register: int | None = None
    flags: int | None = None
    set_id: int | None = None


class DynsetExpr(NamedTuple):
    """Add an element to a set, or renew its timeout (in milliseconds)."""

    set_name: str
    operation: int
    key: int
    data: int | None = None
    timeout_ms: int | None = None
    flags: int | None = None
    set_id: int | None = None


class NumgenExpr(NamedTuple):
    """Load a number below `modulus`, plus an offset: the next one (kind 0) or a random one (kind 1)."""

    register: int
    modulus: int
    kind: int
    offset: int | None = None


class HashExpr(NamedTuple):
    """Load a hash of registers (kind 0) or of the packet (kind 1), below `modulus`, plus an offset."""

    register: int
    modulus: int
    kind: int
    source: int | None = None
    length: int | None = None
    seed: int | None = None
    offset: int | None = None


class FibExpr(NamedTuple):
    """Load a result of a route lookup."""

    register: int
    result: int
    flags: int


class NatExpr(NamedTuple):
    """Translate an address, and a port if there is one."""

    kind: int
    family: int
    address: int | None = None
    address_last: int | None = None
    port: int | None = None
    port_last: int | None = None
    flags: int | None = None


class MasqueradeExpr(NamedTuple):
    """Translate the source to an address of the outgoing interface."""

    flags: int | None = None


class RedirectExpr(NamedTuple):
    """Translate the destination to an address of this host."""

    port: int | None = None
    port_last: int | None = None
    flags: int | None = None


class RejectExpr(NamedTuple):
    """Reject the packet: by ICMP of the table's family (kind 0), by a TCP reset (1), by ICMP of any family (2)."""

    kind: int
    code: int | None = None


class CounterExpr(NamedTuple):
    """Count bytes and packets."""

    bytes: int = 0
    packets: int = 0


class LimitExpr(NamedTuple):
    """Continue with the rule only below a rate per unit (seconds), or above it (flag 1)."""

    rate: int
    unit: int
    burst: int | None = None
    kind: int | None = None
    flags: int | None = None


class LogExpr(NamedTuple):
    """Write a line to the kernel's log, or send the packet to a group."""

    group: int | None = None
    prefix: str | None = None
    level: int | None = None
    flags: int | None = None


class NotrackExpr(NamedTuple):
    """Do not track the connection of the packet."""


class UnknownExpr(NamedTuple):
    """An expression that rulegen does not write, as the kernel reports it."""

    name: str
    content: bytes


Expression = Any
"""One of the classes above."""


class Form(NamedTuple):
    """The name of an expression, and the attribute and codec of each field, in the order of its class."""

    name: str
    fields: tuple[tuple[int, Codec], ...]


FORMS: Final[Mapping[type, Form]] = MappingProxyType(
    {
        PayloadExpr: Form("payload", ((1, REGISTER), (2, NUMBER), (3, NUMBER), (4, NUMBER))),
        MetaExpr: Form("meta", ((1, REGISTER), (2, NUMBER), (3, REGISTER))),
        CtExpr: Form("ct", ((1, REGISTER), (2, NUMBER), (3, BYTE), (4, REGISTER))),
        BitwiseExpr: Form("bitwise", ((1, REGISTER), (2, REGISTER), (3, NUMBER), (4, DATA), (5, DATA), (6, NUMBER))),
        ByteorderExpr: Form("byteorder", ((1, REGISTER), (2, REGISTER), (3, NUMBER), (4, NUMBER), (5, NUMBER))),
        CompareExpr: Form("cmp", ((1, REGISTER), (2, NUMBER), (3, DATA))),
        RangeExpr: Form("range", ((1, REGISTER), (2, NUMBER), (3, DATA), (4, DATA))),
        ImmediateExpr: Form("immediate", ((1, REGISTER), (2, DATA))),
        LookupExpr: Form("lookup", ((1, TEXT), (2, REGISTER), (3, REGISTER), (5, NUMBER), (4, NUMBER))),
        DynsetExpr: Form(
            "dynset", ((1, TEXT), (3, NUMBER), (4, REGISTER), (5, REGISTER), (6, NUMBER64), (9, NUMBER), (2, NUMBER))
        ),
        NumgenExpr: Form("numgen", ((1, REGISTER), (2, NUMBER), (3, NUMBER), (4, NUMBER))),
        HashExpr: Form(
            "hash", ((2, REGISTER), (4, NUMBER), (7, NUMBER), (1, REGISTER), (3, NUMBER), (5, NUMBER), (6, NUMBER))
        ),
        FibExpr: Form("fib", ((1, REGISTER), (2, NUMBER), (3, NUMBER))),
        NatExpr: Form(
            "nat", ((1, NUMBER), (2, NUMBER), (3, REGISTER), (4, REGISTER), (5, REGISTER), (6, REGISTER), (7, NUMBER))
        ),
        MasqueradeExpr: Form("masq", ((1, NUMBER),)),
        RedirectExpr: Form("redir", ((1, REGISTER), (2, REGISTER), (3, NUMBER))),
        RejectExpr: Form("reject", ((1, NUMBER), (2, BYTE))),
        CounterExpr: Form("counter", ((1, NUMBER64), (2, NUMBER64))),
        LimitExpr: Form("limit", ((1, NUMBER64), (2, NUMBER64), (3, NUMBER), (4, NUMBER), (5, NUMBER))),
        LogExpr: Form("log", ((1, NUMBER), (2, TEXT), (5, NUMBER), (6, NUMBER))),
        NotrackExpr: Form("notrack", ()),
    }
)
_BY_NAME: Final = {form.name: (kind, form.fields) for kind, form in FORMS.items()}


def encode(expressions: Sequence[Expression]) -> bytes:
    """Return the content of the attribute for the expressions of a rule."""
    return b"".join([_encoded(type(expression).__name__, expression) for expression in expressions])


@lru_cache(maxsize=4096)
def _encoded(_kind: str, expression: Expression) -> bytes:  # the kind is part of the key: tuples of two types are equal
    if isinstance(expression, UnknownExpr):
        content = expression.content
    else:
        _, fields = FORMS[type(expression)]
        content = b"".join(
            [
                attribute(number | NESTED if codec.nests else number, codec.encode(content))
                for (number, codec), content in zip(fields, expression, strict=True)
                if content is not None
            ]
        )
    return nested(_LIST_ELEMENT, text(_NAME, _name(expression)) + nested(_DATA, content))


def _name(expression: Expression) -> str:
    return expression.name if isinstance(expression, UnknownExpr) else FORMS[type(expression)].name


def decode(content: bytes) -> tuple[Expression, ...]:
    """Return the expressions of a rule, from the content of their attribute."""
    return tuple(_decoded(element) for element in read_list(content))


def _decoded(content: bytes) -> Expression:
    attributes = attributes_of(content)
    name, inside = read_text(attributes.get(_NAME, b"")), attributes.get(_DATA, b"")
    if name not in _BY_NAME:
        return UnknownExpr(name, inside)
    kind, fields = _BY_NAME[name]
    values = attributes_of(inside)
    if not values.keys() <= {number for number, _ in fields}:
        return UnknownExpr(name, inside)
    return kind(*(codec.decode(values[number]) if number in values else None for number, codec in fields))
