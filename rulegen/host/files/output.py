"""Writes files, each completely or not at all."""

from __future__ import annotations

import os
import re
import stat
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rulegen.errors import HostError
from rulegen.safe_files import (
    UnsuitableFileError,
    folder_at,
    kind_text,
    made_folder_at,
    read_begin,
    read_regular,
    write_at,
)

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator, Mapping

TABLES_OF: Final = re.compile(r"# rulegen: node .*, IPv[46], tables ([a-z ]*)\n")
"""The first line of exported rules; it lists their tables, so that a missing one is noticed."""

RULES: Final = frozenset({"iptables.save", "ip6tables.save"})
"""Files of an export that iptables-save writes as well."""

_RULES: Final = re.compile(TABLES_OF.pattern.encode())

COMPANIONS: Final = frozenset(
    {
        "model.json",
        "sysctl.conf",
        "kube-ipvs0.batch",
        "nfacct.sh",
        "nginx.conf",
        "haproxy.cfg",
        "provenance.json",
        "endpointslices.yaml",
    }
)
"""Files of an export that have no kernel state."""

_MADE_BY: Final = {
    "model.json": re.compile(rb'\{\s*"schemaVersion": \d+,\s*"kind": "Model"'),
    "provenance.json": re.compile(rb'\{\s*"schemaVersion": \d+,\s*"kind": "Provenance"'),
}
"""The beginning of a file that each export has; it identifies the folder of an earlier export."""

_OURS: Final = re.compile(r"[0-9a-f]{16,32}\.(?:conf|crl|pem|htpasswd|passwords)\Z|[a-z-]+-[0-9a-f]{16}\.map\Z")


_SECRETS: Final = "secrets"
_WRITTEN_BY_PROGRAMS: Final = ("run", "logs")
"""Folders that the program of an ingress engine writes to."""
_ELSEWHERE: Final = "choose another folder, or move that file"


def write_folder(folder: str, files: Mapping[str, str]) -> None:
    """Write files to a folder, which is created if it is missing; other files in it stay.

    A file with equal content is not written. Nothing is written if one of the names exists and is not from an export,
    such as a dump, a file of an administrator, a link, or a FIFO.

    Raises:
        HostError: The folder or a file cannot be written, or belongs to another user.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with folder_at(folder, follow=True) as held:
            _refuse_foreign(held, folder, files, "model.json")
            for name in sorted(files, key="model.json".__ne__):  # the file that identifies an export comes first
                _write(held, name, _encoded(files[name]), 0o644)
    except OSError as error:
        raise HostError(f"cannot write to {folder}: {error.strerror or error}") from None


def write_site(
    folder: str, files: Mapping[str, str], secrets: Mapping[str, bytes], *, inner: tuple[str, ...] = ()
) -> None:
    """Write the configuration of an ingress engine to a folder; an earlier export is deleted first.

    Nothing is written if one of the names exists and is not from an export, as in `/etc/nginx`, or if a folder belongs
    to another user: the program reads keys there, and the owner of a folder can replace its files.

    Args:
        folder: Created if it is missing.
        inner: The folders in it, beside those for secrets and those that the program writes to.
        files: Texts by path.
        secrets: Files with mode 0600, by path.

    Raises:
        HostError: A file or folder cannot be written, belongs to another user, or is a link.
    """
    wanted = {**{name: _encoded(text) for name, text in files.items()}, **secrets}
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            top = stack.enter_context(folder_at(folder, follow=True))
            _refuse_owner(top, folder)
            _refuse_foreign(top, folder, files, "provenance.json")
            names = (*inner, _SECRETS, *_WRITTEN_BY_PROGRAMS)
            _refuse_no_folders(top, folder, names)
            held = {name: stack.enter_context(_made(top, folder, name)) for name in names}
            _remove_stale({name: held[name] for name in (*inner, _SECRETS)}, wanted)
            for name in sorted(wanted, key=lambda name: (name in secrets, name != "provenance.json")):
                parent, _, last = name.rpartition("/")
                _write(held[parent] if parent else top, last, wanted[name], 0o600 if name in secrets else 0o644)
    except OSError as error:
        raise HostError(f"cannot write to {folder}: {error.strerror or error}") from None


def _remove_stale(held: Mapping[str, int], wanted: Container[str]) -> None:
    """Delete the files of an earlier export that this export does not have."""
    for kind, descriptor in held.items():
        for name in os.listdir(descriptor):  # noqa: PTH208 - of a descriptor
            if _OURS.match(name) and f"{kind}/{name}" not in wanted:
                os.unlink(name, dir_fd=descriptor)


def _refuse_no_folders(top: int, folder: str, names: Iterable[str]) -> None:
    """Raise HostError if one of the inner folders is a link or no folder, before anything is written."""
    for name in names:
        mode = _mode(top, name)
        if mode and not stat.S_ISDIR(mode):
            raise HostError(f"{folder}/{name} is {kind_text(mode)}, not a folder: nothing was written", hint=_ELSEWHERE)


@contextmanager
def _made(top: int, folder: str, name: str) -> Iterator[int]:
    mode = 0o700 if name == _SECRETS else 0o755
    with made_folder_at(name, mode, dir_fd=top) as held:
        _refuse_owner(held, f"{folder}/{name}")
        if name == _SECRETS:
            os.fchmod(held, mode)
        yield held


def _refuse_owner(held: int, folder: str) -> None:
    owner = os.fstat(held).st_uid
    if owner not in {os.geteuid(), 0}:
        raise HostError(
            f"{folder} belongs to user {owner}, who could change what is read there: nothing was written",
            hint=f"name another folder, or: chown {os.geteuid()} {folder}",
        )


def _mode(held: int, name: str) -> int:
    """Return the mode of a name, which includes its file type; 0 if it does not exist."""
    try:
        return os.stat(name, dir_fd=held, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return 0


def _refuse_foreign(held: int, folder: str, names: Iterable[str], mark: str) -> None:
    """Raise HostError if one of the names exists and was not written by an export."""
    is_exports = _begins(held, mark, _MADE_BY[mark])
    for name in sorted(names, key=mark.__ne__):
        mode = _mode(held, name) if "/" not in name else 0  # in inner folders, file names are digests
        if mode and not stat.S_ISREG(mode):
            raise HostError(f"{folder}/{name} is {kind_text(mode)}, not a file: nothing was written", hint=_ELSEWHERE)
        if mode and not (_begins(held, name, _RULES) if name in RULES else is_exports):
            raise HostError(
                f"{folder}/{name} exists and was not written by an export of rulegen: nothing was written",
                hint=_ELSEWHERE,
            )


def _begins(held: int, name: str, pattern: re.Pattern[bytes]) -> bool:
    """Whether a file exists and has this beginning."""
    try:
        return pattern.match(read_begin(name, 1024, dir_fd=held)) is not None
    except (FileNotFoundError, UnsuitableFileError):
        return False


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _write(held: int, name: str, content: bytes, mode: int) -> None:
    """Write a file, unless it has the same content and a mode that is strict enough."""
    with suppress(FileNotFoundError, UnsuitableFileError):
        is_private = mode & 0o077 or not _mode(held, name) & 0o077
        if is_private and read_regular(name, len(content), dir_fd=held) == content:
            return
    write_at(name, content, mode, dir_fd=held)
