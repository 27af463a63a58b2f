"""The sockets of this process that write rules, by the numbers that the kernel gives them.

A notice about a commit has the number of the socket that made it. It is the same number in every PID namespace.
"""

from __future__ import annotations

import time
from typing import Final

_LATE_S: Final = 10.0
"""How long after a socket was closed a notice about its last commit may be read, in seconds."""
_OPEN: Final[set[int]] = set()
_CLOSED: Final[dict[int, float]] = {}


def add_port(port: int) -> None:
    """Record the number of a socket before its first commit."""
    _OPEN.add(port)


def remove_port(port: int) -> None:
    """Record that a socket was closed: later, another process may get its number."""
    if port not in _OPEN:
        return
    _OPEN.discard(port)
    now = time.monotonic()
    for other, closed_at in tuple(_CLOSED.items()):
        if now - closed_at > _LATE_S:
            _CLOSED.pop(other, None)
    _CLOSED[port] = now


def is_own_port(port: int) -> bool:
    """Whether a number is, or was some seconds ago, that of a socket with which this process wrote."""
    if port in _OPEN:
        return True
    closed_at = _CLOSED.get(port)
    return closed_at is not None and time.monotonic() - closed_at <= _LATE_S
