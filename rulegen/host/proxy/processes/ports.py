"""Finds the process that listens on a TCP port before a proxy starts, so that the error can name it."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from rulegen.safe_files import read_kernel_text
from rulegen.text import printable

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

_LISTENING: Final = "0A"
_SOCKET: Final = re.compile(r"socket:\[(?P<inode>[0-9]+)\]")


class PortHolder(NamedTuple):
    """A process that listens on a port.

    Attributes:
        port: The port.
        pid: The process id; 0 if unknown, such as in another PID namespace.
        command: Its command line in printable characters; empty if unknown.
    """

    port: int
    pid: int
    command: str

    def __str__(self) -> str:
        if not self.pid:
            return f"port {self.port} is held by a process that cannot be seen from here"
        return f"port {self.port} is held by process {self.pid} ({self.command})"


def holders(ports: Collection[int], *, ours: Collection[int] = ()) -> tuple[PortHolder, ...]:
    """Return the listeners on `ports` in this network namespace, sorted by port.

    Args:
        ports: The ports to check.
        ours: The ids of processes that may listen there.
    """
    inodes = {inode: port for inode, port in _listening().items() if port in ports}
    owners = _owners(set(inodes)) if inodes else {}
    by_port: dict[int, PortHolder] = {}
    for inode, port in sorted(inodes.items(), key=lambda item: item[1]):
        pids = owners.get(inode, [])
        if not any(pid in ours for pid in pids):
            pid = pids[0] if pids else 0
            by_port.setdefault(port, PortHolder(port, pid, _command(pid)))
    return tuple(by_port.values())


def _listening() -> dict[str, int]:
    """Return the listening sockets of this network namespace: inode to port."""
    by_inode: dict[str, int] = {}
    for name in ("tcp", "tcp6"):
        path = Path("/proc/thread-self/net") / name
        if path.exists():
            lines = (line.split() for line in read_kernel_text(path).splitlines()[1:])
            by_inode |= {words[9]: int(words[1].rpartition(":")[2], 16) for words in lines if words[3] == _LISTENING}
    return by_inode


def _owners(inodes: set[str]) -> dict[str, list[int]]:
    """Return the processes that have these sockets, by inode, oldest first; only those that this user may inspect."""
    by_inode: dict[str, list[int]] = {}
    for pid in sorted(int(entry.name) for entry in os.scandir("/proc") if entry.name.isdigit()):
        for target in _open_files(pid):
            socket = _SOCKET.match(target)
            if socket and socket["inode"] in inodes:
                by_inode.setdefault(socket["inode"], []).append(pid)
    return by_inode


def _open_files(pid: int) -> Iterator[str]:
    with suppress(OSError):  # the process has ended, or belongs to another user
        for entry in os.scandir(f"/proc/{pid}/fd"):
            with suppress(OSError):  # the descriptor was closed meanwhile
                yield os.readlink(entry.path)  # noqa: PTH115 - of thousands


def _command(pid: int) -> str:
    try:
        words = read_kernel_text(f"/proc/{pid}/cmdline").replace("\0", " ").strip()
        return printable(words or read_kernel_text(f"/proc/{pid}/comm").strip(), 120)
    except OSError:
        return ""
