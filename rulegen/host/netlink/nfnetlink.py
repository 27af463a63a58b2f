"""nfnetlink: messages to netfilter subsystems without a tool, or whose tool needs a process for each change.

The four bytes after the header of a message contain the family (`nfgenmsg`). Attributes are in network byte order. See
linux/netfilter/nfnetlink.h.
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
        kind: The subsystem in the high byte, the command in the low byte.
        flags: NLM_F_* flags; REQUEST is added.
        family: AF_INET, AF_INET6, or 0.
        attributes: The attributes, encoded by `attribute`.
    """

    kind: int
    flags: int
    family: int = 0
    attributes: bytes = b""


def dump(message: Message) -> list[dict[int, bytes]]:
    """Return the attributes of each object in the kernel's answer to a message with DUMP.

    Raises:
        OSError: The kernel rejected; its errno.
    """
    with netlink.connect(netlink.NETFILTER) as link:
        return [attributes_of(body[4:]) for body in netlink.dump(link, _encode(message, 1))]


def ask(message: Message) -> dict[int, bytes]:
    """Return the attributes in the kernel's answer to a request for one object.

    Raises:
        OSError: The kernel rejected; its errno.
    """
    with netlink.connect(netlink.NETFILTER) as link:
        return attributes_of(netlink.ask(link, _encode(message, 1))[4:])


def send_all(messages: Sequence[Message]) -> list[int]:
    """Send messages in order, and return the kernel's errno for each; 0 means success.

    Args:
        messages: With any flags; ACK is added.

    Raises:
        OSError: The socket failed, or access is not permitted (PermissionError).
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
