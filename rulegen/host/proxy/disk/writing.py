"""Writes to the disk: files are created or hard-linked, never changed in place, and never reached through a link."""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
import stat
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from rulegen.errors import ApplyError
from rulegen.host.files.trust import UntrustedError
from rulegen.host.proxy.disk.space import space

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from rulegen.languages.configuration import Configuration

_FEW: Final = 8
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
_BLOCK: Final = 4096
_FOLDERS: Final = 4
_AT_FDCWD: Final = -100
_RENAME_EXCHANGE: Final = 2


def write_new(path: Path, content: bytes, mode: int, group: int) -> None:
    """Create a file.

    Raises:
        OSError: The file exists, or cannot be written.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        rest = memoryview(content)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        if group != os.getegid():
            os.fchown(descriptor, -1, group)
        os.fchmod(descriptor, mode)
    finally:
        os.close(descriptor)


def holds(name: str, content: bytes, mode: int, group: int, *, dir_fd: int) -> os.stat_result | None:
    """Return the status of a file of ours with exactly this content, mode and group; None for any other."""
    try:
        status = os.stat(name, dir_fd=dir_fd, follow_symlinks=False)
        if not _is_as(status, len(content), mode, group):  # checked before it is opened: it may be a FIFO or a device
            return None
        descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=dir_fd)
    except OSError:
        return None
    try:
        status = os.fstat(descriptor)
        is_same = _is_as(status, len(content), mode, group) and os.read(descriptor, len(content) + 1) == content
        return status if is_same else None
    finally:
        os.close(descriptor)


def _is_as(status: os.stat_result, size: int, mode: int, group: int) -> bool:
    attributes = (status.st_size, stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid)
    return stat.S_ISREG(status.st_mode) and attributes == (size, mode, os.geteuid(), group)


def remove(name: str, *, dir_fd: int) -> None:
    """Delete a file of a folder, or a folder in it with its content; of a link, delete the link only.

    Raises:
        OSError: Something cannot be deleted.
    """
    with suppress(FileNotFoundError):
        if stat.S_ISDIR(os.stat(name, dir_fd=dir_fd, follow_symlinks=False).st_mode):
            shutil.rmtree(name, dir_fd=dir_fd)
        else:
            os.unlink(name, dir_fd=dir_fd)


def linked(name: str, source_fd: int, target_fd: int) -> bool:
    """Create a hard link with the same name in another folder; return whether the file system supports it.

    Raises:
        OSError: Another failure, such as a full disk.
    """
    try:
        os.link(name, name, src_dir_fd=source_fd, dst_dir_fd=target_fd, follow_symlinks=False)
    except OSError as error:
        if error.errno in {errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP}:
            return False
        raise
    return True


def exchange(first: Path, other: Path) -> None:
    """Exchange the names of two folders atomically (renameat2(2)).

    Raises:
        OSError: The names cannot be exchanged.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(_AT_FDCWD, os.fsencode(first), _AT_FDCWD, os.fsencode(other), _RENAME_EXCHANGE) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), str(first))


def synchronize(folder: Path, new: Sequence[Path]) -> None:
    """Flush the files below `folder` to the disk: one by one if they are few, else with one call.

    The one call for thousands of files (syncfs(2)) waits for writes of other programs to this disk too.

    Raises:
        OSError: The disk failed, or is full.
    """
    if len(new) <= _FEW:
        for path in {*new, *(path.parent for path in new), folder.parent}:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        if libc.syncfs(descriptor) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(folder))
    finally:
        os.close(descriptor)


def reason(error: OSError, folder: Path | None = None) -> str:
    """Return the failure with its path; for a full disk, also the space of the file system of `folder`."""
    if isinstance(error, UntrustedError):
        return f"{error.filename} {error.strerror}"
    where = f"{error.filename}: " if error.filename else ""
    room = space(folder) if folder is not None and error.errno in _FULL else None
    return f"{where}{error.strerror or error}" + (f" ({room})" if room is not None else "")


def hint(error: OSError, needs: str = "") -> str:
    """Return the next step; empty if unknown. `needs` is what a write needs on the disk, such as `about 3 MB`."""
    if isinstance(error, UntrustedError):
        return error.hint
    if error.errno in _FULL:
        return "free space there, or inodes (df -h, df -i)" + (f": {needs}" if needs else "")
    if error.errno in {errno.EACCES, errno.EPERM, errno.EROFS}:
        return "run as root, or give another folder, as with --nginx-dir or --haproxy-dir"
    if error.errno in {errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP}:
        return "give another folder, as with --nginx-dir or --haproxy-dir"
    return ""


def not_written(configuration: Configuration, program: str, served: str, error: OSError, folder: Path) -> ApplyError:
    """Return the error for a release that could not be written to `folder`; `served` is served instead."""
    return ApplyError(
        f"the configuration of {program} cannot be written: {reason(error, folder)}; {served}",
        applied=(),
        pending=(f"release {configuration.digest}",),
        hint=hint(error, _needs(configuration)),
    )


def _needs(configuration: Configuration) -> str:
    """Return what a release needs on a disk."""
    sizes = [*map(len, configuration.files.values()), *(len(s.content) for s in configuration.secrets.values())]
    total = sum(sizes) + _BLOCK * (len(sizes) + _FOLDERS)
    return f"a release needs about {max(total / 1e6, 0.1):.1f} MB and {len(sizes) + _FOLDERS} inodes"
