"""What this process waits for: programs that it has started, locks, the kernel, disks.

Each wait has a text, so that a log can report a long one, and some have a function that ends them, so that the process
can stop.
"""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rulegen.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator


class StoppingError(HostError):
    """Something was not done, or not finished, because this process is stopping."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what}: ended, because rulegen is stopping")


@dataclass(eq=False, slots=True)
class Wait:
    """One wait of one thread.

    Attributes:
        what: What it waits for, such as a command.
        since: When it began, in seconds of a monotonic clock.
        thread: The identifier of the thread.
        pid: The process that it waits for; 0 for something else.
        limit_s: When it ends by itself, in seconds after its begin; None if unknown.
        end: Ends it; None if that is impossible.
        is_ended: Whether `Waits.end_all` has ended it.
        reported_s: The age at which it was last reported.
    """

    what: str
    since: float
    thread: int
    pid: int = 0
    limit_s: float | None = None
    end: Callable[[], None] | None = None
    is_ended: bool = False
    reported_s: float = 0.0

    def check(self) -> None:
        """Check that the wait was not ended.

        Raises:
            StoppingError: It was.
        """
        if self.is_ended:
            raise StoppingError(self.what)


def _nothing() -> None:
    """Do nothing: a wait that calls `check` ends by itself."""


ENDS_ITSELF = _nothing
"""For a wait that regularly calls `Wait.check`."""


@dataclass(slots=True)
class Waits:
    """All waits of this process; any thread may call every method."""

    clock: Callable[[], float] = time.monotonic
    _open: dict[int, Wait] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _are_refused: bool = False

    @contextmanager
    def waiting(
        self,
        what: str,
        *,
        pid: int = 0,
        limit_s: float | None = None,
        end: Callable[[], None] | None = None,
    ) -> Iterator[Wait]:
        """Record a wait for as long as the body runs; for the arguments, see `Wait`."""
        wait = Wait(what, self.clock(), threading.get_ident(), pid, limit_s, end)
        with self._lock:
            self._open[id(wait)] = wait
        try:
            yield wait
        finally:
            with self._lock:
                del self._open[id(wait)]

    def check(self, what: str) -> None:
        """Check that new waits are accepted.

        Raises:
            StoppingError: They are not.
        """
        if self._are_refused:
            raise StoppingError(what)

    def refuse(self, *, are_refused: bool = True) -> None:
        """Start no further program and no further write, because this process is stopping; or start them again."""
        self._are_refused = are_refused

    def innermost(self) -> list[Wait]:
        """Return the last wait of each thread, oldest first."""
        with self._lock:
            return sorted({wait.thread: wait for wait in self._open.values()}.values(), key=lambda wait: wait.since)

    def of_threads(self, names: Collection[str], after_s: float) -> str:
        """Return what the first of these threads has waited for since `after_s` seconds; empty for nothing."""
        threads = {thread.ident for thread in threading.enumerate() if thread.name in names}
        now = self.clock()
        waits = (wait.what for wait in self.innermost() if wait.thread in threads and now - wait.since >= after_s)
        return next(waits, "")

    def due(self, after_s: float) -> list[tuple[Wait, float]]:
        """Return the waits to report now, with their ages: after `after_s` seconds, then whenever an age doubles."""
        now = self.clock()
        due = [(wait, now - wait.since) for wait in self.innermost()]
        due = [(wait, age_s) for wait, age_s in due if age_s >= max(after_s, 2 * wait.reported_s)]
        for wait, age_s in due:
            wait.reported_s = age_s
        return due

    def end_all(self) -> list[Wait]:
        """End all waits that can be ended; return all waits."""
        with self._lock:
            waits = list(self._open.values())
            for wait in waits:
                if wait.end is not None:
                    wait.is_ended = True
                    wait.end()
        return waits


WAITS = Waits()
"""Those of this process."""
