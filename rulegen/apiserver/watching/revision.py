"""The highest revision that an API server has reported, and whether the server still has it.

A server whose database was restored continues from the revision of the backup. A watch from a later revision is not
rejected: it is silent until the server reaches that revision, and changes until then are never reported. Before a watch
starts again, the revisions are therefore compared: a list without resourceVersion is never older than anything
reported.

Source: KEP-5504: resourceVersions are increasing decimal numbers, shared by all kinds of objects of a server.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final, NamedTuple

from rulegen.apiserver.transport.failures import ApiError

if TYPE_CHECKING:
    from collections.abc import Callable

FRESH_S: Final = 2.0
"""How long an answer is valid for other watchers that return at the same time, in seconds."""
MOST_DIGITS: Final = 30


class RevisionMark(NamedTuple):
    """What was known at a moment.

    Attributes:
        era: How often the server went back to an older state.
        highest: The highest reported revision since; 0 if there is none.
    """

    era: int
    highest: int


class Revisions:
    """The revisions of one server, for all its watchers; thread-safe.

    Attributes:
        era: Increases each time that the server goes back to an older state: earlier reports may be wrong.
    """

    def __init__(self, clock: Callable[[], float], set_back: Callable[[int, int], None]) -> None:
        """Start without revisions.

        Args:
            clock: Seconds that only grow.
            set_back: Called with the server's revision and the earlier, higher one.
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
        """Return the current knowledge; call it before a list is requested."""
        with self._lock:
            return RevisionMark(self.era, self._highest)

    def heard(self, version: str, era: int) -> None:
        """Record the version of an event or bookmark of a watch that started in this era."""
        revision = number(version)
        with self._lock:
            if era == self.era and revision is not None:
                self._highest = max(self._highest, revision)

    def listed(self, version: str, mark: RevisionMark) -> int | None:
        """Record the version of a list; return its era, or None if it may be from an earlier one.

        Args:
            version: Version of its first page.
            mark: What was known before the request.
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
        """Return whether a watch may continue from a version: the server still has everything that it reported.

        The server is asked once for all watchers that return at the same time.

        Args:
            version: Where the watch would continue.
            ask: Returns the version of a list without resourceVersion; raises an error if it cannot be read.
            since: When this watcher last received data from the server.

        Raises:
            ApiError: The server could not be asked.
        """
        if number(version) is None:
            return False  # there is nothing to compare
        era, began = self.era, self._clock()
        with self._asking:
            is_old = self._asked_at < since or self._clock() - self._asked_at > FRESH_S
            if is_old or (self._error is not None and self._failed_at < began):
                mark, self._asked_at, self._error = self.mark(), self._clock(), None
                try:
                    answer = ask()
                except ApiError as error:
                    if error.status:  # it may concern the request of this caller
                        self._asked_at = float("-inf")
                    self._error, self._failed_at = error, self._clock()
                    raise
                if number(answer) is None:
                    return False
                self.listed(answer, mark)
            elif self._error is not None:
                raise self._error  # callers that waited for the answer would wait again as long
        return era == self.era


def number(version: str) -> int | None:
    """Return a version as a number; None if it is not a number, which cannot be compared.

    >>> number("1042"), number(""), number("v7"), number("-1"), number("0")
    (1042, None, None, None, None)
    """
    is_one = version.isascii() and version.isdigit() and len(version) <= MOST_DIGITS and not version.startswith("0")
    return int(version) if is_one else None
