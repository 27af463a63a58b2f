"""Ports of this network namespace that programs listen on, beyond the loopback."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

_LISTENING: Final = "0A"
_UNCONNECTED: Final = "07"
_FIRST_EPHEMERAL: Final = 32768
"""UDP ports from here on belong to clients, mostly."""
_LOOPBACK: Final = {8: "7F", 32: "00000000000000000000000001000000"}
"""The suffix of loopback addresses in /proc/net, by length: 127.0.0.0/8 (in reverse byte order) and ::1."""


def listening_ports() -> frozenset[tuple[str, int]]:
    """Return protocol and number of each port on which a program can be reached from outside."""
    return frozenset(_read("tcp", "TCP", _LISTENING)) | {
        (protocol, port) for protocol, port in _read("udp", "UDP", _UNCONNECTED) if port < _FIRST_EPHEMERAL
    }


def root_ports() -> frozenset[tuple[str, int]]:
    """Return protocol and number of each port on which a program of root can be reached from outside.

    Ports of other users are left out: no user of the node may take a port from a Service.
    """
    return frozenset(_read("tcp", "TCP", _LISTENING, uid="0")) | {
        (protocol, port) for protocol, port in _read("udp", "UDP", _UNCONNECTED, uid="0") if port < _FIRST_EPHEMERAL
    }


def _read(name: str, protocol: str, state: str, *, uid: str = "") -> Iterator[tuple[str, int]]:
    """Yield the ports of one protocol; `uid` limits them to sockets of that user."""
    for suffix in ("", "6"):
        path = Path(f"/proc/thread-self/net/{name}{suffix}")
        if not path.exists():
            continue
        with path.open(encoding="ascii") as table:
            next(table, "")
            for line in table:
                fields = line.split()
                address, _, port = fields[1].rpartition(":")
                if fields[3] == state and not address.endswith(_LOOPBACK[len(address)]):
                    if uid in {"", fields[7]}:
                        yield protocol, int(port, 16)
                elif fields[3] != _LISTENING and protocol == "TCP":
                    break  # listeners come first, and there may be very many other sockets
