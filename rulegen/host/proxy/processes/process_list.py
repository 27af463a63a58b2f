"""Finds the processes of our nginx by properties that other processes cannot have.

A master is ours if it runs the nginx program as our user in our folder (its working directory). A worker has the same
program and folder, and another user. A process is signalled through its descriptor (pidfd_open(2)) after a second
check, so that a process with a reused id is never signalled.
"""

from __future__ import annotations

import enum
import os
import signal
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from pathlib import Path

_MASTER: Final = b"nginx: master process"
_WORKER: Final = b"nginx: worker process"
_OTHER: Final = b"nginx: cache "
_LEAVING: Final = b"is shutting down"


class Role(enum.Enum):
    """The role of an nginx process."""

    MASTER = "master"
    WORKER = "worker"
    LEAVING = "worker that ends with its last connection"
    CACHE = "cache manager or loader"


class NginxProcess(NamedTuple):
    """A process of our nginx.

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


def find(folder: Path) -> tuple[NginxProcess, ...]:
    """Return all processes of the nginx in `folder`, oldest first, without those that are just starting."""
    try:
        home = folder.stat()
    except OSError:
        return ()
    pids = (int(name) for name in os.listdir("/proc") if name.isdigit())  # noqa: PTH208 - light, and of 1,000s
    ours = [process for pid in pids if (process := _look(pid, (home.st_dev, home.st_ino)))]
    return tuple(sorted(ours, key=lambda process: (process.started, process.pid)))


def master(processes: tuple[NginxProcess, ...]) -> NginxProcess | None:
    """Return the serving master; while a program is replaced, the older of the two."""
    return next((process for process in processes if process.role is Role.MASTER), None)


def workers(processes: tuple[NginxProcess, ...]) -> tuple[NginxProcess, ...]:
    """Return the workers that take new connections."""
    return tuple(process for process in processes if process.role is Role.WORKER)


def leaving(processes: tuple[NginxProcess, ...]) -> tuple[NginxProcess, ...]:
    """Return the workers that only finish their requests, oldest first."""
    return tuple(process for process in processes if process.role is Role.LEAVING)


def orphans(processes: tuple[NginxProcess, ...]) -> tuple[NginxProcess, ...]:
    """Return the processes whose master has ended: they have its ports, and nothing else will end them."""
    masters = {process.pid for process in processes if process.role is Role.MASTER}
    return tuple(process for process in processes if process.role is not Role.MASTER and process.parent not in masters)


def send(process: NginxProcess, number: signal.Signals) -> bool:
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


def started(pid: int) -> int:
    """Return the start of a process in clock ticks since boot; 0 if it has ended or is a zombie."""
    fields = _stat(pid)
    return int(fields[19]) if fields and fields[0] != b"Z" else 0


def _look(pid: int, home: tuple[int, int]) -> NginxProcess | None:
    title = _read(pid, "cmdline").replace(b"\0", b" ")
    role = _role(title)
    if role is None:
        return None
    try:
        place = os.stat(f"/proc/{pid}/cwd")  # noqa: PTH116 - follows the kernel's link, not a path
        program = os.readlink(f"/proc/{pid}/exe")  # noqa: PTH115
        owner = os.stat(f"/proc/{pid}").st_uid  # noqa: PTH116
    except OSError:  # the process has ended, or belongs to another user
        return None
    # after an upgrade of the program, the link is `/usr/sbin/nginx (deleted)`
    if (place.st_dev, place.st_ino) != home or not os.path.basename(program).startswith("nginx"):  # noqa: PTH119
        return None
    if role is Role.MASTER and owner != os.geteuid():
        return None
    fields = _stat(pid)
    return NginxProcess(pid, int(fields[19]), int(fields[1]), role) if fields and fields[0] != b"Z" else None


def _role(title: bytes) -> Role | None:
    if title.startswith(_MASTER):
        return Role.MASTER
    if title.startswith(_WORKER):
        return Role.LEAVING if _LEAVING in title else Role.WORKER
    return Role.CACHE if title.startswith(_OTHER) else None


def _stat(pid: int) -> list[bytes]:
    """Return the fields of /proc/PID/stat after the name, which may contain any character (proc(5))."""
    return _read(pid, "stat").rpartition(b")")[2].split()


def _read(pid: int, name: str) -> bytes:
    try:
        with open(f"/proc/{pid}/{name}", "rb") as file:  # noqa: PTH123 - light: the supervisor lives long
            return file.read()
    except OSError:
        return b""
