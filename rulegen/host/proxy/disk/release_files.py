"""Reads and checks the files of a release through descriptors of its folders, never through a link."""

from __future__ import annotations

import json
import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple, Self

from rulegen.errors import HostError
from rulegen.languages.configuration import SECRETS, SecretContent
from rulegen.safe_files import UnsuitableFileError, read_regular
from rulegen.text import printable

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from rulegen.host.proxy.program import ReleaseForm
    from rulegen.languages.configuration import Configuration

MANIFEST: Final = "MANIFEST"
MOST_BYTES: Final = 64 << 20
"""The largest size of one file of a release, in bytes."""


class WantedFile(NamedTuple):
    """A file of a release: its content, its mode, and its group.

    Attributes:
        written: The content in the configuration; text is encoded only when needed.
    """

    written: str | bytes
    mode: int
    group: int

    @property
    def content(self) -> bytes:
        """The content as bytes."""
        return self.written if isinstance(self.written, bytes) else self.written.encode("utf-8", "surrogateescape")


class WrittenRelease(NamedTuple):
    """A release that this process has written, or has read completely.

    Attributes:
        files: The files by name.
        for_workers: The names of the password files.
    """

    files: Mapping[str, WantedFile]
    for_workers: frozenset[str]

    @classmethod
    def of(cls, configuration: Configuration, files: Mapping[str, WantedFile]) -> Self:
        """Return the files of a release for a configuration."""
        return cls(files, frozenset(name for name, secret in configuration.secrets.items() if secret.for_workers))


def check_names(configuration: Configuration, names: Iterable[str], form: ReleaseForm) -> None:
    """Check that a release can have files of these names.

    Args:
        configuration: The wanted configuration.
        names: The names of its files, except those that were checked before.
        form: The files that a release may have.

    Raises:
        HostError: A name is not allowed.
    """
    wrong = next((name for name in names if not form.names.match(name)), None)
    if wrong is None:
        wrong = next((name for name in configuration.files if name.startswith(SECRETS)), None)
    if wrong is None:
        wrong = next((name for name in configuration.secrets if not name.startswith(SECRETS)), None)
    if wrong is not None:
        raise HostError(f"{printable(wrong)!r} is not a file of a release")


def listed(configuration: Configuration) -> bytes:
    """Return the content of a release's MANIFEST, the list of its files."""
    secrets = {name: secret.for_workers for name, secret in configuration.secrets.items()}
    return json.dumps({"files": sorted(configuration.files), "secrets": secrets}).encode()


def contents(folders: Mapping[str, int], form: ReleaseForm) -> tuple[dict[str, str], dict[str, SecretContent]]:
    """Return the files and the secret files of a release on disk.

    Raises:
        OSError: A file cannot be read.
        ValueError, KeyError, AttributeError, TypeError, RecursionError: The list has another format.
    """
    manifest = json.loads(read_regular(MANIFEST, MOST_BYTES, dir_fd=folders[""]))
    names = {*(name for name in manifest["files"] if form.names.match(name)), *included(folders, form)}
    files = {name: text for name in sorted(names) if (text := text_of(name, folders)) is not None}
    secrets = {name: bool(workers) for name, workers in manifest["secrets"].items() if form.names.match(name)}
    kept = {n: SecretContent(c, workers) for n, workers in secrets.items() if (c := bytes_of(n, folders)) is not None}
    return files, kept


def unwanted_password_files(folders: Mapping[str, int], wanted: Collection[str], form: ReleaseForm) -> list[str]:
    """Return the names of the files that workers read and that the next release does not have.

    Raises:
        OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError: As `contents` does.
    """
    manifest = json.loads(read_regular(MANIFEST, MOST_BYTES, dir_fd=folders[""]))["secrets"]
    return [
        name
        for name, for_workers in manifest.items()
        if for_workers and name not in wanted and form.names.match(name) and name.startswith(SECRETS)
        if is_file(name, folders)
    ]


def included(folders: Mapping[str, int], form: ReleaseForm) -> list[str]:
    """Return the names of the files that the main file includes; it includes folders, not single files."""
    return sorted(
        f"{name}/{inner}"
        for name in form.included
        for inner in os.listdir(folders[name])  # noqa: PTH208 - a descriptor's
        if inner.endswith(".conf")
    )


def within(name: str, folders: Mapping[str, int]) -> tuple[str, int]:
    """Return a file's name in its folder, and that folder's descriptor."""
    folder, _, base = name.rpartition("/")
    return base, folders[folder]


def close_files(folder: int) -> None:
    """Remove the access rights of other users from the files of a folder, such as old logs."""
    for name in os.listdir(folder):
        with suppress(OSError):  # it was renamed, or is not ours; other users cannot enter the folder
            status = os.stat(name, dir_fd=folder, follow_symlinks=False)
            mode = status.st_mode
            if stat.S_ISREG(mode) and mode & 0o007 and status.st_nlink == 1:
                descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=folder)
                try:
                    os.fchmod(descriptor, stat.S_IMODE(mode) & ~0o007)
                finally:
                    os.close(descriptor)


def rights(descriptor: int) -> tuple[int, int]:
    """Return mode and group of an open folder."""
    status = os.fstat(descriptor)
    return stat.S_IMODE(status.st_mode), status.st_gid


def is_folder(name: str, dir_fd: int) -> bool:
    """Whether a name in a folder is a folder and no link."""
    try:
        return stat.S_ISDIR(os.stat(name, dir_fd=dir_fd, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False


def is_file(name: str, folders: Mapping[str, int]) -> bool:
    """Whether a name is a regular file and no link."""
    base, folder = within(name, folders)
    try:
        return stat.S_ISREG(os.stat(base, dir_fd=folder, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return False


def bytes_of(name: str, folders: Mapping[str, int]) -> bytes | None:
    """Return the content of a file; None if it is missing, empty for a link and other non-files."""
    base, folder = within(name, folders)
    try:
        return read_regular(base, MOST_BYTES, dir_fd=folder)
    except FileNotFoundError:
        return None
    except UnsuitableFileError:
        return b""


def text_of(name: str, folders: Mapping[str, int]) -> str | None:
    """Return the content of a file as text; None if it is missing."""
    content = bytes_of(name, folders)
    return None if content is None else content.decode("utf-8", "surrogateescape")
