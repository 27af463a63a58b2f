"""The messages of nf_tables for tables, chains, rules and sets. See linux/netfilter/nf_tables.h."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from rulegen.host.netlink.messages import CREATE, EXCLUSIVE, NESTED, attribute
from rulegen.host.nftables.kernel import expressions
from rulegen.host.nftables.kernel.attributes import nested, number, number64, text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rulegen.host.nftables.kernel.expressions import Expression

SUBSYSTEM: Final = 10 << 8
NEW_TABLE, GET_TABLE, DELETE_TABLE = 0, 1, 2
NEW_CHAIN, GET_CHAIN, DELETE_CHAIN = 3, 4, 5
NEW_RULE, GET_RULE, DELETE_RULE = 6, 7, 8
NEW_SET, GET_SET, DELETE_SET = 9, 10, 11
NEW_ELEMENTS, GET_ELEMENTS, DELETE_ELEMENTS = 12, 13, 14
GET_GENERATION = 16

APPEND: Final = 0x800
VERDICT_TYPE: Final = 0xFFFFFF00
"""The data type of maps of verdicts."""
OWNER, PERSIST = 0x2, 0x4
"""Flags of a table: only its socket may change it; it stays when that socket ends."""
CONSTANT, INTERVAL, MAP, TIMEOUT, DYNAMIC, CONCAT = 0x2, 0x4, 0x8, 0x10, 0x20, 0x80
"""Flags of a set."""


class NftMessage(NamedTuple):
    """A request about one object, or about elements of one set.

    Attributes:
        kind: The command.
        flags: Netlink flags.
        family: The family of the table: AF_INET, AF_INET6, or 1 for both.
        attributes: The encoded attributes.
        subject: What an error names: the object; or for elements, a sequence of them in the order of the message.
    """

    kind: int
    flags: int
    family: int
    attributes: bytes
    subject: Any = None


class TableName(NamedTuple):
    """The family and the name of a table."""

    family: int
    name: str


class Hook(NamedTuple):
    """Where packets enter a chain.

    Attributes:
        kind: `filter`, `nat` or `route`.
        number: The hook: 0 prerouting, 1 input, 2 forward, 3 output, 4 postrouting.
        priority: The order among the chains of a hook.
        policy: 1 to accept, 0 to drop what no rule decides.
    """

    kind: str
    number: int
    priority: int
    policy: int = 1


class KernelSet(NamedTuple):
    """A set or map as the kernel stores it.

    Attributes:
        name: Its name.
        flags: The flags above.
        key_type: The type of keys, a number that only nft reads.
        key_length: The length of keys in bytes.
        data_type: The type of data: `VERDICT_TYPE`, or a number that only nft reads; None for a set.
        data_length: The length of data in bytes.
        fields: The lengths of the fields of concatenated intervals.
        size: The most elements; None for no limit.
        timeout_ms: How long elements stay, in milliseconds.
        gc_interval_ms: How often expired elements are removed.
        user_data: What nft needs to print it.
        set_id: A number for this set in its transaction.
    """

    name: str
    flags: int
    key_type: int
    key_length: int
    data_type: int | None = None
    data_length: int | None = None
    fields: tuple[int, ...] = ()
    size: int | None = None
    timeout_ms: int | None = None
    gc_interval_ms: int | None = None
    user_data: bytes = b""
    set_id: int = 0


def new_table(table: TableName, flags: int = 0, user_data: bytes = b"") -> NftMessage:
    """Return the request to create a table, or to adopt one whose owner has ended."""
    content = text(1, table.name) + number(2, flags) + (attribute(6, user_data) if user_data else b"")
    return NftMessage(NEW_TABLE, CREATE, table.family, content, f"table {table.name}")


def delete_table(table: TableName) -> NftMessage:
    """Return the request to delete a table with all that it contains."""
    return NftMessage(DELETE_TABLE, 0, table.family, text(1, table.name), f"table {table.name}")


def new_chain(table: TableName, name: str, hook: Hook | None = None, user_data: bytes = b"") -> NftMessage:
    """Return the request to create a chain."""
    content = text(1, table.name) + text(3, name)
    if hook is not None:
        content += nested(4, number(1, hook.number) + number(2, hook.priority))
        content += number(5, hook.policy) + text(7, hook.kind)
    if user_data:
        content += attribute(12, user_data)
    return NftMessage(NEW_CHAIN, CREATE, table.family, content, f"chain {name}")


def delete_chain(table: TableName, name: str) -> NftMessage:
    """Return the request to delete a chain, which must be empty and without references."""
    return NftMessage(DELETE_CHAIN, 0, table.family, text(1, table.name) + text(3, name), f"chain {name}")


def flush_chain(table: TableName, name: str) -> NftMessage:
    """Return the request to delete all rules of a chain."""
    content = text(1, table.name) + text(2, name)
    return NftMessage(DELETE_RULE, 0, table.family, content, f"rules of chain {name}")


def append_rule(
    table: TableName, chain: str, rule: Sequence[Expression], user_data: bytes = b"", subject: Any = None
) -> NftMessage:
    """Return the request to append a rule to a chain."""
    content = text(1, table.name) + text(2, chain) + nested(4, expressions.encode(rule))
    if user_data:
        content += attribute(7, user_data)
    return NftMessage(NEW_RULE, CREATE | APPEND, table.family, content, subject or f"rule in chain {chain}")


def delete_rule(table: TableName, chain: str, handle: int) -> NftMessage:
    """Return the request to delete a rule by its handle."""
    content = text(1, table.name) + text(2, chain) + number64(3, handle)
    return NftMessage(DELETE_RULE, 0, table.family, content, f"rule {handle} of chain {chain}")


def new_set(table: TableName, wanted: KernelSet) -> NftMessage:
    """Return the request to create a set or map."""
    content = [text(1, table.name), text(2, wanted.name), number(3, wanted.flags)]
    content += [number(4, wanted.key_type), number(5, wanted.key_length)]
    if wanted.data_type is not None:
        content += [number(6, wanted.data_type), number(7, wanted.data_length or 0)]
    content.append(number(10, wanted.set_id))
    if description := _description(wanted):
        content.append(nested(9, description))
    if wanted.timeout_ms is not None:
        content.append(number64(11, wanted.timeout_ms))
    if wanted.gc_interval_ms is not None:
        content.append(number(12, wanted.gc_interval_ms))
    if wanted.user_data:
        content.append(attribute(13, wanted.user_data))
    what = "set" if wanted.data_type is None else "map"
    return NftMessage(NEW_SET, CREATE | EXCLUSIVE, table.family, b"".join(content), f"{what} {wanted.name}")


def _description(wanted: KernelSet) -> bytes:
    content = b"" if wanted.size is None else number(1, wanted.size)
    if wanted.fields:
        lengths = b"".join([nested(1, number(1, length)) for length in wanted.fields])
        content += attribute(2 | NESTED, lengths)
    return content


def delete_set(table: TableName, name: str) -> NftMessage:
    """Return the request to delete a set or map that no rule refers to."""
    return NftMessage(DELETE_SET, 0, table.family, text(1, table.name) + text(2, name), f"set {name}")
