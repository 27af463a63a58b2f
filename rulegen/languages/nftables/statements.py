"""Statements of nftables, and rules made of them.

Source: nft(8). `str` of a statement or rule is its text in the spelling of `nft list ruleset` 1.0.6, which `nft -f`
reads. Two rules are equal if the kernel does the same with every packet; comments and counters do not count.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec

from rulegen.languages.nftables.expressions import (
    AnonymousMap,
    Ct,
    Expression,
    Literal,
    MapLookup,
    Meta,
    SetReference,
    VerdictCode,
)

if TYPE_CHECKING:
    from collections.abc import Iterator


class Compare(msgspec.Struct, frozen=True):
    """Ends the rule unless a comparison holds.

    Attributes:
        operator: `==`, `!=`, `<`, `>`, `<=`, `>=`; `in` tests whether one of some bits is set, as in `ct state new`.
            With a set, `==` tests whether `left` is in it, and `!=` whether it is not.
    """

    left: Expression
    right: Expression
    operator: str = "=="

    def __str__(self) -> str:
        """Return the text; nft leaves out the usual operator."""
        usual = self.operator == "in" or (self.operator == "==" and not is_bit_field(self.left))
        return f"{self.left} {self.right}" if usual else f"{self.left} {self.operator} {self.right}"


def is_bit_field(expression: Expression) -> bool:
    """Whether a comparison without an operator tests bits of an expression."""
    return isinstance(expression, Ct) and expression.key in {"state", "status"}


class VerdictLookup(msgspec.Struct, frozen=True):
    """Looks up a verdict; without an entry, the rule ends."""

    key: Expression
    map: SetReference | AnonymousMap

    def __str__(self) -> str:
        """Return the text."""
        return f"{self.key} vmap {self.map}"


class Assign(msgspec.Struct, frozen=True):
    """Sets a property of the packet or of its connection, such as the mark."""

    key: Meta | Ct
    value: Expression

    def __str__(self) -> str:
        """Return the text; nft always prints `meta` here."""
        key = f"meta {self.key.key}" if isinstance(self.key, Meta) else str(self.key)
        return f"{key} set {self.value}"


class Dnat(msgspec.Struct, frozen=True):
    """Translates the destination.

    Attributes:
        to: The address; or a lookup in a map that has address and port.
        port: The port; None if it stays, or if `to` has it.
    """

    to: Expression
    port: Expression | None = None

    def __str__(self) -> str:
        """Return the text. A map that has ports needs the family before `to`."""
        if isinstance(self.to, Literal):
            address = f"[{self.to}]" if ":" in self.to.text and self.port is not None else str(self.to)
            return f"dnat to {address}" + (f":{self.port}" if self.port is not None else "")
        return f"dnat {'ip6' if _is_ipv6(self.to) else 'ip'} to {self.to}"


def _is_ipv6(to: Expression) -> bool:
    """Whether a lookup in a map leads to IPv6 addresses: a value shows it, or the key of a map with a name."""
    if not isinstance(to, MapLookup):
        return False
    if isinstance(to.map, AnonymousMap):
        return any(":" in str(value) for _, value in to.map.items[:1])
    return "ip6 " in str(to.key)


class MasqueradeSource(msgspec.Struct, frozen=True):
    """Translates the source to the address of the outgoing interface.

    Attributes:
        flags: `random`, `fully-random`, `persistent`.
    """

    flags: frozenset[str] = frozenset()

    def __str__(self) -> str:
        """Return the text."""
        return " ".join(("masquerade", ",".join(sorted(self.flags)))).rstrip()


class RejectPacket(msgspec.Struct, frozen=True):
    """Rejects the packet; without a code, by an ICMP message "port unreachable" of the table's family.

    Attributes:
        code: Such as `icmp host-unreachable` or `tcp reset`; empty for the default.
    """

    code: str = ""

    def __str__(self) -> str:
        """Return the text."""
        if not self.code:
            return "reject"
        return f"reject with {self.code}"


class CountPackets(msgspec.Struct, frozen=True):
    """Counts packets. The numbers are no part of the rule."""

    def __str__(self) -> str:
        """Return the text."""
        return "counter"


class UpdateSet(msgspec.Struct, frozen=True):
    """Puts a key into a dynamic set or map.

    Attributes:
        operator: `update` restarts the timeout of a present element; `add` does not.
        data: The value in a map; None for a set.
        timeout_s: The timeout of the element in seconds; None for that of the set.
    """

    operator: str
    set: SetReference
    key: Expression
    data: Expression | None = None
    timeout_s: int | None = None

    def __str__(self) -> str:
        """Return the text."""
        element = str(self.key)
        element += f" timeout {self.timeout_s}s" if self.timeout_s is not None else ""
        element += f" : {self.data}" if self.data is not None else ""
        return f"{self.operator} {self.set} {{ {element} }}"


class OtherStatement(msgspec.Struct, frozen=True):
    """A statement that rulegen never writes, as the dump has it. It equals only the same text."""

    text: str

    def __str__(self) -> str:
        """Return the text."""
        return self.text


NftStatement = (
    Compare
    | VerdictLookup
    | VerdictCode
    | Assign
    | Dnat
    | MasqueradeSource
    | RejectPacket
    | CountPackets
    | UpdateSet
    | OtherStatement
)


@dataclass(frozen=True, slots=True)
class NftRule:
    """A rule: its statements in order.

    Attributes:
        why: Its purpose, for people; it is written nowhere and is no part of equality.
    """

    statements: tuple[NftStatement, ...]
    why: str = field(default="", compare=False)

    def __str__(self) -> str:
        """Return the text of the statements."""
        return " ".join(map(str, self.statements))

    @property
    def targets(self) -> Iterator[str]:
        """The chains that the rule itself jumps to; not those in named maps."""
        for statement in self.statements:
            if isinstance(statement, VerdictCode) and statement.target:
                yield statement.target
            elif isinstance(statement, VerdictLookup) and isinstance(statement.map, AnonymousMap):
                for _, verdict in statement.map.items:
                    if isinstance(verdict, VerdictCode) and verdict.target:
                        yield verdict.target


def nft_rule(*statements: NftStatement, why: str = "") -> NftRule:
    """Return a rule of these statements."""
    return NftRule(statements, why)
