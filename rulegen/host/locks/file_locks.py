"""File locks (flock(2)); the kernel releases them when the process ends."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import stat
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WAIT_S: Final = 300.0
"""Another process that applies a configuration takes some seconds, at most as long as a test of it."""

_TRIES: Final = 20
_PAUSE_S: Final = 0.01
_MODE: Final = 0o600
"""Mode 0600: a user who can open a file, even read-only, can lock it."""


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Lock a file while the body runs; wait while another process has the lock, at most `WAIT_S` seconds.

    Raises:
        OSError: The file cannot be opened, or another process does not release the lock.
        StoppingError: This process is stopping.
    """
    descriptor = _open(path)
    try:
        _wait_for(descriptor, path)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def locked_or_not(path: Path | str, *, dir_fd: int | None = None, make: bool = True) -> Iterator[bool]:
    """Try to lock a file while the body runs; yield whether it is locked.

    Args:
        path: The file; relative to `dir_fd` where that is given.
        dir_fd: A folder's descriptor.
        make: Whether a missing file is created.

    Raises:
        OSError: The file cannot be opened.
    """
    descriptor = _open(path, dir_fd=dir_fd, make=make)
    try:
        yield _take(descriptor)
    finally:
        os.close(descriptor)


def locked_for_good(path: Path | str, *, dir_fd: int | None = None) -> bool:
    """Lock a file until this process and its children end; return whether it succeeded.

    A process that tests the lock holds it for a moment, so several attempts are made.

    Args:
        path: The file; relative to `dir_fd` where that is given.
        dir_fd: A folder's descriptor.

    Raises:
        OSError: The file cannot be opened.
    """
    descriptor = _open(path, dir_fd=dir_fd)
    for _ in range(_TRIES):
        if _take(descriptor):
            return True
        time.sleep(_PAUSE_S)
    os.close(descriptor)
    return False


def opened_or_not(name: str, *, dir_fd: int) -> tuple[int, bool]:
    """Return the descriptor of a file in a folder, and whether it could be locked; the file is created if necessary.

    Raises:
        OSError: The file cannot be opened.
    """
    descriptor = _open(name, dir_fd=dir_fd)
    return descriptor, _take(descriptor)


def _open(path: Path | str, *, dir_fd: int | None = None, make: bool = True) -> int:
    flags = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY
    descriptor = os.open(path, flags | os.O_CREAT if make else flags, _MODE, dir_fd=dir_fd)
    try:
        status = os.fstat(descriptor)
        _check_kind(status, path)
        if status.st_mode & 0o077:
            os.fchmod(descriptor, _MODE)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _check_kind(status: os.stat_result, path: Path | str) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "is not a file that can be locked", str(path))
    if status.st_nlink > 1:  # a hard link: its mode would change at its other name too
        raise OSError(errno.EINVAL, "is a hard link: the file has another name, too", str(path))


def _wait_for(descriptor: int, path: Path) -> None:
    """Wait for the lock.

    Raises:
        OSError: Another process does not release it.
        StoppingError: This process is stopping.
    """
    from rulegen.waits import ENDS_ITSELF, WAITS  # noqa: PLC0415 - the supervisor never waits

    until = time.monotonic() + WAIT_S
    with WAITS.waiting(f"the lock {path}", limit_s=WAIT_S, end=ENDS_ITSELF) as wait:
        while not _take(descriptor):
            wait.check()
            if time.monotonic() > until:
                raise OSError(errno.ETIMEDOUT, f"another process has held the lock for {WAIT_S:g} s", str(path))
            time.sleep(_PAUSE_S)


def _take(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
