"""Follows the Secrets and ConfigMaps that Ingresses refer to, with seven threads for any number of objects.

Each object is read by name when an Ingress first refers to it, and again whenever it may have changed:

- A watch over all namespaces, or one for each namespace, reports changes, if a role allows it (`scope`). Only names and
versions are transferred.
- Objects without a watch are read repeatedly: each every ten seconds, and at most ten objects a second.

The reported state of an object comes only from reading it, one read after the other, so it never goes back in time. If
the server does not answer, nothing is reported.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Final

from rulegen.apiserver.budget import weight
from rulegen.apiserver.limits import LIMIT_HINT
from rulegen.apiserver.referred.answers import ObjectRecords
from rulegen.apiserver.referred.order import Batch, Key, ReadingOrder
from rulegen.apiserver.referred.reading import ObjectReader, plural
from rulegen.apiserver.referred.scope import ScopeTools
from rulegen.apiserver.referred.scopes import Scopes
from rulegen.apiserver.referred.streams import WatchStreams
from rulegen.apiserver.transport.failures import ApiError
from rulegen.apiserver.transport.reasons import ApiReason
from rulegen.apiserver.watching.backoff import Pace
from rulegen.apiserver.watching.outage import is_of_server
from rulegen.kube.objects.events import Changed, Gone

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from rulegen.apiserver.referred.scope import Scope
    from rulegen.apiserver.referred.selection import ObjectHead
    from rulegen.apiserver.transport.connection import ApiConnection
    from rulegen.apiserver.watching.backoff import ApiTiming
    from rulegen.apiserver.watching.reflector import Shared
    from rulegen.errors import Rejected
    from rulegen.kube.objects.events import Event
    from rulegen.kube.objects.kinds import KubeObject
    from rulegen.kube.objects.names import Decoded, ObjectName

READERS: Final = 4
FOLLOWERS: Final = 2
POLLS_PER_S: Final = 10.0
"""Maximum number of objects without a watch that are read in a second."""
EVENT_BYTES: Final = 256
CONSUMER_PAUSE_S: Final = 0.02
LONGEST_WAIT_S: Final = 60.0
SLOW_PAUSES: Final = 5.0
"""Factor for the pause before a namespace whose list is denied is listed again."""


class ReferredObjects:
    """Follows objects by name; any thread may call.

    `emit` receives `Changed` or `Gone` for each object soon after it was first named, and whenever it changes.
    """

    def __init__(self, link: ApiConnection, emit: Callable[[Event], None], shared: Shared, timing: ApiTiming) -> None:
        self._link = link
        self._emit = emit
        self._tally, self._outage, self._kept, self._untaken = shared.tally, shared.outage, shared.kept, shared.untaken
        self._timing = timing
        self._reader = ObjectReader(link, shared.kept, shared.revisions, timing)
        self._changed = threading.Condition()
        self._telling = threading.Lock()
        self._records = ObjectRecords()
        self._order = ReadingOrder()
        self._pace = Pace(timing)
        self._ended = threading.Event()
        self._not_before = self._poll_at = self._pause_s = 0.0
        self._round: list[Key] = []
        self._kinds: set[type[KubeObject]] = set()
        self._threads: list[threading.Thread] = []
        tools = ScopeTools(link, self._reader, shared.tally, shared.outage, shared.revisions, timing)
        self._scopes = Scopes(self, tools)
        self._streams = WatchStreams(self.on_state)

    # -- for the watch -------------------------------------------------------------------------------------------------

    def refer_to(self, keys: Iterable[Key]) -> None:
        """Follow only these objects from now on; nothing more is reported about others."""
        wanted = set(keys)
        with self._telling, self._changed:  # a report in progress is completed
            if self._ended.is_set():
                return
            dropped = [key for key in self._records.all() if key not in wanted]
            for key in dropped:
                self._records.remove(key)
                self._order.discard(key)
            for key in sorted(wanted, key=str):
                if key not in self._records:
                    self._records.add(key)
                    self._order.add(key)
            self._kept.note(self, self._records.weight)
            self._arrange()
            if wanted and not self._threads:
                self._start()
            self._changed.notify_all()
        for key in dropped:
            self._tally.end(key)
            self._outage.forget(key)

    def unanswered(self) -> list[Key]:
        """Return the objects whose state was never reported."""
        with self._changed:
            return self._records.unanswered()

    def refused(self) -> frozenset[Key]:
        """Return the objects to which the server repeatedly denies access."""
        with self._changed:
            return self._records.refused()

    def begin_era(self) -> None:
        """Read everything again: the server went back to an older state."""
        with self._changed:
            self._records.forget_versions()
            for key in self._records.all():
                self._order.add(key)
            for scope in self._scopes.all():
                scope.cut()
            self._changed.notify_all()

    def end(self) -> None:
        """Stop reporting; the threads end by themselves after their current answer."""
        with self._telling, self._changed:
            self._ended.set()
            self._changed.notify_all()
        self._streams.stop()
        self._kept.note(self, 0)

    def join(self, seconds: float) -> None:
        """Wait for the end of the threads, at most for that time."""
        until = self._timing.clock() + seconds
        for thread in self._threads:
            thread.join(max(until - self._timing.clock(), 0.0))

    def is_alive(self) -> bool:
        """Return whether a thread is running."""
        return any(thread.is_alive() for thread in self._threads)

    # -- for the scopes ------------------------------------------------------------------------------------------------

    def wants(self, kind: type[KubeObject], name: ObjectName) -> bool:
        """Return whether an Ingress refers to an object."""
        return Key(kind, name) in self._records

    def take_heads(self, scope: Scope, heads: list[ObjectHead]) -> None:
        """Read those objects of a scope again whose reported state is outdated."""
        there = {head.name: head.version for head in heads}
        with self._changed:
            paused = set(self._order.paused())
            for key in self._records.all():
                record = self._records.get(key)
                if key.kind is not scope.kind or scope.namespace not in {"", key.name.namespace} or record is None:
                    continue
                if record.version is None:  # it will be read, unless it waits to exist
                    is_due = key in paused and key.name in there
                else:
                    is_due = there.get(key.name, "") != record.version
                if is_due:
                    self._order.add(key)
            self._changed.notify_all()

    def take_change(self, kind: type[KubeObject], name: ObjectName, version: str, *, is_gone: bool) -> None:
        """Read an object again that has changed."""
        key = Key(kind, name)
        with self._changed:
            record = self._records.get(key)
            if record is not None and record.version != ("" if is_gone else version):
                self._order.add(key)
                self._changed.notify_all()

    def may_watch(self) -> bool:
        """Return whether another watch is allowed."""
        with self._changed:
            return self._scopes.may_watch()

    def scan_pause(self) -> float:
        """Return the seconds between two lists of a namespace without a watch."""
        with self._changed:
            return max(self._timing.poll, (self._scopes.unwatched() + 1) / POLLS_PER_S)

    def on_state(self) -> None:
        """Follow all scopes that can be followed now."""
        with self._changed:
            self._arrange()
            self._changed.notify_all()

    # -- threads -------------------------------------------------------------------------------------------------------

    def _start(self) -> None:
        self._threads = [
            threading.Thread(target=work, name=f"watch {name} {number}", daemon=True)
            for name, work, count in (("referred", self._work, READERS), ("namespaces", self._follow, FOLLOWERS))
            for number in range(count)
        ]
        for thread in self._threads:
            thread.start()
        self._streams.start()
        self._threads.append(self._streams.thread)

    def _arrange(self) -> None:
        if self._ended.is_set():
            return
        keys = self._records.all()
        for scope in self._scopes.arrange({key.group for key in keys}):
            scope.end()
        kinds = {key.kind for key in keys}
        for kind in kinds - self._kinds:
            self._tally.begin(kind, kind.__name__)
        for kind in self._kinds - kinds:
            self._tally.end(kind)
        self._kinds = kinds

    def _follow(self) -> None:
        """Advance the scopes, one after the other."""
        while True:
            with self._changed:
                scope = None
                while scope is None:
                    if self._ended.is_set():
                        return
                    now = self._timing.clock()
                    scope, due = self._scopes.next_due(now)
                    if scope is None:
                        self._changed.wait(min(max(due - now, 0.0), LONGEST_WAIT_S))
                scope.is_busy = True
            scope.advance()
            if scope.answer is not None:
                self._streams.add(scope)
            with self._changed:
                scope.is_busy = False
                self._changed.notify_all()

    def _work(self) -> None:
        """Read objects."""
        while (batch := self._next()) is not None:
            try:
                self._read(batch)
            except ApiError as error:
                self._fail(batch, error)
            except Exception as error:  # noqa: BLE001 - our own fault is reported, then the object is read again
                words = f"{plural(batch.group.kind)}: {type(error).__name__}: {error}"
                self._fail(batch, ApiError(words, ApiReason.INTERNAL))
            finally:
                with self._changed:
                    self._order.done(batch)
                    self._changed.notify_all()

    def _next(self) -> Batch | None:
        with self._changed:
            while not self._ended.is_set():
                now = self._timing.clock()
                until = self._not_before
                if now >= until:
                    self._poll(now)
                    batch = self._order.take(now)
                    if batch is not None:
                        return batch
                    until = min(self._order.next_at(), self._poll_at)
                self._changed.wait(min(max(until - now, 0.0), LONGEST_WAIT_S))
        return None

    def _poll(self, now: float) -> None:
        """Schedule the next object without a watch for reading."""
        if now < self._poll_at:
            return
        while self._round and self._scopes.covers(self._round[-1]):
            self._round.pop()
        if not self._round:
            self._round = [key for key in self._records.all() if not self._scopes.covers(key)]
            self._pause_s = max(self._timing.poll / max(len(self._round), 1), 1.0 / POLLS_PER_S)
        self._poll_at = now + self._pause_s
        if not self._round:
            return
        key = self._round.pop()
        record = self._records.get(key)
        if record is not None and record.is_answered and record.pace is None and not record.is_refused:
            self._order.add(key)  # others are read again after their pause

    # -- what is read --------------------------------------------------------------------------------------------------

    def _read(self, batch: Batch) -> None:
        """Read objects and report their state.

        Raises:
            ApiError: They could not be read, or need too much memory.
        """
        kind = batch.group.kind
        asker = batch.all()[0]
        self._outage.asks(asker, f"list {plural(kind)}")
        answers = self._reader.read(batch)
        self._outage.good(asker)
        self._tally.listed(kind.__name__)
        self._tally.heard(kind)
        with self._changed:
            self._pace.good()
            if answers.unknown:  # the namespace has many more objects than are wanted
                self._order.read_singly(batch.group, self._timing.clock() + self._timing.whole)
                for name in answers.unknown:
                    self._order.add(Key(kind, name))
        for selected in answers.there:
            version = selected.head.version or f"none, read at {self._timing.clock()}"
            self._tell(Key(kind, selected.head.name), selected.state, version)
        for name in answers.gone:
            self._tell(Key(kind, name), None, "")

    def _tell(self, key: Key, state: Decoded | Rejected | None, version: str) -> None:
        """Report the state of an object, if it differs from the last report.

        Raises:
            ApiError: It needs too much memory.
        """
        heavy = weight([state]) if state is not None else 0
        with self._telling:
            with self._changed:
                record = self._records.get(key)
                if record is None or self._ended.is_set():
                    return
                was_refused = self._records.note_answer(key)
                is_new = record.version != version
                if is_new and not self._kept.note(self, self._records.weight - record.weight + heavy):
                    words = f"{self._link.url}: {key}: objects that need more than {self._kept.terms.mebibytes} MiB"
                    raise ApiError(words, ApiReason.TOO_MANY, hint=LIMIT_HINT)
            if is_new:
                self._emit(Changed(key.kind, state, key.name) if state is not None else Gone(key.kind, key.name))
                with self._changed:
                    self._records.note_reported(key, version, heavy)
        self._tally.well(key)
        self._outage.good(key)
        if was_refused:
            self._try_refused()
        if is_new and self._untaken.is_full(heavy + EVENT_BYTES):
            while self._untaken.waiting() and not self._ended.wait(CONSUMER_PAUSE_S):
                pass

    def _try_refused(self) -> None:
        """Read denied objects again soon: a role was granted."""
        with self._changed:
            for key in self._records.refused():
                self._order.add(key)
            self._changed.notify_all()

    # -- what is in the way --------------------------------------------------------------------------------------------

    def _fail(self, batch: Batch, error: ApiError) -> None:
        """Record why a batch could not be read, and when it is read again."""
        asker = batch.all()[0]
        if self._ended.is_set():
            return
        kind, now = batch.group.kind, self._timing.clock()
        if not is_of_server(error):
            self._outage.forget(asker)
        if batch.is_bulk and error.status == 403:  # a role may allow single names only, so this is not a problem
            with self._changed:
                self._order.read_singly(batch.group, now + SLOW_PAUSES * self._timing.slow_pause)
                self._add(batch)
            return
        self._tally.failed(kind.__name__, error.label)
        if is_of_server(error):
            self._outage.failed(asker, error, self._wake_up)
            with self._changed:
                self._pace.fail()
                self._not_before = now + self._pace.pause(error)
        if batch.is_bulk:
            with self._changed:
                if error.status or not is_of_server(error):  # possibly because of one object, or only of lists
                    self._order.read_singly(batch.group, now + SLOW_PAUSES * self._timing.slow_pause)
                self._add(batch)
            return
        self._fail_object(asker, error)

    def _add(self, batch: Batch) -> None:
        for key in batch.all():
            if key in self._records:
                self._order.add(key)

    def _fail_object(self, key: Key, error: ApiError) -> None:
        with self._changed:
            record = self._records.get(key)
            if record is None:
                return
            record.pace = record.pace or Pace(self._timing)
            record.pace.fail()
            is_slow = error.status in {403, 404} and self._records.note_refusal(key, is_forbidden=error.status == 403)
            is_absent = error.status == 404 and (is_slow or not record.is_answered)
            failures = record.pace.failures
            self._order.put_off(key, self._timing.clock() + record.pace.pause(error, is_slow=is_slow))
        is_own = not is_of_server(error)
        if not is_own or error.status == 403 or error.reason is ApiReason.INTERNAL or failures > 1:
            self._tally.trouble(key, key.kind.__name__, error.message, hint=_hint(key, error), is_own=is_own)
        if is_absent:
            self._tell_absent(key)

    def _tell_absent(self, key: Key) -> None:
        """Report that no object of this name can exist; it is still requested again."""
        with self._telling:
            with self._changed:
                record = self._records.get(key)
                if record is None or record.version == "" or self._ended.is_set():
                    return
            self._emit(Gone(key.kind, key.name))
            with self._changed:
                self._records.note_reported(key, "", 0)

    def _wake_up(self) -> None:
        """Read failed objects soon: the server answers again."""
        with self._changed:
            self._pace.woken()
            woken_at = self._timing.clock() + self._timing.draw(0.0, self._timing.wake_spread)
            self._not_before = min(self._not_before, woken_at)
            for key in self._order.paused():
                record = self._records.get(key)
                if record is not None and not record.refusals:
                    self._order.add(key)
            self._changed.notify_all()


def _hint(key: Key, error: ApiError) -> str:
    if error.status != 403:
        return error.hint
    noun, name = plural(key.kind), key.name
    return f"grant it to this user: get, list and watch {noun} named {name.name} in namespace {name.namespace}"
