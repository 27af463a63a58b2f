"""Logs that never fill the disk: at a given size a log is set aside, and the one set aside before it is gone."""

from __future__ import annotations

import contextlib
import os
import stat
import time
from typing import Final

from rulegen.text import printable

LARGEST: Final = 64 << 20
"""Bytes of a log of nginx, after which it is set aside as `<name>.1`."""

_LARGEST_JOURNAL: Final = 1 << 20
_LONGEST: Final = 2000
"""Characters of a line: what nginx said at its end stands there too."""


class RotatedLog:
    """The supervisor's own log: lines with a time in UTC."""

    def __init__(self, folder: int, name: str) -> None:
        """Take the folder of the log, a descriptor, and its name; it is made with the first line."""
        self._folder = folder
        self.name = name

    def write(self, line: str) -> None:
        """Write a line. A disk that is full costs the line and nothing else."""
        with contextlib.suppress(OSError):
            set_aside(self.name, _LARGEST_JOURNAL, dir_fd=self._folder)
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            descriptor = os.open(self.name, flags, 0o600, dir_fd=self._folder)
            try:
                moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
                os.write(descriptor, f"{moment} {printable(line, _LONGEST)}\n".encode())
            finally:
                os.close(descriptor)


def rotate(folder: int, *, keep_open: tuple[str, ...] = (), largest: int = LARGEST) -> bool:
    """Set aside the logs of a folder that grew too large; return whether nginx must open its logs again (USR1).

    Args:
        folder: Where the logs lie, a descriptor.
        keep_open: Names of logs that are not nginx's.
        largest: Bytes from which on a log is too large.
    """
    with contextlib.suppress(OSError):  # a disk that fails now is told by anyone who writes to it
        logs = [name for name in os.listdir(folder) if name.endswith(".log") and name not in keep_open]
        return [name for name in logs if set_aside(name, largest, dir_fd=folder)] != []
    return False


def set_aside(name: str, largest: int, *, dir_fd: int) -> bool:
    """Rename a file to `<name>.1` where it is larger than `largest` bytes; return whether it was.

    Raises:
        OSError: It cannot be renamed.
    """
    try:
        status = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    if not stat.S_ISREG(status.st_mode) or status.st_size <= largest:
        return False
    os.replace(name, f"{name}.1", src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
    return True
