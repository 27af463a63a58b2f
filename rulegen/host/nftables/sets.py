"""Sets and maps with names: from the objects of the language to those of the kernel."""

from __future__ import annotations

import struct
from itertools import repeat
from typing import TYPE_CHECKING, Final

from rulegen.host.nftables.datatypes import UNORDERED, Datatype, concatenated, datatype, texts, type_names
from rulegen.host.nftables.kernel import elements
from rulegen.host.nftables.kernel.attributes import ACCEPT, CONTINUE, DROP, GOTO, JUMP, RETURN, KernelVerdict
from rulegen.host.nftables.kernel.elements import INTERVAL_END, KernelElement
from rulegen.host.nftables.kernel.objects import (
    CONCAT,
    CONSTANT,
    DYNAMIC,
    INTERVAL,
    MAP,
    TIMEOUT,
    VERDICT_TYPE,
    KernelSet,
    NftMessage,
    TableName,
)
from rulegen.languages.nftables.expressions import VerdictCode
from rulegen.languages.nftables.state import VERDICT, NamedSet
from rulegen.net import parse_address, parse_network

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from rulegen.languages.nftables.state import ElementData, NftKey

VERDICT_LENGTH: Final = 16
_CODES: Final = {"accept": ACCEPT, "drop": DROP, "return": RETURN, "continue": CONTINUE, "jump": JUMP, "goto": GOTO}
_FLAGS: Final = {"constant": CONSTANT, "interval": INTERVAL, "timeout": TIMEOUT, "dynamic": DYNAMIC}
_KEY_ORDER, _DATA_ORDER, _MERGES, _DATA_INTERVAL = 0, 1, 2, 6


def kernel_verdict(verdict: VerdictCode) -> KernelVerdict:
    """Return a verdict as the kernel stores it.

    Raises:
        ValueError: It is none.
    """
    if verdict.code not in _CODES or bool(verdict.target) != (verdict.code in {"jump", "goto"}):
        raise ValueError(f"unknown verdict {str(verdict)[:60]!r}")
    return KernelVerdict(_CODES[verdict.code], verdict.target)


def user_data(key_order: int, data_order: int | None, *, merges: bool = False) -> bytes:
    """Return what nft reads to print the elements of a set."""
    entries = [(_KEY_ORDER, key_order)]
    if data_order is not None:
        entries.append((_DATA_ORDER, data_order))
    if merges:
        entries.append((_MERGES, 1))
    if data_order is not None:
        entries.append((_DATA_INTERVAL, 0))
    return b"".join(struct.pack("=BBI", kind, 4, value) for kind, value in entries)


def kernel_set(name: str, wanted: NamedSet) -> KernelSet:
    """Return a set or map as the kernel stores it.

    Raises:
        ValueError: It has a type or a flag that rulegen does not write.
    """
    types = [datatype(each) for each in wanted.key]
    number, length, order = concatenated(types)
    flags = 0
    for flag in wanted.flags:
        if flag not in _FLAGS:
            raise ValueError(f"unknown flag {flag[:40]!r}")
        flags |= _FLAGS[flag]
    if wanted.is_learnt:
        flags |= DYNAMIC
    is_range = len(types) > 1 and bool(flags & INTERVAL)
    data_number, data_length, data_order = _data_type(wanted)
    return KernelSet(
        name,
        flags | (CONCAT if is_range else 0) | (MAP if wanted.is_map else 0),
        number,
        length,
        data_number,
        data_length,
        tuple(each.length for each in types) if is_range else (),
        wanted.size,
        None if wanted.timeout_s is None else wanted.timeout_s * 1000,
        user_data=user_data(order, data_order),
    )


def set_of(known: KernelSet) -> NamedSet | None:
    """Return a set of the kernel in the terms of the language; None if it has a type that rulegen does not write."""
    key = type_names(known.key_type)
    data: tuple[str, ...] | None = ()
    if known.data_type is not None:
        data = (VERDICT,) if known.data_type == VERDICT_TYPE else type_names(known.data_type)
    if key is None or data is None:
        return None
    flags = frozenset(name for name, flag in _FLAGS.items() if known.flags & flag and name != "dynamic")
    timeout_s = None if known.timeout_ms is None else known.timeout_ms // 1000
    return NamedSet(key, data, flags, timeout_s, known.size)


def _data_type(wanted: NamedSet) -> tuple[int | None, int | None, int | None]:
    if not wanted.is_map:
        return None, None, None
    if wanted.data == (VERDICT,):
        return VERDICT_TYPE, VERDICT_LENGTH, UNORDERED
    return concatenated([datatype(each) for each in wanted.data])


