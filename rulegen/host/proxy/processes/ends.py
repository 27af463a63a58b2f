"""Counts how often a proxy has ended unexpectedly, in a file beside the locks of its supervisor."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

from rulegen.host.files import trust
from rulegen.safe_files import read_regular, write_at
from rulegen.text import printable

if TYPE_CHECKING:
    from pathlib import Path

_FILE: Final = "keeper.ends"
_MOST_BYTES: Final = 2048
_MOST_SAID: Final = 300


def add_end(run: int, how: str) -> None:
    """Count one more end; where the file cannot be written, as on a full disk, it is not counted.

    Args:
        run: The descriptor of the folder `run`.
        how: How the program has ended.
    """
    count, _ = _read(run)
    with contextlib.suppress(OSError):
        write_at(_FILE, f"{count + 1} {printable(how, _MOST_SAID)}".encode(), 0o600, dir_fd=run)


def ends_of(folder: Path) -> tuple[int, str]:
    """Return how often the program of a folder has ended unexpectedly, and how it ended last."""
    try:
        with trust.folder(folder) as home, trust.inner(home, "run", folder / "run") as run:
            return _read(run)
    except OSError:
        return 0, ""


def _read(run: int) -> tuple[int, str]:
    try:
        number, _, how = read_regular(_FILE, _MOST_BYTES, dir_fd=run).decode("utf-8", "replace").partition(" ")
        return int(number), printable(how, _MOST_SAID)
    except (OSError, ValueError):
        return 0, ""
