"""Taking over the listening sockets of a process, so that no connection is refused while another takes its place.

nginx starts on sockets that it is handed by number in the variable NGINX: its own way to replace its program while it
runs. Workers whose master was killed still hold all of them; a copy of each is fetched with pidfd_getfd(2), Linux 5.6.
"""

from __future__ import annotations

import ctypes
import os
import socket
from typing import Final

_SYS_PIDFD_GETFD: Final = 438  # the same number on all architectures; there is no function of libc yet


def listening(pid: int) -> list[int]:
    """Return copies of the sockets on which a process listens, as descriptors that a new program keeps.

    None where it is gone, or the kernel does not give them.
    """
    try:
        process = os.pidfd_open(pid)
    except OSError:
        return []
    try:
        numbers = [int(name) for name in os.listdir(f"/proc/{pid}/fd")]  # noqa: PTH208 - as numbers
        return [copy for number in sorted(numbers) if (copy := _copy(process, pid, number)) is not None]
    except OSError:
        return []
    finally:
        os.close(process)


def variable(descriptors: list[int]) -> str:
    """Return the value of NGINX that hands descriptors over.

    >>> variable([5, 7])
    '5;7;'
    """
    return "".join(f"{number};" for number in descriptors)


def _copy(process: int, pid: int, number: int) -> int | None:
    try:
        if not os.readlink(f"/proc/{pid}/fd/{number}").startswith("socket:"):  # noqa: PTH115
            return None
    except OSError:  # closed meanwhile
        return None
    copy: int = ctypes.CDLL(None).syscall(_SYS_PIDFD_GETFD, process, number, 0)
    if copy < 0:
        return None
    held = socket.socket(fileno=copy)
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
    """Whether it is a socket of a path that is not there any more: nobody can reach it, so a new one must be made."""
    return held.family == socket.AF_UNIX and not os.path.lexists(held.getsockname())
