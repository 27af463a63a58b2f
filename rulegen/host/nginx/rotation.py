"""Logs that never fill the disk: at a given size a log is set aside, and the one set aside before it is gone."""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

LARGEST: Final = 64 << 20
"""Bytes of a log of nginx, after which it is set aside as `<name>.1`."""

_LARGEST_JOURNAL: Final = 1 << 20


class Journal:
    """The keeper's own log: lines with a time in UTC."""

    def __init__(self, path: Path) -> None:
        """Take the path of the log; it is made with the first line."""
        self._path = path
        self.name = path.name

    def write(self, line: str) -> None:
        """Write a line. A disk that is full costs the line and nothing else."""
        with contextlib.suppress(OSError):
            set_aside(self._path, _LARGEST_JOURNAL)
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
            descriptor = os.open(self._path, flags, 0o644)
            try:
                moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
                os.write(descriptor, f"{moment} {line}\n".encode("utf-8", "backslashreplace"))
            finally:
                os.close(descriptor)


def rotate(folder: Path, *, keep_open: tuple[str, ...] = (), largest: int = LARGEST) -> bool:
    """Set aside the logs of a folder that grew too large; return whether nginx must open its logs anew (USR1).

    Args:
        folder: Where the logs lie.
        keep_open: Names of logs that are not nginx's.
        largest: Bytes from which on a log is too large.
    """
    with contextlib.suppress(OSError):  # a disk that fails now is told by whoever writes to it
        logs = [path for path in folder.glob("*.log") if path.name not in keep_open]
        return [path for path in logs if set_aside(path, largest)] != []
    return False


def set_aside(path: Path, largest: int) -> bool:
    """Rename a file to `<name>.1` where it is larger than `largest` bytes; return whether it was.

    Raises:
        OSError: It cannot be renamed.
    """
    try:
        if path.lstat().st_size <= largest:
            return False
    except FileNotFoundError:
        return False
    path.replace(path.with_name(f"{path.name}.1"))
    return True
