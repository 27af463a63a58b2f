"""Netlink messages, their attributes, and the kernel's answers to batches.

A message has a header, four bytes that the addressed subsystem defines, and attributes. An attribute has length, kind
and content, padded to four bytes; its content may be attributes. Headers are in host byte order. See linux/netlink.h.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

REQUEST, ACK, EXCLUSIVE, CREATE, DUMP = 0x1, 0x4, 0x200, 0x400, 0x300
NESTED = 0x8000
ROUTE, NETFILTER, GENERIC = 0, 12, 16
"""The netlink protocols that rulegen uses."""

_KIND_MASK = 0x3FFF
_ERROR, _DONE = 0x2, 0x3
_DUMP_INTERRUPTED = 0x10
_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_TIMEOUT_S = 5.0
_RECEIVE_BYTES = 1 << 22
"""The receive buffer for the answers to a batch; the kernel counts more than the size of each answer."""


def attribute(kind: int, content: bytes) -> bytes:
    """Return an attribute; `kind | NESTED` says that its content is attributes."""
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(content), kind) + content + b"\0" * (-len(content) % 4)


def attributes_of(content: bytes) -> dict[int, bytes]:
    """Return the contents of attributes by kind."""
    contents: dict[int, bytes] = {}
    at = 0
    while at + _ATTRIBUTE.size <= len(content):
        length, kind = _ATTRIBUTE.unpack_from(content, at)
        contents[kind & _KIND_MASK] = content[at + _ATTRIBUTE.size : at + length]
        at += max((length + 3) & ~3, _ATTRIBUTE.size)
    return contents


def message(kind: int, flags: int, seq: int, body: bytes) -> bytes:
    """Return a request with this body, which starts with the four bytes of the subsystem."""
    return _HEADER.pack(_HEADER.size + len(body), kind, flags | REQUEST, seq, 0) + body


def connect(protocol: int, *, groups: int = 0) -> socket.socket:
    """Return a netlink socket.

    Args:
        protocol: The netlink protocol.
        groups: The multicast groups to join, as a bit mask.

    Raises:
        OSError: The kernel does not have the protocol, or access is not permitted.
    """
    link = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol)
    link.settimeout(_TIMEOUT_S)
    with contextlib.suppress(PermissionError):
        link.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _RECEIVE_BYTES)
    link.bind((0, groups))
    return link


_SO_RCVBUFFORCE = 33


def dump(link: socket.socket, request: bytes, *, is_whole: bool = False) -> Iterator[bytes]:
    """Yield the bodies of all answers to a request with DUMP.

    Args:
        link: The socket.
        request: The request.
        is_whole: Whether a change during the dump is an error, because it may hide other objects.

    Raises:
        InterruptedError: With `is_whole`: objects changed meanwhile. All answers were yielded; some may be missing.
        OSError: The kernel rejected; its errno.
    """
    link.send(request)
    is_interrupted = False
    while True:
        for kind, flags, _, body in _messages(link.recv(1 << 16)):
            is_interrupted |= bool(flags & _DUMP_INTERRUPTED)
            if kind == _DONE:
                if is_whole and is_interrupted:
                    raise InterruptedError(errno.EINTR, os.strerror(errno.EINTR))
                return
            if kind == _ERROR:
                raise _refused(body)
            yield body


def ask(link: socket.socket, request: bytes) -> bytes:
    """Return the body of the answer to a request for one object.

    Raises:
        OSError: The kernel rejected; its errno.
    """
    link.send(request)
    for kind, _, body in split(link.recv(1 << 16)):
        if kind == _ERROR:
            raise _refused(body)
        return body
    raise OSError(errno.EBADMSG, os.strerror(errno.EBADMSG))


def acknowledged(link: socket.socket, requests: Sequence[bytes]) -> list[int]:
    """Send requests in one batch, and return the kernel's errno for each; 0 means success.

    Args:
        link: The socket.
        requests: Requests with ACK, and sequence numbers from 0.

    Raises:
        OSError: The socket failed, or access is not permitted (PermissionError).
    """
    link.send(b"".join(requests))
    answers: dict[int, int] = {}
    while len(answers) < len(requests):
        answers.update((seq, _errno(body)) for kind, seq, body in split(link.recv(1 << 16)) if kind == _ERROR)
        if errno.EPERM in answers.values():  # the kernel reports this once and ignores the other requests
            raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
    return [answers[at] for at in range(len(requests))]


def split(datagram: bytes) -> Iterable[tuple[int, int, bytes]]:
    """Yield kind, sequence number and body of each message in a datagram."""
    return ((kind, seq, body) for kind, _, seq, body in _messages(datagram))


def _messages(datagram: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """Yield kind, flags, sequence number and body of each message in a datagram."""
    at = 0
    while at + _HEADER.size <= len(datagram):
        length, kind, flags, seq, _ = _HEADER.unpack_from(datagram, at)
        if length < _HEADER.size:
            raise OSError(errno.EBADMSG, os.strerror(errno.EBADMSG))
        yield kind, flags, seq, datagram[at + _HEADER.size : at + length]
        at += (length + 3) & ~3


def _refused(body: bytes) -> OSError:
    number = _errno(body)
    return OSError(number, os.strerror(number))


def _errno(body: bytes) -> int:
    return -int(struct.unpack_from("=i", body)[0])
