"""Transactions of nf_tables: messages that take effect together or not at all, over one socket.

A transaction is one datagram: a begin message, the requests, an end message. The kernel handles it while it is sent.
Then the answers wait at the socket: one acknowledgement for the last request, or an error for each request that it
refuses. Without the end message the kernel checks the requests and changes nothing.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
import weakref
from typing import TYPE_CHECKING, Final, NamedTuple

from rulegen.errors import HostError
from rulegen.host.netlink import messages as netlink
from rulegen.host.netlink.messages import ACK, DUMP, REQUEST, attribute, attributes_of
from rulegen.host.netlink.ports import add_port, remove_port
from rulegen.host.nftables.kernel.elements import ElementsOf
from rulegen.host.nftables.kernel.objects import GET_GENERATION, SUBSYSTEM
from rulegen.languages.nftables.state import NftKey, ObjectKind

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rulegen.host.nftables.kernel.objects import NftMessage

_BEGIN, _END = 0x10, 0x11
_BATCH_GENERATION = 1
_HEADER: Final = struct.Struct("=IHHII")
_REQUEST: Final = struct.Struct("=IHHIIBBH")
_ATTRIBUTE: Final = struct.Struct("=HH")
_SOL_NETLINK, _CAP_ACK, _EXT_ACK = 270, 10, 11
_SO_SNDBUFFORCE, _SO_RCVBUFFORCE = 32, 33
_SEND_BYTES = 1 << 29
_RECEIVE_BYTES = 1 << 23
_READ_BYTES = 1 << 18
_ERROR, _DONE = 2, 3
_CAPPED, _HAS_ATTRIBUTES = 0x100, 0x200
_DUMP_INTERRUPTED = 0x10
_TEXT, _OFFSET = 1, 2
_TIMEOUT_S = 30
_OF_BATCH = socket.htons(10)
_WORDS: Final = {errno.ENFILE: "the set or map is full"}
"""Reasons that mean something else in nf_tables than their names say."""


class Refusal(NamedTuple):
    """A request that the kernel refused.

    Attributes:
        message: The request; None if the kernel refused the transaction as a whole.
        subject: The object of the request; of a request about elements, the refused element if the kernel names it.
        code: The errno.
        complaint: What the kernel says about it; often empty.
    """

    message: NftMessage | None
    subject: object
    code: int
    complaint: str = ""

    def __str__(self) -> str:
        """Return the object and the reason in words."""
        reason = self.complaint or _WORDS.get(self.code) or os.strerror(self.code)
        return reason if self.message is None else f"{_named(self)}: {reason}"


class TransactionError(HostError):
    """The kernel refused a transaction. Nothing of it was written.

    Attributes:
        refusals: What was refused, in the order of the requests; never empty.
    """

    def __init__(self, refusals: Sequence[Refusal]) -> None:
        first, more = refusals[0], len(refusals) - 1
        hint = "run as root, or with CAP_NET_ADMIN" if first.code == errno.EPERM and first.message is None else ""
        super().__init__(f"nf_tables: {first}" + (f" (and {more} more)" if more else ""), hint=hint)
        self.refusals = tuple(refusals)

    @property
    def code(self) -> int:
        """The first errno."""
        return self.refusals[0].code


class NftSocket:
    """A socket for transactions and dumps. The tables that it owns are its own: no child process inherits it."""

    def __init__(self) -> None:
        """Open the socket.

        Raises:
            HostError: The kernel has no nf_tables.
        """
        try:
            opened = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, netlink.NETFILTER)
        except OSError as error:
            raise HostError(f"nf_tables: no netlink socket: {error.strerror}") from None
        self._socket = opened
        # Not settimeout: with it, Python waits for an answer although MSG_DONTWAIT says not to.
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", _TIMEOUT_S, 0))
        for option, size in ((_SO_SNDBUFFORCE, _SEND_BYTES), (_SO_RCVBUFFORCE, _RECEIVE_BYTES)):
            with contextlib.suppress(PermissionError):  # a write is refused as well, and its error says it better
                opened.setsockopt(socket.SOL_SOCKET, option, size)
        for option in (_CAP_ACK, _EXT_ACK):
            opened.setsockopt(_SOL_NETLINK, option, 1)
        opened.bind((0, 0))
        self.port: int = opened.getsockname()[0]
        """The number by which the kernel names this socket as the owner of a table."""
        _OPEN.add(self)

    def close(self) -> None:
        """Close the socket. Tables with PERSIST stay, without an owner."""
        self._socket.close()
        remove_port(self.port)

    def commit(self, requests: Sequence[NftMessage], *, generation: int | None = None) -> None:
        """Write all requests in one transaction.

        Args:
            requests: In the order of their effects.
            generation: Refuse if the rules of this namespace have changed since this generation (ERESTART).

        Raises:
            TransactionError: The kernel refused; nothing was written.
            HostError: The kernel did not answer: the transaction may be written.
        """
        self._transact(requests, generation, is_real=True)

    def check(self, requests: Sequence[NftMessage]) -> None:
        """Let the kernel check a transaction without writing it.

        Raises:
            TransactionError: The kernel refuses it.
            HostError: The kernel did not answer.
        """
        self._transact(requests, None, is_real=False)

    def _transact(self, requests: Sequence[NftMessage], generation: int | None, *, is_real: bool) -> None:
        if not requests:
            return
        self._drain()
        add_port(self.port)  # before the kernel tells others of the commit
        try:
            self._socket.send(_datagram(requests, generation, is_real=is_real))
        except OSError as error:
            raise TransactionError([Refusal(None, None, error.errno or 0, _of_send(error))]) from None
        answers = self._answers()
        if refusals := _refusals(requests, answers):
            raise TransactionError(refusals)
        if len(requests) not in {answer.sequence for answer in answers}:
            raise HostError("nf_tables: the kernel did not acknowledge a transaction")

    def _drain(self) -> None:
        """Discard answers to an earlier request that nobody has read."""
        self._answers()

    def _answers(self) -> list[_Answer]:
        """Return the answers that wait at the socket."""
        answers: list[_Answer] = []
        while True:
            try:
                datagram = self._socket.recv(_READ_BYTES, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return answers
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise HostError(f"nf_tables: {error.strerror}") from None
                continue  # some answers were lost; without the acknowledgement it is an error
            answers += (
                _answer(flags, sequence, body) for kind, flags, sequence, body in split(datagram) if kind == _ERROR
            )

    def dump(self, command: int, family: int, attributes: bytes = b"") -> Iterator[dict[int, bytes]]:
        """Yield the attributes of each object that the kernel lists.

        Raises:
            OSError: The kernel refused; its errno. InterruptedError if objects changed during the dump.
        """
        self._drain()
        body = struct.pack("=BBH", family, 0, 0) + attributes
        self._socket.send(netlink.message(SUBSYSTEM | command, DUMP, 1, body))
        is_interrupted = False
        while True:
            for kind, flags, _, content in split(self._socket.recv(_READ_BYTES)):
                is_interrupted |= bool(flags & _DUMP_INTERRUPTED)
                if kind in {_DONE, _ERROR}:
                    code = -struct.unpack_from("=i", content)[0] or (errno.EINTR if is_interrupted else 0)
                    if code:
                        raise OSError(code, os.strerror(code))
                    return
                yield attributes_of(content[4:])

    def ask(self, command: int, family: int, attributes: bytes) -> dict[int, bytes] | None:
        """Return the attributes of one object; None if there is none.

        Raises:
            OSError: The kernel refused; its errno.
        """
        self._drain()
        body = struct.pack("=BBH", family, 0, 0) + attributes
        self._socket.send(netlink.message(SUBSYSTEM | command, 0, 1, body))
        for kind, _, _, content in split(self._socket.recv(_READ_BYTES)):
            if kind != _ERROR:
                return attributes_of(content[4:])
            code = -struct.unpack_from("=i", content)[0]
            if code != errno.ENOENT:
                raise OSError(code, os.strerror(code))
        return None

    def generation(self) -> int:
        """Return the generation of the rules of this namespace, which increases with each transaction.

        Raises:
            OSError: The kernel refused; its errno.
        """
        answer = self.ask(GET_GENERATION, 0, b"") or {}
        return int.from_bytes(answer.get(1, b""), "big")


_OPEN: Final[weakref.WeakSet[NftSocket]] = weakref.WeakSet()


def _close_in_child() -> None:
    for opened in tuple(_OPEN):
        opened.close()


os.register_at_fork(after_in_child=_close_in_child)


class _Answer(NamedTuple):
    sequence: int
    code: int
    complaint: str
    offset: int


def split(datagram: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """Yield kind, flags, sequence number and body of each message in a datagram."""
    at = 0
    while at + _HEADER.size <= len(datagram):
        length, kind, flags, sequence, _ = _HEADER.unpack_from(datagram, at)
        yield kind, flags, sequence, datagram[at + _HEADER.size : at + length]
        at += max((length + 3) & ~3, _HEADER.size)


def _datagram(requests: Sequence[NftMessage], generation: int | None, *, is_real: bool) -> bytes:
    """Return a transaction. The sequence number of a request is its place, from 1; the begin message has 0."""
    begin = b"" if generation is None else attribute(_BATCH_GENERATION, generation.to_bytes(4, "big"))
    parts = [_REQUEST.pack(_REQUEST.size + len(begin), _BEGIN, REQUEST, 0, 0, 0, 0, _OF_BATCH), begin]
    last = len(requests)
    for sequence, (kind, flags, family, content, _) in enumerate(requests, 1):
        every = flags | REQUEST | (ACK if sequence == last else 0)
        head = _REQUEST.pack(_REQUEST.size + len(content), SUBSYSTEM | kind, every, sequence, 0, family, 0, 0)
        parts += (head, content)
    if is_real:
        parts.append(_REQUEST.pack(_REQUEST.size, _END, REQUEST, last + 1, 0, 0, 0, _OF_BATCH))
    return b"".join(parts)


def _answer(flags: int, sequence: int, body: bytes) -> _Answer:
    (code,) = struct.unpack_from("=i", body)
    offset, complaint = 0, ""
    if flags & _HAS_ATTRIBUTES:
        length, *_ = _HEADER.unpack_from(body, 4)
        start = 4 + (_HEADER.size if flags & _CAPPED else (length + 3) & ~3)
        attributes = attributes_of(body[start:])
        complaint = attributes.get(_TEXT, b"").rstrip(b"\0").decode("utf-8", "replace")
        offset = int.from_bytes(attributes.get(_OFFSET, b""), "little" if _IS_LITTLE else "big")
    return _Answer(sequence, -code, complaint, offset)


_IS_LITTLE: Final = struct.pack("=H", 1) == b"\1\0"


def _refusals(requests: Sequence[NftMessage], answers: Sequence[_Answer]) -> list[Refusal]:
    refusals: dict[int, Refusal] = {}
    for answer in answers:
        if not answer.code:
            continue
        message = requests[answer.sequence - 1] if 0 < answer.sequence <= len(requests) else None
        subject = None if message is None else _subject(message, answer.offset)
        refusals.setdefault(answer.sequence, Refusal(message, subject, answer.code, answer.complaint))
    return [refusal for _, refusal in sorted(refusals.items())]


def _subject(message: NftMessage, offset: int) -> object:
    """Return the object of a request; of a request about elements, the one at this offset."""
    subject = message.subject
    if not isinstance(subject, ElementsOf) or not offset:
        return subject
    at, content = 0, message.attributes
    while at + 4 <= len(content):  # the list of elements is the last attribute
        length, kind = _ATTRIBUTE.unpack_from(content, at)
        if kind & 0x3FFF == 3:
            break
        at += (length + 3) & ~3
    at += 4
    for element in subject.elements:
        (length, _) = _ATTRIBUTE.unpack_from(content, at)
        if at <= offset - _REQUEST.size < at + length:
            return ElementsOf(subject.set_name, (element,))
        at += (length + 3) & ~3
    return subject


def _named(refusal: Refusal) -> str:
    subject = refusal.subject
    if not isinstance(subject, ElementsOf):
        return key_text(subject) if isinstance(subject, NftKey) else str(subject)
    count = len(subject.elements)
    if count == 1 and isinstance(subject.elements[0], NftKey):
        return key_text(subject.elements[0])
    return f"an element of {subject.set_name}" if count == 1 else f"one of {count} elements of {subject.set_name}"


def keys_of(refusal: Refusal) -> tuple[NftKey, ...]:
    """Return the objects of the language that a refusal is about."""
    subjects = refusal.subject.elements if isinstance(refusal.subject, ElementsOf) else (refusal.subject,)
    return tuple(subject for subject in subjects if isinstance(subject, NftKey))


def key_text(key: NftKey) -> str:
    """Return an object in words, such as `element 10.96.0.1 . tcp . 443 of service-ips`."""
    if key.is_element:
        return f"element {' . '.join(key.element)} of {key.name}"
    if key.kind is ObjectKind.TABLE:
        return f"table {key.table}"
    return f"{key.kind.name.lower()} {key.name}"


def _of_send(error: OSError) -> str:
    if error.errno == errno.EMSGSIZE:
        return "the transaction is larger than the send buffer of the socket, which only root can enlarge"
    return error.strerror or str(error)
