"""The one way in which files are opened that somebody else may have put there.

An open never waits for the other end of a FIFO, never opens a device, and follows links only where the caller says so.
What was opened is judged by its descriptor, not by its name. The size is compared with the caller's bound before
anything is read, and no more is read than that. All errors are OSErrors whose `strerror` goes into a message.

What is written goes into a folder that is held by a descriptor: a link in place of a folder or file is never followed.
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
"""The most that is read of one file of /proc or /sys: its tables have a line for each socket, lock or connection."""

_READ: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_CHUNK: Final = MIB


class UnsuitableFileError(OSError):
    """What stands there is no regular file, a link that is not followed, or larger than may be read."""


def open_regular(path: str | Path, *, follow: bool = False, dir_fd: int | None = None) -> int:
    """Return a descriptor of a regular file, opened for reading.

    Args:
        path: The file; relative to `dir_fd` where that is given.
        follow: Whether a link in the last place is followed. Those before it always are: hold the folder by `dir_fd`.
        dir_fd: A folder's descriptor.

    Raises:
        UnsuitableFileError: It is something else: a folder, FIFO, socket, device, or a link that is not followed.
        OSError: It is not there, or may not be read.
    """
    # First by name, as the open of a device may already do something (a watchdog starts to count).
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
    """Return what a regular file holds; the arguments and errors are those of `open_regular`.

    Raises:
        UnsuitableFileError: It holds more than `max_bytes`, which its size tells before anything is read; or see there.
    """
    descriptor = open_regular(path, follow=follow, dir_fd=dir_fd)
    try:
        return read_descriptor(descriptor, max_bytes, path)
    finally:
        os.close(descriptor)


def read_begin(path: str | Path, size: int, *, dir_fd: int | None = None, folder: str | Path | None = None) -> bytes:
    """Return the first `size` bytes of a regular file, or all where it has fewer.

    Args:
        path: The file; relative to `dir_fd` where that is given.
        size: How many bytes.
        dir_fd: A folder's descriptor.
        folder: A folder that a link may not lead out of; without it, no link is followed.

    Raises:
        OSError: As `open_regular`, or `open_within`, raises it.
    """
    descriptor = open_regular(path, dir_fd=dir_fd) if folder is None else open_within(folder, path)
    try:
        return os.read(descriptor, size)
    finally:
        os.close(descriptor)


def read_within(folder: str | Path, path: str | Path, max_bytes: int) -> bytes:
    """Return what a file of a folder holds; a link is followed where it leads to another file below the folder.

    So a mounted ConfigMap is read, whose files are links to `..data`, and nothing that a link chooses elsewhere.

    Args:
        folder: The folder; links on the way to it are followed, as its user named it.
        path: The file's path, the folder's included.
        max_bytes: The most that it may hold.

    Raises:
        UnsuitableFileError: It is no regular file, is too large, or a link leads out of the folder.
        OSError: It is not there, or may not be read.
    """
    descriptor = open_within(folder, path)
    try:
        return read_descriptor(descriptor, max_bytes, path)
    finally:
        os.close(descriptor)


def open_within(folder: str | Path, path: str | Path) -> int:
    """Return a descriptor of a file of a folder, opened as `read_within` does.

    Raises:
        UnsuitableFileError: It is no regular file, or a link leads out of the folder.
        OSError: It is not there, or may not be read.
    """
    root = os.path.realpath(folder)
    outside = UnsuitableFileError(errno.ELOOP, f"is a link that leads out of {folder}", str(path))
    if os.path.commonpath((root, os.path.realpath(path))) != root:
        raise outside
    descriptor = open_regular(path, follow=True)
    if not _is_below(root, descriptor):  # the links may have been others a moment ago
        os.close(descriptor)
        raise outside
    return descriptor


def _is_below(root: str, descriptor: int) -> bool:
    """Tell whether an open file is below a folder, as far as /proc can tell."""
    try:
        real = os.readlink(f"/proc/self/fd/{descriptor}")  # noqa: PTH115 - a descriptor's
    except FileNotFoundError:
        return True
    return os.path.commonpath((root, real)) == root


def read_descriptor(descriptor: int, max_bytes: int, path: str | Path) -> bytes:
    """Return what is left to read of an open file, at most `max_bytes`; `path` is for messages.

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
    if left <= 0:  # it has grown, or is a file of the kernel, whose size is not told
        raise too_large(path, max_bytes)
    return parts[0] if len(parts) == 1 else b"".join(parts)


@contextmanager
def checked_name(path: str | Path, max_bytes: int) -> Iterator[str]:
    """Yield a name by which a library that takes only names opens the very file that was looked at; links are followed.

    Raises:
        UnsuitableFileError: It is no regular file, or holds more than `max_bytes`.
        OSError: It is not there, or may not be read.
    """
    descriptor = open_regular(path, follow=True)
    try:
        if os.fstat(descriptor).st_size > max_bytes:
            raise too_large(path, max_bytes)
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def read_kernel_text(path: str | Path, max_bytes: int = KERNEL_BYTES) -> str:
    """Return what a file of /proc or /sys says; bytes that are no UTF-8, which processes choose, are replaced.

    Raises:
        OSError: It is not there, may not be read, or says more than `max_bytes`.
    """
    return read_regular(path, max_bytes, follow=True).decode("utf-8", "replace")


def too_large(path: str | Path, max_bytes: int) -> UnsuitableFileError:
    """Return the error for a file that holds more than is read."""
    return UnsuitableFileError(errno.EFBIG, f"is larger than {size_text(max_bytes)}", str(path))


def size_text(size: int) -> str:
    """Return a bound in words.

    >>> size_text(4 << 20), size_text(64 << 10), size_text(500)
    ('4 MiB', '64 KiB', '500 bytes')
    """
    if size >= MIB:
        return f"{size / MIB:.4g} MiB"
    return f"{size / 1024:.4g} KiB" if size >= 1024 else f"{size} bytes"


def kind_text(mode: int) -> str:
    """Return what a mode of stat(2) is of: `a folder`, `a FIFO`."""
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
    """Yield a descriptor of a folder; what is opened relative to it stays in it, whoever renames or replaces the path.

    Raises:
        UnsuitableFileError: It is a link, and links are not followed, or no folder.
        OSError: It is not there, or may not be entered.
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
    """Yield a descriptor of a folder in a folder, which is made where it is not there, with just this mode.

    Raises:
        UnsuitableFileError: Something else, or a link, has that name.
        OSError: It cannot be made or entered.
    """
    with suppress(FileExistsError):
        os.mkdir(name, 0o700, dir_fd=dir_fd)
        with folder_at(name, dir_fd=dir_fd) as made:
            os.fchmod(made, mode)  # whatever our umask is
    with folder_at(name, dir_fd=dir_fd) as descriptor:
        yield descriptor


def write_at(name: str, content: bytes, mode: int, *, dir_fd: int) -> None:
    """Write a file in a folder, whole or not at all; whatever had that name, a link too, is replaced, not written to.

    Raises:
        IsADirectoryError: A folder has that name.
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
