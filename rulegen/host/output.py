"""Files that we write: each whole or not at all."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rulegen.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

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
"""How the file begins that each folder of an export has: it tells an earlier export's folder from other people's."""

_OURS: Final = re.compile(r"[0-9a-f]{16,32}\.(?:conf|pem|htpasswd)\Z")


def write_folder(folder: str, files: Mapping[str, str]) -> None:
    """Write texts to files of a folder, which is made if it is not there; other files in it are left alone.

    A file that says the same already is not touched. Nothing is written where a file of one of these names is not of an
    export: a dump of the node, say, or what an administrator wrote.

    Raises:
        HostError: The folder or a file cannot be written, or a file is somebody else's.
    """
    path = Path(folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
        _refuse_foreign(path, files, "model.json")
        for name in sorted(files, key="model.json".__ne__):  # first what tells that the rest is an export's
            _write(path / name, files[name])
    except OSError as error:
        raise HostError(f"cannot write to {folder}: {error.strerror or error}") from None


def write_site(folder: str, files: Mapping[str, str], secrets: Mapping[str, bytes]) -> None:
    """Write a configuration of nginx to a folder, with the folders that it writes to itself; ours there go first.

    Nothing is written where a file of one of these names is not of an export, as in `/etc/nginx`.

    Args:
        folder: Made if it is not there.
        files: Texts by path.
        secrets: Files that only we may read, by path.

    Raises:
        HostError: Anything cannot be written, or a file is somebody else's.
    """
    path = Path(folder)
    try:
        _refuse_foreign(path, files, "provenance.json")
        for name in ("hosts", "upstreams", "secrets", "run", "logs"):
            (path / name).mkdir(mode=0o700 if name == "secrets" else 0o755, parents=True, exist_ok=True)
        for kind in ("hosts", "upstreams", "secrets"):
            for stale in (path / kind).iterdir():
                if _OURS.match(stale.name) and f"{kind}/{stale.name}" not in {**files, **secrets}:
                    stale.unlink()
        for name in sorted(files, key="provenance.json".__ne__):
            _write(path / name, files[name])
        for name, content in secrets.items():
            _write_bytes(path / name, content, 0o600)
    except OSError as error:
        raise HostError(f"cannot write to {folder}: {error.strerror or error}") from None


def _refuse_foreign(folder: Path, names: Iterable[str], mark: str) -> None:
    """Raise where a file of one of these names is there and was not written by an export."""
    is_exports = _begins(folder / mark, _MADE_BY[mark])
    foreign = [
        name
        for name in names
        if (folder / name).exists() and not (_begins(folder / name, _RULES) if name in RULES else is_exports)
    ]
    if foreign:
        raise HostError(
            f"{folder / foreign[0]} is there, and no export of rulegen wrote it: nothing was written",
            hint="name another folder, or move that file away",
        )


def _begins(path: Path, pattern: re.Pattern[bytes]) -> bool:
    """Whether a file is there and begins like this."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return pattern.match(file.read(1024)) is not None


def _write(path: Path, text: str) -> None:
    _write_bytes(path, text.encode("utf-8", "surrogateescape"), 0o644)


def _write_bytes(path: Path, encoded: bytes, mode: int) -> None:
    if path.is_file() and path.read_bytes() == encoded:
        return
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(encoded)
            os.fchmod(file.fileno(), mode)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
