"""The loop: events make Services dirty, a sync writes what they come to, a check finds what others have changed.

watch ─► events ─► Cluster ─► dirty ─┬─► sync: only what is dirty ─► kernel
kernel's own notice, or time ────────┴─► check: read all, plan, write the difference
"""

from __future__ import annotations

import queue
import threading
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING, Final

from rulegen.agent.drift import damage
from rulegen.agent.memory import give_back
from rulegen.errors import ApplyError, HostError, Rejected
from rulegen.kube.cluster import Cluster, Touched
from rulegen.road.services import ServiceRules

if TYPE_CHECKING:
    from collections.abc import Callable

    from rulegen.agent.health import ServiceHealth
    from rulegen.agent.journal import Journal
    from rulegen.agent.state import AgentState
    from rulegen.agent.writer import KernelWriter
    from rulegen.kube.events import Event
    from rulegen.kube.objects import Node
    from rulegen.kube.validate import Decoded
    from rulegen.kube.world import ObjectName
    from rulegen.model.options import Options
    from rulegen.plan.plan import Plan
    from rulegen.road import Compiled


def _is_leaving(node: Node) -> bool:
    """Whether a node is being taken out of the cluster (KEP-3836)."""
    return node.metadata.deletion_timestamp is not None or any(one.key == LEAVING_TAINT for one in node.spec.taints)


def _nothing() -> None:
    """Do nothing."""


FIRST_PAUSE_S: Final = 1.0
LONGEST_PAUSE_S: Final = 60.0
LEAVING_TAINT: Final = "ToBeDeletedByClusterAutoscaler"
OTHERS_S: Final = 5.0
"""How long another proxy is given to write what a change asks for, where foreign changes are only told."""
SHOWN: Final = 5
"""Of things that others have changed, so many are told one by one."""


@dataclass(frozen=True, slots=True)
class Wake:
    """Something that ends the loop's wait beside an event.

    Attributes:
        why: `check` to look at the kernel, `reload` to begin anew with other options, `stop` to end.
    """

    why: str


@dataclass(slots=True)
class Timing:
    """When what is done, in seconds.

    Attributes:
        min_sync_s: The least time between two syncs; changes in between are written together.
        sync_s: The most time between two checks of the kernel.
        quiet_s: How long to wait for more foreign changes before they are looked at.
    """

    min_sync_s: float = 1.0
    sync_s: float = 30.0
    quiet_s: float = 0.2


