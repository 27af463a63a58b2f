"""A watch of the names and versions of Secrets or ConfigMaps, in one namespace or in all.

A reported change only causes a read of the object. If a watch breaks, a server loses state, or a role is removed, the
objects are therefore only read one by one, which takes longer.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from rulegen.apiserver.limits import MAX_OBJECT
from rulegen.apiserver.referred.reading import path_of, plural
from rulegen.apiserver.referred.selection import METADATA_WATCH, ObjectHead, read_changed
from rulegen.apiserver.transport.failures import ApiError
from rulegen.apiserver.transport.reasons import ApiReason
from rulegen.apiserver.watching.backoff import PATIENCE, Pace
from rulegen.apiserver.watching.outage import is_of_server
from rulegen.apiserver.watching.revision import number

if TYPE_CHECKING:
    from rulegen.apiserver.referred.reading import ObjectReader
    from rulegen.apiserver.transport.connection import ApiConnection
    from rulegen.apiserver.transport.response import Response
    from rulegen.apiserver.watching.backoff import ApiTiming
    from rulegen.apiserver.watching.outage import Outage
    from rulegen.apiserver.watching.revision import Revisions
    from rulegen.apiserver.watching.stats import WatchStats
    from rulegen.kube.objects.kinds import KubeObject
    from rulegen.kube.objects.names import ObjectName

NAMESPACE_PAUSES: Final = 5.0
"""Factor for the pause before a denied namespace is requested again, because there may be many."""
MAX_ROUNDS: Final = 50
"""Parts of one watch that are read before other watches are read."""


class ScopeOwner(Protocol):
    """Knows which objects are wanted; any thread may call."""

    def wants(self, kind: type[KubeObject], name: ObjectName) -> bool:
        """Return whether an object is wanted."""

    def take_heads(self, scope: Scope, heads: list[ObjectHead]) -> None:
        """Receive the wanted objects that exist; other wanted objects of the scope do not exist."""

    def take_change(self, kind: type[KubeObject], name: ObjectName, version: str, *, is_gone: bool) -> None:
        """Receive the change of a wanted object."""

    def may_watch(self) -> bool:
        """Return whether another watch is allowed."""

    def scan_pause(self) -> float:
        """Return the seconds between two lists of a namespace without a watch."""

    def on_state(self) -> None:
        """Record whether a scope can be followed now."""


@dataclass(frozen=True, slots=True)
class ScopeTools:
    """What all scopes of a server share."""

    link: ApiConnection
    reader: ObjectReader
    tally: WatchStats
    outage: Outage
    revisions: Revisions
    timing: ApiTiming


class Scope:
    """Follows the names and versions of the objects of one kind, in one namespace or in all.

    `advance`, `take_ready` and `end_watch` must be called by one thread at a time.

    Attributes:
        kind: Kind of the objects.
        namespace: Their namespace; empty for all namespaces.
        is_current: Whether changes are noticed now.
        is_refused: Whether the server repeatedly denies the list (403).
        due: Time of the next call of `advance`; infinity during a watch.
        answer: The current watch; None without one.
        is_busy: Whether a thread is in `advance`.
        is_over: Whether this scope is no longer needed.
    """

    def __init__(self, kind: type[KubeObject], namespace: str, owner: ScopeOwner, tools: ScopeTools) -> None:
        self.kind = kind
        self.namespace = namespace
        self.is_current = self.is_refused = self.is_busy = self.is_over = False
        self.due = 0.0
        self.answer: Response | None = None
        self._owner = owner
        self._link, self._reader, self._tally = tools.link, tools.reader, tools.tally
        self._outage, self._revisions, self._timing = tools.outage, tools.revisions, tools.timing
        self._pace = Pace(tools.timing)
        self._version = ""
        self._era = self._revisions.era
        self._broke_at: float | None = None
        self._whole_at = self._heard_at = self._began = 0.0
        self._seconds = 0
        self._refusals = 0

    def covers(self, kind: type[KubeObject], name: ObjectName) -> bool:
        """Return whether this scope contains an object."""
        return self.is_current and kind is self.kind and self.namespace in {"", name.namespace}

    def advance(self) -> None:
        """List the objects if that is due, and start a watch if that is allowed."""
        try:
            self._list_if_due()
            if self._owner.may_watch():
                self._open()
            else:
                self._version = ""
                self.due = self._timing.clock() + self._timing.draw(0.5, 1.5) * self._owner.scan_pause()
        except ApiError as error:
            self._fail(error)
        except Exception as error:  # noqa: BLE001 - our own fault is reported, then all is read again: the thread must go on
            self._version = ""
            self._fail(ApiError(f"{plural(self.kind)}: {type(error).__name__}: {error}", ApiReason.INTERNAL))

    def take_ready(self) -> bool:
        """Process the received lines of the watch; return whether more may already be available.

        Raises:
            ApiError: The watch broke; call `end_watch`.
        """
        answer = self.answer
        if answer is None:
            raise ApiError("the end", ApiReason.CUT)
        for _ in range(MAX_ROUNDS):
            lines = answer.ready_lines(MAX_OBJECT)
            if lines is None:
                raise EndedError
            count = 0
            for line in lines:
                count += 1
                self._take(line)
            if not count:
                return False
        return True

    def is_silent(self) -> bool:
        """Return whether the watch was silent for too long."""
        return self._timing.clock() - self._heard_at > self._timing.watch_silence

    def end_watch(self, error: ApiError | None) -> None:
        """Record that the watch ended, and decide when to continue."""
        answer, self.answer = self.answer, None
        if answer is not None:
            answer.close()
        now = self._timing.clock()
        lasted = now - self._began
        if lasted < self._seconds - 1:  # the server or a proxy ended it: it may be another server by now
            self._broke_at = now
        if lasted >= self._timing.short_watch:
            self._pace.good()
        elif error is None:
            error = ApiError(f"{self._link.url}: a watch of {plural(self.kind)} ended at once", ApiReason.SHORT)
        if self._era != self._revisions.era:  # it was cut off, so that it is listed again
            self._version = ""
            self.due = now + self._timing.draw(0.0, self._timing.wake_spread)
        elif error is None or error.reason is ApiReason.TIMEOUT:
            self.due = now
        else:
            self._fail(error)

    def wake_up(self) -> None:
        """Continue soon: the server answers again."""
        if self.answer is None:
            self._pace.woken()
            # Repeated wake-ups do not stop it.
            self.due = min(self.due, self._timing.clock() + self._timing.draw(0.0, self._timing.wake_spread))
            self._owner.on_state()

    def end(self) -> None:
        """Record that this scope is no longer needed; its counts stay."""
        self.is_over, self.is_current = True, False
        self.cut()
        self._tally.end(self)
        self._outage.forget(self)

    def cut(self) -> None:
        """End the watch, if there is one, and start again from the list; any thread may call."""
        answer = self.answer
        if answer is not None:
            answer.shut()
        else:
            self.due = 0.0

    def _list_if_due(self) -> None:
        is_due = self._timing.clock() > self._whole_at or self._pace.was_away() or self._era != self._revisions.era
        doing = f"list {plural(self.kind)}"
        self._outage.asks(self, doing)
        if is_due or not self._is_whole():
            self._version = ""
        if not self._version:
            heads, version, era = self._reader.heads(
                self.kind, self.namespace, lambda name: self._owner.wants(self.kind, name)
            )
            self._version, self._era, self._broke_at = version, era, None
            self._tally.listed(self.kind.__name__)
            self._pace.listed()
            self._whole_at = self._timing.clock() + self._timing.draw(self._timing.whole / 2, self._timing.whole * 1.5)
            self._owner.take_heads(self, heads)
        self._note_good()

    def _is_whole(self) -> bool:
        if not self._version or self._broke_at is None:
            return True
        newest = self._reader.newest
        return self._revisions.is_whole(self._version, lambda: newest(self.kind, self.namespace), since=self._broke_at)

    def _open(self) -> None:
        timing = self._timing
        self._seconds = round(timing.draw(timing.watch_least, timing.watch_most)) or 1
        parameters: dict[str, str | int] = {
            "watch": "1",
            "resourceVersion": self._version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": self._seconds,
        }
        doing = f"watch {plural(self.kind)}"
        self._outage.asks(self, doing)
        self._began = timing.clock()
        self.answer = self._link.ask(
            path_of(self.kind, self.namespace),
            parameters,
            doing=doing,
            silence_s=timing.watch_silence,
            whole_s=self._seconds + timing.watch_silence,
            accept=METADATA_WATCH,
        )
        self._heard_at = timing.clock()
        self._broke_at = None
        self.due = math.inf
        if self.is_over or self._era != self._revisions.era:
            self.answer.shut()  # `cut` was called before there was an answer
        self._tally.watched(self.kind.__name__)
        self._note_good()

    def _note_good(self) -> None:
        self._refusals = 0
        self._tally.heard(self.kind)
        self._tally.well(self)
        self._outage.good(self)
        if self.is_refused or not self.is_current:
            self.is_refused, self.is_current = False, True
            self._owner.on_state()

    def _take(self, line: bytes | bytearray) -> None:
        if not line.strip():
            return
        self._heard_at = self._timing.clock()
        self._tally.heard(self.kind)
        change = read_changed(self._link.url, self.kind, line)
        before, after = number(self._version), number(change.version)
        if before is not None and after is not None and after < before:
            words = f"{self._link.url}: watch {plural(self.kind)}: revision {change.version} after {self._version}"
            raise ApiError(words, ApiReason.SET_BACK)
        if change.name is None:
            self._tally.count_event(self.kind.__name__, "bookmark")
        elif self._owner.wants(self.kind, change.name):
            self._tally.count_event(self.kind.__name__, "gone" if change.is_gone else "changed")
            self._owner.take_change(self.kind, change.name, change.version, is_gone=change.is_gone)
        self._version = change.version or self._version
        self._revisions.heard(self._version, self._era)

    def _fail(self, error: ApiError) -> None:
        """Record a failure, and when to try again."""
        if self.is_over:
            return
        self._pace.fail()
        self._broke_at = self._timing.clock()
        is_slow = False
        if error.status == 403:  # a role may allow less than this, so it is not a problem
            self._refusals += 1
            self.is_refused = is_slow = self._refusals >= PATIENCE
            self._outage.forget(self)
        else:
            self._tally.failed(self.kind.__name__, error.label)
            self._outage.failed(self, error, self.wake_up)
            if error.reason is ApiReason.INTERNAL or self._pace.failures > 1:
                is_own = not is_of_server(error)
                self._tally.trouble(self, self.kind.__name__, error.message, hint=error.hint, is_own=is_own)
        if error.reason in {
            ApiReason.EXPIRED,
            ApiReason.GARBAGE,
            ApiReason.TOO_LARGE,
            ApiReason.SET_BACK,
        } or self._pace.is_outage(error):
            self._version = ""
        pause = self._pace.pause(error, is_slow=is_slow) * (NAMESPACE_PAUSES if is_slow and self.namespace else 1.0)
        self.due = self._timing.clock() + pause
        if self.is_current and (is_slow or self._pace.failures > 1):
            self.is_current = False
        self._owner.on_state()


class EndedError(Exception):
    """A watch ended normally."""
