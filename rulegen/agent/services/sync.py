"""The loop: events make Services dirty, a sync writes what they come to, a check finds what others have changed.

watch ─► events ─► Cluster ─► dirty ─┬─► sync: only what is dirty ─► kernel
kernel's own notice, or time ────────┴─► check: read all, plan, write the difference
"""

from __future__ import annotations

import math
import queue
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from rulegen.agent.cluster import SharedCluster
from rulegen.agent.runtime.memory import trim
from rulegen.agent.services.drift import certain, damage, tell, written_keys
from rulegen.agent.services.left_out import LeftOut
from rulegen.agent.services.problems import KnownProblems
from rulegen.agent.services.turns import Turns
from rulegen.agent.telemetry.counts import count_change
from rulegen.agent.telemetry.events import EventRequest, ObjectReference, to_nobody
from rulegen.agent.telemetry.log import fault
from rulegen.compiler.services.attribution import Belongings
from rulegen.compiler.services.guards import lost_masquerade
from rulegen.compiler.services.incremental import ServiceRules
from rulegen.compiler.services.pinned import held
from rulegen.errors import ApplyError, HostError
from rulegen.host.dataplane.apply_in_parts import Apart
from rulegen.host.dataplane.refused_services import is_refusal, lacking_text
from rulegen.kube.node_names import unknown_node
from rulegen.kube.objects.names import ObjectName
from rulegen.kube.snapshot.cluster import Touched
from rulegen.model.services.limits import is_large
from rulegen.plan.fragments import IPVS
from rulegen.plan.objects import draining_text

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Hashable, Mapping

    from rulegen.agent.pages_server.health import ServiceHealth
    from rulegen.agent.services.dataplane import KernelReadout, KernelRevision, KernelWriter
    from rulegen.agent.telemetry.log import AgentLog
    from rulegen.agent.telemetry.state import AgentState
    from rulegen.compiler.services.compile import Compiled
    from rulegen.compiler.services.incremental import Update
    from rulegen.kube.objects.events import Event
    from rulegen.kube.objects.structs import Node
    from rulegen.model.services.ir import ResolvedService
    from rulegen.model.services.options import Options
    from rulegen.net import Address
    from rulegen.plan.fragments import OwnedObjects
    from rulegen.plan.items import Item
    from rulegen.plan.plan import Plan


def _is_leaving(node: Node) -> bool:
    """Whether a node is being taken out of the cluster (KEP-3836)."""
    return node.metadata.deletion_timestamp is not None or any(one.key == LEAVING_TAINT for one in node.spec.taints)


def name_of(owner: str) -> ObjectName:
    """Return the name of a Service that is told as `namespace/name`."""
    namespace, _, name = owner.partition("/")
    return ObjectName(namespace, name)


def _nothing() -> None:
    """Do nothing."""


FIRST_PAUSE_S: Final = 1.0
LONGEST_PAUSE_S: Final = 60.0
LEAVING_TAINT: Final = "ToBeDeletedByClusterAutoscaler"
OTHERS_S: Final = 5.0
"""How long another proxy is given to write what a change asks for, where foreign changes are only told."""
BREATHS: Final = 3
"""After a look at all rules that found nothing, foreign changes wait for so many times what it took."""
RENAMED_S: Final = 5.0
"""How long to wait for an event while there is no Node object of this node, and the host may get another name."""
NODE_S: Final = 60.0
"""How long to wait for an event while there is no Node object of this node, before that is looked at again."""
MOST_ROUNDS: Final = 3
"""So often Services that are refused are searched for in one check."""
UNSYNCED_S: Final = 0.05
"""How often to look whether what others do is done, as no event tells."""


@dataclass(frozen=True, slots=True)
class Wake:
    """Something that ends the loop's wait beside an event.

    Attributes:
        why: `check` to look at the kernel's rules, `host` to look at the facts of the host, `reload` to begin anew with
            other options, `stop` to end; empty to go on.
    """

    why: str


