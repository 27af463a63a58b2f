"""Checks that no other user can replace a folder: only root and we may write to it and to the folders above it.

A user who may write to a folder can rename its entries and replace them, whoever owns them. Each step of a path is
therefore opened from the descriptor of the checked folder above, so the opened folder is the checked one. The imports
are small: the supervisor uses this at each start of nginx.
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
    """Somebody else could write to a folder, or put another in its place.

    Attributes:
        filename: Which folder it is about: the one asked for, or one above it.
        strerror: What is wrong with it: its owner and mode.
        hint: What to do about it.
    """

    def __init__(self, place: Path, problem: str, hint: str) -> None:
        super().__init__(errno.EPERM, problem, str(place))
        self.hint = hint


def open_folder(path: Path, *, make_mode: int | None = None) -> int:
    """Return a descriptor of a folder that only we may write to, and that nobody else can exchange.

    Links above it are followed where root or we made them, and the folders that they lead through are checked too. A
    folder that everybody may write to is accepted where it is sticky, as /tmp: there nobody renames what is another's.

    Args:
        path: The folder, absolute; it may not be a link itself.
        make_mode: The mode with which it is made where it is missing, with its parents (0755), whatever the umask is;
            None makes nothing.

    Raises:
        UntrustedError: It, or a folder on the way, is another's, may be written to by others, or is no folder.
        OSError: It is not there, or cannot be made or entered.
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
    """Yield what `open_folder` returns, and close it.

    Raises:
        OSError: As there.
    """
    descriptor = open_folder(path, make_mode=make_mode)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def open_inner(home: int, name: str, path: Path, *, make: bool = False) -> int:
    """Return a descriptor of a folder in a folder, where it is ours alone to write to and no link.

    Args:
        home: The outer folder's descriptor.
        name: The name in there.
        path: The inner folder's path, for messages.
        make: Whether it is made (0700) where it is missing.

    Raises:
        UntrustedError: It is a link or no folder, another's, or may be written to by others.
        OSError: It is not there, or cannot be made.
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
    """Yield what `open_inner` returns, and close it.

    Raises:
        OSError: As there.
    """
    descriptor = open_inner(home, name, path, make=make)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def read_ours(path: str | Path, max_bytes: int, *, dir_fd: int | None = None) -> bytes:
    """Return the content of a file that only we can have written, whoever owns the folder now.

    Args:
        path: The file; relative to `dir_fd` where that is given.
        max_bytes: The most that it may hold.
        dir_fd: A folder's descriptor.

    Raises:
        UntrustedError: It is another's, or may be written to by others.
        OSError: As `safe_files.read_regular` raises it.
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
    """Raise where what nginx writes into a folder would go elsewhere: it opens its files by name, as root.

    Args:
        descriptor: The folder's.
        path: Its path, for messages.
        all_ours: Whether a file of another user is rejected too, who could keep a lock or name another process: nginx
            gives logs to the user of its workers, and nothing else.

    Raises:
        UntrustedError: A link, also a hard one, a FIFO or a device is there.
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
                    f"is {what}: nginx would write somewhere else",
                    f"remove it: rm {path / name}",
                )
            if all_ours and stat.S_ISREG(mode) and (problem := _foreign(status)):
                raise UntrustedError(path / name, problem, f"remove it: rm {path / name}")


def give(descriptor: int, mode: int, group: int) -> None:
    """Have a file or folder of ours belong to a group and have a mode; it is not touched where it has them already.

    Raises:
        OSError: It cannot be changed.
    """
    status = os.fstat(descriptor)
    if status.st_gid != group:
        os.fchmod(descriptor, mode & 0o700)  # nobody of the old group gets the new rights
        os.fchown(descriptor, -1, group)
        status = os.fstat(descriptor)
    if stat.S_IMODE(status.st_mode) != mode:
        os.fchmod(descriptor, mode)


def check_ours(path: Path, status: os.stat_result | None = None) -> None:
    """Raise where others could plant files: a link is not followed, for anyone who made it chose where it leads.

    Args:
        path: The folder.
        status: What it is, where that is known.

    Raises:
        UntrustedError: It is a link or no folder, another's, or may be written to by others.
        OSError: It is not there.
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
            f"{problem}, so nginx is not run from it",
            f"choose another folder, or: chown {os.geteuid()} {path} && chmod go-w {path}",
        )


def _foreign(status: os.stat_result) -> str:
    """Return why others could write to something; nothing if they cannot."""
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
    with suppress(FileExistsError):  # made by another user just now
        os.mkdir(name, 0o700, dir_fd=here)
        made = os.open(name, _FOLDER, dir_fd=here)
        try:
            os.fchmod(made, make_mode)
        finally:
            os.close(made)
    return os.open(name, _LOOK, dir_fd=here)


def _target(link: int, place: Path, path: Path, *, is_too_long: bool) -> Path:
    """Return where a link leads, and close it."""
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
    """Check a folder on the way to another."""
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
        f"{problem}: other users could replace {path}, so nginx is not run from there",
        f"choose a folder below {own} (--nginx-dir), or: {mend}",
    )


def _mode(status: os.stat_result) -> str:
    return f"{stat.S_IMODE(status.st_mode):04o}"
