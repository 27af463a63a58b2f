"""The free space of a file system, for messages about a full disk. The supervisor loads this: small imports."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Final, NamedTuple

from rulegen.safe_files import read_kernel_text
from rulegen.text import printable

if TYPE_CHECKING:
    from pathlib import Path

_LITTLE_BYTES: Final = 64 << 10
_MB: Final = 1e6
_ESCAPE: Final = re.compile(r"\\([0-7]{3})")


class Space(NamedTuple):
    """The space of a file system.

    Attributes:
        mount: Where it is mounted.
        kind: Its type, such as ext4.
        free: Free bytes, for us.
        total: All bytes.
        free_inodes: Free inodes.
        inodes: All inodes; 0 if their number is not limited.
    """

    mount: str
    kind: str
    free: int
    total: int
    free_inodes: int
    inodes: int

    def __str__(self) -> str:
        inodes = f" and {self.free_inodes} of {self.inodes} inodes" if self.inodes else ""
        space = f"{self.free / _MB:.1f} of {self.total / _MB:.1f} MB"
        return f"the file system {self.mount} ({self.kind}) has {space}{inodes} free"

    @property
    def is_full(self) -> bool:
        """Whether a small file may not fit."""
        return self.free < _LITTLE_BYTES or bool(self.inodes and not self.free_inodes)


def space(folder: Path) -> Space | None:
    """Return the space of the file system of a folder; None if it cannot be read."""
    try:
        status = os.statvfs(folder)
        mount, kind = _mounted(os.path.realpath(folder))
    except OSError:
        return None
    return Space(
        mount,
        kind,
        free=status.f_bavail * status.f_frsize,
        total=status.f_blocks * status.f_frsize,
        free_inodes=status.f_favail,
        inodes=status.f_files,
    )


def shortage(folder: Path) -> str:
    """Return a sentence about the file system of a folder if it is full; else nothing."""
    room = space(folder)
    return f"no space is left: {room}" if room is not None and room.is_full else ""


def _mounted(path: str) -> tuple[str, str]:
    """Return the mount point and the type of the file system of a path; later mounts hide earlier ones."""
    best = ("/", "unknown")
    for line in read_kernel_text("/proc/self/mountinfo").splitlines():
        before, _, after = line.partition(" - ")
        mount = _ESCAPE.sub(lambda match: chr(int(match[1], 8)), before.split(" ")[4])
        is_above = path == mount or path.startswith(mount.rstrip("/") + "/")
        if is_above and len(mount) >= len(best[0]):
            best = (mount, after.split(" ")[0])
    return printable(best[0], 200), printable(best[1], 40)
