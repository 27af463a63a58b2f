"""Opens files that another user may have put in place.

An open never waits for the other end of a FIFO, never opens a device, and follows links only if the caller allows it.
Checks use the descriptor of the opened file, not its name. The size is compared with the caller's limit before anything
is read, and no more than the limit is read. All errors are OSErrors; messages contain their `strerror`.

Files are written into a folder that is held by a descriptor: no link in place of a folder or file is followed.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MIB: Final = 1 << 20
KERNEL_BYTES: Final = 64 * MIB
"""Limit for one file of /proc or /sys: its tables have a line for each socket, lock or connection."""

_READ: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_CHUNK: Final = MIB


class UnsuitableFileError(OSError):
    """The path is not a regular file, is a link that is not followed, or the file is larger than the limit."""


def open_regular(path: str | Path, *, follow: bool = False, dir_fd: int | None = None) -> int:
    """Return a descriptor of a regular file, opened for reading.

    Args:
        path: The file; relative to `dir_fd` if that is given.
        follow: Whether a link as the last part of the path is followed. Links before it always are: use `dir_fd` to
            prevent it.
        dir_fd: Descriptor of a folder.

    Raises:
        UnsuitableFileError: It is a folder, FIFO, socket, device, or a link that is not followed.
        OSError: It does not exist or cannot be read.
    """
    # Check the name first, because opening a device may already have an effect (a watchdog starts).
    _refuse_unsuitable(os.stat(path, dir_fd=dir_fd, follow_symlinks=follow).st_mode, path)
    flags = _READ if follow else _READ | os.O_NOFOLLOW
    try:
        descriptor = os.open(path, flags, dir_fd=dir_fd)
    except OSError as error:
        if error.errno == errno.ELOOP and not follow:
            raise UnsuitableFileError(errno.ELOOP, "is a symbolic link", str(path)) from None
        raise
    try:
        _refuse_unsuitable(os.fstat(descriptor).st_mode, path)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def read_regular(path: str | Path, max_bytes: int, *, follow: bool = False, dir_fd: int | None = None) -> bytes:
    """Return the content of a regular file; for arguments and errors see `open_regular`.

    Raises:
        UnsuitableFileError: It is larger than `max_bytes` (checked before anything is read), or as for `open_regular`.
    """
    descriptor = open_regular(path, follow=follow, dir_fd=dir_fd)
    try:
        return read_descriptor(descriptor, max_bytes, path)
    finally:
        os.close(descriptor)


def read_begin(path: str | Path, size: int, *, dir_fd: int | None = None, folder: str | Path | None = None) -> bytes:
    """Return the first `size` bytes of a regular file, or all if it has fewer.

    Args:
        path: The file; relative to `dir_fd` if that is given.
        size: Number of bytes.
        dir_fd: Descriptor of a folder.
        folder: A folder that a link must not lead out of; without it, no link is followed.

    Raises:
        OSError: As for `open_regular` or `open_within`.
    """
    descriptor = open_regular(path, dir_fd=dir_fd) if folder is None else open_within(folder, path)
    try:
        return os.read(descriptor, size)
    finally:
        os.close(descriptor)


def read_within(folder: str | Path, path: str | Path, max_bytes: int) -> bytes:
    """Return the content of a file in a folder; a link is followed only to another file below the folder.

    This reads a mounted ConfigMap, whose files are links to `..data`, but no file elsewhere that a link names.

    Args:
        folder: The folder; links on the path to it are followed, because the user gave that path.
        path: Path of the file, including the folder.
        max_bytes: Limit for its size.

    Raises:
        UnsuitableFileError: It is not a regular file, is too large, or a link leads out of the folder.
        OSError: It does not exist or cannot be read.
    """
    descriptor = open_within(folder, path)
    try:
        return read_descriptor(descriptor, max_bytes, path)
    finally:
        os.close(descriptor)


def open_within(folder: str | Path, path: str | Path) -> int:
    """Return a descriptor of a file in a folder, opened as by `read_within`.

    Raises:
        UnsuitableFileError: It is not a regular file, or a link leads out of the folder.
        OSError: It does not exist or cannot be read.
    """
    root = os.path.realpath(folder)
    outside = UnsuitableFileError(errno.ELOOP, f"is a link that leads out of {folder}", str(path))
    if os.path.commonpath((root, os.path.realpath(path))) != root:
        raise outside
    descriptor = open_regular(path, follow=True)
    if not _is_below(root, descriptor):  # the links may have changed since the check
        os.close(descriptor)
        raise outside
    return descriptor


def _is_below(root: str, descriptor: int) -> bool:
    """Return whether an open file is below a folder, as far as /proc shows it."""
    try:
        real = os.readlink(f"/proc/self/fd/{descriptor}")  # noqa: PTH115 - a descriptor's
    except FileNotFoundError:
        return True
    return os.path.commonpath((root, real)) == root


def read_descriptor(descriptor: int, max_bytes: int, path: str | Path) -> bytes:
    """Return the rest of an open file, at most `max_bytes`; `path` is for messages.

    Raises:
        UnsuitableFileError: There is more.
        OSError: It cannot be read.
    """
    if os.fstat(descriptor).st_size > max_bytes:
        raise too_large(path, max_bytes)
    parts: list[bytes] = []
    left = max_bytes + 1
    while left > 0 and (part := os.read(descriptor, min(left, _CHUNK))):
        parts.append(part)
        left -= len(part)
    if left <= 0:  # the file has grown, or is a file of the kernel without a size
        raise too_large(path, max_bytes)
    return parts[0] if len(parts) == 1 else b"".join(parts)


@contextmanager
def checked_name(path: str | Path, max_bytes: int) -> Iterator[str]:
    """Yield a name with which a library that takes only names opens the checked file itself; links are followed.

    Raises:
        UnsuitableFileError: It is not a regular file, or is larger than `max_bytes`.
        OSError: It does not exist or cannot be read.
    """
    descriptor = open_regular(path, follow=True)
    try:
        if os.fstat(descriptor).st_size > max_bytes:
            raise too_large(path, max_bytes)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def read_kernel_text(path: str | Path, max_bytes: int = KERNEL_BYTES) -> str:
    """Return the content of a file of /proc or /sys. Invalid UTF-8, which processes can choose, is replaced.

    Raises:
        OSError: It does not exist, cannot be read, or is larger than `max_bytes`.
    """
    return read_regular(path, max_bytes, follow=True).decode("utf-8", "replace")


def too_large(path: str | Path, max_bytes: int) -> UnsuitableFileError:
    """Return the error for a file that is larger than the limit."""
    return UnsuitableFileError(errno.EFBIG, f"is larger than {size_text(max_bytes)}", str(path))


def size_text(size: int) -> str:
    """Return a size in words.

    >>> size_text(4 << 20), size_text(64 << 10), size_text(500)
    ('4 MiB', '64 KiB', '500 bytes')
    """
    if size >= MIB:
        return f"{size / MIB:.4g} MiB"
    return f"{size / 1024:.4g} KiB" if size >= 1024 else f"{size} bytes"


def kind_text(mode: int) -> str:
    """Return the file type of a mode (stat(2)) in words: `a folder`, `a FIFO`."""
    kinds = {
        stat.S_IFDIR: "a folder",
        stat.S_IFIFO: "a FIFO",
        stat.S_IFLNK: "a symbolic link",
        stat.S_IFSOCK: "a socket",
        stat.S_IFREG: "a file",
    }
    return kinds.get(stat.S_IFMT(mode), "a device")


@contextmanager
def folder_at(path: str | Path, *, dir_fd: int | None = None, follow: bool = False) -> Iterator[int]:
    """Yield a descriptor of a folder. Paths relative to it stay in it, even if the folder is renamed or replaced.

    Raises:
        UnsuitableFileError: It is not a folder, or is a link and links are not followed.
        OSError: It does not exist or cannot be opened.
    """
    try:
        descriptor = os.open(path, _FOLDER if follow else _FOLDER | os.O_NOFOLLOW, dir_fd=dir_fd)
    except OSError as error:
        if error.errno not in {errno.ELOOP, errno.ENOTDIR}:
            raise
        mode = os.stat(path, dir_fd=dir_fd, follow_symlinks=False).st_mode
        raise UnsuitableFileError(error.errno, f"is {kind_text(mode)}, not a folder", str(path)) from None
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def made_folder_at(name: str, mode: int, *, dir_fd: int) -> Iterator[int]:
    """Yield a descriptor of a subfolder, which is created with exactly this mode if it does not exist.

    Raises:
        UnsuitableFileError: That name is a link or not a folder.
        OSError: It cannot be created or opened.
    """
    with suppress(FileExistsError):
        os.mkdir(name, 0o700, dir_fd=dir_fd)
        with folder_at(name, dir_fd=dir_fd) as made:
            os.fchmod(made, mode)  # independent of the umask
    with folder_at(name, dir_fd=dir_fd) as descriptor:
        yield descriptor


def write_at(name: str, content: bytes, mode: int, *, dir_fd: int) -> None:
    """Write a file in a folder, completely or not at all. An existing file or link of that name is replaced.

    Raises:
        IsADirectoryError: That name is a folder.
        OSError: It cannot be written; nothing has changed.
    """
    partial = f".{name[:200]}.{os.urandom(8).hex()}"
    descriptor = os.open(partial, _NEW, 0o600, dir_fd=dir_fd)
    try:
        try:
            rest = memoryview(content)
            while rest:
                rest = rest[os.write(descriptor, rest) :]
            os.fchmod(descriptor, mode)
        finally:
            os.close(descriptor)
        os.rename(partial, name, src_dir_fd=dir_fd, dst_dir_fd=dir_fd)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(partial, dir_fd=dir_fd)
        raise


def _refuse_unsuitable(mode: int, path: str | Path) -> None:
    if not stat.S_ISREG(mode):
        kind = kind_text(mode)
        raise UnsuitableFileError(
            errno.ELOOP if stat.S_ISLNK(mode) else errno.EINVAL,
            f"is {kind}" if stat.S_ISLNK(mode) else f"is {kind}, not a file",
            str(path),
        )
