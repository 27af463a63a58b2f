"""Watches files by their content, however they are replaced.

A file may be written in place, replaced by a rename, or be behind a symbolic link that changes, as a ConfigMap in a
Pod.
"""

from __future__ import annotations

import hashlib
import threading
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rulegen.safe_files import UnsuitableFileError, read_regular

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

MAX_BYTES: Final = 1 << 20
"""The largest size of a watched file, such as a configuration or a template, in bytes."""
MAX_FILES: Final = 1_000
PERIOD_S: Final = 2.0
SETTLED_S: Final = 0.3
"""Seconds for which files must be unchanged before they are read: a half-written file may be valid."""


def _nothing() -> None:
    """The watch has not started."""


class FileChanges:
    """Reports changed content of files, from a thread of its own."""

    def __init__(
        self,
        paths: Iterable[str],
        *,
        period_s: float = PERIOD_S,
        settled_s: float = SETTLED_S,
    ) -> None:
        """Record the present content. Create the watch before the files are read, so that no change is missed.

        Args:
            paths: Files, or folders for the files in them.
            period_s: The seconds between two checks.
            settled_s: The seconds for which the content must be unchanged before it counts.
        """
        self._paths = tuple(Path(path) for path in paths)
        self._changed: Callable[[], object] = _nothing
        self._period_s, self._settled_s = period_s, settled_s
        self._known = self._digest()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="files", daemon=True)

    def start(self, changed: Callable[[], object]) -> None:
        """Start the watch, if there are paths.

        Args:
            changed: Called when the content of the files has changed. A missing file, as for a moment while a link is
                replaced, does not count as changed until it exists again.
        """
        self._changed = changed
        if self._paths:
            self._thread.start()

    def stop(self) -> None:
        """Stop the watch. `changed` may call this."""
        self._ended.set()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(self._period_s):
            digest = self._digest()
            if digest is None or digest == self._known:
                continue
            if self._ended.wait(self._settled_s) or self._digest() != digest:
                continue
            self._known = digest
            self._changed()

    def _digest(self) -> bytes | None:
        """Return a digest of the content of all files; None if one cannot be read."""
        whole = hashlib.sha256()
        try:
            for path in self._paths:
                for file in sorted(islice(path.iterdir(), MAX_FILES)) if path.is_dir() else [path]:
                    if file.is_file() or file == path:
                        whole.update(f"{file}\0".encode("utf-8", "surrogateescape"))
                        whole.update(_digest_of(file))
        except OSError:
            return None
        return whole.digest()


def _digest_of(file: Path) -> bytes:
    """Return a digest of a file's content; of other paths and of too large files, a digest of that fault."""
    try:
        content = read_regular(file, MAX_BYTES, follow=True)
    except UnsuitableFileError as error:
        content = f"\0{error.strerror}".encode()
    return hashlib.sha256(content).digest()
