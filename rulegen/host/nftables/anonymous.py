"""Sets and maps without names, which belong to one rule each.

The kernel numbers their names. Within a transaction, the rule refers to its set by a number that its maker chooses.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Final

from rulegen.host.nftables.datatypes import HOST_ORDER, Datatype, concatenated, datatype
from rulegen.host.nftables.kernel import elements
from rulegen.host.nftables.kernel.attributes import number
from rulegen.host.nftables.kernel.elements import INTERVAL_END, KernelElement
from rulegen.host.nftables.kernel.expressions import ByteorderExpr
from rulegen.host.nftables.kernel.objects import (
    CONSTANT,
    INTERVAL,
    MAP,
    VERDICT_TYPE,
    KernelSet,
    NftMessage,
    TableName,
    new_set,
)
from rulegen.host.nftables.loads import HOST_TO_NETWORK, NotWrittenError, constant
from rulegen.host.nftables.sets import VERDICT_LENGTH, interval, kernel_verdict, next_value, user_data
from rulegen.languages.nftables.expressions import Concat, Literal, VerdictCode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rulegen.host.nftables.kernel.attributes import KernelVerdict
    from rulegen.host.nftables.kernel.expressions import Expression as KernelExpression
    from rulegen.host.nftables.loads import Load
    from rulegen.languages.nftables.expressions import AnonymousMap, AnonymousSet, Expression

ANONYMOUS: Final = 0x1
"""The flag of a set without a name."""
_SET_ID = 4
_ADDRESS_NAMES: Final = {7: "ipv4_addr", 8: "ipv6_addr"}
_NUMBERS: Final = frozenset(datatype(name).number for name in ("integer", "mark"))


class AnonymousSets:
    """Makes the anonymous sets of one transaction."""

    def __init__(self, table: TableName) -> None:
        self._table = table
        self._made = 0

    def of_set(self, kind: Datatype, wanted: AnonymousSet) -> tuple[KernelSet, list[NftMessage]]:
        """Return a set of values of one type, and the requests that make it.

        Raises:
            ValueError: A member is no value of this type.
        """
        texts = [member.text if isinstance(member, Literal) else "" for member in wanted.elements]
        name = _ADDRESS_NAMES.get(kind.number)
        if name and any("/" in text or "-" in text for text in texts):
            content = _intervals(sorted(interval(name, text) for text in texts))
            return self._made_set(KernelSet("__set%d", INTERVAL, kind.number, kind.length), content, kind.order, None)
        content = [KernelElement(constant(member, kind)) for member in wanted.elements]
        return self._made_set(KernelSet("__set%d", 0, kind.number, kind.length), content, kind.order, None)

    def of_verdicts(self, kind: Datatype, wanted: AnonymousMap) -> tuple[KernelSet, list[NftMessage]]:
        """Return a map from values of one type to verdicts, and the requests that make it.

        Raises:
            ValueError: A key is no value of this type, or a value no verdict.
        """
        verdicts: list[KernelVerdict] = []
        for _, verdict in wanted.items:
            if not isinstance(verdict, VerdictCode):
                raise NotWrittenError(wanted)
            verdicts.append(kernel_verdict(verdict))
        flags, content = _by_key(kind, wanted, verdicts)
        made = KernelSet("__map%d", flags, kind.number, kind.length, VERDICT_TYPE, VERDICT_LENGTH)
        return self._made_set(made, content, kind.order, 0)

    def of_values(
        self, kind: Datatype, wanted: AnonymousMap, data: Sequence[Datatype]
    ) -> tuple[KernelSet, list[NftMessage]]:
        """Return a map from values of one type to values of these types, and the requests that make it.

        Raises:
            ValueError: A key or a value is none of its type.
        """
        flags, content = _by_key(kind, wanted, [_value(value, data) for _, value in wanted.items])
        number_of_data, length, order = concatenated(data)
        made = KernelSet("__map%d", flags, kind.number, kind.length, number_of_data, length)
        return self._made_set(made, content, kind.order, order)

    def _made_set(
        self, made: KernelSet, content: Sequence[KernelElement], key_order: int, data_order: int | None
    ) -> tuple[KernelSet, list[NftMessage]]:
        self._made += 1
        is_ranged = made.flags & (INTERVAL | MAP) == INTERVAL | MAP
        made = made._replace(
            flags=made.flags | ANONYMOUS | CONSTANT,
            size=2 * sum(not each.flags for each in content) if is_ranged else len(content),  # as nft does
            user_data=user_data(key_order, data_order, merges=made.flags & (INTERVAL | MAP) == INTERVAL),
            set_id=self._made,
        )
        adding = elements.add(self._table, made.name, content)
        by_id = number(_SET_ID, made.set_id)
        requests = [request._replace(attributes=request.attributes + by_id) for request in adding]
        return made, [new_set(self._table, made), *requests]


def value_types(wanted: AnonymousMap, single: Datatype, second: Datatype) -> tuple[Datatype, ...]:
    """Return the types of the values of a map: one, or two if a value is a concatenation."""
    return (single, second) if any(isinstance(value, Concat) for _, value in wanted.items) else (single,)


def _value(value: Expression, types: Sequence[Datatype]) -> bytes:
    parts = value.parts if isinstance(value, Concat) else (value,)
    if len(parts) != len(types):
        raise NotWrittenError(value)
    if len(types) == 1:
        return constant(value, types[0])
    return b"".join(constant(part, each).ljust(each.padded, b"\0") for part, each in zip(parts, types, strict=True))


def _by_key(
    kind: Datatype, wanted: AnonymousMap, data: Sequence[bytes | KernelVerdict]
) -> tuple[int, list[KernelElement]]:
    """Return the flags of a map, and its elements: with a range of numbers among the keys, intervals.

    Such a map compares its keys as bytes, so numbers are in network byte order (`ordered`).
    """
    keys = [key for key, _ in wanted.items]
    if kind.number not in _NUMBERS or not any(isinstance(key, Literal) and "-" in key.text for key in keys):
        return MAP, [KernelElement(constant(key, kind), value) for key, value in zip(keys, data, strict=True)]
    bounds = sorted(zip((_range(key, kind) for key in keys), data, strict=True), key=lambda each: each[0])
    content: list[KernelElement] = []
    following = 0
    for (first, last), value in bounds:
        if first < following:
            raise ValueError(f"the map has overlapping keys: {str(wanted)[:200]}")
        if first > following:
            content.append(_end(following))
        content.append(KernelElement(first.to_bytes(kind.length, "big"), value))
        following = last + 1
    return MAP | INTERVAL, [*content, _end(following)] if following >> 8 * kind.length == 0 else content


def _end(number_after: int) -> KernelElement:
    return KernelElement(number_after.to_bytes(4, "big"), flags=INTERVAL_END)


def _range(key: Expression, kind: Datatype) -> tuple[int, int]:
    """Return the first and the last number of a range or a single number."""
    first, _, last = key.text.partition("-") if isinstance(key, Literal) else ("", "", "")
    bounds = [int.from_bytes(kind.parse(text), sys.byteorder) for text in (first, last or first)]
    if bounds[0] > bounds[1]:
        raise ValueError(f"{str(key)[:60]!r} ends before it begins")
    return bounds[0], bounds[1]


def ordered(loaded: Load, made: KernelSet) -> tuple[KernelExpression, ...]:
    """Return how a key is loaded for a set: a map of intervals needs numbers in network byte order."""
    kind = loaded.types[0]
    if not made.flags & INTERVAL or kind.order != HOST_ORDER:
        return loaded.expressions
    swapped = ByteorderExpr(loaded.register, loaded.register, HOST_TO_NETWORK, kind.length, kind.length)
    return *loaded.expressions, swapped


def _intervals(bounds: Sequence[tuple[bytes, bytes]]) -> list[KernelElement]:
    """Return intervals as nft writes them: a first key, and the first key that is not in it any more."""
    content: list[KernelElement] = []
    for first, last in bounds:
        if not content and first.strip(b"\0"):
            content.append(KernelElement(bytes(len(first)), flags=INTERVAL_END))
        content.append(KernelElement(first))
        if (after := next_value(last)) is not None:
            content.append(KernelElement(after, flags=INTERVAL_END))
    return content
