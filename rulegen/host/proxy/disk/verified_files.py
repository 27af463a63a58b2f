"""Records which files of releases have the wanted content, so that they are not read again."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Final, NamedTuple

from rulegen.host.proxy.disk.release_files import within
from rulegen.host.proxy.disk.writing import holds, linked

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from rulegen.host.proxy.disk.release_files import WantedFile

_TICK_NS: Final = 100_000_000
"""A time longer than one tick of the clock of file systems."""


class _FileStatus(NamedTuple):
    """The status fields that change with a file's content or rights (inode(7)), and not with its links."""

    device: int
    inode: int
    written_at_ns: int
    size: int
    mode: int
    user: int
    group: int


class VerifiedFiles:
    """The verified files of releases, by name.

    For another release, a file is not read again while its status is the same: releases are never changed in place, and
    a user who can write to them could as well replace the program. All files of a release are read before it becomes
    live.
    """

    def __init__(self) -> None:
        """Start without verified files."""
        self._known: dict[str, tuple[WantedFile, _FileStatus]] = {}

    def holds(self, name: str, file: WantedFile, folders: Mapping[str, int]) -> bool:
        """Return whether a file of a release has the wanted content; read it only if this is unknown."""
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
        """Read a file of a release, and return whether it has the wanted content."""
        # Other bytes with the same status invalidate the record.
        self._known.pop(name, None)
        base, folder = within(name, folders)
        status = holds(base, file.content, file.mode, file.group, dir_fd=folder)
        if status is None:
            return False
        # Bytes that were just written may be replaced within the same clock tick.
        if status.st_mtime_ns < time.time_ns() - _TICK_NS:
            self._known[name] = file, _status(status)
        return True

    def linked(
        self, name: str, file: WantedFile, sources: Iterable[Mapping[str, int]], targets: Mapping[str, int]
    ) -> bool:
        """Link a file of another release that has the wanted content; return whether there is one."""
        base, target = within(name, targets)
        for folders in sources:
            if self.holds(name, file, folders):
                return linked(base, within(name, folders)[1], target)
        return False

    def keep(self, names: Collection[str]) -> None:
        """Forget all other files."""
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
