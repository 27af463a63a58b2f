"""Whether an API server answers, from the experience of all callers.

An outage is reported once, whichever caller notices it, and once more at its end. The first caller that reaches the
server again wakes up the others, each after a random moment; otherwise they would wait for up to half a minute.
"""

from __future__ import annotations

import datetime as dt
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from rulegen.apiserver.transport.reasons import ApiReason

if TYPE_CHECKING:
    from collections.abc import Callable

    from rulegen.apiserver.transport.failures import ApiError
    from rulegen.apiserver.watching.backoff import ApiTiming

_LOOK_S: Final = 1.0
_WORDS: Final = {
    "away": "the API server does not answer",
    "tls": "the TLS handshake with the API server fails",
    "login": "the API server denies access",
    "failing": "the API server answers with errors",
}


class OutageNotice(NamedTuple):
    """A log line about the API server.

    Attributes:
        fields: Its fields, by name.
        is_well: Whether it is good news.
    """

    message: str
    fields: dict[str, str]
    is_well: bool = False

    def __str__(self) -> str:
        """Return it as one line."""
        return "; ".join([self.message, *(f"{name}: {value}" for name, value in self.fields.items() if value)])


@dataclass(slots=True)
class _Trouble:
    """The problem of one caller.

    Attributes:
        sort: A key of `_WORDS`; empty for a problem of this caller alone.
        since: Start of the problem, of any kind.
        sort_since: Start of the current kind of problem.
        wake: Makes the caller try again soon; None if the server itself has requested a pause.
    """

    sort: str
    since: float
    sort_since: float
    error: str = ""
    hint: str = ""
    is_refused: bool = False
    wake: Callable[[], None] | None = None


class Outage:
    """The problems of all callers of one server; thread-safe.

    Attributes:
        meanwhile: Returns a text about what continues during an outage.
    """

    def __init__(self, url: str, timing: ApiTiming, say: Callable[[OutageNotice], None]) -> None:
        """Start without problems.

        Args:
            url: Of the server.
            timing: When a problem is reported, and the clock.
            say: Receives each line.
        """
        self.meanwhile: Callable[[], str] = str
        self._url = url
        self._timing = timing
        self._say = say
        self._lock = threading.Lock()
        self._telling = threading.RLock()
        self._troubles: dict[object, _Trouble] = {}
        self._asking: dict[object, tuple[float, str]] = {}
        self._said: set[str] = set()
        self._since = 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look_on, name="watch outage", daemon=True)

    def start(self) -> None:
        """Start checking whether answers are overdue."""
        self._thread.start()

    def end(self) -> None:
        """Stop reporting."""
        self._ended.set()

    def join(self, seconds: float) -> None:
        """Wait for the end of the thread, at most for that time."""
        if self._thread.is_alive():
            self._thread.join(max(seconds, 0.0))

    def is_alive(self) -> bool:
        """Return whether the thread is running."""
        return self._thread.is_alive()

    def asks(self, who: object, doing: str) -> None:
        """Record that a caller starts a request, such as `list services`."""
        with self._lock:
            self._asking[who] = self._timing.clock(), doing

    def failed(self, who: object, error: ApiError, wake: Callable[[], None]) -> None:
        """Record a failed request; the caller pauses now.

        Args:
            who: The caller.
            error: The failure.
            wake: Ends its pause.
        """
        with self._lock:
            self._asking.pop(who, None)
            before = self._troubles.get(who)
            sort, now = _sort(error), self._timing.clock()
            since = before.since if before is not None else now
            sort_since = before.sort_since if before is not None and before.sort == sort else now
            is_refused = error.status in {403, 404}
            may_wake = None if error.retry_after else wake
            self._troubles[who] = _Trouble(sort, since, sort_since, error.message, error.hint, is_refused, may_wake)
        self._look()

    def good(self, who: object) -> None:
        """Record a good answer; waiting callers try again soon."""
        with self._lock:
            self._asking.pop(who, None)
            own = self._troubles.pop(who, None)
            waiting = [each for each in self._troubles.values() if _helps(own, each)]
        for each in waiting:
            if each.wake is not None:
                each.wake()
        self._settle()

    def forget(self, who: object) -> None:
        """Remove a caller; that alone does not mean that the server is back."""
        with self._lock:
            self._troubles.pop(who, None)
            self._asking.pop(who, None)

    def _look_on(self) -> None:
        while not self._ended.wait(min(_LOOK_S, self._timing.notice)):
            self._look()

    def _look(self) -> None:
        """Report problems that have lasted long enough, each kind once."""
        with self._telling:  # earlier decisions are reported first
            self._say_troubles()

    def _say_troubles(self) -> None:
        now, timing = self._timing.clock(), self._timing
        with self._lock:
            overdue = [
                _Trouble("away", at, at, f"{self._url}: {doing}: no answer for {now - at:.0f} s")
                for at, doing in self._asking.values()
                if now - at >= timing.overdue
            ]
            troubles = [each for each in [*self._troubles.values(), *overdue] if each.sort]
            # After the first report, another kind is reported only if it lasts: a short one is part of the same
            # problem.
            news = {
                each.sort: each
                for each in troubles
                if each.sort not in self._said
                and now - (each.sort_since if self._said else each.since) >= timing.notice
            }
            if news and not self._said:
                self._since = min(each.since for each in troubles)
            self._said |= news.keys()
            began = self._since
        for sort, each in news.items():
            since = dt.datetime.now(dt.UTC) - dt.timedelta(seconds=now - min(began, each.since))
            fields = {
                "error": each.error,
                "since": since.isoformat(timespec="seconds").replace("+00:00", "Z"),
                "meanwhile": self.meanwhile(),
                "hint": each.hint,
            }
            self._tell(OutageNotice(_WORDS[sort], fields))

    def _settle(self) -> None:
        """Report the end of the problems, if they are over and were reported."""
        with self._telling:
            self._say_end()

    def _say_end(self) -> None:
        now = self._timing.clock()
        with self._lock:
            is_overdue = any(now - at >= self._timing.overdue for at, _ in self._asking.values())
            if not self._said or is_overdue or any(each.sort for each in self._troubles.values()):
                return
            self._said.clear()
            lasted = now - self._since
        fields = {"server": self._url, "after_s": f"{lasted:.0f}"}
        self._tell(OutageNotice("the API server answers again", fields, is_well=True))

    def _tell(self, notice: OutageNotice) -> None:
        if not self._ended.is_set():
            self._say(notice)


def is_of_server(error: ApiError) -> bool:
    """Return whether an error concerns the server or the network as a whole, not only the requested object."""
    return bool(_sort(error))


def _sort(error: ApiError) -> str:
    if error.status == 401 or error.reason is ApiReason.CREDENTIALS:
        return "login"
    if error.status == 429 or error.status >= 500:
        return "failing"
    if error.reason is ApiReason.TLS:
        return "tls"
    return (
        "away" if not error.status and error.reason in {ApiReason.CONNECTION, ApiReason.TIMEOUT, ApiReason.CUT} else ""
    )


def _helps(own: _Trouble | None, other: _Trouble) -> bool:
    """Return whether a good answer for one caller means that another would get one too."""
    if other.sort in {"away", "tls"}:
        return True  # the server can be reached
    return own is not None and own.is_refused == other.is_refused and bool(own.sort) == bool(other.sort)
