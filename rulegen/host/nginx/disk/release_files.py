"""The files of a release, read and judged through descriptors of its folders, never through a link."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple

from rulegen.safe_files import UnsuitableFileError, read_regular

if TYPE_CHECKING:
    from collections.abc import Mapping

MOST_BYTES: Final = 64 << 20
"""Of one file of a release."""


class WantedFile(NamedTuple):
    """A file of a release: its bytes, who may read it, and the group of those."""

    content: bytes
    mode: int
    group: int


def included(folders: Mapping[str, int]) -> list[str]:
    """Return what nginx reads of a release beside its main file: the main file names folders, not files."""
    return sorted(
        f"{name}/{inner}"
        for name in ("hosts", "upstreams")
        for inner in os.listdir(folders[name])  # noqa: PTH208 - a descriptor's
        if inner.endswith(".conf")
    )


def within(name: str, folders: Mapping[str, int]) -> tuple[str, int]:
    """Return a file's name in its folder, and that folder's descriptor."""
    folder, _, base = name.rpartition("/")
    return base, folders[folder]


def close_files(folder: int) -> None:
    """Take the rights of others from the files of a folder: logs of an nginx that was started without our umask."""
    for name in os.listdir(folder):
        with suppress(OSError):  # it was set aside, or is not ours; the folder itself is closed to others
            status = os.stat(name, dir_fd=folder, follow_symlinks=False)
            mode = status.st_mode
            if stat.S_ISREG(mode) and mode & 0o007 and status.st_nlink == 1:
                descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
                try:
                    os.fchmod(descriptor, stat.S_IMODE(mode) & ~0o007)
                finally:
                    os.close(descriptor)


def is_folder(name: str, dir_fd: int) -> bool:
    """Whether a name in a folder is a folder, and no link."""
    try:
        return stat.S_ISDIR(os.stat(name, dir_fd=dir_fd, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False


def is_file(name: str, folders: Mapping[str, int]) -> bool:
    """Whether a name is a regular file, and no link."""
    base, folder = within(name, folders)
    try:
        return stat.S_ISREG(os.stat(base, dir_fd=folder, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False


def bytes_of(name: str, folders: Mapping[str, int]) -> bytes | None:
    """Return what a file holds; None where it is gone, nothing for a link and what else is no file."""
    base, folder = within(name, folders)
    try:
        return read_regular(base, MOST_BYTES, dir_fd=folder)
    except FileNotFoundError:
        return None
    except UnsuitableFileError:
        return b""


def text_of(name: str, folders: Mapping[str, int]) -> str | None:
    """Return what a file holds as text; None where it is gone."""
    content = bytes_of(name, folders)
    return None if content is None else content.decode("utf-8", "surrogateescape")
