"""Takes over the listening sockets of a process, so that no connection is refused while nginx is replaced.

nginx starts with sockets whose numbers are in the variable NGINX; this is its way to replace its program while it runs.
Workers of a killed master still have all sockets; pidfd_getfd(2) (Linux 5.6) copies them.
"""

from __future__ import annotations

import ctypes
import os
import socket
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

_SYS_PIDFD_GETFD: Final = 438  # the same number on all architectures; libc has no function for it


def listening(pid: int) -> list[int]:
    """Return copies of the listening sockets of a process, as descriptors that exec(2) keeps.

    There are none if the process has ended, or if the kernel refuses.
    """
    try:
        numbers = sorted(int(name) for name in os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208 - as numbers
    except OSError:
        return []
    return listening_at(pid, [number for number in numbers if _is_socket(pid, number)])


def listening_at(pid: int, numbers: Iterable[int]) -> list[int]:
    """Return copies of the listening sockets that a process has under these numbers.

    Unlike `listening`, this needs no right to list the descriptors of another user's process.
    """
    try:
        process = os.pidfd_open(pid)
    except OSError:
        return []
    try:
        return [copy for number in numbers if (copy := _copy(process, number)) is not None]
    finally:
        os.close(process)


def variable(descriptors: list[int]) -> str:
    """Return the value of NGINX for these descriptors.

    >>> variable([5, 7])
    '5;7;'
    """
    return "".join(f"{number};" for number in descriptors)


def _is_socket(pid: int, number: int) -> bool:
    try:
        return os.readlink(f"/proc/{pid}/fd/{number}").startswith("socket:")  # noqa: PTH115
    except OSError:  # the descriptor was closed meanwhile
        return False


def _copy(process: int, number: int) -> int | None:
    copy: int = ctypes.CDLL(None).syscall(_SYS_PIDFD_GETFD, process, number, 0)
    if copy < 0:
        return None
    try:
        held = socket.socket(fileno=copy)
    except OSError:  # no socket
        os.close(copy)
        return None
    try:
        listens = held.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
    except OSError:
        listens = 0
    if not listens or _is_deleted(held):
        held.close()
        return None
    os.set_inheritable(copy, True)  # noqa: FBT003 - takes no name
    return held.detach()


def _is_deleted(held: socket.socket) -> bool:
    """Whether the path of a Unix socket does not exist any more, so that nginx must create a new one."""
    return held.family == socket.AF_UNIX and not os.path.lexists(held.getsockname())
