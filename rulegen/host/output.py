"""Files that we write: each whole or not at all."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from rulegen.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Mapping


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


def _write(path: Path, text: str) -> None:
    encoded = text.encode()
    if path.is_file() and path.read_bytes() == encoded:
        return
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(encoded)
            os.fchmod(file.fileno(), 0o644)
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
