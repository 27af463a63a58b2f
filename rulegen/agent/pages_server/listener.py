"""A listening port and its answers."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from rulegen.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Callable

    from rulegen.agent.pages_server.rendering import Slow
    from rulegen.agent.pages_server.reply import Encoded
    from rulegen.agent.pages_server.request import Request

BACKLOG: Final = 512
"""Connections of one port that the kernel queues until they are accepted."""
RECEIVE_BYTES: Final = 16 * 1024
SEND_BYTES: Final = 64 * 1024
"""Socket buffer of a client, in bytes; the kernel doubles it (socket(7))."""


class Connection(NamedTuple):
    """Address and port of both ends of a connection."""

    client: tuple[str, int]
    server: tuple[str, int]


@dataclass(frozen=True, slots=True, eq=False)
class ListeningPort:
    """A port.

    Attributes:
        opened: The socket, which does not block.
        answer: Answers a request at once, or returns the slow page that is requested.
    """

    opened: socket.socket
    answer: Callable[[Request, Connection], Encoded | Slow]


def opened(address: str, port: int) -> socket.socket:
    """Return a socket that listens.

    Args:
        address: IPv4 or IPv6.
        port: 0 for any free port.

    Raises:
        HostError: The address is taken, or does not belong to this host.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    opening: socket.socket | None = None
    try:
        opening = socket.socket(family, socket.SOCK_STREAM)
        opening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        opening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
        opening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BYTES)
        if family == socket.AF_INET6:
            opening.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        opening.bind((address, port))
        opening.listen(BACKLOG)
        opening.settimeout(0)
    except OSError as error:
        if opening is not None:
            opening.close()
        raise HostError(f"cannot listen on {address} port {port}: {error.strerror}") from None
    return opening
