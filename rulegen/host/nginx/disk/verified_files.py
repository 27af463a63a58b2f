"""Files of releases that are known to hold what is wanted, without being read again."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Final, NamedTuple

from rulegen.host.nginx.disk.release_files import within
from rulegen.host.nginx.disk.writing import holds

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from rulegen.host.nginx.disk.release_files import WantedFile

_TICK_NS: Final = 100_000_000
"""Longer than the clock that file systems use for times stands still."""


class _FileStatus(NamedTuple):
    """What changes with a file's bytes or rights (inode(7)); links do not change it."""

    device: int
    inode: int
    written_at_ns: int
    size: int
    mode: int
    user: int
    group: int


class VerifiedFiles:
    """Files of releases that were read and held what was wanted, by name.

    For another release, a file is not read again while its status stays: a release is never changed in place, and who
    may write to it could as well replace nginx. Before a release goes live each of its files is read.
    """

    def __init__(self) -> None:
        """Know of none."""
        self._known: dict[str, tuple[WantedFile, _FileStatus]] = {}

    def holds(self, name: str, file: WantedFile, folders: Mapping[str, int]) -> bool:
        """Return whether a file of a release holds what is wanted; read it only where that is not known."""
        known = self._known.get(name)
        if known is None or known[0] != file:
            return self.reads(name, file, folders)
        base, folder = within(name, folders)
        try:
            status = os.stat(base, dir_fd=folder, follow_symlinks=False)
        except OSError:
            return False
        return _status(status) == known[1] or self.reads(name, file, folders)

    def reads(self, name: str, file: WantedFile, folders: Mapping[str, int]) -> bool:
        """Read a file of a release, and return whether it holds what is wanted."""
        # What was known holds no longer where other bytes are read now, even with the same status.
        self._known.pop(name, None)
        base, folder = within(name, folders)
        status = holds(base, file.content, file.mode, file.group, dir_fd=folder)
        if status is None:
            return False
        # Bytes that were written only now may be replaced by others with the same time.
        if status.st_mtime_ns < time.time_ns() - _TICK_NS:
            self._known[name] = file, _status(status)
        return True

    def keep(self, names: Collection[str]) -> None:
        """Know of no other files from now on."""
        self._known = {name: known for name, known in self._known.items() if name in names}


def _status(status: os.stat_result) -> _FileStatus:
    return _FileStatus(
        status.st_dev,
        status.st_ino,
        status.st_mtime_ns,
        status.st_size,
        status.st_mode,
        status.st_uid,
        status.st_gid,
    )
