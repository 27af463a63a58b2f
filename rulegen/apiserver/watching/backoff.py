"""When to try again after a failed request to an API server: exponential backoff with full jitter.

Thousands of nodes lose the same server at the same moment. Source for full jitter: M. Brooker, "Exponential Backoff And
Jitter", AWS Architecture Blog, 2015.
"""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from rulegen.apiserver.limits import ANSWER_S, LIST_S
from rulegen.apiserver.transport.reasons import ApiReason

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from rulegen.apiserver.transport.failures import ApiError

PATIENCE: Final = 3
"""Number of denials in a row that count: a server that has just started does not know all its roles for a moment."""
UNANSWERED: Final = 3
"""The resourceVersion itself may be the cause after this many timeouts in a row (504).
A server answers so if the version is in its future, as after a restore. Other failures need no new list.
"""


def _wait(ended: threading.Event, seconds: float) -> None:
    ended.wait(seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiTiming:
    """Times in seconds, and the clock and random source.

    Attributes:
        first_pause: Limit of the first pause; each pause is random between 0 and its limit, which doubles.
        longest_pause: Maximum of the limit.
        slow_pause: Pause after a denial; random, at least half of it.
        longest_asked_pause: Maximum of a pause that the server requests.
        list_silence: Maximum silence of the server in a list.
        watch_silence: The same in a watch: more than the minute between two bookmarks.
        answer: Maximum time of an answer, from the request to its last byte; a page of a list is one.
        list_whole: Maximum time for all pages of a list.
        watch_least: Minimum duration of a watch.
        watch_most: Maximum duration of a watch; random between the two.
        short_watch: A watch that ends earlier does not count as a good answer.
        outage: After this time without a good answer, everything is listed again, because the server may have been
            restored from a backup, and may have passed the known revisions since.
        whole: How often everything is listed again without a reason; random between half of it and one and a half.
        notice: How long a problem of the server lasts before it is reported.
        overdue: How long an answer may take before that is a problem.
        wake_spread: A woken caller tries again within this time, at random.
        poll: Shortest interval for reading an object that cannot be watched.
        clock: Monotonic time in seconds.
        draw: Returns a random number between two.
        sleep: Waits for some seconds, or until the event.
    """

    first_pause: float = 0.5
    longest_pause: float = 30.0
    slow_pause: float = 60.0
    longest_asked_pause: float = 600.0
    list_silence: float = 60.0
    watch_silence: float = 90.0
    answer: float = ANSWER_S
    list_whole: float = LIST_S
    watch_least: float = 300.0
    watch_most: float = 600.0
    short_watch: float = 1.0
    outage: float = 30.0
    whole: float = 3600.0
    notice: float = 2.0
    overdue: float = 5.0
    wake_spread: float = 1.0
    poll: float = 10.0
    clock: Callable[[], float] = time.monotonic
    draw: Callable[[float, float], float] = random.uniform
    sleep: Callable[[threading.Event, float], None] = _wait


class Pace:
    """Counts the failures in a row of one caller.

    Attributes:
        failures: Number of failures since the last good answer.
    """

    def __init__(self, timing: ApiTiming) -> None:
        self._timing = timing
        self._since = 0.0
        self.failures = 0

    def good(self) -> None:
        """Reset after a success."""
        self.failures = 0

    def fail(self) -> None:
        """Count a failure."""
        if not self.failures:
            self._since = self._timing.clock()
        self.failures += 1

    def woken(self) -> None:
        """Start again with short pauses: the server answers other callers."""
        self.failures = min(self.failures, 1)

    def is_outage(self, error: ApiError) -> bool:
        """Return whether the server was unreachable or silent for so long that it may be another one by now."""
        return (error.status == 504 and self.failures >= UNANSWERED) or self.was_away()

    def was_away(self) -> bool:
        """Return whether there was no good answer for that time; checked before a watch continues."""
        return self.failures > 0 and self._timing.clock() - self._since > self._timing.outage

    def listed(self) -> None:
        """Record that everything was listed: earlier failures need no further list."""
        self._since = self._timing.clock()

    def pause(self, error: ApiError, *, is_slow: bool = False) -> float:
        """Return the pause in seconds after this failure, which was already counted."""
        timing = self._timing
        asked = min(error.retry_after, timing.longest_asked_pause)
        if is_slow:
            return max(asked, timing.draw(timing.slow_pause / 2, timing.slow_pause))
        if self.failures <= 1 and (error.reason is ApiReason.EXPIRED or error.status == 401):
            return asked  # what must be done about it is known, and was not tried yet
        bound = min(timing.longest_pause, timing.first_pause * 2.0 ** min(self.failures - 1, 30))
        return max(asked, timing.draw(0.0, bound))
