"""The thread that keeps Services in sync: events mark Services as dirty, a sync writes them, a check finds drift.

watch ─► inbox ─► Cluster ─► dirty ─┬─► sync: only what is dirty ─► kernel
kernel's own notice, or time ───────┴─► check: read all, plan, write the difference
"""

from __future__ import annotations

import math
import queue
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from rulegen.agent.inbox import Wake
from rulegen.agent.services.checks import KernelCheck
from rulegen.agent.services.families import FamilyRetries
from rulegen.agent.services.isolation import Isolation
from rulegen.agent.services.left_out import LeftOut
from rulegen.agent.services.record import KernelRecord
from rulegen.agent.services.updates import UpdateWriter
from rulegen.agent.telemetry.counts import count_change
from rulegen.agent.telemetry.log import fault
from rulegen.errors import ApplyError, HostError, LaterError
from rulegen.waits import StoppingError

if TYPE_CHECKING:
    from collections.abc import Callable

    from rulegen.agent.inbox import Inbox
    from rulegen.agent.services.desired import DesiredServices
    from rulegen.agent.services.reports import SyncReports
    from rulegen.agent.services.schedule import Schedule
    from rulegen.agent.telemetry.log import AgentLog
    from rulegen.agent.telemetry.state import AgentState
    from rulegen.agent.this_node import ThisNode
    from rulegen.host.dataplane.dataplane import Dataplane
    from rulegen.kube.objects.events import Event
    from rulegen.kube.snapshot.cluster import Touched

RENAMED_S: Final = 5.0
"""Wait for an event while this node has no Node object and the host name may change, in seconds."""
NODE_S: Final = 60.0
"""Wait for an event while this node has no Node object, in seconds."""
LATER_S: Final = 2.0
"""Longest pause while something goes on that has not failed: other changes are written meanwhile."""
UNSYNCED_S: Final = 0.05
"""How often to check whether other threads are done, which send no event."""


