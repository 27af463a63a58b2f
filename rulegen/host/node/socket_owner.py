"""Finds the user of a TCP connection on this host, by the addresses and ports of both ends.

See sock_diag(7). Unix sockets have SO_PEERCRED for this; for TCP, the kernel's socket diagnosis is used.
"""

from __future__ import annotations

import socket
import struct
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rulegen.host.netlink import messages

if TYPE_CHECKING:
    from collections.abc import Iterator

_SOCK_DIAG: Final = 4
_SOCK_DIAG_BY_FAMILY: Final = 20
_ANY_COOKIE: Final = 0xFFFFFFFF
_ALL_STATES: Final = 0xFFFFFFFF
_ANSWER: Final = struct.Struct("=4B 48s 5I")
"""struct inet_diag_msg: family, state, two numbers; the socket's id; expires, two queues, user, inode."""
_ENDS_BYTES: Final = 36
"""Of an id: two ports and two addresses; then interface and cookie."""


def owner_of(near: tuple[str, int], far: tuple[str, int]) -> int | None:
    """Return the user who opened the socket with these ends in this network namespace.

    Args:
        near: Its own address and port.
        far: Address and port that it is connected to.

    Returns:
        The user id in the user namespace of this process; None if there is no such socket, or its program has closed
        it.

    Raises:
        OSError: The kernel rejected the request.
    """
    try:
        return _asked(near, far)
    except OSError:  # the kernel has no tcp_diag, or may not load it
        return _listed(near, far)


def _asked(near: tuple[str, int], far: tuple[str, int]) -> int | None:
    """Request this socket from the kernel."""
    family = socket.AF_INET6 if ":" in near[0] else socket.AF_INET
    ends = struct.pack("!HH", near[1], far[1]) + _packed(near[0]) + _packed(far[0])
    connection = ends + struct.pack("=3I", 0, _ANY_COOKIE, _ANY_COOKIE)
    body = struct.pack("=4BI", family, socket.IPPROTO_TCP, 0, 0, _ALL_STATES) + connection
    with messages.connect(_SOCK_DIAG) as link:
        try:
            answer = messages.ask(link, messages.message(_SOCK_DIAG_BY_FAMILY, 0, 1, body))
        except FileNotFoundError:
            return None
    _, _, _, _, answered_ends, _, _, _, user, inode = _ANSWER.unpack_from(answer)
    # Without such a connection, the kernel returns a listener on the port.
    return int(user) if answered_ends[:_ENDS_BYTES] == ends and inode else None


def _listed(near: tuple[str, int], far: tuple[str, int]) -> int | None:
    """Search the list of all sockets; the time grows with their number."""
    name = "tcp6" if ":" in near[0] else "tcp"
    ends = [_written(near), _written(far)]
    for fields in _lines(Path(f"/proc/thread-self/net/{name}")):
        if fields[1:3] == ends and int(fields[9]):
            return int(fields[7])
    return None


def _lines(path: Path) -> Iterator[list[str]]:
    with path.open(encoding="ascii") as table:
        next(table, "")
        for line in table:
            yield line.split()


def _packed(address: str) -> bytes:
    """Return an address as the 16 bytes of a socket id."""
    return ip_address(address).packed.ljust(16, b"\0")


def _written(end: tuple[str, int]) -> str:
    """Return an end in the format of /proc/net/tcp: words of 32 bits in host byte order, and the port."""
    packed = ip_address(end[0]).packed
    words = struct.unpack(f"={len(packed) // 4}I", packed)
    return "".join(f"{word:08X}" for word in words) + f":{end[1]:04X}"
