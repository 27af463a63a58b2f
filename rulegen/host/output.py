"""Files that we write: each whole or not at all."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rulegen.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Mapping

TABLES_OF: Final = re.compile(r"# rulegen: node .*, IPv[46], tables ([a-z ]*)\n")
"""The first line of exported rules: which tables they are, so that a missing one is noticed."""

COMPANIONS: Final = frozenset(
    {"model.json", "sysctl.conf", "kube-ipvs0.batch", "nfacct.sh", "nginx.conf", "provenance.json"}
)
"""Files of an export that hold nothing of a kernel's state, or nothing at all."""

_OURS: Final = re.compile(r"[0-9a-f]{16,32}\.(?:conf|pem|htpasswd)\Z")


def write_folder(folder: str, files: Mapping[str, str]) -> None:
    """Write texts to files of a folder, which is made if it is not there; other files in it are left alone.

    A file that says the same already is not touched.

    Raises:
        HostError: The folder or a file cannot be written.
    """
    path = Path(folder)
    try:
        path.mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            _write(path / name, text)
    except OSError as error:
        raise HostError(f"cannot write to {folder}: {error.strerror or error}") from None


def write_site(folder: str, files: Mapping[str, str], secrets: Mapping[str, bytes]) -> None:
    """Write a configuration of nginx to a folder, with the folders that it writes to itself; ours there go first.

    Args:
        folder: Made if it is not there.
        files: Texts by path.
        secrets: Files that only we may read, by path.

    Raises:
        HostError: Anything cannot be written.
    """
    path = Path(folder)
    try:
        for name in ("hosts", "upstreams", "secrets", "run", "logs"):
            (path / name).mkdir(mode=0o700 if name == "secrets" else 0o755, parents=True, exist_ok=True)
        for kind in ("hosts", "upstreams", "secrets"):
            for stale in (path / kind).iterdir():
                if _OURS.match(stale.name) and f"{kind}/{stale.name}" not in {**files, **secrets}:
                    stale.unlink()
        for name, text in files.items():
            _write(path / name, text)
        for name, content in secrets.items():
            _write_bytes(path / name, content, 0o600)
    except OSError as error:
        raise HostError(f"cannot write to {folder}: {error.strerror or error}") from None


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
