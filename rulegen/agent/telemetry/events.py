"""Events (events.k8s.io/v1): information for users, attached to the object that it concerns, shown by kubectl.

Sending never blocks the caller and never fails, because a separate thread does it. The same Event within some minutes
increases the count of the existing one (a series). An object gets a few Events at once and then one every five minutes;
Events that cannot be sent are dropped and counted. An Event that every node would send has the same name on all nodes,
so only the first node creates it; if an Event of that name exists, its count is increased.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import queue
import threading
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from rulegen.agent.retry import RetryPause
from rulegen.agent.telemetry.log import fault
from rulegen.apiserver.objects import EVENTS
from rulegen.apiserver.transport.failures import ApiError
from rulegen.kube.syntax import is_label, is_subdomain
from rulegen.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from rulegen.agent.telemetry.log import AgentLog
    from rulegen.agent.telemetry.state import AgentState
    from rulegen.apiserver.objects import ApiObjects

CONTROLLER: Final = "rulegen.io/agent"
NODE_NAMESPACE: Final = "default"
"""Namespace of Events about objects without a namespace."""
LONGEST_NOTE: Final = 1024
LONGEST_INSTANCE: Final = 128
LONGEST_NAME: Final = 230
"""Maximum length of an object's name in an Event's name, which is a few characters longer and has at most 253."""
WAITING: Final = 5000
"""Maximum number of Events that wait to be sent."""
BURST: Final = 25
"""Number of Events about one object that are sent at once."""
REFILL_S: Final = 300.0
"""After that, one Event in this time."""
RATE_S: Final = 0.1
"""The time between two requests."""
SERIES_S: Final = 360.0
"""Maximum time between two Events of one series."""
PATCH_S: Final = 60.0
"""Minimum time between two updates of a series."""
KEPT: Final = 4096
"""Maximum number of remembered series and objects."""
TRIES: Final = 6
"""Number of attempts for a request that the server answers with an error."""
UNREACHED_S: Final = 600.0
"""Maximum age of an Event while the server does not answer."""
FIRST_PAUSE_S: Final = 1.0
LONGEST_PAUSE_S: Final = 30.0
SILENCE_S: Final = 600.0
"""Pause after sending was forbidden."""
END_S: Final = 2.0
TERMINATING: Final = "NamespaceTerminating"
"""Cause in a response with status 403: the namespace is being deleted and accepts no new objects."""


class ObjectReference(NamedTuple):
    """The object that an Event is about.

    Attributes:
        api_version: Such as `v1`.
        namespace: Empty for a kind without namespaces.
        uid: kubectl finds the Events of an object by it.
    """

    api_version: str
    kind: str
    namespace: str
    name: str
    uid: str = ""

    @property
    def is_sound(self) -> bool:
        """Whether this can be the name of an object; others are not sent to the server."""
        return is_subdomain(self.name) and (not self.namespace or is_label(self.namespace))


@dataclass(frozen=True, slots=True)
class EventRequest:
    """A request to send an Event.

    Attributes:
        reason: One word, such as `DriftMended`.
        action: What was done or not done, such as `Mend`.
        note: Text for people; control characters are escaped, and it is cut.
        is_warning: Whether a user should look at it.
        is_shared: Whether every node would send the same Event.
    """

    about: ObjectReference
    reason: str
    action: str
    note: str
    is_warning: bool = True
    is_shared: bool = False


def to_nobody(_: EventRequest) -> None:
    """Send no event."""


def _now() -> dt.datetime:
    return dt.datetime.now(dt.UTC)


def micro_time(when: dt.datetime) -> str:
    """Return a time in the API's MicroTime format."""
    return when.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _instant(text: object) -> dt.datetime:
    """Return the time of a MicroTime; a time long ago if it is invalid."""
    try:
        when = dt.datetime.fromisoformat(text if isinstance(text, str) else "")
    except ValueError:
        return dt.datetime.min.replace(tzinfo=dt.UTC)
    return when if when.tzinfo else when.replace(tzinfo=dt.UTC)


_Key = tuple[ObjectReference, str, str, bool, str]


@dataclass(slots=True)
class _Series:
    """A sent Event, and the number of repetitions since."""

    namespace: str
    name: str
    last: dt.datetime
    last_at: float
    patched_at: float = 0.0
    count: int = 1
    sent: int = 1


@dataclass(slots=True)
class _Bucket:
    """How many Events about one object may be sent."""

    tokens: float
    at: float


