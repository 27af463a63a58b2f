"""Up to which revision an API server has told its watchers, and whether it still has all of that.

A server whose database was restored from a backup goes on from the backup's revision. A watch from a revision that it
does not have yet is not refused: it is silent until the server gets there, and what happened until then is never told.
So whoever begins to watch again compares: a list without resourceVersion is never older than anything told before.

Source: KEP-5504, resourceVersions are decimal numbers that grow, the same ones for all kinds of objects of a server.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final, NamedTuple

from rulegen.apiserver.transport.failures import ApiError

if TYPE_CHECKING:
    from collections.abc import Callable

FRESH_S: Final = 2.0
"""How long an answer holds for the other watchers that come back at the same time."""
MOST_DIGITS: Final = 30


class RevisionMark(NamedTuple):
    """What was known at a moment.

    Attributes:
        era: How often the server was found to be set back.
        highest: The highest revision that it told since; 0 for none.
    """

    era: int
    highest: int


class Revisions:
    """The revisions of one server, for all its watchers; any thread may call.

    Attributes:
        era: Grows each time that the server is found to be set back: all that was told before may be wrong.
    """

    def __init__(self, clock: Callable[[], float], set_back: Callable[[int, int], None]) -> None:
        """Know of none.

        Args:
            clock: Seconds that only grow.
            set_back: Called with the server's revision and the one that it had told before.
        """
        self.era = 0
        self._clock = clock
        self._set_back = set_back
        self._lock = threading.Lock()
        self._asking = threading.Lock()
        self._highest = 0
        self._asked_at = float("-inf")
        self._error: ApiError | None = None
        self._failed_at = float("-inf")

    def mark(self) -> RevisionMark:
        """Return what is known now; to be taken before a list is asked for."""
        with self._lock:
            return RevisionMark(self.era, self._highest)

    def heard(self, version: str, era: int) -> None:
        """Note the version that came with an event or a bookmark of a watch that began in this era."""
        revision = number(version)
        with self._lock:
            if era == self.era and revision is not None:
                self._highest = max(self._highest, revision)

    def listed(self, version: str, mark: RevisionMark) -> int | None:
        """Note the version of a list; return the era that it belongs to, None where it may be from before this one.

        Args:
            version: Of its first page.
            mark: What was known before it was asked for.
        """
        revision = number(version)
        with self._lock:
            if mark.era != self.era:
                return None
            is_back = revision is not None and revision < mark.highest
            if is_back:
                self.era += 1
                self._highest = 0
            self._highest = max(self._highest, revision or 0)
            era = self.era
        if is_back and revision is not None:
            self._set_back(revision, mark.highest)
        return era

    def is_whole(self, version: str, ask: Callable[[], str], *, since: float) -> bool:
        """Tell whether a watch may go on from a version: the server still has all that it told.

        The server is asked once for all watchers that come back at the same time.

        Args:
            version: Where the watch would go on.
            ask: Returns the version of a list without resourceVersion; raises what keeps it from being read.
            since: When this watcher last heard of the server.

        Raises:
            ApiError: It could not be asked.
        """
        if number(version) is None:
            return False  # nothing can be compared
        era, began = self.era, self._clock()
        with self._asking:
            is_old = self._asked_at < since or self._clock() - self._asked_at > FRESH_S
            if is_old or (self._error is not None and self._failed_at < began):
                mark, self._asked_at, self._error = self.mark(), self._clock(), None
                try:
                    answer = ask()
                except ApiError as error:
                    if error.status:  # it may be about what this one asked for
                        self._asked_at = float("-inf")
                    self._error, self._failed_at = error, self._clock()
                    raise
                if number(answer) is None:
                    return False
                self.listed(answer, mark)
            elif self._error is not None:
                raise self._error  # whoever waited for the answer would wait for as long again
        return era == self.era


def number(version: str) -> int | None:
    """Return a version as the number that it is; None for one that is none, which compares with nothing.

    >>> number("1042"), number(""), number("v7"), number("-1"), number("0")
    (1042, None, None, None, None)
    """
    is_one = version.isascii() and version.isdigit() and len(version) <= MOST_DIGITS and not version.startswith("0")
    return int(version) if is_one else None
