"""When the agent does what: the next sync, check and look at the host, and the pause after a failure.

Times are seconds of a clock that only grows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from rulegen.agent.retry import RetryPause

if TYPE_CHECKING:
    from collections.abc import Callable

FIRST_PAUSE_S: Final = 1.0
LONGEST_PAUSE_S: Final = 60.0
CHECK_SHARE: Final = 3
"""After a check that found nothing, foreign changes wait for so many times what it took."""


@dataclass(frozen=True, slots=True)
class SyncIntervals:
    """How often what is done, in seconds.

    Attributes:
        min_sync_s: The least time between two syncs; changes in between are written together.
        sync_s: The most time between two checks of the kernel.
        quiet_s: How long to wait for more foreign changes, or changes of the host, before they are looked at.
    """

    min_sync_s: float = 1.0
    sync_s: float = 30.0
    quiet_s: float = 0.2


@dataclass(slots=True)
class Schedule:
    """The deadlines of the thread that keeps Services in sync; it alone calls this.

    Attributes:
        check_at: When the kernel is compared with what it should have.
        sync_at: When changes may be written.
        host_at: When the facts of the host are read; never, unless they may have changed.
        must_check: Whether the next check must read all, even if nobody else has written.
    """

    clock: Callable[[], float]
    intervals: SyncIntervals = field(default_factory=SyncIntervals)
    check_at: float = 0.0
    sync_at: float = 0.0
    host_at: float = math.inf
    must_check: bool = True
    _host_read_at: float = -math.inf
    _check_pause_s: float = 0.0
    _pause: RetryPause = field(default_factory=lambda: RetryPause(FIRST_PAUSE_S, LONGEST_PAUSE_S))
    _again_at: float = 0.0

    @property
    def is_paused(self) -> bool:
        """Whether nothing is tried yet after a failure: more changes are no reason to try more often."""
        return self.clock() < self._again_at

    def due_in(self, sync_at: float) -> float:
        """Return for how many seconds nothing is due, if changes are to be written at `sync_at`."""
        due_at = max(min(sync_at, self.check_at, self.host_at), self._again_at)
        return max(due_at - self.clock(), 0.0)

    def rules_changed(self) -> None:
        """Check soon: somebody else has changed rules."""
        self.must_check = True
        pause_s = max(self.intervals.quiet_s, self._check_pause_s)
        self.check_at = min(self.check_at, self.clock() + pause_s)

    def host_changed(self) -> None:
        """Read the facts of the host soon."""
        soonest = max(self.clock() + self.intervals.quiet_s, self._host_read_at + self.intervals.min_sync_s)
        self.host_at = min(self.host_at, soonest)

    def host_read(self) -> None:
        """Note that the facts of the host are read now."""
        self.host_at, self._host_read_at = math.inf, self.clock()

    def check_in(self, seconds: float) -> None:
        """Check after so many seconds, whether or not somebody else has written."""
        self.must_check, self.check_at = True, self.clock() + seconds

    def synced(self) -> None:
        """Note that changes were written."""
        self.sync_at = self.clock() + self.intervals.min_sync_s

    def is_untouched(self) -> None:
        """Note that the kernel need not be read, since nobody else has written."""
        self.check_at = self.clock() + self.intervals.sync_s

    def checked(self, took_s: float, *, has_changed: bool) -> None:
        """Note that a check is done.

        Args:
            took_s: How long it took.
            has_changed: Whether it wrote anything, or would have. If not, who writes rules of their own without pause
                is not checked without pause.
        """
        self.check_at = self.clock() + self.intervals.sync_s
        self._check_pause_s = 0.0 if has_changed else CHECK_SHARE * took_s

    def failed(self) -> float:
        """Try again after a pause, twice as long as the last one; return its seconds."""
        pause_s = self._pause.failed()
        self.must_check = True
        self._again_at = self.check_at = self.sync_at = self.clock() + pause_s
        return pause_s

    def succeeded(self) -> None:
        """Note that what was due was done: the next failure has a short pause again."""
        self._pause.succeeded()
