"""Counts of the watchers, for metrics and people: lists, watches, events, errors, and the last contact."""

from __future__ import annotations

import threading
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rulegen.apiserver.watching.outage import OutageNotice

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


@dataclass(frozen=True, slots=True)
class Counts:
    """Counts since the start. Kinds are written as `EndpointSlice`.

    Attributes:
        lists: Complete lists, by kind.
        watches: Watches that the server started, by kind.
        events: Changes, by kind and type (`changed`, `gone`), and bookmarks (`bookmark`).
        errors: By kind and reason, as in `ApiError`.
        contact_age_s: Seconds since data arrived from the server, by kind; for the collection with the longest wait.
        troubles: Current problems by kind, as text for people; empty if there are none.
    """

    lists: Mapping[str, int]
    watches: Mapping[str, int]
    events: Mapping[tuple[str, str], int]
    errors: Mapping[tuple[str, str], int]
    contact_age_s: Mapping[str, float]
    troubles: Mapping[str, str]


class WatchStats:
    """Thread-safe counts; reports each problem once, however many threads have it."""

    def __init__(self, clock: Callable[[], float], say: Callable[[OutageNotice], None]) -> None:
        self._clock = clock
        self._say = say
        self._lock = threading.Lock()
        self._lists: Counter[str] = Counter()
        self._watches: Counter[str] = Counter()
        self._events: Counter[tuple[str, str]] = Counter()
        self._errors: Counter[tuple[str, str]] = Counter()
        self._contacts: dict[object, tuple[str, float]] = {}
        self._troubles: dict[object, tuple[str, str, bool]] = {}

    def begin(self, who: object, kind: str) -> None:
        """Start the wait of a watcher for the server."""
        with self._lock:
            self._contacts[who] = kind, self._clock()

    def end(self, who: object) -> None:
        """Remove a watcher; its counts stay."""
        with self._lock:
            self._contacts.pop(who, None)
            self._troubles.pop(who, None)

    def heard(self, who: object) -> None:
        """Record that a watcher has just received data from the server."""
        with self._lock:
            if who in self._contacts:
                self._contacts[who] = self._contacts[who][0], self._clock()

    def listed(self, kind: str) -> None:
        """Count a complete list."""
        with self._lock:
            self._lists[kind] += 1

    def watched(self, kind: str) -> None:
        """Count a watch that started."""
        with self._lock:
            self._watches[kind] += 1

    def count_event(self, kind: str, what: str) -> None:
        """Count an event."""
        with self._lock:
            self._events[kind, what] += 1

    def failed(self, kind: str, reason: str) -> None:
        """Count an error."""
        with self._lock:
            self._errors[kind, reason] += 1

    def trouble(self, who: object, kind: str, text: str, *, hint: str = "", is_own: bool = True) -> None:
        """Record the problem of a watcher, and warn of it unless this was already done.

        Args:
            who: The watcher.
            kind: The kind that it watches.
            text: The problem.
            hint: The next step.
            is_own: Whether it concerns this collection; problems of the server are reported elsewhere.
        """
        with self._lock:
            is_new = is_own and all(text != known for _, known, _ in self._troubles.values())
            self._troubles[who] = kind, text, is_own
        if is_new:
            self._say(OutageNotice(text, {"hint": hint}))

    def well(self, who: object) -> None:
        """Remove the problem of a watcher, and report its end if no other watcher has it."""
        with self._lock:
            _, text, is_own = self._troubles.pop(who, ("", "", False))
            is_over = is_own and all(text != known for _, known, _ in self._troubles.values())
        if is_over:
            self._say(OutageNotice(f"no longer: {text}", {}, is_well=True))

    def counts(self) -> Counts:
        """Return the counts so far."""
        with self._lock:
            ages: dict[str, float] = {}
            for kind, at in self._contacts.values():
                ages[kind] = max(ages.get(kind, 0.0), self._clock() - at)
            return Counts(
                dict(self._lists),
                dict(self._watches),
                dict(self._events),
                dict(self._errors),
                ages,
                {kind: text for kind, text, _ in self._troubles.values()},
            )
