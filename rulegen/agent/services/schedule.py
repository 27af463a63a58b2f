"""When the agent does what: the next sync, check and read of the host, and the pause after a failure.

Times are seconds of a monotonic clock.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from rulegen.agent.retry import LONGEST_PAUSE_S, RetryPause

if TYPE_CHECKING:
    from collections.abc import Callable

FIRST_PAUSE_S: Final = 1.0
CHECK_SHARE: Final = 3
"""After a check without a result, the next one for foreign changes is this multiple of the time that it took later."""


@dataclass(frozen=True, slots=True)
class SyncIntervals:
    """Intervals, in seconds.

    Attributes:
        min_sync_s: Minimum time between two syncs; changes in between are written together.
        sync_s: Maximum time between two checks of the kernel.
        quiet_s: Time to wait for more foreign changes, or changes of the host, before they are read.
    """

    min_sync_s: float = 1.0
    sync_s: float = 30.0
    quiet_s: float = 0.2


@dataclass(slots=True)
class Schedule:
    """The deadlines of the thread that keeps Services in sync; only that thread calls this.

    Attributes:
        check_at: Time of the next comparison with the kernel.
        sync_at: Time from which changes may be written.
        host_at: Time to read the facts of the host; infinity unless they may have changed.
        must_check: Whether the next check must read everything, even if no other program has written.
    """

    clock: Callable[[], float]
    intervals: SyncIntervals = field(default_factory=SyncIntervals)
    check_at: float = 0.0
    sync_at: float = 0.0
    host_at: float = math.inf
    must_check: bool = True
    _host_read_at: float = -math.inf
    _checks_from: float = -math.inf
    _pause: RetryPause = field(default_factory=lambda: RetryPause(FIRST_PAUSE_S, LONGEST_PAUSE_S))
    _again_at: float = 0.0

    @property
    def is_paused(self) -> bool:
        """Whether the pause after a failure lasts: more changes are no reason to try earlier."""
        return self.clock() < self._again_at

    def due_in(self, sync_at: float) -> float:
        """Return the seconds until something is due, if changes are to be written at `sync_at`."""
        due_at = max(min(sync_at, self.check_at, self.host_at), self._again_at)
        return max(due_at - self.clock(), 0.0)

    def rules_changed(self) -> None:
        """Schedule a check soon: another program has changed rules."""
        self.must_check = True
        self.check_at = min(self.check_at, max(self.clock() + self.intervals.quiet_s, self._checks_from))

    def host_changed(self) -> None:
        """Schedule a read of the host's facts soon."""
        soonest = max(self.clock() + self.intervals.quiet_s, self._host_read_at + self.intervals.min_sync_s)
        self.host_at = min(self.host_at, soonest)

    def host_read(self) -> None:
        """Record that the facts of the host are read now."""
        self.host_at, self._host_read_at = math.inf, self.clock()

    def check_in(self, seconds: float) -> None:
        """Schedule a check after some seconds, whether or not another program has written."""
        self.must_check, self.check_at = True, self.clock() + seconds

    def synced(self) -> None:
        """Record that changes were written."""
        self.sync_at = self.clock() + self.intervals.min_sync_s

    def is_untouched(self) -> None:
        """Record that the kernel need not be read, because no other program has written."""
        self.check_at = self.clock() + self.intervals.sync_s

    def checked(self, took_s: float, *, has_changed: bool) -> None:
        """Record that a check is done.

        Args:
            took_s: Duration of the check.
            has_changed: Whether it wrote anything, or would have. If not, a program that constantly writes its own
                rules does not cause constant checks.
        """
        self.check_at = self.clock() + self.intervals.sync_s
        self._checks_from = -math.inf if has_changed else self.clock() + CHECK_SHARE * took_s

    def failed(self, longest_s: float = math.inf) -> float:
        """Schedule another attempt after a pause, twice as long as the last one; return the pause in seconds."""
        pause_s = min(self._pause.failed(), longest_s)
        self.must_check = True
        self._again_at = self.check_at = self.sync_at = self.clock() + pause_s
        return pause_s

    def succeeded(self) -> None:
        """Record a success: the pause after the next failure is short again."""
        self._pause.succeeded()
