"""The files of a release, read and judged through descriptors of its folders, never through a link."""

from __future__ import annotations

import json
import os
import re
import stat
from contextlib import suppress
from typing import TYPE_CHECKING, Final, NamedTuple, Self

from rulegen.errors import HostError
from rulegen.languages.nginx.configuration import SECRETS, SecretContent
from rulegen.safe_files import UnsuitableFileError, read_regular
from rulegen.text import printable

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from rulegen.languages.nginx.configuration import Configuration

FOLDERS: Final = ("hosts", "upstreams", "secrets")
MANIFEST: Final = "MANIFEST"
MOST_BYTES: Final = 64 << 20
"""Of one file of a release."""
_NAME: Final = re.compile(r"(?:nginx\.conf|(?:hosts|upstreams|secrets)/[0-9a-f]{8,64}(?:\.[a-z]{1,12})?)\Z")


class WantedFile(NamedTuple):
    """A file of a release: what it holds, who may read it, and the group of those.

    Attributes:
        written: As the configuration has it; a text becomes bytes only when it is read or written.
    """

    written: str | bytes
    mode: int
    group: int

    @property
    def content(self) -> bytes:
        """Its bytes."""
        return self.written if isinstance(self.written, bytes) else self.written.encode("utf-8", "surrogateescape")


class WrittenRelease(NamedTuple):
    """A release that this process has written, or read and found whole.

    Attributes:
        files: By name.
        for_workers: Names of the password files.
    """

    files: Mapping[str, WantedFile]
    for_workers: frozenset[str]

    @classmethod
    def of(cls, configuration: Configuration, files: Mapping[str, WantedFile]) -> Self:
        """Return what a release of a configuration holds."""
        return cls(files, frozenset(name for name, secret in configuration.secrets.items() if secret.for_workers))


def check_names(configuration: Configuration, names: Iterable[str]) -> None:
    """Raise where a file of a configuration has a name that no release has.

    Args:
        configuration: What is wanted.
        names: Of its files, except those that were checked before.

    Raises:
        HostError: One has.
    """
    wrong = next((name for name in names if not _NAME.match(name)), None)
    if wrong is None:
        wrong = next((name for name in configuration.files if name.startswith(SECRETS)), None)
    if wrong is None:
        wrong = next((name for name in configuration.secrets if not name.startswith(SECRETS)), None)
    if wrong is not None:
        raise HostError(f"{printable(wrong)!r} is not a file of a release")


def listed(configuration: Configuration) -> bytes:
    """Return the list of a release's contents: what is in its MANIFEST."""
    secrets = {name: secret.for_workers for name, secret in configuration.secrets.items()}
    return json.dumps({"files": sorted(configuration.files), "secrets": secrets}).encode()


def contents(folders: Mapping[str, int]) -> tuple[dict[str, str], dict[str, SecretContent]]:
    """Return the files and the secret files of a release, as they are on disk.

    Raises:
        OSError: One cannot be read.
        ValueError, KeyError, AttributeError, TypeError, RecursionError: The list of them is none.
    """
    manifest = json.loads(read_regular(MANIFEST, MOST_BYTES, dir_fd=folders[""]))
    names = {*(name for name in manifest["files"] if _NAME.match(name)), *included(folders)}
    files = {name: text for name in sorted(names) if (text := text_of(name, folders)) is not None}
    secrets = {name: bool(workers) for name, workers in manifest["secrets"].items() if _NAME.match(name)}
    kept = {n: SecretContent(c, workers) for n, workers in secrets.items() if (c := bytes_of(n, folders)) is not None}
    return files, kept


def unwanted_password_files(folders: Mapping[str, int], wanted: Collection[str]) -> list[str]:
    """Return the names of the files of a release that workers read, and that are not wanted any more.

    Raises:
        OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError: As `contents` does.
    """
    manifest = json.loads(read_regular(MANIFEST, MOST_BYTES, dir_fd=folders[""]))["secrets"]
    return [
        name
        for name, for_workers in manifest.items()
        if for_workers and name not in wanted and _NAME.match(name) and name.startswith(SECRETS)
        if is_file(name, folders)
    ]


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
    """Return what a file holds; None if it is gone, nothing for a link and what else is no file."""
    base, folder = within(name, folders)
    try:
        return read_regular(base, MOST_BYTES, dir_fd=folder)
    except FileNotFoundError:
        return None
    except UnsuitableFileError:
        return b""


def text_of(name: str, folders: Mapping[str, int]) -> str | None:
    """Return what a file holds as text; None if it is gone."""
    content = bytes_of(name, folders)
    return None if content is None else content.decode("utf-8", "surrogateescape")
