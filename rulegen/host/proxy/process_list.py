"""Finds and signals processes by properties that other processes cannot have.

A process is ours if it runs the program of the proxy in our folder, which other users cannot enter. A process
is signalled through its descriptor (pidfd_open(2)) after a second
check, so that a process with a reused id is never signalled.
"""

from __future__ import annotations

import enum
import os
import select
import signal
from typing import NamedTuple, Self


class Role(enum.Enum):
    """The role of a process of a proxy."""

    MASTER = "master"
    WORKER = "worker"
    LEAVING = "worker that ends with its last connection"
    CACHE = "cache manager or loader"


class ProxyProcess(NamedTuple):
    """A process of our proxy.

    Attributes:
        pid: Its id.
        started: Its start in clock ticks since boot; together with `pid` it identifies a process.
        parent: Id of its parent.
        role: Its role.
    """

    pid: int
    started: int
    parent: int
    role: Role


class Seen(NamedTuple):
    """What identifies the program of a process.

    Attributes:
        place: Device and inode of a folder, such as its working directory.
        program: The base name of its executable.
        user: Its user.
    """

    place: tuple[int, int]
    program: str
    user: int

    @classmethod
    def of(cls, pid: int, folder: str) -> Self | None:
        """Return it for a process; None if the process has ended, or belongs to another user.

        Args:
            pid: Its id.
            folder: The path of `place` below /proc/PID.
        """
        try:
            place = os.stat(f"/proc/{pid}/{folder}")  # noqa: PTH116 - follows the kernel's link, not a path
            program = os.readlink(f"/proc/{pid}/exe")  # noqa: PTH115
            owner = os.stat(f"/proc/{pid}").st_uid  # noqa: PTH116
        except OSError:
            return None
        # after an upgrade of the program, the link is `/usr/sbin/nginx (deleted)`
        return cls((place.st_dev, place.st_ino), os.path.basename(program), owner)  # noqa: PTH119


def all_ids() -> list[int]:
    """Return the ids of all processes."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208 - light, and of 1,000s


def identified(pid: int, role: Role) -> ProxyProcess | None:
    """Return a process with its start and parent; None if it has ended or is a zombie."""
    fields = _stat(pid)
    return ProxyProcess(pid, int(fields[19]), int(fields[1]), role) if fields and fields[0] != b"Z" else None


def master(processes: tuple[ProxyProcess, ...]) -> ProxyProcess | None:
    """Return the serving master; while a program is replaced, the older of the two."""
    return next((process for process in processes if process.role is Role.MASTER), None)


def workers(processes: tuple[ProxyProcess, ...]) -> tuple[ProxyProcess, ...]:
    """Return the workers that take new connections."""
    return tuple(process for process in processes if process.role is Role.WORKER)


def leaving(processes: tuple[ProxyProcess, ...]) -> tuple[ProxyProcess, ...]:
    """Return the workers that only finish their requests, oldest first."""
    return tuple(process for process in processes if process.role is Role.LEAVING)


def orphans(processes: tuple[ProxyProcess, ...]) -> tuple[ProxyProcess, ...]:
    """Return the processes whose master has ended: they have its ports, and nothing else will end them."""
    masters = {process.pid for process in processes if process.role is Role.MASTER}
    return tuple(process for process in processes if process.role is not Role.MASTER and process.parent not in masters)


def send(process: ProxyProcess, number: signal.Signals) -> bool:
    """Signal a process; return whether it still existed.

    Raises:
        PermissionError: The process belongs to another user.
    """
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return False
    try:
        if started(process.pid) != process.started:
            return False
        signal.pidfd_send_signal(descriptor, number)
    except ProcessLookupError:
        return False
    finally:
        os.close(descriptor)
    return True


def end(pid: int, timeout_s: float) -> bool:
    """Kill a process, and return whether it has ended in time."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        return bool(select.select([descriptor], [], [], timeout_s)[0])
    except ProcessLookupError:
        return True
    finally:
        os.close(descriptor)


def is_stopped(pid: int) -> bool:
    """Whether a signal or a debugger has stopped a process."""
    return _stat(pid)[:1] in ([b"T"], [b"t"])


def started(pid: int) -> int:
    """Return the start of a process in clock ticks since boot; 0 if it has ended or is a zombie."""
    fields = _stat(pid)
    return int(fields[19]) if fields and fields[0] != b"Z" else 0


def _stat(pid: int) -> list[bytes]:
    """Return the fields of /proc/PID/stat after the name, which may contain any character (proc(5))."""
    return read(pid, "stat").rpartition(b")")[2].split()


def read(pid: int, name: str) -> bytes:
    """Return the content of a file below /proc/PID; empty if the process has ended."""
    try:
        with open(f"/proc/{pid}/{name}", "rb") as file:  # noqa: PTH123 - light: the supervisor lives long
            return file.read()
    except OSError:
        return b""
