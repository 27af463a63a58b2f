"""When to ask an API server again that did not answer as it should: exponential backoff, with all of it drawn by lot.

Thousands of nodes lose the same server at the same moment. Source for the full jitter: M. Brooker, "Exponential Backoff
And Jitter", AWS Architecture Blog, 2015.
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
"""Refusals in a row that are believed: a server that just started does not know all its roles for a moment."""
UNANSWERED: Final = 3
"""After so many timeouts in a row (504) the resourceVersion itself may be at fault: so a server says that it is of the
future, as after a restore from a backup. Other failures are those of a server that is starting: no reason for a list.
"""


def _wait(ended: threading.Event, seconds: float) -> None:
    ended.wait(seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiTiming:
    """How long to wait for what, in seconds; and by which clock and dice.

    Attributes:
        first_pause: Bound of the first pause; each one is drawn between 0 and its bound, which doubles.
        longest_pause: Greatest bound.
        slow_pause: Before asking again for what we may not read; drawn from half of it.
        longest_asked_pause: However long the server asks us to stay away.
        list_silence: How long the server may say nothing within a list.
        watch_silence: The same within a watch: more than the minute between two bookmarks.
        answer: How long an answer may take, from the request to its last byte; a page of a list is one.
        list_whole: How long all pages of a list may take.
        watch_least: How long a watch lasts, at least.
        watch_most: How long it lasts at most; drawn between the two.
        short_watch: A watch that ended sooner was not a good answer.
        outage: After so long without a good answer, all is listed anew: it is time enough for a restore from a backup,
            and the server may have passed our revisions before we are back.
        whole: How often all is listed anew though nothing asks for it; drawn between half of it and one and a half.
        notice: How long trouble with the server lasts before it is said.
        overdue: How long an answer may take before that is trouble.
        wake_spread: Who is woken asks within so long, drawn.
        poll: How often an object is read that cannot be watched, at the most: many take turns.
        clock: Seconds that only grow.
        draw: A number between two.
        sleep: Waits for so many seconds, or until the event.
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
    """Remembers the failures in a row of one who asks.

    Attributes:
        failures: How many there were since the last good answer.
    """

    def __init__(self, timing: ApiTiming) -> None:
        self._timing = timing
        self._since = 0.0
        self.failures = 0

    def good(self) -> None:
        """Begin anew."""
        self.failures = 0

    def fail(self) -> None:
        """Count a failure."""
        if not self.failures:
            self._since = self._timing.clock()
        self.failures += 1

    def woken(self) -> None:
        """Begin with short pauses again: the server answers others."""
        self.failures = min(self.failures, 1)

    def is_outage(self, error: ApiError) -> bool:
        """Tell whether the server was away for so long, or so deaf, that it may be another one by now."""
        return (error.status == 504 and self.failures >= UNANSWERED) or self.was_away()

    def was_away(self) -> bool:
        """Tell whether there was no good answer for so long; asked before a watch goes on."""
        return self.failures > 0 and self._timing.clock() - self._since > self._timing.outage

    def listed(self) -> None:
        """Note that all was listed: what was before needs no further list."""
        self._since = self._timing.clock()

    def pause(self, error: ApiError, *, is_slow: bool = False) -> float:
        """Return for how many seconds to do nothing after this failure, which was counted."""
        timing = self._timing
        asked = min(error.retry_after, timing.longest_asked_pause)
        if is_slow:
            return max(asked, timing.draw(timing.slow_pause / 2, timing.slow_pause))
        if self.failures <= 1 and (error.reason is ApiReason.EXPIRED or error.status == 401):
            return asked  # what must be done about it is known, and was not tried yet
        bound = min(timing.longest_pause, timing.first_pause * 2.0 ** min(self.failures - 1, 30))
        return max(asked, timing.draw(0.0, bound))
