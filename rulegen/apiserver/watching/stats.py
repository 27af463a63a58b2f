"""What the watchers count, for metrics and for people: lists, watches, events, errors; when the server was heard."""

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
    """What was counted since the start. Kinds are spelt as `EndpointSlice`.

    Attributes:
        lists: Complete lists, by kind.
        watches: Watches that the server began, by kind.
        events: Changes, by kind and type (`changed`, `gone`), and bookmarks (`bookmark`).
        errors: By kind and reason, as `ApiError` has it.
        contact_age_s: Seconds since something came from the server, by kind; of the collection that waits longest.
        troubles: What is in the way now, by kind, in words for people; empty where all is well.
    """

    lists: Mapping[str, int]
    watches: Mapping[str, int]
    events: Mapping[tuple[str, str], int]
    errors: Mapping[tuple[str, str], int]
    contact_age_s: Mapping[str, float]
    troubles: Mapping[str, str]


class WatchStats:
    """Counts for several threads, and says each trouble once to a person, however many threads have it."""

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
        """Begin to wait for the server on behalf of a watcher."""
        with self._lock:
            self._contacts[who] = kind, self._clock()

    def end(self, who: object) -> None:
        """Forget a watcher; what it counted stays."""
        with self._lock:
            self._contacts.pop(who, None)
            self._troubles.pop(who, None)

    def heard(self, who: object) -> None:
        """Note that the server said something to a watcher just now."""
        with self._lock:
            if who in self._contacts:
                self._contacts[who] = self._contacts[who][0], self._clock()

    def listed(self, kind: str) -> None:
        """Count a complete list."""
        with self._lock:
            self._lists[kind] += 1

    def watched(self, kind: str) -> None:
        """Count a watch that began."""
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
        """Keep what is in the way of a watcher, and warn of it unless another one, or it itself, already did.

        Args:
            who: The watcher.
            kind: What it watches.
            text: What is in the way.
            hint: What to do about it.
            is_own: Whether it is about this collection; what is about the server is said elsewhere.
        """
        with self._lock:
            is_new = is_own and all(text != known for _, known, _ in self._troubles.values())
            self._troubles[who] = kind, text, is_own
        if is_new:
            self._say(OutageNotice(text, {"hint": hint}))

    def well(self, who: object) -> None:
        """Forget what was in the way of a watcher, and say so if it is in nobody's way any more."""
        with self._lock:
            _, text, is_own = self._troubles.pop(who, ("", "", False))
            is_over = is_own and all(text != known for _, known, _ in self._troubles.values())
        if is_over:
            self._say(OutageNotice(f"no longer: {text}", {}, is_well=True))

    def counts(self) -> Counts:
        """Return what was counted up to now."""
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
