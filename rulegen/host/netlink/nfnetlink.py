"""nfnetlink: messages to the parts of netfilter that have no tool, or whose tool costs a process for each change.

The four bytes behind the header of a message name the family (`nfgenmsg`); contents of attributes are in the network's
byte order. See linux/netfilter/nfnetlink.h.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, NamedTuple

from rulegen.host.netlink import messages as netlink
from rulegen.host.netlink.messages import CREATE, DUMP, EXCLUSIVE, NESTED, attribute, attributes_of

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["CREATE", "DUMP", "EXCLUSIVE", "NESTED", "Message", "ask", "attribute", "attributes_of", "dump", "send_all"]

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


def dump(message: Message) -> list[dict[int, bytes]]:
    """Return all objects that the kernel tells in answer to a message with DUMP, as attributes.

    Raises:
        OSError: The kernel rejected; its errno.
    """
    with netlink.connect(netlink.NETFILTER) as link:
        return [attributes_of(body[4:]) for body in netlink.dump(link, _encode(message, 1))]


def ask(message: Message) -> dict[int, bytes]:
    """Return what the kernel tells in answer to a message that requests one thing, as attributes.

    Raises:
        OSError: The kernel rejected; its errno.
    """
    with netlink.connect(netlink.NETFILTER) as link:
        return attributes_of(netlink.ask(link, _encode(message, 1))[4:])


def send_all(messages: Sequence[Message]) -> list[int]:
    """Send messages that change something, in order, and return the kernel's errno for each; 0 is success.

    Args:
        messages: With any flags; ACK is added.

    Raises:
        OSError: The kernel could not be talked to, or not by us (PermissionError).
    """
    errnos: list[int] = []
    with netlink.connect(netlink.NETFILTER) as link:
        for start in range(0, len(messages), _BATCH):
            batch = messages[start : start + _BATCH]
            encoded = [_encode(message, at, netlink.ACK) for at, message in enumerate(batch)]
            errnos += netlink.acknowledged(link, encoded)
    return errnos


def _encode(message: Message, seq: int, flags: int = 0) -> bytes:
    body = struct.pack("=BBH", message.family, 0, 0) + message.attributes
    return netlink.message(message.kind, message.flags | flags, seq, body)