@dataclass(slots=True)
class Loop:
    """Keeps the rules of one node as the cluster wants them.

    Attributes:
        signals: Events and wakes, put in by other threads.
        mends: Whether rules are written; else nothing is, and what is not as wanted is told.
        has_synced: Whether every list has come once; before that nothing is written.
        once: Whether to end when all is written once.
        health: Tells load balancers of Services; None for nobody.
        on_site: Called when anything changed that Ingresses are made of; None where they are not served.
        on_synced: Called once, when every list has come.
        on_ready: Called when all was written for the first time.
    """

    options: Options
    writer: KernelWriter
    state: AgentState
    journal: Journal
    timing: Timing
    counts: bool
    clock: Callable[[], float]
    has_synced: Callable[[], bool]
    mends: bool = True
    once: bool = False
    health: ServiceHealth | None = None
    on_site: Callable[[], None] | None = None
    on_synced: Callable[[], None] | None = None
    on_ready: Callable[[], None] = _nothing
    signals: queue.SimpleQueue[Event | Wake] = field(default_factory=queue.SimpleQueue)
    cluster: Cluster = field(default_factory=Cluster)
    _rules: ServiceRules | None = None
    _dirty: Touched = field(default_factory=Touched)
    _check_at: float = 0.0
    _sync_at: float = 0.0
    _pause_s: float = 0.0
    _again_at: float = 0.0
    _must_check: bool = True
    _kernel: int | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def run(self) -> str:
        """Keep on until a wake ends it; return why it ended."""
        while True:
            ended = self._wait()
            if ended:
                return ended
            if self.has_synced():
                if self.on_synced is not None:
                    self.on_synced()
                    self.on_synced = None
                self.turn()
                if self.once and self.state.is_alive:
                    return "once"

    def turn(self) -> None:
        """Do what is due: a check where one is, else a sync of what is dirty."""
        now = self.clock()
        if now < self._again_at:  # what failed is not tried more often because more has come
            return
        if self._dirty.nodes:
            self._rules = None
        if self._rules is not None and not self._must_check and now >= self._check_at and self._is_untouched():
            self._check_at = self.clock() + self.timing.sync_s
        if self._rules is None or now >= self._check_at:
            self._guarded(self.check)
        elif self._dirty.services and now >= self._sync_at:
            self._guarded(self.sync)

    def _is_untouched(self) -> bool:
        """Whether nobody can have changed anything since we wrote: then there is no need to read all of it."""
        if self._rules is None or self._dirty.services or self._kernel is None:
            return False
        return self.writer.generation() == self._kernel and self.writer.has_parameters(self._rules.sysctls)

    def take(self, event: Event) -> None:
        """Take one event; what it touches is written with the next sync."""
        with self._lock:
            touched = self.cluster.take(event)
        if touched.services or touched.nodes:
            self.state.changed()
        if touched.site and self.on_site is not None:
            self.on_site()
        self._dirty.add(touched)

    def snapshot(self) -> list[Decoded | Rejected]:
        """Return all objects, for another thread."""
        with self._lock:
            return self.cluster.snapshot()

    def sync(self) -> None:
        """Write what the dirty Services come to.

        Raises:
            HostError: A write failed.
        """
        rules = self._rules
        if rules is None:
            return
        began, generation = self.clock(), self.state.desired
        names, self._dirty = self._dirty.services, Touched(site=self._dirty.site)
        is_known = self._kernel is not None and self._kernel == self.writer.generation()
        try:
            with self._lock:
                update = rules.update(names)
            before = {name: rules.before(name) for name in update.services}
            calls = self.writer.write_update(update, before) if self.mends else 0
        except HostError:
            self._dirty.services |= names
            raise
        with self._lock:
            rules.commit(update)
        self._tell_health(rules)
        # Where others have written before, what they did is not known yet: it must be read.
        self._kernel = self.writer.generation() if is_known else None
        self.state.wrote(generation)
        self.state.syncs.add(self.clock() - began)
        self._sync_at = self.clock() + self.timing.min_sync_s
        if not self.mends:  # whoever writes the rules here is given time for it, and then looked at
            self._must_check, self._check_at = True, self.clock() + OTHERS_S
        if calls:
            self.state.count("writes", by=calls)
            self.journal.debug("synced", services=len(update.services), calls=calls)

    def check(self) -> None:
        """Read the kernel, and write all by which it differs from what is wanted; tell what others have changed.

        Raises:
            HostError: It cannot be read or written.
        """
        began, generation = self.clock(), self.state.desired
        if self.writer.moved():
            self._rules = None
        is_first = self._rules is None
        changed, self._dirty = self._dirty, Touched(site=self._dirty.site)
        touched = changed.services
        try:
            if self._rules is None:
                self._rules = ServiceRules(self.cluster, self.options, self.writer.facts, counts=self.counts)
            elif touched:
                with self._lock:
                    update = self._rules.update(touched)
                    self._rules.commit(update)
                touched = set(update.services)  # those too that share a claim with them
            plan = self.writer.plan(self._rules.compiled())
            self._write(plan, is_first=is_first, changed=touched)
            self._rules.drain_only(plan)
        except HostError:
            self._rules, self._dirty.services = None, self._dirty.services | changed.services
            raise
        del plan
        give_back()
        self._kernel = self.writer.generation()
        self._must_check = False
        self._tell_health(self._rules)
        self.state.wrote(generation)
        if is_first:
            self.on_ready()
        self.state.full_syncs.add(self.clock() - began)
        self._check_at = self.clock() + self.timing.sync_s

    def compiled(self) -> Compiled | None:
        """Return all that is wanted now, for another thread to look at; None before it is known."""
        with self._lock:
            return self._rules.compiled() if self._rules is not None else None

    def _tell_health(self, rules: ServiceRules) -> None:
        node = self.cluster.node(rules.node_name)
        self.state.node_is_deleted(deleted=node is None or _is_leaving(node))
        if self.health is not None:
            self.health.take(rules.services)
        self.state.gauge("services", len(rules.services))
        self.state.gauge("rejected", len(self.cluster.rejected))

    def _write(self, plan: Plan, *, is_first: bool, changed: set[ObjectName]) -> None:
        found = damage(plan, set() if not self.mends else changed) if not (is_first and self.mends) else []
        for kind, of_kind in groupby(sorted(found), key=lambda one: one.kind):
            texts = [one.text for one in of_kind]
            self.state.count("drift", kind, by=len(texts))
            shown = "; ".join(texts[:SHOWN])
            self.journal.warning("changed by others", kind=kind, count=len(texts), what=shown, mended=self.mends)
        self.state.gauge("drift_unmended", 0 if self.mends else len(plan.items))
        if plan.is_empty or not self.mends:
            return
        refused = set(self.writer.refused)
        calls = self.writer.write(plan)
        for name in sorted(self.writer.refused.keys() - refused):
            self.journal.warning("kernel parameter not set", name=name, error=self.writer.refused[name])
        self.state.count("writes", by=calls)
        self.journal.info("written", changes=len(plan.items), calls=calls)

    def _guarded(self, work: Callable[[], None]) -> None:
        """Do some work; where it fails, say so and try again, after ever longer pauses."""
        try:
            work()
        except HostError as error:
            self._pause_s = min(max(self._pause_s * 2, FIRST_PAUSE_S), LONGEST_PAUSE_S)
            self.state.failed(error.message)
            fields = {"written": "; ".join(error.applied)} if isinstance(error, ApplyError) else {}
            self.journal.error("not written", error=error.message, hint=error.hint, again_in_s=self._pause_s, **fields)
            self._must_check = True
            self._again_at = self._check_at = self._sync_at = self.clock() + self._pause_s
        else:
            self._pause_s = 0.0

    def _wait(self) -> str:
        """Wait for something to do, and take all that has come; return why to end, empty for not at all."""
        ended = ""
        try:
            signal: Event | Wake = self.signals.get(timeout=self._patience())
            while True:
                ended = self._taken(signal) or ended
                signal = self.signals.get_nowait()
        except queue.Empty:
            return ended

    def _taken(self, signal: Event | Wake) -> str:
        if not isinstance(signal, Wake):
            self.take(signal)
            return ""
        if signal.why == "check":
            self._must_check = True
            self._check_at = min(self._check_at, self.clock() + self.timing.quiet_s)
            return ""
        return signal.why

    def _patience(self) -> float:
        """Return how long nothing is due."""
        if not self.has_synced():
            return 0.05
        due = self._sync_at if self._dirty.services else self._check_at
        if self._must_check or self._dirty.nodes:
            due = min(due, self._check_at)
        return max(min(due, self._check_at) - self.clock(), self._again_at - self.clock(), 0.0)
