"""Expressions and statements that several rules of the table share."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final

from rulegen.languages.nftables.expressions import (
    Bits,
    Bitwise,
    Concat,
    Ct,
    Expression,
    Literal,
    Meta,
    Payload,
    SetReference,
    addresses_in,
)
from rulegen.languages.nftables.statements import Assign, Compare, MasqueradeSource
from rulegen.model.services.ir import PodNetwork
from rulegen.net import Family

if TYPE_CHECKING:
    from rulegen.model.services.ir import PodTraffic

Key = Expression

PORT_TYPES: Final = ("inet_proto", "inet_service")
PROTOCOL: Final = Meta("l4proto")
DESTINATION_PORT: Final = Payload("th", "dport")
PORT: Final = Concat((PROTOCOL, DESTINATION_PORT))
"""Protocol and port of the destination: the key of node ports."""
MARK: Final = Meta("mark")
NEW: Final = Compare(Ct("state"), Literal("new"), "in")
INVALID: Final = Compare(Ct("state"), Literal("invalid"), "in")
MASQUERADE: Final = MasqueradeSource(frozenset({"fully-random"}))
"""Masquerades with random source ports, which avoids races between CPUs."""
TRANSLATED: Final = Compare(Ct("status"), Literal("dnat"), "in")


def address_type(family: Family) -> str:
    """Return the type of an address in a set."""
    return "ipv4_addr" if family is Family.IPV4 else "ipv6_addr"


def _header(family: Family) -> str:
    return "ip" if family is Family.IPV4 else "ip6"


def source(family: Family) -> Payload:
    """Return the source address of a packet."""
    return Payload(_header(family), "saddr")


def destination(family: Family) -> Payload:
    """Return the destination address of a packet."""
    return Payload(_header(family), "daddr")


def frontend(family: Family) -> Concat:
    """Return address, protocol and port of the destination: the key of frontends."""
    return Concat((destination(family), PROTOCOL, DESTINATION_PORT))


def hairpin(family: Family) -> Concat:
    """Return source, destination, protocol and port: the key of connections of an endpoint to itself."""
    return Concat((source(family), destination(family), PROTOCOL, DESTINATION_PORT))


def named(name: str) -> SetReference:
    """Return a reference to a set or map."""
    return SetReference(name)


def mark(bit: int) -> Assign:
    """Return the statement that requests masquerading."""
    return Assign(MARK, Bitwise("|", MARK, Bits(bit)))


def unmark(bit: int) -> Assign:
    """Return the statement that clears a mark which is set."""
    return Assign(MARK, Bitwise("^", MARK, Bits(bit)))


def is_marked(bit: int) -> Compare:
    """Return whether masquerading was requested."""
    return Compare(Bitwise("&", MARK, Bits(bit)), Bits(0), "!=")


def from_pods(family: Family, pods: PodTraffic, *, is_from: bool) -> Compare:
    """Return whether a packet comes from a Pod of this node, or whether it does not."""
    operator = "==" if is_from else "!="
    if isinstance(pods, PodNetwork):
        return Compare(source(family), addresses_in([pods.network]), operator)
    return Compare(Meta("iifname"), Literal(f'"{pods.name}{"*" if pods.prefix else ""}"'), operator)


@lru_cache(maxsize=1 << 16)
def number_text(number: int) -> str:
    """Return a port as text: one text for all elements that have it."""
    return str(number)
