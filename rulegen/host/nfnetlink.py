"""nfnetlink: messages to the parts of netfilter that have no tool, or whose tool costs a process for each change.

Each message is a netlink header, four bytes that name the family (`nfgenmsg`), and attributes; an attribute is length,
kind, content, padded to four bytes, and may hold attributes. Headers are in the host's byte order, contents in the
network's. See linux/netlink.h and linux/netfilter/nfnetlink.h.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

REQUEST, ACK, EXCLUSIVE, CREATE, DUMP = 0x1, 0x4, 0x200, 0x400, 0x300
NESTED = 0x8000
_KIND_MASK = 0x3FFF
_NETLINK_NETFILTER = 12
_ERROR, _DONE = 0x2, 0x3
_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_TIMEOUT_S = 5.0
_BATCH = 100


class Message(NamedTuple):
    """A request.

    Attributes:
        kind: Subsystem in the high byte, command in the low one.
        flags: NLM_F_* but REQUEST, which all have.
        family: AF_INET, AF_INET6, or 0.
        attributes: As `attribute` makes them.
    """

    kind: int
    flags: int
    family: int = 0
    attributes: bytes = b""


def attribute(kind: int, content: bytes) -> bytes:
    """Return an attribute; `kind | NESTED` says that its content is attributes."""
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(content), kind) + content + b"\0" * (-len(content) % 4)


def attributes_of(content: bytes) -> dict[int, bytes]:
    """Return the contents of attributes by kind."""
    found: dict[int, bytes] = {}
    at = 0
    while at + _ATTRIBUTE.size <= len(content):
        length, kind = _ATTRIBUTE.unpack_from(content, at)
        found[kind & _KIND_MASK] = content[at + _ATTRIBUTE.size : at + length]
        at += max((length + 3) & ~3, _ATTRIBUTE.size)
    return found


def dump(message: Message) -> list[dict[int, bytes]]:
    """Return all objects that the kernel tells in answer to a message with DUMP, as attributes.

    Raises:
        OSError: The kernel refused; its errno.
    """
    found: list[dict[int, bytes]] = []
    with _open() as link:
        link.send(_encode(message, 1))
        going_on = True
        while going_on:
            for kind, _, body in _split(link.recv(1 << 16)):
                if kind == _DONE:
                    going_on = False
                elif kind == _ERROR:
                    number = _errno(body)
                    raise OSError(number, os.strerror(number))
                else:
                    found.append(attributes_of(body[4:]))
    return found


def ask(message: Message) -> dict[int, bytes]:
    """Return what the kernel tells in answer to a message that asks for one thing, as attributes.

    Raises:
        OSError: The kernel refused; its errno.
    """
    with _open() as link:
        link.send(_encode(message, 1))
        for kind, _, body in _split(link.recv(1 << 16)):
            if kind == _ERROR:
                number = _errno(body)
                raise OSError(number, os.strerror(number))
            return attributes_of(body[4:])
    raise OSError(errno.EBADMSG, os.strerror(errno.EBADMSG))


def send_all(messages: Sequence[Message]) -> list[int]:
    """Send messages that change something, in order, and return the kernel's errno for each; 0 is success.

    Args:
        messages: With any flags; ACK is added.

    Raises:
        OSError: The kernel could not be talked to, or not by us (PermissionError).
    """
    errnos: list[int] = []
    with _open() as link:
        for start in range(0, len(messages), _BATCH):
            batch = messages[start : start + _BATCH]
            link.send(b"".join(_encode(message, at, ACK) for at, message in enumerate(batch)))
            answers: dict[int, int] = {}
            while len(answers) < len(batch):
                answers.update((seq, _errno(body)) for kind, seq, body in _split(link.recv(1 << 16)) if kind == _ERROR)
                if errno.EPERM in answers.values():  # then the kernel says so once, and looks at no more of them
                    raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
            errnos += [answers[at] for at in range(len(batch))]
    return errnos


def _open() -> socket.socket:
    link = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
    link.settimeout(_TIMEOUT_S)
    link.bind((0, 0))
    return link


def _encode(message: Message, seq: int, flags: int = 0) -> bytes:
    body = struct.pack("=BBH", message.family, 0, 0) + message.attributes
    header = _HEADER.pack(_HEADER.size + len(body), message.kind, message.flags | flags | REQUEST, seq, 0)
    return header + body


def _split(datagram: bytes) -> Iterable[tuple[int, int, bytes]]:
    """Yield kind, sequence number and body of each message in a datagram."""
    at = 0
    while at + _HEADER.size <= len(datagram):
        length, kind, _, seq, _ = _HEADER.unpack_from(datagram, at)
        if length < _HEADER.size:
            raise OSError(errno.EBADMSG, os.strerror(errno.EBADMSG))
        yield kind, seq, datagram[at + _HEADER.size : at + length]
        at += (length + 3) & ~3


def _errno(body: bytes) -> int:
    return -int(struct.unpack_from("=i", body)[0])