@dataclass(slots=True)
class Recorder:
    """Sends Events, in its own thread.

    Attributes:
        instance: The sender: the node.
        rate_s: The time between two requests.
    """

    objects: ApiObjects
    instance: str
    state: AgentState
    log: AgentLog
    clock: Callable[[], float]
    now: Callable[[], dt.datetime] = _now
    rate_s: float = RATE_S
    _waiting: queue.Queue[tuple[EventRequest, dt.datetime] | None] = field(default_factory=lambda: queue.Queue(WAITING))
    _series: OrderedDict[_Key, _Series] = field(default_factory=OrderedDict)
    _buckets: OrderedDict[ObjectReference, _Bucket] = field(default_factory=OrderedDict)
    _ended: threading.Event = field(default_factory=threading.Event)
    _silent_until: float = 0.0
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Start sending."""
        self._thread = threading.Thread(target=self._run, name="events", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Send waiting Events if that is fast, then end."""
        self._ended.set()
        with suppress(queue.Full):  # it then checks after each Event whether to end
            self._waiting.put_nowait(None)
        if self._thread is not None:
            self._thread.join(2 * END_S)

    def send_event(self, event: EventRequest) -> None:
        """Queue an Event; never blocks, never fails."""
        try:
            self._waiting.put_nowait((event, self.now()))
        except queue.Full:
            self.state.metrics.events.add("dropped")

    def _run(self) -> None:
        until: float | None = None
        while True:
            if self._ended.is_set():
                until = self.clock() + END_S if until is None else until
                if self._waiting.empty() or self.clock() > until:
                    break
            try:
                waiting = self._waiting.get(timeout=PATCH_S)
            except queue.Empty:
                self._guarded(self.settle)
                continue
            if waiting is not None:
                self._guarded(partial(self.send, *waiting))
        self._guarded(lambda: self.settle(at_end=True))

    def _guarded(self, work: Callable[[], None]) -> None:
        """Do some work; an internal error is logged, and later Events are still sent."""
        try:
            work()
        except Exception as error:  # noqa: BLE001 - whatever it is, this thread must go on
            self.state.metrics.events.add("failed")
            self.log.error("event not sent", **fault(error))

    def send(self, event: EventRequest, when: dt.datetime | None = None) -> None:
        """Send one Event, or count it in its series.

        Args:
            event: The event.
            when: When it happened; now by default.
        """
        if not event.about.is_sound:
            return
        note = _note(event.note)
        key = (
            event.about,
            event.reason,
            event.action,
            event.is_warning,
            note if event.is_shared else "",
        )
        at = self.clock()
        known = self._series.get(key)
        if known is not None and at - known.last_at < SERIES_S:
            if not event.is_shared:
                known.count += 1
                known.last, known.last_at = self.now(), at
                if known.sent == 1 or at - known.patched_at >= PATCH_S:
                    self._patch(key, known)
            return
        if not self._may_send(event.about, at):
            self.state.metrics.events.add("dropped")
            return
        self._create(key, event, note, when or self.now())

    def settle(self, *, at_end: bool = False) -> None:
        """Send the final counts of series that have ended."""
        at = self.clock()
        for key, series in list(self._series.items()):
            is_over = at_end or at - series.last_at >= SERIES_S
            if series.count > series.sent and (is_over or at - series.patched_at >= PATCH_S):
                self._patch(key, series)
            if is_over:
                self._series.pop(key, None)

    def _may_send(self, about: ObjectReference, at: float) -> bool:
        """Take a token of an object's bucket, if there is one."""
        bucket = self._buckets.pop(about, None) or _Bucket(BURST, at)
        bucket.tokens = min(bucket.tokens + (at - bucket.at) / REFILL_S, BURST)
        bucket.at = at
        self._buckets[about] = bucket
        while len(self._buckets) > KEPT:
            self._buckets.popitem(last=False)
        if bucket.tokens < 1:
            return False
        bucket.tokens -= 1
        return True

    def _create(self, key: _Key, event: EventRequest, note: str, when: dt.datetime) -> None:
        document = self._document(event, note, when)
        namespace, name = document["metadata"]["namespace"], document["metadata"]["name"]
        for _ in range(TRIES):
            status = self._try(lambda: self.objects.create(EVENTS, namespace, document), key[1], expected={409})
            if not status:
                self.state.metrics.events.add("sent")
            elif status == 409:
                status = self._count_in(document, when)
            if status not in {404, 409}:  # deleted meanwhile, or counted by another client
                break
        if status:
            if status in {404, 409}:
                self.state.metrics.events.add("failed")
            return
        self._series[key] = _Series(namespace, name, when, self.clock())
        self._series.move_to_end(key)
        while len(self._series) > KEPT:
            self._series.popitem(last=False)

    def _document(self, event: EventRequest, note: str, when: dt.datetime) -> dict[str, Any]:
        about = event.about
        regarding = {"apiVersion": about.api_version, "kind": about.kind, "name": about.name}
        regarding |= {"namespace": about.namespace} if about.namespace else {}
        regarding |= {"uid": about.uid} if about.uid else {}
        name = _event_name(event, note, when)
        return {
            "apiVersion": "events.k8s.io/v1",
            "kind": "Event",
            "metadata": {"namespace": about.namespace or NODE_NAMESPACE, "name": name},
            "eventTime": micro_time(when),
            "reportingController": CONTROLLER,
            "reportingInstance": self.instance[:LONGEST_INSTANCE],
            "action": event.action,
            "reason": event.reason,
            "regarding": regarding,
            "note": note,
            "type": "Warning" if event.is_warning else "Normal",
        }

    def _count_in(self, document: dict[str, Any], when: dt.datetime) -> int:
        """Increase the count of the existing Event of this name, and set its last time.

        Returns:
            0 if this is done, or not needed; otherwise a status: for 404 or 409, try again.
        """
        namespace, name = document["metadata"]["namespace"], document["metadata"]["name"]
        kept: dict[str, Any] = {}

        def read() -> None:  # a patch without changes: no right to read
            kept.update(self.objects.patch(EVENTS, namespace, name, {}))

        if status := self._try(read, document["reason"], expected={404}):
            return status
        series = kept.get("series")
        series = series if isinstance(series, dict) else {}
        last = _instant(series.get("lastObservedTime") or kept.get("eventTime"))
        is_ours = kept.get("reportingInstance") == document["reportingInstance"]
        if is_ours and kept.get("eventTime") == document["eventTime"]:
            return 0  # the Event was created, but the answer was lost
        if not is_ours and when - last < dt.timedelta(seconds=PATCH_S):
            self.state.metrics.events.add("shared")  # another node has just counted it
            return 0
        count = series.get("count")
        change = {
            "metadata": {"resourceVersion": kept.get("metadata", {}).get("resourceVersion")},
            "series": {
                "count": max(count if isinstance(count, int) else 1, 1) + 1,
                "lastObservedTime": micro_time(max(when, last)),
            },
        }
        status = self._try(
            lambda: self.objects.patch(EVENTS, namespace, name, change), document["reason"], expected={404, 409}
        )
        if not status:
            self.state.metrics.events.add("counted")
        return status

    def _patch(self, key: _Key, known: _Series) -> None:
        """Send the current count; if the Event no longer exists, the next repetition creates a new one."""
        series = {"count": known.count, "lastObservedTime": micro_time(known.last)}
        known.patched_at = self.clock()

        def send() -> None:
            self.objects.patch(EVENTS, known.namespace, known.name, {"series": series})

        if not self._try(send, key[1]):
            known.sent = known.count
            self.state.metrics.events.add("counted")
        else:
            self._series.pop(key, None)

    def _try(self, send: Callable[[], Any], reason: str, *, expected: Collection[int] = ()) -> int:
        """Send a request, with new attempts while these may help.

        Args:
            send: Sends it.
            reason: Reason of the Event, for the log.
            expected: Statuses that the caller handles.

        Returns:
            0 if it succeeded, otherwise such a status, or -1 if it failed and was counted as failed.
        """
        pause = RetryPause(FIRST_PAUSE_S, LONGEST_PAUSE_S)
        remaining, until = TRIES - 1, self.clock() + UNREACHED_S
        while self.clock() >= self._silent_until:
            self._ended.wait(self.rate_s)
            try:
                send()
            except ApiError as error:
                if error.status in expected:
                    return error.status
                if error.status == 403 and TERMINATING not in error.causes:
                    self._silent_until = self.clock() + SILENCE_S
                    self.log.warning("not allowed to write events", error=error.message, hint=error.hint)
                    break
                is_answer = error.status != 0
                passes = error.status in {401, 429} or error.status >= 500 if is_answer else self.clock() < until
                if not passes or not remaining or self._ended.is_set():
                    self.log.debug("event not sent", reason=reason, error=error.message)
                    break
                remaining -= is_answer
                self._ended.wait(max(pause.failed(), min(error.retry_after, LONGEST_PAUSE_S)))
            else:
                return 0
        self.state.metrics.events.add("failed")
        return -1


def _note(text: str) -> str:
    """Return a printable text, cut to the maximum size of a note."""
    encoded = printable(text, LONGEST_NOTE).encode("utf-8", "backslashreplace")
    if len(encoded) <= LONGEST_NOTE:
        return encoded.decode()
    return encoded[: LONGEST_NOTE - 3].decode("utf-8", "ignore") + "…"


def _event_name(event: EventRequest, note: str, when: dt.datetime) -> str:
    """Return a unique name for each Event; for a shared Event, the same name on all nodes."""
    if event.is_shared:
        identity = f"{event.about.uid}\0{event.reason}\0{event.action}\0{note}"
        end = hashlib.sha256(identity.encode()).hexdigest()[:16]
    else:
        end = f"{int(when.timestamp() * 1e6):x}{hashlib.sha256(event.reason.encode()).hexdigest()[:4]}"
    return f"{event.about.name[:LONGEST_NAME].rstrip('.-')}.{end}"
