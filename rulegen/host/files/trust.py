"""Checks that no other user can replace a folder: only root and we may write to it and to the folders above it.

A user who may write to a folder can rename its entries and replace them, whoever owns them. Each step of a path is
therefore opened from the descriptor of the checked folder above, so the opened folder is the checked one. The imports
are small: the supervisor uses this at each start of the program.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rulegen.safe_files import kind_text, open_regular, read_descriptor

if TYPE_CHECKING:
    from collections.abc import Iterator

_MOST_LINKS: Final = 40
_LOOK: Final = os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_PARENT_MODE: Final = 0o755


class UntrustedError(PermissionError):
    """Another user could write to a folder, or replace it.

    Attributes:
        filename: The folder, or one above it.
        strerror: The fault: its owner and mode.
        hint: The next step.
    """

    def __init__(self, place: Path, problem: str, hint: str) -> None:
        super().__init__(errno.EPERM, problem, str(place))
        self.hint = hint


def open_folder(path: Path, *, make_mode: int | None = None) -> int:
    """Return a descriptor of a folder that only our user can write to and replace.

    Links above it are followed if root or our user owns them, and the folders on their way are checked too. A folder
    that all users may write to, such as /tmp, is accepted if it is sticky, because then only the owner can rename an
    entry.

    Args:
        path: The absolute path of the folder, which must not be a link.
        make_mode: The mode of a missing folder, which is created with its parents (0755) for any umask; None creates
            nothing.

    Raises:
        UntrustedError: The folder, or one on the way, belongs to another user, is writable for others, or is no folder.
        OSError: The folder does not exist, or cannot be created or entered.
    """
    here, place, links = os.open("/", _LOOK | os.O_DIRECTORY), Path("/"), 0
    steps = [(name, number == len(path.parts) - 1) for number, name in enumerate(path.parts)][1:]
    try:
        while steps:
            _check_above(os.fstat(here), place, path)
            name, is_last = steps.pop(0)
            mode = make_mode if is_last or make_mode is None else _PARENT_MODE
            try:
                there = _entered(here, name, mode)
            except OSError as error:
                raise OSError(error.errno, error.strerror, str(place / name)) from None
            if stat.S_ISLNK(os.fstat(there).st_mode) and not is_last:
                links += 1
                target = _target(there, place / name, path, is_too_long=links > _MOST_LINKS)
                steps[:0] = [(part, False) for part in target.parts if part != "/"]
                there, place = (
                    (os.open("/", _LOOK | os.O_DIRECTORY), Path("/")) if target.is_absolute() else (-1, place)
                )
            else:
                place = place.parent if name == ".." else place / name
            if there != -1:
                os.close(here)
                here = there
                _check_kind(os.fstat(here), place, path)
        check_ours(path, os.fstat(here))
        return os.open(".", _FOLDER, dir_fd=here)
    finally:
        os.close(here)


@contextmanager
def folder(path: Path, *, make_mode: int | None = None) -> Iterator[int]:
    """Yield the descriptor of `open_folder`, and close it.

    Raises:
        OSError: As there.
    """
    descriptor = open_folder(path, make_mode=make_mode)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def open_inner(home: int, name: str, path: Path, *, make: bool = False) -> int:
    """Return a descriptor of a folder in a folder, if only our user can write to it and it is no link.

    Args:
        home: The descriptor of the outer folder.
        name: The name of the inner folder.
        path: The path of the inner folder, for messages.
        make: Whether a missing folder is created (0700).

    Raises:
        UntrustedError: It is a link or no folder, belongs to another user, or is writable for others.
        OSError: It does not exist, or cannot be created.
    """
    if make:
        with suppress(FileExistsError):
            os.mkdir(name, 0o700, dir_fd=home)
    status = os.stat(name, dir_fd=home, follow_symlinks=False)
    check_ours(path, status)
    descriptor = os.open(name, _FOLDER, dir_fd=home)
    try:
        check_ours(path, os.fstat(descriptor))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


@contextmanager
def inner(home: int, name: str, path: Path, *, make: bool = False) -> Iterator[int]:
    """Yield the descriptor of `open_inner`, and close it.

    Raises:
        OSError: As there.
    """
    descriptor = open_inner(home, name, path, make=make)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def read_ours(path: str | Path, max_bytes: int, *, dir_fd: int | None = None) -> bytes:
    """Return the content of a file that only our user can have written.

    Args:
        path: The file; relative to `dir_fd` where that is given.
        max_bytes: The largest size.
        dir_fd: The descriptor of a folder.

    Raises:
        UntrustedError: The file belongs to another user, or is writable for others.
        OSError: As in `safe_files.read_regular`.
    """
    descriptor = open_regular(path, dir_fd=dir_fd)
    try:
        problem = _foreign(os.fstat(descriptor))
        if problem:
            raise UntrustedError(Path(path), problem, f"remove it: rm {path}")
        return read_descriptor(descriptor, max_bytes, path)
    finally:
        os.close(descriptor)


def check_written(descriptor: int, path: Path, *, all_ours: bool = False) -> None:
    """Check that files which a program writes to a folder stay in it: it opens them by name, as root.

    Args:
        descriptor: The descriptor of the folder.
        path: The path of the folder, for messages.
        all_ours: Whether files of other users are rejected too, who could hold a lock or write another process id.
            nginx gives only logs to the user of its workers.

    Raises:
        UntrustedError: The folder has a symbolic or hard link, a FIFO or a device.
        OSError: The folder cannot be read.
    """
    for name in os.listdir(descriptor):
        with suppress(FileNotFoundError):
            status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
            mode = status.st_mode
            has_two_names = stat.S_ISREG(mode) and status.st_nlink > 1
            if has_two_names or not (stat.S_ISREG(mode) or stat.S_ISDIR(mode) or stat.S_ISSOCK(mode)):
                what = "a hard link to another file" if has_two_names else kind_text(mode)
                raise UntrustedError(
                    path / name,
                    f"is {what}: the program would write somewhere else",
                    f"remove it: rm {path / name}",
                )
            if all_ours and stat.S_ISREG(mode) and (problem := _foreign(status)):
                raise UntrustedError(path / name, problem, f"remove it: rm {path / name}")


def give(descriptor: int, mode: int, group: int) -> None:
    """Set group and mode of a file or folder of ours, unless it has them already.

    Raises:
        OSError: Group or mode cannot be changed.
    """
    status = os.fstat(descriptor)
    if status.st_gid != group:
        os.fchmod(descriptor, mode & 0o700)  # so that the old group never has the new rights
        os.fchown(descriptor, -1, group)
        status = os.fstat(descriptor)
    if stat.S_IMODE(status.st_mode) != mode:
        os.fchmod(descriptor, mode)


def check_ours(path: Path, status: os.stat_result | None = None) -> None:
    """Check that no other user can place files in a folder. A link is rejected, because its owner chooses its target.

    Args:
        path: The folder.
        status: Its status, if known.

    Raises:
        UntrustedError: It is a link or no folder, belongs to another user, or is writable for others.
        OSError: It does not exist.
    """
    status = path.lstat() if status is None else status
    problem = ""
    if stat.S_ISLNK(status.st_mode):
        problem = "is a symbolic link"
    elif not stat.S_ISDIR(status.st_mode):
        problem = "is not a folder"
    else:
        problem = _foreign(status)
    if problem:
        raise UntrustedError(
            path,
            f"{problem}, so nothing is run from it",
            f"choose another folder, or: chown {os.geteuid()} {path} && chmod go-w {path}",
        )


def _foreign(status: os.stat_result) -> str:
    """Return why other users could write to a file or folder; empty if they cannot."""
    if status.st_uid != os.geteuid():
        return f"belongs to user {status.st_uid} (mode {_mode(status)})"
    if status.st_mode & 0o022:
        return f"may be written to by others (user {status.st_uid}, mode {_mode(status)})"
    return ""


def _entered(here: int, name: str, make_mode: int | None) -> int:
    with suppress(FileNotFoundError):
        return os.open(name, _LOOK, dir_fd=here)
    if make_mode is None:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), name)
    with suppress(FileExistsError):  # another user has just created it
        os.mkdir(name, 0o700, dir_fd=here)
        made = os.open(name, _FOLDER, dir_fd=here)
        try:
            os.fchmod(made, make_mode)
        finally:
            os.close(made)
    return os.open(name, _LOOK, dir_fd=here)


def _target(link: int, place: Path, path: Path, *, is_too_long: bool) -> Path:
    """Return the target of a link, and close it."""
    try:
        status = os.fstat(link)
        if is_too_long:
            raise _untrusted(path, place, "is one of too many symbolic links")
        if status.st_uid not in {0, os.geteuid()}:
            raise _untrusted(path, place, f"is a symbolic link of user {status.st_uid}")
        return Path(os.readlink("", dir_fd=link))
    finally:
        os.close(link)


def _check_above(status: os.stat_result, place: Path, path: Path) -> None:
    """Check a folder on the way to the wanted one."""
    if status.st_uid not in {0, os.geteuid()}:
        raise _untrusted(path, place, f"belongs to user {status.st_uid} (mode {_mode(status)})")
    if status.st_mode & 0o022 and not status.st_mode & stat.S_ISVTX:
        problem = f"may be written to by others (user {status.st_uid}, mode {_mode(status)})"
        raise _untrusted(path, place, problem, f"chmod go-w {place}")


def _check_kind(status: os.stat_result, place: Path, path: Path) -> None:
    if place != path and not stat.S_ISDIR(status.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, "is not a folder", str(place))


def _untrusted(path: Path, place: Path, problem: str, mend: str = "") -> UntrustedError:
    own = "root's own" if os.geteuid() == 0 else "your own"
    mend = mend or f"chown {os.geteuid()} {place} && chmod go-w {place}"
    return UntrustedError(
        place,
        f"{problem}: other users could replace {path}, so nothing is run from there",
        f"choose a folder below {own}, as with --nginx-dir or --haproxy-dir, or: {mend}",
    )


def _mode(status: os.stat_result) -> str:
    return f"{stat.S_IMODE(status.st_mode):04o}"