@dataclass(slots=True)
class SyncIntervals:
    """When what is done, in seconds.

    Attributes:
        min_sync_s: The least time between two syncs; changes in between are written together.
        sync_s: The most time between two checks of the kernel.
        quiet_s: How long to wait for more foreign changes, or changes of the host, before they are looked at.
    """

    min_sync_s: float = 1.0
    sync_s: float = 30.0
    quiet_s: float = 0.2


@dataclass(slots=True)
class Loop:
    """Keeps the rules of one node as the cluster wants them.

    Attributes:
        cluster: What is known of the cluster, for any thread to ask.
        signals: Events and wakes, put in by other threads.
        mends: Whether rules are written; else nothing is, and what is not as wanted is told.
        has_synced: Whether every list has come once; before that nothing is written.
        once: Whether to end when all is written once.
        give_up_at: When to give up, by the clock, if it lacks something then; only with `once`.
        lacks: Returns what it waits for that comes from elsewhere; empty for nothing.
        needs_node: Whether nothing is written before the cluster knows this node: with a mistyped name, all endpoints
            would count as those of other nodes.
        node_names: Tells which Nodes there are, for whoever has mistyped a name.
        host_name: Returns the host's name as it is now, where the node's name is that of the host; else nothing.
        is_done: Whether what others write at the same time is written once, too.
        health: Tells load balancers of Services; None for nobody.
        on_site: Called when anything changed that Ingresses are made of; None where they are not served.
        on_synced: Called once, when every list has come.
        on_ready: Called when all was written for the first time.
        tell: Tells users, by events, what they must know.
        known: The Node object that rules were last decided with; what it says holds while a newer one says nothing.
    """

    options: Options
    writer: KernelWriter
    state: AgentState
    journal: AgentLog
    timing: SyncIntervals
    counts: bool
    clock: Callable[[], float]
    has_synced: Callable[[], bool]
    mends: bool = True
    once: bool = False
    give_up_at: float = math.inf
    lacks: Callable[[], str] = str
    needs_node: bool = False
    node_names: Callable[[], Collection[str]] = tuple
    host_name: Callable[[], str] = str
    is_done: Callable[[], bool] = lambda: True
    health: ServiceHealth | None = None
    on_site: Callable[[], None] | None = None
    on_synced: Callable[[], None] | None = None
    on_ready: Callable[[], None] = _nothing
    tell: Callable[[EventRequest], None] = to_nobody
    signals: queue.SimpleQueue[Event | Wake] = field(default_factory=queue.SimpleQueue)
    cluster: SharedCluster = field(default_factory=SharedCluster)
    known: Node | None = None
    _rules: ServiceRules | None = None
    _dirty: Touched = field(default_factory=Touched)
    _check_at: float = 0.0
    _sync_at: float = 0.0
    _look_at: float = math.inf
    _looked_at: float = -math.inf
    _pause_s: float = 0.0
    _again_at: float = 0.0
    _must_check: bool = True
    _mark: KernelRevision | None = None
    _breath_s: float = 0.0
    _warned: int = -1
    _left: frozenset[Item] = frozenset()
    _waits: bool = False
    _other_name: str = ""
    _attempted: set[Hashable] = field(default_factory=set)
    _left_out: LeftOut = field(init=False)
    _held: tuple[OwnedObjects, ...] = ()
    _notes: tuple[str, ...] = ()
    _parameters: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _concerns: KnownProblems = field(init=False)
    _turns: Turns = field(default_factory=Turns)
    _beside_s: float = 0.0

    def __post_init__(self) -> None:
        """Have been told of nothing yet."""
        self._concerns = KnownProblems(self.journal, self.state)
        self._left_out = LeftOut(self.journal, self.state, self._announce, self.cluster.uid_of)

    def run(self) -> str:
        """Keep on until a wake ends it; return why it ended."""
        while True:
            is_complete = self.has_synced()  # asked first: the list that completes it is taken below
            ended = self._wait()
            if ended:
                return ended
            if self.once and self.clock() >= self.give_up_at and self.lacks():
                return "late"
            if is_complete and self._waits_for_node():
                if name := self._new_name():
                    self.journal.info("the host has another name by now: it begins anew as that node", name=name)
                    return "reload"
            elif is_complete:
                self.state.listed()
                if self.on_synced is not None:
                    self.on_synced()
                    self.on_synced = None
                self.turn()
                if self.once and self.state.is_alive and self.is_done():
                    return "once"

    def _waits_for_node(self) -> bool:
        """Tell whether the cluster does not know this node yet; say so once when it begins, and when it ends."""
        if not self.needs_node:
            return False
        if self.node() is not None:
            self.needs_node = False  # a Node that is deleted later does not stop the agent
            if self._waits:
                self.journal.info("the Node is there", node=self.node_name)
            self._waits = False
            return False
        if not self._waits:
            self._waits = True
            reason = f"{unknown_node(self.node_name, self.node_names())}; nothing is written until it is there"
            self.state.waits(reason)
            self.journal.warning(
                "waits for the Node", error=reason, hint="name this node with --node, or say --allow-unknown-node"
            )
        return True

    def _new_name(self) -> str:
        """Return the host's name where it is another one since this was asked last; else nothing."""
        name = self.host_name()
        if name in {"", self.node_name, self._other_name}:
            return ""
        self._other_name = name
        return name

    def turn(self) -> None:
        """Do what is due: a check where one is, else a sync of what is dirty."""
        now = self.clock()
        if now < self._again_at:  # what failed is not tried more often because more has come
            return
        if (self._dirty.nodes or now >= self._look_at) and not self._guarded(self.follow):
            return
        self._dirty.services |= self._left_out.due(now)
        if self._rules is not None and not self._must_check and now >= self._check_at and self._is_untouched():
            self._check_at = self.clock() + self.timing.sync_s
            if self._warned != self.state.applied:
                self._tell_warnings(self._rules)
                self._warned = self.state.applied
            self._tell_health(self._rules, {})
            self.reconcile()
        is_due = self._rules is None or now >= self._check_at
        work = self.check if is_due else self.sync if self._has_changes and now >= self._sync_at else None
        if work is not None and self._guarded(work):
            self._pause_s = 0.0

    @property
    def _has_changes(self) -> bool:
        """Whether anything waits for a sync that may be written now."""
        if self._rules is None:
            return bool(self._dirty.services)
        if self._rules.is_behind:
            return True
        small, large = self._by_size(self._rules)
        return bool(small) or self._turns.chosen(large, self.clock()) is not None

    def _by_size(self, rules: ServiceRules) -> tuple[set[ObjectName], set[ObjectName]]:
        """Return the Services that wait for a sync: those that are written at once, and the large ones."""
        names = self._dirty.services
        large = {name for name in names if is_large(self.cluster.objects.service(name), rules.before(name))}
        self._turns.wait(large, self.clock())
        return names - large, large

    def _is_untouched(self) -> bool:
        """Whether nobody can have changed anything since we wrote: then there is no need to read all of it."""
        rules = self._rules
        if rules is None or rules.is_behind or self._mark is None:
            return False
        try:
            self._refresh()
            if self._rules is None or self._rules.is_behind:
                return False
            is_untouched = self.writer.has_parameters(self._rules.sysctls) and self.writer.is_untouched(self._mark)
        except HostError:  # it is about to be looked at in full, and told then
            return False
        if is_untouched and self._rules.has_outgrown:
            with self._lock:
                self._rules.settle_comments()
        return is_untouched

    def follow(self) -> None:
        """Take the facts of the host and the Node as they are now, and have all decided anew where it must be.

        Raises:
            HostError: They cannot be read.
        """
        generation, gained = self.state.desired, self._refresh()
        rules = self._rules
        if rules is None:
            return
        self._dirty.nodes = False
        self._tell_warnings(rules)
        self._tell_health(rules, {})
        if gained:  # an address that comes back brings what was remembered of it
            self.reconcile()
        if not self._dirty.services and not rules.is_behind and not self._must_check:
            self.state.wrote(generation)

    def _refresh(self) -> frozenset[Address]:
        """Take the facts of the host and the Node as they are now; return the addresses that the node has gained.

        Raises:
            HostError: They cannot be read.
        """
        self._look_at, self._looked_at = math.inf, self.clock()
        if name := self._new_name():
            self.journal.warning(
                "the host has another name now: the node's name stays",
                name=name,
                node=self.node_name,
                hint="start it anew to have it keep the rules of a Node of that name, or name the node with --node",
            )
        gained = self.writer.refresh()
        if self._rules is not None:
            with self._lock:
                touched = self._rules.follow(self.writer.facts)
            if touched is None:
                self._rules = None
            else:
                self.known = self._rules.known
                self._dirty.services |= touched
        return gained

    def hear(self, event: Event) -> None:
        """Have an event taken; called by other threads."""
        self.state.arrived()  # first: else it may be taken before it is noted, and then seem to wait
        self.signals.put(event)

    def take(self, event: Event) -> None:
        """Take one event; what it touches is written with the next sync."""
        touched = self.cluster.take(event)
        if touched.services or touched.nodes:
            self.state.changed()
            count_change(self.state, event, touched)
        if touched.site and self.on_site is not None:
            self.on_site()
        self._dirty.add(touched)

    def take_rest(self) -> None:
        """Take what came until nobody tells anything any more; nothing is written for it."""
        with suppress(queue.Empty):
            while True:
                self._taken(self.signals.get_nowait())

    def node(self) -> Node | None:
        """Return this node's object, for any thread; None where there is none."""
        return self.cluster.node(self.node_name)

    @property
    def node_name(self) -> str:
        """The name of this node."""
        return self.options.node_name or self.writer.facts.hostname

    def sync(self) -> None:
        """Write what the dirty Services come to.

        Raises:
            HostError: A write failed.
        """
        rules = self._rules
        if rules is None:
            return
        small, large = self._by_size(rules)
        if (small or not large or rules.is_behind) and not self._sync(rules, small):
            return
        if small:
            self._turns.wrote_others(self.clock())
        name = self._turns.chosen(large, self.clock())
        if name is not None:  # also where all is to be read soon: what others write without pause is read with pauses
            began, self._beside_s = self.clock(), 0.0
            self._sync(rules, {name}, writes_others=True)
            self._turns.wrote(name, self.clock() - began - self._beside_s, self.clock())

    def _sync(self, rules: ServiceRules, names: set[ObjectName], *, writes_others: bool = False) -> bool:
        """Write what some of the dirty Services come to; with `writes_others`, what becomes dirty meanwhile too.

        Returns:
            False where it was refused: all is read next, and written in parts.

        Raises:
            HostError: A write failed.
        """
        began = self.clock()
        self._dirty.services -= names
        keys: set[Hashable] = set()
        try:
            with self._lock:
                update = self._update(rules, names)
            keys = written_keys(update.plan)
            before = {name: rules.before(name) for name in update.services}
            between = self._beside(rules, update) if writes_others else None
            calls = self.writer.write_update(update, before, between) if self.mends else 0
            self._attempted |= keys if not self.mends else set()  # whoever writes here may be late
        except HostError as error:
            self._dirty.services |= names
            self._attempted |= keys
            self.state.metrics.restore_failures.add()
            self.state.metrics.partial_restore_failures.add()
            if not is_refusal(error):
                raise
            self._must_check, self._check_at = True, self.clock()
            return False
        self._committed(rules, update, began, calls)
        return True

    def _committed(self, rules: ServiceRules, update: Update, began: float, calls: int) -> None:
        """Note that an update was written."""
        with self._lock:
            rules.commit(update)
        self._settle(rules)
        self._tell_health(rules, update.services)
        if self._dirty.services or self._dirty.nodes:  # at least one change waits
            generation = max(self.state.applied, self.state.desired - 1)
            self.state.wrote(generation, oldest=self._turns.oldest(self.clock()))
        else:
            self.state.wrote(self.state.desired)
        self.state.metrics.syncs.add(self.clock() - began)
        self.state.metrics.partial_syncs.add(self.clock() - began)
        self._sync_at = self.clock() + self.timing.min_sync_s
        if not self.mends:  # whoever writes the rules here is given time for it, and then looked at
            self._must_check, self._check_at = True, self.clock() + OTHERS_S
        if calls:
            self.state.metrics.writes.add(calls)
            self.journal.debug("synced", services=len(update.services), calls=calls)

    def _beside(self, rules: ServiceRules, large: Update) -> Callable[[], None]:
        """Return what takes events and writes small changes while a large one is written, between two of its calls."""
        put_off: set[ObjectName] = set()

        def write() -> None:
            self._take_waiting()
            if self.clock() < self._sync_at:
                return
            small = self._by_size(rules)[0] - large.services.keys() - put_off - rules.left_out
            if not small:
                return
            if not self._sync_beside(rules, small, large):
                put_off.update(name for name in small if len(small) == 1 or not self._sync_beside(rules, {name}, large))

        return write

    def _sync_beside(self, rules: ServiceRules, names: set[ObjectName], large: Update) -> bool:
        """Write small Services while a large one is being written; return False where they must wait for it.

        Raises:
            HostError: A write failed: neither is known to be written.
        """
        began = self.clock()
        with self._lock:
            update = rules.update_beside(names, large)
        if update is None:
            return False
        belongings = Belongings(one for one in update.fragments.values() if one is not None)
        if self._left_out.refused(belongings, self.clock(), lacking_text):
            return False
        try:
            calls = self.writer.write_update(update, {name: rules.before(name) for name in update.services})
        except HostError:
            self._attempted |= written_keys(update.plan)
            raise
        self._dirty.services -= names
        self._committed(rules, update, began, calls)
        self._turns.wrote_others(self.clock())
        self._beside_s += self.clock() - began
        return True

    def _take_waiting(self) -> None:
        """Take what has come, without waiting; what ends the loop is left for it."""
        ends: list[Event | Wake] = []
        with suppress(queue.Empty):
            while True:
                signal = self.signals.get_nowait()
                if self._taken(signal):
                    ends.append(signal)
        self.state.looked()
        for signal in ends:
            self.signals.put(signal)

    def check(self) -> None:
        """Read the kernel, and write all by which it differs from what is wanted; tell what others have changed.

        Raises:
            HostError: It cannot be read or written.
        """
        began, generation = self.clock(), self.state.desired
        self._refresh()
        if self._rules is not None and self._rules.is_behind:
            self._rules = None  # else what the node's addresses change would be told as changed by others
        is_first = self._rules is None
        changed, self._dirty = self._dirty, Touched(site=self._dirty.site)
        touched = changed.services
        try:
            with ThreadPoolExecutor(1, "read") as pool:  # a tool prints the rules while we decide what they should be
                reading = pool.submit(self.writer.read)
                if self._rules is None:
                    self._rules = ServiceRules(
                        self.cluster.objects, self.options, self.writer.facts, counts=self.counts, known=self.known
                    )
                    self.known = self._rules.known
                elif touched:
                    touched = self._take_touched(self._rules, touched)
                found = reading.result()
            if is_first:
                self._leave_out_again(self._rules, found, touched)
            compiled = self._rules.compiled()
            plan = self.writer.plan(compiled, found)
            for warning in lost_masquerade(compiled, plan):
                self.journal.warning(warning)
            self._tell_damage(plan, is_first=is_first, changed=touched)
            plan = self._write(self._rules, plan, found)
            self._notes = plan.notes
            self._tell_parameters()
            self._rules.remember_kernel_state(plan)
            self._settle(self._rules)
            self._attempted.clear()
        except HostError as error:
            self._rules, self._dirty.services = None, self._dirty.services | changed.services
            if is_refusal(error):  # maybe of what was kept of a Service, which must not stop all others
                self._held = ()
            raise
        self._tell_warnings(self._rules)
        self._concerns.connections(found.conntrack_error)
        # Since before the reading: what others write while we read or write is looked at once more.
        self._mark = found.mark
        self._must_check = False
        self._tell_health(self._rules)
        self.state.wrote(generation)
        on_ready, self.on_ready = self.on_ready, _nothing
        on_ready()
        took = self.clock() - began
        self.state.metrics.syncs.add(took)
        self.state.metrics.full_syncs.add(took)
        self._check_at = self.clock() + self.timing.sync_s
        # Who writes rules of their own without pause is not looked at without pause.
        self._breath_s = BREATHS * took if plan.is_empty else 0.0
        del plan, found, reading, compiled
        trim()

    def _take_touched(self, rules: ServiceRules, touched: set[ObjectName]) -> set[ObjectName]:
        """Decide anew about Services that a check writes, too; return them and those that share a claim with them."""
        leaving = {(IPVS, key.frontend.family.value, key) for key in rules.leaving}  # go with their virtual server
        with self._lock:
            update = self._update(rules, touched)
            rules.commit(update, is_written=False)
        self._attempted |= written_keys(update.plan) | leaving
        return set(update.services)

    def reconcile(self) -> None:
        """Forget connections that nobody serves, though no Service changed: some were made while one did.

        Where that cannot be done, it is told, and tried again the next time: no rule depends on it.
        """
        rules = self._rules
        if rules is None or not self.mends:
            return
        try:
            self.writer.reconcile(rules.services, rules.nodes)
        except HostError as error:
            self._concerns.connections(error)
        else:
            self._concerns.connections(None)

    def compiled_services(self) -> Collection[ResolvedService]:
        """Return the Services as they are in the kernel."""
        return self._rules.services if self._rules is not None else ()

    def left_out(self) -> tuple[str, ...]:
        """Return for people which Services are left out, and why."""
        return tuple(self._left_out.texts())

    def compiled(self) -> Compiled | None:
        """Return all that is wanted now, for another thread to look at; None before it is known."""
        with self._lock:
            return self._rules.compiled() if self._rules is not None else None

    def _tell_warnings(self, rules: ServiceRules) -> None:
        """Log, and tell users, what is new of what they must know although work goes on."""
        self._concerns.warnings((*rules.warnings, *filter(None, [self.writer.beside]), *self._notes))
        self._concerns.conflicts(rules.conflicts, self.tell, self.cluster.uid_of)
        self._concerns.over_limits(rules.services, self.tell, self.cluster.uid_of)

    def _tell_health(
        self, rules: ServiceRules, changed: Mapping[ObjectName, ResolvedService | None] | None = None
    ) -> None:
        """Tell load balancers, and whoever asks us, how the node is now; without `changed` all may be otherwise."""
        node = self.cluster.node(rules.node_name)
        self.state.node_is_deleted(deleted=node is None or _is_leaving(node))
        self._concerns.node(rules.kept)
        if self.health is not None:
            self.health.serve_on(rules.nodes)
            if changed is None:
                self.health.take(rules.services, self.cluster.uid_of, rules.left_out)
            else:
                self.health.change(changed, self.cluster.uid_of)
        self.state.metrics.services.set(len(rules.services))
        self._concerns.rejected(self.cluster.rejected(), self.tell)

    def reference(self) -> ObjectReference:
        """Return what an event about this node is about; kubelets too call a node without a known UID by its name."""
        node = self.node()
        return ObjectReference("v1", "Node", "", self.node_name, (node and node.metadata.uid) or self.node_name)

    def _announce(self, what: EventRequest) -> None:
        self.tell(what)  # as it is by then

    def announce_damage(self, note: str) -> None:
        """Tell users, by an event on the node, what others have changed."""
        reason, action = ("DriftMended", "Mend") if self.mends else ("DriftFound", "Report")
        self.tell(EventRequest(self.reference(), reason, action, note))

    def _tell_damage(self, plan: Plan, *, is_first: bool, changed: set[ObjectName]) -> None:
        """Tell what others have changed; and where nothing is written, apart from it, what else is not as wanted.

        At a first look nobody knows what the node had before: others' work is then only what is certain.
        """
        fresh = [item for item in plan.items if item not in self._left]  # what stays so is told once
        ended = {draining_text(key) for part in plan.objects.values() for key in part.ended}
        if is_first:
            found = damage(() if self.mends else certain(fresh), (), ended)
        else:
            found = damage(fresh, changed if self.mends else (), ended, self._attempted)
        tell(found, self.state, self.journal, self.announce_damage, mended=self.mends)
        others = len(fresh) - len(found)
        if others and not self.mends:
            self.journal.info("not as wanted", differences=others, written=False)
            note = f"{others} differences from what the objects ask for; nothing is written"
            self.tell(EventRequest(self.reference(), "DifferenceFound", "Report", note))
        self._left = frozenset() if self.mends else frozenset(plan.items)
        self.state.metrics.drift_unmended.set(len(self._left))

    def _write(self, rules: ServiceRules, plan: Plan, found: KernelReadout) -> Plan:
        """Write a plan of the whole; Services that are refused are left out, and the rest is written.

        Returns:
            The plan that was written last.

        Raises:
            HostError: It was refused, whoever is left out.
        """
        first = found
        for _ in range(MOST_ROUNDS):
            try:
                self._write_whole(plan)
            except HostError as error:
                self.state.metrics.restore_failures.add()
                if not is_refusal(error):
                    raise
                self._leave_out_refused(rules, plan, first, error)
                found = self.writer.read()
                plan = self.writer.plan(rules.compiled(), found)
            else:
                return plan
        self._write_whole(plan)
        return plan

    def _write_whole(self, plan: Plan) -> None:
        if plan.is_empty or not self.mends:
            return
        calls = self.writer.write(plan)
        self.state.metrics.writes.add(calls)
        self.state.metrics.deleted_flows.add(len(plan.flows))
        self.journal.info("written", changes=len(plan.items), calls=calls)

    def _leave_out_refused(self, rules: ServiceRules, plan: Plan, first: KernelReadout, error: HostError) -> None:
        """Find the Services that are refused, write the others, and leave these out as they were at first.

        Raises:
            HostError: It is not by a Service.
        """
        compiled = rules.compiled()
        apart = Apart(compiled, plan, self.writer.write, lambda: self.writer.plan(compiled))
        verdict = apart.search(error)
        if not verdict.refused:
            raise error
        names = {name_of(owner): reason for owner, reason in verdict.refused.items()}
        with self._lock:
            rules.leave_out(names, self._there(compiled, first, verdict.refused))
            rules.commit(rules.update(()))  # who shared a claim with them has it now
        now = self.clock()  # of both: when the Services are tried again, what the kernel lacked must be forgotten
        self._left_out.take(names, now, {name_of(owner) for owner in verdict.untried})
        self._left_out.lack(verdict.lacking, now)
        self.journal.info("written in parts", tries=verdict.tries, left_out=len(names))

    def _leave_out_again(self, rules: ServiceRules, found: KernelReadout, touched: set[ObjectName]) -> None:
        """Leave those out that were refused before all was decided anew, unless they have changed since."""
        names = {name for name in self._left_out.names - touched if rules.before(name) is not None}
        if names:
            compiled = rules.compiled()
            there = self._there(compiled, found, {str(name) for name in names})
            with self._lock:
                rules.leave_out(names, there)
                rules.commit(rules.update(()))

    def _there(self, compiled: Compiled, reading: KernelReadout, owners: Collection[str]) -> list[OwnedObjects]:
        """Return what the node has of some Services: as it is known since they were left out, else as it is recognised.

        By its new form alone a Service's old rules are not all recognised, as where its protocol is another one.
        """
        known = [one for one in self._held if one.owner in owners]
        return [*held(compiled, self.writer.observed(compiled, reading), owners), *known]

    def _settle(self, rules: ServiceRules) -> None:
        """Note, behind a write, which Services are still left out, and what the node has of them."""
        self._left_out.settle(rules.left_out)
        self._held = rules.held

    def _update(self, rules: ServiceRules, names: Collection[ObjectName]) -> Update:
        """Decide anew about Services; those are left out that need what the kernel was just seen to refuse to all."""
        update = rules.update(names)
        belongings = Belongings(one for one in update.fragments.values() if one is not None)
        refused = self._left_out.refused(belongings, self.clock(), lacking_text)
        if not refused:
            return update
        reasons = {name_of(owner): reason for owner, reason in refused.items()}
        rules.leave_out(reasons)
        self._left_out.take(reasons, self.clock())
        return rules.update(())

    def _tell_parameters(self) -> None:
        """Tell of the kernel parameters that no write could set, those before one that was refused too."""
        for name in sorted(self.writer.refused.keys() - self._parameters):
            self.tell_refused(name, self.writer.refused[name])

    def tell_refused(self, name: str, error: str) -> None:
        """Tell that a kernel parameter may not be set here: somebody else has to."""
        self._parameters.add(name)
        self.journal.warning("kernel parameter not set", name=name, error=error)
        self.state.metrics.parameters_refused.set(len(self.writer.refused))
        self.tell(EventRequest(self.reference(), "ParameterNotSet", "SetParameter", error))

    def _guarded(self, work: Callable[[], None]) -> bool:
        """Do some work, and return whether it was done; where it fails, say so and try again, after longer pauses."""
        try:
            work()
        except HostError as error:
            fields = {"written": "; ".join(error.applied)} if isinstance(error, ApplyError) else {}
            self._failed({**fault(error), **fields})
        except Exception as error:  # noqa: BLE001 - whatever it is, this node must be kept: all is decided anew
            self._rules = None
            self._failed(fault(error))
        else:
            return True
        return False

    def _failed(self, fields: Mapping[str, str]) -> None:
        """Say what failed, and when it is tried again."""
        self._pause_s = min(max(self._pause_s * 2, FIRST_PAUSE_S), LONGEST_PAUSE_S)
        self.state.failed(fields["error"])
        self.journal.error("not written", again_in_s=self._pause_s, **fields)
        self.tell(EventRequest(self.reference(), "FailedToSync", "Sync", fields["error"]))
        self._must_check = True
        self._again_at = self._check_at = self._sync_at = self.clock() + self._pause_s

    def _wait(self) -> str:
        """Wait for something to do, and take all that has come; return why to end, empty for not at all."""
        ended = ""
        try:
            signal: Event | Wake = self.signals.get(timeout=self._patience())
            while True:
                told = self._taken(signal)
                ended = told if told and ended != "stop" else ended  # an end is not put off by what comes behind it
                signal = self.signals.get_nowait()
        except queue.Empty:
            self.state.looked()
            return ended

    def _taken(self, signal: Event | Wake) -> str:
        if not isinstance(signal, Wake):
            self.take(signal)
            return ""
        if signal.why == "check":
            self._must_check = True
            self._check_at = min(self._check_at, self.clock() + max(self.timing.quiet_s, self._breath_s))
            return ""
        if signal.why == "host":
            soonest = max(self.clock() + self.timing.quiet_s, self._looked_at + self.timing.min_sync_s)
            self._look_at = min(self._look_at, soonest)
            return ""
        return signal.why

    def _patience(self) -> float:
        """Return how long nothing is due."""
        due = self._due_in()
        late = self.give_up_at - self.clock()
        return min(due, late) if self.once and late > 0 else due

    def _due_in(self) -> float:
        if not self.has_synced():
            return UNSYNCED_S
        if self._waits:
            return RENAMED_S if self.host_name() else NODE_S
        if self.once and self.state.is_alive:
            return UNSYNCED_S
        due = self._next_sync_at()
        due = min(due, self._left_out.next_at or due)
        if self._must_check or self._dirty.nodes:
            due = min(due, self._check_at)
        return max(min(due, self._check_at, self._look_at) - self.clock(), self._again_at - self.clock(), 0.0)

    def _next_sync_at(self) -> float:
        """Return when the next sync is due; where nothing waits for one, when the next check is."""
        if self._rules is None or self._rules.is_behind or not self._dirty.services:
            return self._sync_at if self._has_changes else self._check_at
        small, large = self._by_size(self._rules)
        if small:
            return self._sync_at
        return max(self._sync_at, min(self._turns.next_at(name) for name in large))
