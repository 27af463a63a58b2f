"""The DNS messages that nginx uses: one question for addresses, and the answer (RFC 1035, 4).

An answer of a name server is never forwarded. A new answer is written with the permitted addresses, so nginx gets only
addresses, times to live and a code of other servers.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rulegen.net import Address

HEADER: Final = struct.Struct("!HHHHHH")
"""Identifier, flags, numbers of questions, answers, authorities and additional records."""
A, AAAA, IN = 1, 28, 1
NO_ERROR, SERVER_FAILURE, NOT_IMPLEMENTED = 0, 2, 4
ASK_ANOTHER: Final = frozenset({SERVER_FAILURE, NOT_IMPLEMENTED, 5})
"""Codes of servers that do not know the answer or (5) refuse it, so that the next server is asked."""
MOST_ADDRESSES: Final = 128
"""The most addresses of one answer; with 28 bytes for each AAAA it fits into the 4,096 bytes that nginx reads."""

_IS_ANSWER, _OPCODE, _TRUNCATED, _RECURSION, _AVAILABLE, _CODE = 0x8000, 0x7800, 0x0200, 0x0100, 0x0080, 0x000F
_RECORD: Final = struct.Struct("!HHIH")
"""Type, class, time to live, length."""
_SIZES: Final = {A: 4, AAAA: 16}
_LONGEST_NAME: Final = 255
_NAME_OF_QUESTION: Final = b"\xc0\x0c"
"""A pointer to the name at offset 12."""


@dataclass(frozen=True, slots=True)
class Question:
    """A question for one name.

    Attributes:
        number: The identifier of the message.
        wire: The question section as sent: name, type, class.
        name: The name in lower case, for messages.
        kind: `A`, `AAAA`, or the number of another type.
    """

    number: int
    wire: bytes
    name: str
    kind: int

    @property
    def is_for_addresses(self) -> bool:
        """Whether the question is for addresses; nginx has no other questions."""
        return self.kind in _SIZES


@dataclass(frozen=True, slots=True)
class DnsAnswer:
    """The answer of a server: a code, and addresses with their time to live in seconds; or that it is truncated."""

    code: int
    addresses: tuple[tuple[Address, int], ...] = ()
    is_truncated: bool = False


def read_question(message: bytes) -> Question | None:
    """Return the question of a message; None if it cannot be answered."""
    if len(message) < HEADER.size:
        return None
    number, flags, questions, *_ = HEADER.unpack_from(message)
    if flags & (_IS_ANSWER | _OPCODE) or questions != 1:
        return None
    labels, at = [], HEADER.size
    while at < len(message) and (length := message[at]):
        if length > 63 or at - HEADER.size > _LONGEST_NAME:
            return None
        labels.append(message[at + 1 : at + 1 + length])
        at += 1 + length
    end = at + 5
    if end > len(message) or end - HEADER.size > _LONGEST_NAME + 4:
        return None
    kind, family = struct.unpack_from("!HH", message, at + 1)
    name = b".".join(labels).lower().decode("ascii", "backslashreplace")
    return Question(number, message[HEADER.size : end], name, kind) if family == IN else None


def write_question(question: Question, number: int) -> bytes:
    """Return the same question for a server, with another identifier."""
    return HEADER.pack(number, _RECURSION, 1, 0, 0, 0) + question.wire


def read_answer(message: bytes, question: Question, number: int) -> DnsAnswer | None:
    """Return the answer of a server to a question; None if the message answers another question."""
    end = HEADER.size + len(question.wire)
    if len(message) < end:
        return None
    said, flags, questions, answers, *_ = HEADER.unpack_from(message)
    asked = message[HEADER.size : end]
    if said != number or not flags & _IS_ANSWER or questions != 1 or asked.lower() != question.wire.lower():
        return None
    if flags & _TRUNCATED:
        return DnsAnswer(NO_ERROR, is_truncated=True)
    addresses: list[tuple[Address, int]] = []
    at = end
    for _ in range(answers):
        at = _behind_name(message, at)
        if at + _RECORD.size > len(message):
            break
        kind, family, lasts_s, size = _RECORD.unpack_from(message, at)
        at += _RECORD.size
        content = message[at : at + size]
        at += size
        if (kind, family) == (question.kind, IN) and size == len(content) == _SIZES[kind]:
            addresses.append((IPv4Address(content) if kind == A else IPv6Address(content), lasts_s))
    return DnsAnswer(flags & _CODE, tuple(addresses))


def write_answer(question: Question, code: int, addresses: Iterable[tuple[Address, int]] = ()) -> bytes:
    """Return the answer to a question: a code, and at most `MOST_ADDRESSES` addresses, without CNAME records."""
    kept = list(addresses)[:MOST_ADDRESSES]
    flags = _IS_ANSWER | _RECURSION | _AVAILABLE | code
    records = (
        _NAME_OF_QUESTION + _RECORD.pack(question.kind, IN, lasts_s, len(address.packed)) + address.packed
        for address, lasts_s in kept
    )
    return HEADER.pack(question.number, flags, 1, len(kept), 0, 0) + question.wire + b"".join(records)


def _behind_name(message: bytes, at: int) -> int:
    """Return the offset after a name, which ends with an empty label or a pointer."""
    while at < len(message):
        length = message[at]
        if length >= 0xC0:
            return at + 2
        at += 1 + length
        if not length:
            return at
    return at