def add_members(
    table: TableName, name: str, known: NamedSet, keys: Sequence[NftKey], data: Sequence[ElementData | None]
) -> Iterator[NftMessage]:
    """Yield the requests to add elements to a set or map; an error names the key of the refused one.

    Raises:
        ValueError: An element has parts that the types of the set do not have.
    """
    if not keys:
        return
    contents = _contents(known, data)
    if "interval" in known.flags:
        yield from elements.add(table, name, list(_ranges(known, keys, contents)))
    else:
        pairs = list(zip(_joined(known.key, [key.element for key in keys]), contents, strict=True))
        yield from elements.add_pairs(table, name, pairs, subjects=keys)


def delete_members(table: TableName, name: str, known: NamedSet, keys: Sequence[NftKey]) -> Iterator[NftMessage]:
    """Yield the requests to delete elements; an error names the key of the refused one.

    Raises:
        ValueError: An element has parts that the types of the set do not have.
    """
    if not keys:
        return
    if "interval" in known.flags:
        yield from elements.delete(table, name, list(_ranges(known, keys, repeat(None, len(keys)))))
    else:
        encoded = list(_joined(known.key, [key.element for key in keys]))
        yield from elements.delete_keys(table, name, encoded, subjects=keys)


def _joined(types: Sequence[str], rows: Sequence[tuple[str, ...]]) -> Iterator[bytes]:
    """Return the bytes of keys or values; column by column, because that takes a fifth of the time."""
    if set(map(len, rows)) != {len(types)}:
        raise ValueError(f"an element has not {len(types)} parts")
    if len(types) == 1:
        length, values = datatype(types[0]).length, texts(types[0])
        return (values[text][:length] for (text,) in rows)
    columns = zip(*rows, strict=True)
    encoded = [map(texts(name).__getitem__, column) for name, column in zip(types, columns, strict=True)]
    return map(b"".join, zip(*encoded, strict=True))


class _Verdicts(dict[VerdictCode, KernelVerdict]):
    def __missing__(self, verdict: VerdictCode) -> KernelVerdict:
        known = self[verdict] = kernel_verdict(verdict)
        return known


def _contents(known: NamedSet, data: Sequence[ElementData | None]) -> Iterator[bytes | KernelVerdict | None]:
    """Return the data of elements."""
    kinds = set(map(type, data))
    if not known.is_map:
        return repeat(None, len(data))
    if known.data == (VERDICT,):
        if kinds != {VerdictCode}:
            raise ValueError("an element of a verdict map has no verdict")
        return map(_Verdicts().__getitem__, data)  # type: ignore[arg-type]
    if kinds != {tuple}:
        raise ValueError("an element of a map has no value")
    return _joined(known.data, data)  # type: ignore[arg-type]


def _ranges(
    known: NamedSet, keys: Sequence[NftKey], contents: Iterable[bytes | KernelVerdict | None]
) -> Iterator[KernelElement]:
    """Yield the elements of a set of intervals: two for each interval, or one if keys are concatenations."""
    types = [datatype(name) for name in known.key]
    for key, data in zip(keys, contents, strict=True):
        if len(key.element) != len(types):
            raise ValueError(f"an element has not {len(types)} parts")
        bounds = [interval(name, text) for name, text in zip(known.key, key.element, strict=True)]
        if len(types) > 1:
            first, last = (b"".join(_padded(each, types)) for each in zip(*bounds, strict=True))
            yield KernelElement(first, data, last)
        else:
            ((start, end),) = bounds
            yield KernelElement(start, data)
            if (after := next_value(end)) is not None:
                yield KernelElement(after, flags=INTERVAL_END)


def _padded(values: Sequence[bytes], types: Sequence[Datatype]) -> Iterator[bytes]:
    return (value + bytes(each.padded - each.length) for value, each in zip(values, types, strict=True))


def next_value(value: bytes) -> bytes | None:
    """Return the number after a value; None after the last one."""
    number = int.from_bytes(value, "big") + 1
    return None if number >> 8 * len(value) else number.to_bytes(len(value), "big")


def interval(name: str, text: str) -> tuple[bytes, bytes]:
    """Return the first and the last value of a prefix, a range or a single value.

    Raises:
        ValueError: The text is none of these, or of another family.
    """
    parse = datatype(name).parse
    if name in {"ipv4_addr", "ipv6_addr"}:
        if "/" in text:
            network = parse_network(text)
            bounds = network.network_address.packed, network.broadcast_address.packed
        else:
            first, dash, last = text.partition("-")
            bounds = parse_address(first).packed, parse_address(last if dash else first).packed
        if {len(bound) for bound in bounds} != {datatype(name).length}:
            raise ValueError(f"{text[:60]!r} is an address of another family")
    else:
        first, dash, last = text.partition("-") if name == "inet_service" else (text, "", "")
        bounds = parse(first), parse(last if dash else first)
    if bounds[0] > bounds[1]:
        raise ValueError(f"{text[:60]!r} ends before it begins")
    return bounds
