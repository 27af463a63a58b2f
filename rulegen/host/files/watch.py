"""Files that are looked at again and again: what they hold counts, not who put it there or how.

So a file that is written in place, one that another is renamed over, and one behind links that are moved, as a
ConfigMap in a Pod is, are all the same.
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
"""The most that a file holds which is obeyed: a configuration, a template."""
MAX_FILES: Final = 1_000
PERIOD_S: Final = 2.0
SETTLED_S: Final = 0.3
"""How long files must have held the same before they are read: half of a file may be a whole one with fewer fields."""


def _nothing() -> None:
    """Nobody looks yet."""


class FileChanges:
    """Calls when what files hold has changed, from a thread of its own."""

    def __init__(
        self,
        paths: Iterable[str],
        *,
        period_s: float = PERIOD_S,
        settled_s: float = SETTLED_S,
    ) -> None:
        """Take note of what they hold now: before they are read, or a change behind the reading is missed.

        Args:
            paths: Of files, or of folders, whose own files are meant.
            period_s: How often to look.
            settled_s: How long they must have held the same before that counts.
        """
        self._paths = tuple(Path(path) for path in paths)
        self._changed: Callable[[], object] = _nothing
        self._period_s, self._settled_s = period_s, settled_s
        self._known = self._digest()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="files", daemon=True)

    def start(self, changed: Callable[[], object]) -> None:
        """Begin to look, where there is anything to look at.

        Args:
            changed: Called when the files hold something else. A file that is gone, as it is for a moment while links
                move, has not changed: it has when it is there again.
        """
        self._changed = changed
        if self._paths:
            self._thread.start()

    def stop(self) -> None:
        """Look no more. May be called by `changed`."""
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
        """Return a digest of what all of them hold; None if one cannot be read."""
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
    """Return a digest of what a file holds; where it is none, or too large, of that, which its reader will report."""
    try:
        content = read_regular(file, MAX_BYTES, follow=True)
    except UnsuitableFileError as error:
        content = f"\0{error.strerror}".encode()
    return hashlib.sha256(content).digest()
