"""Single files of a release: written new or linked, never changed in place."""

from __future__ import annotations

import ctypes
import errno
import os
import stat
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_FEW: Final = 8


def write_new(path: Path, content: bytes, mode: int, group: int) -> None:
    """Write a file that is not there yet.

    Raises:
        OSError: It cannot be written, or is there.
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


def link_or_none(source: Path, target: Path, content: bytes, mode: int, group: int) -> bool:
    """Make `target` another name of `source` if that holds just these bytes for just these readers; tell whether.

    False too where the file system has no such links, or they lie on two.

    Raises:
        OSError: Any other reason, as a full disk.
    """
    try:
        descriptor = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        status = os.fstat(descriptor)
        same = (
            stat.S_ISREG(status.st_mode)
            and (status.st_size, stat.S_IMODE(status.st_mode), status.st_gid) == (len(content), mode, group)
            and os.read(descriptor, len(content) + 1) == content
        )
    finally:
        os.close(descriptor)
    if not same:
        return False
    try:
        os.link(source, target, follow_symlinks=False)
    except OSError as error:
        if error.errno in {errno.EXDEV, errno.EPERM, errno.EMLINK, errno.EOPNOTSUPP}:
            return False
        raise
    return True


def synchronize(folder: Path, new: Sequence[Path]) -> None:
    """Have the disk hold what was written below `folder`: file by file where they are few, or else all at once.

    One call for thousands of files (syncfs(2)) also waits for what others wrote to that disk.

    Raises:
        OSError: The disk failed, or was full after all.
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
