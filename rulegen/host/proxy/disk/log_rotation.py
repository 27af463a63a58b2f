"""Limits the size of logs: at a given size a log is renamed, and replaces the one renamed before."""

from __future__ import annotations

import contextlib
import os
import stat
import time
from typing import Final

from rulegen.safe_files import write_at
from rulegen.text import printable

LARGEST: Final = 64 << 20
"""Size in bytes at which a log is renamed to `<name>.1`."""

_LARGEST_JOURNAL: Final = 1 << 20
_LONGEST: Final = 2000
"""Characters of a line, which may include the last messages of the program."""


class RotatedLog:
    """The supervisor's own log: lines with a time in UTC."""

    def __init__(self, folder: int, name: str) -> None:
        """Take the descriptor of the folder and the name of the log, which is created with its first line."""
        self._folder = folder
        self.name = name

    def write(self, line: str) -> None:
        """Write a line. If the disk is full, the line is lost and nothing else fails."""
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
    """Rename the logs of a folder that are too large; return whether the program must open its logs again (USR1).

    Args:
        folder: The descriptor of the folder.
        keep_open: The names of logs that do not belong to the program.
        largest: The largest size in bytes.
    """
    with contextlib.suppress(OSError):  # writers of the log report the failure of the disk
        logs = [name for name in os.listdir(folder) if name.endswith(".log") and name not in keep_open]
        return [name for name in logs if set_aside(name, largest, dir_fd=folder)] != []
    return False


def cut(name: str, *, dir_fd: int, largest: int = _LARGEST_JOURNAL) -> None:
    """Move the content of a log that is too large to `<name>.1`, for a program that keeps its log open.

    The program appends to it. Lines that it writes at this moment may be lost, and so is the log if the disk is full.
    """
    with contextlib.suppress(OSError):
        flags = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        descriptor = os.open(name, flags, dir_fd=dir_fd)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode) or status.st_size <= largest:
                return
            text = os.pread(descriptor, largest, status.st_size - largest)
            os.ftruncate(descriptor, 0)
        finally:
            os.close(descriptor)
        write_at(f"{name}.1", text, 0o600, dir_fd=dir_fd)


def set_aside(name: str, largest: int, *, dir_fd: int) -> bool:
    """Rename a file to `<name>.1` if it has more than `largest` bytes; return whether it was renamed.

    Raises:
        OSError: The file cannot be renamed.
    """
    try:
        status = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    if not stat.S_ISREG(status.st_mode) or status.st_size <= largest:
        return False
    os.replace(name, f"{name}.1", src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
    return True
