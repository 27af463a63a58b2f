"""The sockets of the relay: listeners, one for each destination that it answers from, one for each flow."""

from __future__ import annotations

import ctypes
import socket
import struct
from typing import TYPE_CHECKING, Final

from rulegen.host.userspace.relay.table import Target
from rulegen.net import Family

if TYPE_CHECKING:
    from collections.abc import Iterable

_KINDS: Final = {Family.IPV4: socket.AF_INET, Family.IPV6: socket.AF_INET6}
_ANY: Final = {Family.IPV4: "0.0.0.0", Family.IPV6: "::"}  # noqa: S104 - a rule lets only datagrams to Services in
_LEVEL: Final = {Family.IPV4: socket.IPPROTO_IP, Family.IPV6: socket.IPPROTO_IPV6}
_TRANSPARENT: Final = {Family.IPV4: 19, Family.IPV6: 75}
"""IP_TRANSPARENT and IPV6_TRANSPARENT: use addresses that this host does not have."""
_DESTINATION: Final = {Family.IPV4: 20, Family.IPV6: 74}
"""IP_RECVORIGDSTADDR and IPV6_RECVORIGDSTADDR: each datagram comes with the destination that the client chose."""
_ATTACH_FILTER: Final = 26
_REJECT_ALL: Final = struct.pack("=HBBI", 0x06, 0, 0, 0)
"""The program `return 0` of the classic packet filter."""
_BUFFER: Final = 1 << 20
ANCILLARY: Final = 128
"""Bytes for what comes with a datagram."""


def listening(family: Family, port: int) -> socket.socket:
    """Return a new socket that gets the datagrams for all destinations.

    Raises:
        OSError: The port is in use, or the family is missing; `filename` names the socket.
    """
    held = _transparent(family)
    try:
        held.setsockopt(_LEVEL[family], _DESTINATION[family], 1)
        held.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)
        held.bind((_ANY[family], port))
    except OSError as error:
        held.close()
        raise OSError(error.errno, error.strerror, f"port {port}/UDP ({family})") from None
    return held


def answering(family: Family, address: Target) -> socket.socket:
    """Return a new socket that sends from an address, which this host may not have. It receives nothing.

    Raises:
        OSError: Another program has the port.
    """
    held = _transparent(family)
    try:
        program = ctypes.create_string_buffer(_REJECT_ALL)
        held.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, struct.pack("HP", 1, ctypes.addressof(program)))
        held.bind(address)
    except OSError:
        held.close()
        raise
    return held


def connected(family: Family, endpoint: Target) -> socket.socket:
    """Return a new socket for one flow, connected to its endpoint.

    Raises:
        OSError: There is no route to it, or too many sockets are open.
    """
    held = socket.socket(_KINDS[family], socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    try:
        held.connect(endpoint)
    except OSError:
        held.close()
        raise
    return held


def destination(family: Family, ancillary: Iterable[tuple[int, int, bytes]]) -> Target | None:
    """Return the destination that comes with a datagram; None if there is none."""
    for level, kind, content in ancillary:
        if level == _LEVEL[family] and kind == _DESTINATION[family]:
            start, end = (4, 8) if family is Family.IPV4 else (8, 24)
            return Target(socket.inet_ntop(_KINDS[family], content[start:end]), int.from_bytes(content[2:4], "big"))
    return None


def _transparent(family: Family) -> socket.socket:
    held = socket.socket(_KINDS[family], socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    try:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family is Family.IPV6:
            held.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        held.setsockopt(_LEVEL[family], _TRANSPARENT[family], 1)
    except OSError:
        held.close()
        raise
    return held
