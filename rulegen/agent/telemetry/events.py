"""Events: what users must know, attached to the object that it concerns (events.k8s.io/v1), where kubectl shows it.

Sending never blocks the caller and never fails: a thread of its own does it. The same event within some minutes is
counted in the existing one (a series). An object gets a few at once and then one every five minutes; what cannot be
sent is dropped and counted. An event that every node would send has the same name on all of them, so that only the
first node creates it; where an event of that name exists already, this one is counted in it.
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
"""Where events are kept about objects that have no namespace."""
LONGEST_NOTE: Final = 1024
LONGEST_INSTANCE: Final = 128
LONGEST_NAME: Final = 230
"""Of an object's name in an event's, which has a few characters more and 253 at the most."""
WAITING: Final = 5000
"""Events that wait to be sent, at the most."""
BURST: Final = 25
"""Events about one object that are sent at once."""
REFILL_S: Final = 300.0
"""And then one in this time."""
RATE_S: Final = 0.1
"""The time between two requests."""
SERIES_S: Final = 360.0
"""How long after the last one the same is still of one series."""
PATCH_S: Final = 60.0
"""The least time between two updates of a series."""
KEPT: Final = 4096
"""Series and objects that are remembered."""
TRIES: Final = 6
"""Of one request that the server answers with an error."""
UNREACHED_S: Final = 600.0
"""How long an event waits for a server that does not answer at all."""
FIRST_PAUSE_S: Final = 1.0
LONGEST_PAUSE_S: Final = 30.0
SILENCE_S: Final = 600.0
"""How long no event is sent after it was forbidden."""
END_S: Final = 2.0
TERMINATING: Final = "because it is being terminated"
"""So a server says that a namespace takes nothing new: with 403, though nothing is forbidden to us."""


class ObjectReference(NamedTuple):
    """What an event is about.

    Attributes:
        api_version: As `v1`.
        namespace: Empty for a kind that has none.
        uid: By which kubectl finds the events of an object.
    """

    api_version: str
    kind: str
    namespace: str
    name: str
    uid: str = ""

    @property
    def is_sound(self) -> bool:
        """Whether it can be the name of an object; nothing else is sent to a server."""
        return is_subdomain(self.name) and (not self.namespace or is_label(self.namespace))


@dataclass(frozen=True, slots=True)
class EventRequest:
    """One thing that a user must know.

    Attributes:
        reason: In one word, as `DriftMended`.
        action: What was done, or was not, as `Mend`.
        note: For people; whatever it holds, it is made harmless and cut.
        is_warning: Whether somebody should look at it.
        is_shared: Whether every node finds out the same.
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
    """Return a time as the API's MicroTime has it."""
    return when.astimezone(dt.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _instant(text: object) -> dt.datetime:
    """Return the time of a MicroTime; long ago where it is none."""
    try:
        when = dt.datetime.fromisoformat(text if isinstance(text, str) else "")
    except ValueError:
        return dt.datetime.min.replace(tzinfo=dt.UTC)
    return when if when.tzinfo else when.replace(tzinfo=dt.UTC)


_Key = tuple[ObjectReference, str, str, bool, str]


@dataclass(slots=True)
class _Series:
    """An event that was sent, and how often the same came since."""

    namespace: str
    name: str
    last: dt.datetime
    last_at: float
    patched_at: float = 0.0
    count: int = 1
    sent: int = 1


@dataclass(slots=True)
class _Bucket:
    """How many events about one object may be sent."""

    tokens: float
    at: float


@dataclass(slots=True)
class Recorder:
    """Sends events, from a thread of its own.

    Attributes:
        instance: Who sends them: the node.
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
        """Begin to send."""
        self._thread = threading.Thread(target=self._run, name="events", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Send what waits, if that goes quickly, and end."""
        self._ended.set()
        with suppress(queue.Full):  # then it looks whether this is the end after each one
            self._waiting.put_nowait(None)
        if self._thread is not None:
            self._thread.join(2 * END_S)

    def send_event(self, event: EventRequest) -> None:
        """Queue an event to be sent; never blocks, never fails."""
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
        """Do some work; a fault of ours is logged, and later events are still sent."""
        try:
            work()
        except Exception as error:  # noqa: BLE001 - whatever it is, this thread must go on
            self.state.metrics.events.add("failed")
            self.log.error("event not sent", **fault(error))

    def send(self, event: EventRequest, when: dt.datetime | None = None) -> None:
        """Send one event, or count it in the series that it belongs to.

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
        """Send the last counts of series that are over."""
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
            if status not in {404, 409}:  # else it went meanwhile, or somebody else counted at the same time
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
        """Count an event in the one of its name that is there: its count, and when it was last seen.

        Returns:
            0 where that is done, or need not be; else a status: of 404 or 409, it is to be tried again.
        """
        namespace, name = document["metadata"]["namespace"], document["metadata"]["name"]
        kept: dict[str, Any] = {}

        def read() -> None:  # by a patch that changes nothing: the role, as kube-proxy's, has no right to read events
            kept.update(self.objects.patch(EVENTS, namespace, name, {}))

        if status := self._try(read, document["reason"], expected={404}):
            return status
        series = kept.get("series")
        series = series if isinstance(series, dict) else {}
        last = _instant(series.get("lastObservedTime") or kept.get("eventTime"))
        is_ours = kept.get("reportingInstance") == document["reportingInstance"]
        if is_ours and kept.get("eventTime") == document["eventTime"]:
            return 0  # it is this one: it came to be, and the answer was lost
        if not is_ours and when - last < dt.timedelta(seconds=PATCH_S):
            self.state.metrics.events.add("shared")  # just now, by another node: not each of a thousand is to count it
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
        """Send how often the same came by now; if the event no longer exists, the next one is a new one."""
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
        """Send a request, again and again while that may help.

        Args:
            send: Sends it.
            reason: Of the event, for the log.
            expected: What the server may answer that the caller knows what to do about.

        Returns:
            0 where the server has done it, else such an answer, or -1: it failed, and was counted so.
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
                if error.status == 403 and TERMINATING not in error.message:
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
    """Return a text that prints, in as many bytes as a note may have."""
    encoded = printable(text, LONGEST_NOTE).encode("utf-8", "backslashreplace")
    if len(encoded) <= LONGEST_NOTE:
        return encoded.decode()
    return encoded[: LONGEST_NOTE - 3].decode("utf-8", "ignore") + "…"


def _event_name(event: EventRequest, note: str, when: dt.datetime) -> str:
    """Return a name of its own for each event; for what all nodes find out, the same one on each of them."""
    if event.is_shared:
        identity = f"{event.about.uid}\0{event.reason}\0{event.action}\0{note}"
        end = hashlib.sha256(identity.encode()).hexdigest()[:16]
    else:
        end = f"{int(when.timestamp() * 1e6):x}{hashlib.sha256(event.reason.encode()).hexdigest()[:4]}"
    return f"{event.about.name[:LONGEST_NAME].rstrip('.-')}.{end}"
