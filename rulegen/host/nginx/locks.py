"""Files that are locked (flock(2)) as long as somebody is at work; the kernel lets go of them with the process."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_TRIES: Final = 20
_PAUSE_S: Final = 0.01


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Lock a file while the body runs; wait for whoever has it locked.

    Raises:
        OSError: The file cannot be opened.
    """
    descriptor = _open(path)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def locked_or_not(path: Path) -> Iterator[bool]:
    """Lock a file while the body runs, where nobody else has it locked; yield whether it is so.

    Raises:
        OSError: The file cannot be opened.
    """
    descriptor = _open(path)
    try:
        yield _take(descriptor)
    finally:
        os.close(descriptor)


def locked_for_good(path: Path) -> bool:
    """Lock a file until this process and its children end; return whether nobody else has it locked.

    Who only looks whether it is locked holds it for a moment, so that more than one try is made.

    Raises:
        OSError: The file cannot be opened.
    """
    descriptor = _open(path)
    for _ in range(_TRIES):
        if _take(descriptor):
            return True
        time.sleep(_PAUSE_S)
    os.close(descriptor)
    return False


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def _take(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
