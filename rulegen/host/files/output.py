"""Files that we write: each whole or not at all."""

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
"""The first line of exported rules: which tables they are, so that a missing one is noticed."""

RULES: Final = frozenset({"iptables.save", "ip6tables.save"})
"""Files of an export that iptables-save writes as well."""

_RULES: Final = re.compile(TABLES_OF.pattern.encode())

COMPANIONS: Final = frozenset(
    {"model.json", "sysctl.conf", "kube-ipvs0.batch", "nfacct.sh", "nginx.conf", "provenance.json"}
)
"""Files of an export that hold nothing of a kernel's state, or nothing at all."""

_MADE_BY: Final = {
    "model.json": re.compile(rb'\{\s*"schemaVersion": \d+,\s*"kind": "Model"'),
    "provenance.json": re.compile(rb'\{\s*"schemaVersion": \d+,\s*"kind": "Provenance"'),
}
"""How the file starts that each folder of an export has: it tells an earlier export's folder from other people's."""

_OURS: Final = re.compile(r"[0-9a-f]{16,32}\.(?:conf|crl|pem|htpasswd)\Z")


_SECRETS: Final = "secrets"
_FOLDERS: Final = ("hosts", "upstreams", _SECRETS, "run", "logs")
"""What a configuration of nginx has beside its main file; nginx itself writes to the last two."""
_ELSEWHERE: Final = "choose another folder, or move that file"


def write_folder(folder: str, files: Mapping[str, str]) -> None:
    """Write texts to files of a folder, which is made if it is not there; other files in it are left alone.

    A file that says the same already is not touched. Nothing is written where something of one of these names is not of
    an export: a dump of the node, say, what an administrator wrote, a link, or a FIFO.

    Raises:
        HostError: The folder or a file cannot be written, or a file is another user's.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with folder_at(folder, follow=True) as held:
            _refuse_foreign(held, folder, files, "model.json")
            for name in sorted(files, key="model.json".__ne__):  # first what tells that the rest is an export's
                _write(held, name, _encoded(files[name]), 0o644)
    except OSError as error:
        raise HostError(f"cannot write to {folder}: {error.strerror or error}") from None


def write_site(folder: str, files: Mapping[str, str], secrets: Mapping[str, bytes]) -> None:
    """Write a configuration of nginx to a folder, with the folders that it writes to itself; ours there go first.

    Nothing is written where something of one of these names is not of an export, as in `/etc/nginx`, nor where a folder
    belongs to another user: nginx reads keys there, and anyone who owns a folder can put other files into it.

    Args:
        folder: Made if it is not there.
        files: Texts by path.
        secrets: Files that only we may read, by path.

    Raises:
        HostError: Anything cannot be written, a file is another user's, or a folder is another's or a link.
    """
    wanted = {**{name: _encoded(text) for name, text in files.items()}, **secrets}
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
        with ExitStack() as stack:
            top = stack.enter_context(folder_at(folder, follow=True))
            _refuse_owner(top, folder)
            _refuse_foreign(top, folder, files, "provenance.json")
            _refuse_no_folders(top, folder)
            held = {name: stack.enter_context(_made(top, folder, name)) for name in _FOLDERS}
            _remove_stale(held, wanted)
            for name in sorted(wanted, key=lambda name: (name in secrets, name != "provenance.json")):
                parent, _, last = name.rpartition("/")
                _write(held[parent] if parent else top, last, wanted[name], 0o600 if name in secrets else 0o644)
    except OSError as error:
        raise HostError(f"cannot write to {folder}: {error.strerror or error}") from None


def _remove_stale(held: Mapping[str, int], wanted: Container[str]) -> None:
    """Delete what an earlier export wrote and this one does not."""
    for kind in ("hosts", "upstreams", _SECRETS):
        for name in os.listdir(held[kind]):  # noqa: PTH208 - of a descriptor
            if _OURS.match(name) and f"{kind}/{name}" not in wanted:
                os.unlink(name, dir_fd=held[kind])


def _refuse_no_folders(top: int, folder: str) -> None:
    """Raise where one of nginx's folders is a link or no folder, before anything is made or written."""
    for name in _FOLDERS:
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
            f"{folder} belongs to user {owner}, who could change what nginx reads there: nothing was written",
            hint=f"name another folder, or: chown {os.geteuid()} {folder}",
        )


def _mode(held: int, name: str) -> int:
    """Return the mode of what has a name, by which its kind is told; 0 if nothing has it."""
    try:
        return os.stat(name, dir_fd=held, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return 0


def _refuse_foreign(held: int, folder: str, names: Iterable[str], mark: str) -> None:
    """Raise where something of one of these names is there and was not written by an export."""
    is_exports = _begins(held, mark, _MADE_BY[mark])
    for name in sorted(names, key=mark.__ne__):
        mode = _mode(held, name) if "/" not in name else 0  # in folders of nginx, names are digests
        if mode and not stat.S_ISREG(mode):
            raise HostError(f"{folder}/{name} is {kind_text(mode)}, not a file: nothing was written", hint=_ELSEWHERE)
        if mode and not (_begins(held, name, _RULES) if name in RULES else is_exports):
            raise HostError(
                f"{folder}/{name} exists and was not written by an export of rulegen: nothing was written",
                hint=_ELSEWHERE,
            )


def _begins(held: int, name: str, pattern: re.Pattern[bytes]) -> bool:
    """Whether a file is there and starts like this."""
    try:
        return pattern.match(read_begin(name, 1024, dir_fd=held)) is not None
    except (FileNotFoundError, UnsuitableFileError):
        return False


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


def _write(held: int, name: str, content: bytes, mode: int) -> None:
    """Write a file, unless it says the same already and nobody else may read what only we may."""
    with suppress(FileNotFoundError, UnsuitableFileError):
        is_private = mode & 0o077 or not _mode(held, name) & 0o077
        if is_private and read_regular(name, len(content), dir_fd=held) == content:
            return
    write_at(name, content, mode, dir_fd=held)