def _nothing() -> None:
    """Do nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Once:
    """A sync that ends after everything was written once.

    Attributes:
        give_up_at: Time to give up if something is still missing.
        lacks: Returns what is missing from outside; empty for nothing.
        is_done: Returns whether other threads have also written everything.
    """

    give_up_at: float = math.inf
    lacks: Callable[[], str] = str
    is_done: Callable[[], bool] = lambda: True


@dataclass(slots=True, kw_only=True)
class ServiceSync:
    """Keeps the rules of one node up to date, in the thread that calls `run`.

    Attributes:
        inbox: Events and wake-ups from other threads.
        node: This node.
        desired: The desired state.
        writer: Reads and writes the kernel.
        reports: Reports to users.
        has_synced: Returns whether every list was received once; nothing is written before.
        mends: Whether differences are written; otherwise they are only reported.
        once: To end after everything was written once; None to run on.
        on_site: Called with each change of the cluster, for the sync of Ingresses.
        on_synced: Called once, when every list was received.
        on_ready: Called when everything was written for the first time.
    """

    inbox: Inbox
    node: ThisNode
    desired: DesiredServices
    writer: Dataplane
    schedule: Schedule
    reports: SyncReports
    state: AgentState
    log: AgentLog
    clock: Callable[[], float]
    has_synced: Callable[[], bool]
    mends: bool = True
    once: Once | None = None
    on_site: Callable[[Touched], None] = lambda _: None
    on_synced: Callable[[], None] = _nothing
    on_ready: Callable[[], None] = _nothing
    left_out: LeftOut = field(init=False)
    _check: KernelCheck = field(init=False)
    _updates: UpdateWriter = field(init=False)
    _families: FamilyRetries = field(init=False)
    _is_synced: bool = False
    _is_ready: bool = False

    def __post_init__(self) -> None:
        record = KernelRecord()
        self.left_out = LeftOut(self.log, self.state, self.reports.send_event, self.node.cluster.uid_of)
        isolation = Isolation(self.desired, self.writer, self.left_out, record, self.log, self.clock)
        self._check = KernelCheck(
            desired=self.desired,
            writer=self.writer,
            isolation=isolation,
            record=record,
            schedule=self.schedule,
            reports=self.reports,
            state=self.state,
            log=self.log,
            clock=self.clock,
            mends=self.mends,
        )
        self._updates = UpdateWriter(
            desired=self.desired,
            writer=self.writer,
            isolation=isolation,
            record=record,
            schedule=self.schedule,
            reports=self.reports,
            state=self.state,
            take_waiting=self._take_waiting,
            clock=self.clock,
            mends=self.mends,
        )

        self._families = FamilyRetries(
            self.writer, self.reports, self.clock, lambda: self.inbox.wake_up(""), self._decide_again
        )

    def _decide_again(self) -> None:
        """Have everything decided, read and compared again: what has changed meanwhile is not drift."""
        self.desired.rules = None
        self.schedule.check_in(0.0)

    def run(self) -> str:
        """Keep the rules in sync until a wake-up ends it.

        Returns:
            `stop` or `reload`, from the wake-up; `once` after everything was written once; `late` after the timeout.
        """
        while True:
            is_complete = self.has_synced()  # checked first: the list that completes the set is applied below
            ended = self._wait()
            if ended:
                return ended
            if self.once is not None and self.clock() >= self.once.give_up_at and self.once.lacks():
                return "late"
            if is_complete and self.node.must_wait():
                if name := self.node.new_name():
                    self.log.info("the host has another name now: restarting as that node", name=name)
                    return "reload"
            elif is_complete:
                self._begin_once()
                self.turn()
                if self.once is not None and self.state.is_alive and self.once.is_done():
                    return "once"

    def _begin_once(self) -> None:
        """Record that every list was received, the first time."""
        self.state.listed()
        if not self._is_synced:
            self._is_synced = True
            self.on_synced()

    def turn(self) -> None:
        """Do what is due: a check if one is due, else a sync of dirty Services."""
        self._families.turn()
        schedule, desired, now = self.schedule, self.desired, self.clock()
        if schedule.is_paused:
            return
        if (desired.dirty.nodes or now >= schedule.host_at) and not self._guarded(self._follow_host):
            return
        desired.dirty.services |= self.left_out.due(now)
        is_check_due = now >= schedule.check_at
        if is_check_due and not schedule.must_check and self._check.is_untouched() and desired.rules is not None:
            self._check.skip(desired.rules)
        if desired.rules is None or now >= schedule.check_at:
            work = self._check_all
        elif desired.has_changes(self.clock()) and now >= schedule.sync_at:
            work = self._updates.sync
        else:
            return
        if self._guarded(work):
            schedule.succeeded()
            self._families.settle()

    def _check_all(self) -> None:
        """Check; after the first time, call `on_ready`.

        Raises:
            HostError: The kernel cannot be read or written.
        """
        self._check.check()
        if not self._is_ready:
            self._is_ready = True
            self.on_ready()

    def _follow_host(self) -> None:
        """Read the facts of the host and the Node, and decide again what depends on them.

        Raises:
            HostError: They cannot be read.
        """
        generation, gained = self.state.desired, self._check.refresh()
        desired, rules = self.desired, self.desired.rules
        if rules is None:
            return
        desired.dirty.nodes = False
        self._check.warn(rules)
        self.reports.status(rules, {})
        if gained:  # conntrack may have entries for an address that comes back
            self._check.reconcile()
        if not desired.dirty.services and not rules.is_behind and not self.schedule.must_check:
            self.state.wrote(generation)

    def _guarded(self, work: Callable[[], None]) -> bool:
        """Do some work, and return whether it succeeded; a failure is reported and tried again after a pause."""
        try:
            work()
        except StoppingError as error:
            self.log.info("stopping: the remaining changes are not written", reason=error.message)
        except HostError as error:
            fields = {"written": "; ".join(error.applied)} if isinstance(error, ApplyError) else {}
            goes_on = isinstance(error.__cause__ if isinstance(error, ApplyError) else error, LaterError)
            pause_s = self.schedule.failed(LATER_S) if goes_on else self.schedule.failed()
            self.reports.failure({**fault(error), **fields}, pause_s)
        except Exception as error:  # noqa: BLE001 - whatever it is, this node must be kept: all is decided again
            self.desired.rules = None
            self.reports.failure(fault(error), self.schedule.failed())
        else:
            return True
        return False

    def apply_event(self, event: Event) -> None:
        """Apply one event to the known cluster; the next sync writes what it affects."""
        touched = self.desired.cluster.apply_event(event)
        if touched.services or touched.nodes:
            self.state.changed()
            count_change(self.state, event, touched)
        if touched:
            self.on_site(touched)
        self.desired.dirty.add(touched)

    def apply_rest(self) -> None:
        """Apply all waiting events until no more arrive; nothing is written for them."""
        with suppress(queue.Empty):
            while True:
                self._taken(self.inbox.signals.get_nowait())

    def _wait(self) -> str:
        """Wait for work and apply all that has arrived; return why to end, empty to continue."""
        ended = ""
        try:
            signal: Event | Wake = self.inbox.signals.get(timeout=self._due_in())
            while True:
                why = self._taken(signal)
                ended = why if why and ended != "stop" else ended  # events in the queue do not delay the end
                signal = self.inbox.signals.get_nowait()
        except queue.Empty:
            self.inbox.looked()
            return ended

    def _take_waiting(self) -> None:
        """Apply what has arrived, without waiting; entries that end the run are left for `_wait`."""
        ends: list[Event | Wake] = []
        with suppress(queue.Empty):
            while True:
                signal = self.inbox.signals.get_nowait()
                if self._taken(signal):
                    ends.append(signal)
        self.inbox.looked()
        for signal in ends:
            self.inbox.signals.put(signal)

    def _taken(self, signal: Event | Wake) -> str:
        """Apply an event or a wake-up; return why it ends the run, empty if it does not."""
        if not isinstance(signal, Wake):
            self.apply_event(signal)
        elif signal.why == "check":
            self.schedule.rules_changed()
        elif signal.why == "host":
            self.schedule.host_changed()
        else:
            return signal.why
        return ""

    def _due_in(self) -> float:
        """Return the seconds until something is due, however many events arrive."""
        due = self._work_due_in()
        late = self.once.give_up_at - self.clock() if self.once is not None else 0.0
        return min(due, late) if late > 0 else due

    def _work_due_in(self) -> float:
        if not self.has_synced():
            return UNSYNCED_S
        if self.node.is_waiting:
            return RENAMED_S if self.node.host_name() else NODE_S
        if self.once is not None and self.state.is_alive:
            return UNSYNCED_S
        sync_at = self.desired.next_sync_at(self.clock(), self.schedule.sync_at, self.schedule.check_at)
        due_s = self.schedule.due_in(min(sync_at, self.left_out.next_at or sync_at))
        return min(due_s, self._families.due_in())
