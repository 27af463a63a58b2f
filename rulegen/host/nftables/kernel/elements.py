"""Elements of sets and maps: encoded in bulk, because a node with 100,000 Services has half a million.

All elements of a set have keys of one length, and mostly no more than a key and data of one length. Their encoding
then differs only in these bytes: it is joined from constant parts, without a call for each element. A message has at
most 64 KiB of elements, because the length of an attribute has 16 bits.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

from rulegen.host.netlink.messages import CREATE, EXCLUSIVE, attribute, attributes_of
from rulegen.host.nftables.kernel.attributes import (
    KernelVerdict,
    data_of,
    nested,
    number,
    number64,
    read_data,
    read_list,
    read_number,
    text,
)
from rulegen.host.nftables.kernel.objects import DELETE_ELEMENTS, NEW_ELEMENTS, NftMessage, TableName

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

INTERVAL_END, CATCH_ALL = 1, 2
"""Flags of an element: the first key after an interval; the element for keys that no other element has."""
_KEY, _DATA, _FLAGS, _TIMEOUT, _EXPIRATION, _USER_DATA, _KEY_END = 1, 2, 3, 4, 5, 6, 10
_MOST_BYTES: Final = 65_000


class KernelElement(NamedTuple):
    """An element as the kernel stores it.

    Attributes:
        key: The key; empty for the element with CATCH_ALL.
        data: The data of a map.
        key_end: The last key of a concatenated interval.
        flags: The flags above.
        timeout_ms: How long it stays; None for the timeout of the set.
        user_data: Its comment, for nft.
        expiration_ms: The time that is left; only read.
    """

    key: bytes
    data: bytes | KernelVerdict | None = None
    key_end: bytes | None = None
    flags: int = 0
    timeout_ms: int | None = None
    user_data: bytes = b""
    expiration_ms: int | None = None


class ElementsOf(NamedTuple):
    """What an error about elements names: the set, and the elements in the order of the message."""

    set_name: str
    elements: Sequence[object]


Pair = tuple[bytes, "bytes | KernelVerdict | None"]
"""The key and the data of an element that has nothing else."""


def add_pairs(
    table: TableName,
    name: str,
    pairs: Sequence[Pair],
    *,
    is_new: bool = False,
    subjects: Sequence[object] | None = None,
) -> Iterator[NftMessage]:
    """Yield the requests to add elements of one form: keys of one length, and data of one length, or verdicts, or none.

    Args:
        table: The table.
        name: The set.
        pairs: The elements.
        is_new: Whether an element that exists is an error. A map rejects other data for its key in any case.
        subjects: What an error names, for each element; without it, the elements.
    """
    yield from _pairs(table, name, pairs, subjects or pairs, NEW_ELEMENTS, CREATE | EXCLUSIVE if is_new else CREATE)


def delete_keys(
    table: TableName, name: str, keys: Sequence[bytes], *, subjects: Sequence[object] | None = None
) -> Iterator[NftMessage]:
    """Yield the requests to delete elements by keys of one length; a missing one is an error."""
    yield from _pairs(table, name, [(key, None) for key in keys], subjects or keys, DELETE_ELEMENTS, 0)


def add(table: TableName, name: str, elements: Sequence[KernelElement]) -> Iterator[NftMessage]:
    """Yield the requests to add elements of any form."""
    yield from _messages(table, name, elements, [_encoded(element) for element in elements], NEW_ELEMENTS, CREATE)


def delete(table: TableName, name: str, elements: Sequence[KernelElement]) -> Iterator[NftMessage]:
    """Yield the requests to delete elements of any form; a missing one is an error."""
    plain = [_encoded(KernelElement(each.key, None, each.key_end, each.flags)) for each in elements]
    yield from _messages(table, name, elements, plain, DELETE_ELEMENTS, 0)


def flush(table: TableName, name: str) -> NftMessage:
    """Return the request to delete all elements of a set."""
    return NftMessage(DELETE_ELEMENTS, 0, table.family, text(1, table.name) + text(2, name), f"elements of {name}")


def _pairs(
    table: TableName, name: str, pairs: Sequence[Pair], subjects: Sequence[object], kind: int, flags: int
) -> Iterator[NftMessage]:
    if not pairs:
        return
    key, data = pairs[0]
    length = len(key)
    if isinstance(data, KernelVerdict):
        encoded = [
            _start(length, end) + key + end for key, end in ((key, _ending(length, data)) for key, data in pairs)
        ]
    elif data is None:
        before, after = _frame(length, None)
        encoded = [before + key + after for key, _ in pairs]
    else:
        before, between = _frame(length, len(data))
        tail = b"\0" * (-len(data) % 4)
        encoded = [before + key + between + data + tail for key, data in pairs]  # type: ignore[operator]
    yield from _messages(table, name, subjects, encoded, kind, flags)


def _frame(key_length: int, data_length: int | None) -> tuple[bytes, bytes]:
    """Return the bytes of an element before its key, and those from its key to its data."""
    data = b"" if data_length is None else nested(_DATA, attribute(1, b"\0" * data_length))
    whole = nested(1, nested(_KEY, attribute(1, b"\0" * key_length)) + data)
    return whole[:12], b"\0" * (-key_length % 4) + data[:8]


@lru_cache(maxsize=4096)
def _ending(key_length: int, data: bytes | KernelVerdict | None) -> bytes:
    """Return the bytes of an element after its key."""
    return b"\0" * (-key_length % 4) + nested(_DATA, data_of(data or b""))


@lru_cache(maxsize=4096)
def _start(key_length: int, ending: bytes) -> bytes:
    """Return the bytes of an element before its key."""
    padding = -key_length % 4
    return nested(1, nested(_KEY, attribute(1, b"\0" * key_length)) + ending[padding:])[:12]


def _messages(
    table: TableName, name: str, subjects: Sequence[object], encoded: list[bytes], kind: int, flags: int
) -> Iterator[NftMessage]:
    if not encoded:
        return
    head = text(1, table.name) + text(2, name)
    step = _MOST_BYTES // max(map(len, encoded))
    for at in range(0, len(encoded), step):
        content = head + nested(3, b"".join(encoded[at : at + step]))
        yield NftMessage(kind, flags, table.family, content, ElementsOf(name, subjects[at : at + step]))


def _encoded(element: KernelElement) -> bytes:
    content = []
    if element.key:
        content.append(nested(_KEY, attribute(1, element.key)))
    if element.key_end is not None:
        content.append(nested(_KEY_END, attribute(1, element.key_end)))
    if element.data is not None:
        content.append(nested(_DATA, data_of(element.data)))
    if element.flags:
        content.append(number(_FLAGS, element.flags))
    if element.timeout_ms is not None:
        content.append(number64(_TIMEOUT, element.timeout_ms))
    if element.user_data:
        content.append(attribute(_USER_DATA, element.user_data))
    return nested(1, b"".join(content))


def decode(content: bytes) -> Iterator[KernelElement]:
    """Yield the elements in an attribute that the kernel sends."""
    for each in read_list(content):
        attributes = attributes_of(each)
        key = read_data(attributes[_KEY]) if _KEY in attributes else b""
        key_end = read_data(attributes[_KEY_END]) if _KEY_END in attributes else None
        yield KernelElement(
            key if isinstance(key, bytes) else b"",
            read_data(attributes[_DATA]) if _DATA in attributes else None,
            key_end if isinstance(key_end, bytes) else None,
            read_number(attributes.get(_FLAGS)),
            read_number(attributes[_TIMEOUT]) if _TIMEOUT in attributes else None,
            attributes.get(_USER_DATA, b""),
            read_number(attributes[_EXPIRATION]) if _EXPIRATION in attributes else None,
        )
