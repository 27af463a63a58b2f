"""Reports of the kernel about changes in folders (inotify(7))."""

from __future__ import annotations

import ctypes
import os
import struct
import threading
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

_MODIFIED, _MOVED_FROM, _MOVED_TO, _CREATED, _DELETED = 0x2, 0x40, 0x80, 0x100, 0x200
_ONLY_FOLDERS, _NO_LINK = 0x01000000, 0x02000000
_MASK: Final = _MODIFIED | _MOVED_FROM | _MOVED_TO | _CREATED | _DELETED | _ONLY_FOLDERS | _NO_LINK
_GONE: Final = 0x8000
"""The folder was removed, so that nothing more is reported."""
_OVERFLOW: Final = 0x4000
_HEAD: Final = struct.Struct("=iIII")
_AT_ONCE: Final = 1 << 16


class FolderNotices:
    """Whether something in some folders has changed. Without inotify, nothing is reported; any thread may call this."""

    def __init__(self) -> None:
        """Follow nothing."""
        self._lock = threading.Lock()
        self._descriptor = -1
        self._names: dict[int, frozenset[str]] = {}

    def follow(self, folders: Mapping[Path, frozenset[str]]) -> None:
        """Follow these folders from now on, and no others.

        Args:
            folders: Which names in a folder count; none if all do.
        """
        with self._lock:
            self._close()
            libc = ctypes.CDLL(None, use_errno=True)
            self._descriptor = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
            if self._descriptor < 0:
                return
            for folder, names in folders.items():
                watch = libc.inotify_add_watch(self._descriptor, os.fsencode(folder), _MASK)
                if watch >= 0:
                    self._names[watch] = names

    def have_changed(self) -> bool:
        """Return whether something has changed since the last call."""
        with self._lock:
            if self._descriptor < 0:
                return False
            changed = False
            while True:
                try:
                    content = os.read(self._descriptor, _AT_ONCE)
                except BlockingIOError:
                    return changed
                while content:
                    watch, mask, _, size = _HEAD.unpack_from(content)
                    name = os.fsdecode(content[_HEAD.size : _HEAD.size + size].rstrip(b"\0"))
                    content = content[_HEAD.size + size :]
                    names = self._names.get(watch, frozenset())
                    changed = changed or not names or name in names or bool(mask & (_GONE | _OVERFLOW))

    def close(self) -> None:
        """Follow nothing any more."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor, self._names = -1, {}
