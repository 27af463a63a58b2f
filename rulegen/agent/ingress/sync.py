"""The agent's ingress: what changes of Ingresses, their Services and Secrets come to, served by nginx in batches.

A reload costs memory and cuts old connections in the end, so changes are gathered: until it has been quiet for a
moment, but not for long, and never more often than a few times what the last reload took. Meanwhile the kernel's rules,
which are changed at once, serve what nginx still passes on to servers that are gone.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from rulegen.agent.ingress.index import ReferenceIndex
from rulegen.agent.ingress.references import Memory, ReferencedObjects, SyncEndedError
from rulegen.agent.ingress.reports import IngressReports
from rulegen.agent.retry import RetryPause
from rulegen.agent.services.drift import ForeignChange
from rulegen.agent.telemetry.events import EventRequest, ObjectReference, to_nobody
from rulegen.compiler.ingress.engine import DeployAction
from rulegen.errors import HostError, RulegenError
from rulegen.kube.objects.names import ObjectKey, ObjectName
from rulegen.model.ingress.reasons import Verdict
from rulegen.model.ingress.routing.ingresses import selected

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from rulegen.agent.cluster import SharedCluster
    from rulegen.agent.telemetry.log import AgentLog
    from rulegen.agent.telemetry.state import AgentState
    from rulegen.apiserver.watch import Watch
    from rulegen.compiler.ingress.engine import AnyEngine, IngressSite, KnownObjects
    from rulegen.kube.objects.events import Unfollowed
    from rulegen.kube.snapshot.cluster import Touched
    from rulegen.kube.snapshot.world import ClusterSnapshot
    from rulegen.model.ingress.last_read import CompletedSnapshot
    from rulegen.model.ingress.reasons import Reason

QUIET_S: Final = 0.2
"""How long nothing must have changed before it is served."""
LONGEST_S: Final = 2.0
"""How long a change waits for others at the most."""
BREATH_S: Final = 1.0
"""The least time between two reloads."""
BREATHS: Final = 4
"""And so many times what the last one took."""
DECIDED_S: Final = 600.0
"""How long what was decided is taken for right while nothing changes: certificates lapse meanwhile."""
_NOT_SERVED: Final = frozenset({Verdict.REJECTED, Verdict.OVER_LIMIT, Verdict.QUARANTINED})
LONGEST_PAUSE_S: Final = 60.0


@dataclass(slots=True)
class IngressSync:
    """Keeps nginx serving what the Ingresses of the cluster ask for, from a thread of its own.

    Attributes:
        snapshot: Returns the cluster as it is now.
        watch: Follows the Secrets and ConfigMaps that Ingresses name.
        cluster: Tells of which Secrets and ConfigMaps the API server has told; None where all is told.
        known: What objects said when they were last read.
        mends: Whether anything is written; else what is not as wanted is told.
        period_s: How often to look whether nginx still serves what it should.
        announce: Is told what others have changed, as a user reads it.
        tell: Tells users, by events on their Ingresses, what they must know.
        forget: Is given each Secret and ConfigMap that is not asked for any more.
        about: Returns what an event about this node is about.
        is_alone: Whether nothing but Ingresses is kept, so that the node's health is that of its nginx.
        on_served: Called when nginx serves what it should.
        site: What nginx is to serve, as it was last decided.
        index: Which Services that was decided from.
        served: The Ingresses that are ours, each with whether it is served; None before nginx serves any of it.
    """

    live: AnyEngine
    snapshot: Callable[[], ClusterSnapshot]
    watch: Watch
    state: AgentState
    log: AgentLog
    clock: Callable[[], float]
    cluster: SharedCluster | None = None
    known: KnownObjects = field(default_factory=Memory)
    mends: bool = True
    period_s: float = 30.0
    announce: Callable[[str], None] = lambda _: None
    tell: Callable[[EventRequest], None] = to_nobody
    forget: Callable[[Unfollowed], None] = lambda _: None
    about: Callable[[], ObjectReference] | None = None
    is_alone: bool = False
    on_served: Callable[[], None] = lambda: None
    served: Mapping[ObjectName, bool] | None = None
    site: IngressSite | None = None
    index: ReferenceIndex = field(default_factory=ReferenceIndex)
    _changed: threading.Event = field(default_factory=threading.Event)
    _ended: threading.Event = field(default_factory=threading.Event)
    _touched_at: float = 0.0
    _first_at: float = 0.0
    _touch: object = field(default_factory=object)
    _decided_for: object = None
    _decided_at: float = 0.0
    _ours: tuple[ObjectName, ...] = ()
    _reload_s: float = 0.0
    _served: str = ""
    _thread: threading.Thread | None = None

    objects: ReferencedObjects = field(init=False)
    reports: IngressReports = field(init=False)

    def __post_init__(self) -> None:
        """Make the parts."""
        self.objects = ReferencedObjects(
            snapshot=self.snapshot,
            watch=self.watch,
            cluster=self.cluster,
            known=self.known,
            forget=self.forget,
            clock=self.clock,
            ended=self._ended,
            report_wait=self._report_wait,
        )
        self.reports = IngressReports(
            self.state, self.log, self.mends, drift_event=self.announce, send_event=self.tell, node=self.about
        )

    def start(self) -> None:
        """Begin; nothing is served before the cluster is known."""
        self.state.waits_for_site("nothing was resolved yet", is_down=self.is_alone and not self._serves())
        self.touch()
        self._thread = threading.Thread(target=self._run, name="ingress", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End; nginx goes on with what it serves."""
        self._ended.set()
        self._changed.set()
        if self._thread is not None:
            self._thread.join()

    def touch(self) -> None:
        """Note that something changed that Ingresses are made of."""
        now = self.clock()
        self._touch = object()
        if not self._changed.is_set():
            self._first_at = now
        self._touched_at = now
        self._changed.set()

    @property
    def is_woken(self) -> bool:
        """Whether anything changed that is not served yet."""
        return self._changed.is_set()

    def on_change(self, touched: Touched) -> None:
        """Take note of a change of the cluster: one that Ingresses do not depend on wakes nobody."""
        is_touched = self.index.is_touched(touched)
        self.state.metrics.ingress_changes.add("decided" if is_touched else "ignored")
        if is_touched:
            self.touch()

    def look_at_host(self) -> None:
        """Have nginx's configuration decided anew where the host has changed so that another one follows."""
        if self.live.refresh():
            self.touch()

    def _run(self) -> None:
        pause, next_at = RetryPause(BREATH_S, LONGEST_PAUSE_S), 0.0
        while not self._ended.is_set():
            self._changed.wait(pause.now_s or self.period_s)
            self.gather(next_at)
            if self._ended.is_set():
                return
            try:
                reloaded = self.serve()
            except SyncEndedError:
                return
            except Exception as error:  # noqa: BLE001 - whatever it is, Ingresses are to be served by this thread
                self.reports.failure(error, pause.failed(), is_down=self.is_alone and not self._serves())
                continue
            pause.succeeded()
            self.reports.success()
            next_at = self.clock() + (max(BREATH_S, BREATHS * self._reload_s) if reloaded else 0.0)

    def _serves(self) -> bool:
        """Return whether nginx serves anything."""
        try:
            return self.live.is_serving
        except RulegenError:
            return False

    def gather(self, not_before: float) -> None:
        """Wait until it is quiet, or the first change has waited for long, and the last reload is some time ago."""
        while not self._ended.is_set():
            now = self.clock()
            due = min(self._touched_at + QUIET_S, self._first_at + LONGEST_S) if self._changed.is_set() else now
            if not self.objects.is_all_answered:
                due = max(due, not_before)
            if now >= due:
                return
            self._ended.wait(min(due - now, QUIET_S))

    def serve(self) -> bool:
        """Serve what the cluster asks for now; return whether nginx was started or reloaded.

        Raises:
            RulegenError: It cannot be done; what was served before still is.
        """
        self._changed.clear()
        is_own = self.site is not None and self._served == self.site.digest
        # Reading all that is served takes longer than to decide, so what this process has served is read afterwards.
        observed = None if is_own else self.live.observe()
        site = self._decided(observed)
        observed = observed if observed is not None else self.live.observe()
        plan = self.live.plan(site, observed)
        self.state.metrics.site_changes.set(len(plan.items))
        was_served = self._served == site.digest
        if not self.mends or was_served:  # so nobody but others has changed anything
            self.reports.drift(plan.items, site.digest)
        if not self.mends:
            return False
        began = self.clock()
        outcome = self.live.deploy(site)
        self._reload_s = self.clock() - began
        self._served = outcome.digest
        for note in (*outcome.notes, *self.live.notes, *self.objects.known.notes):
            self.log.warning(note)
        self.live.notes.clear()
        self.objects.known.notes.clear()
        self._note_served(site.model.reasons)
        if outcome.action is DeployAction.NOTHING:
            return False
        if was_served and not plan.items:
            self.reports.foreign([ForeignChange("file", f"a file of {self.live.name} was just changed")])
        self.state.metrics.reloads.add(outcome.action.value)
        self.log.info(
            f"{self.live.name} {outcome.action.value}",
            digest=outcome.digest,
            changes=len(plan.items),
            seconds=outcome.seconds,
        )
        return True

    def _decided(self, observed: Any) -> IngressSite:
        """Return what nginx is to serve: as it was decided last, where nothing changed since.

        Raises:
            RulegenError: It cannot be decided.
        """
        if self.live.refresh():
            self._touch = object()
        # Before the cluster is looked at, so that what changes meanwhile is decided anew.
        touch, began = self._touch, self.clock()
        is_same = self._decided_for is touch and self.objects.is_as_remembered
        if self.site is not None and is_same and began < self._decided_at + DECIDED_S:
            return self.site
        self.index.begin()
        try:
            world, wanted = self._completed()
            site: IngressSite = self.live.check(world, observed, self.site)
        except BaseException:
            self.index.end(None)
            raise
        self.site = site
        if self.index.end(site.reads):
            self.touch()
        self._ours = tuple(selected(world, self.live.options))
        self._decided_for, self._decided_at = touch, began
        try:
            self.objects.remember(world, wanted, self.live.options)
        except HostError as error:
            self.log.warning("not saved to disk", error=error.message)
        self.reports.decisions(site.model.reasons, world)
        return site

    def _completed(self) -> CompletedSnapshot:
        return self.objects.completed(self.live.options, is_first=self.site is None, serves=self._serves)

    def _report_wait(self, count: int) -> None:
        message = f"waiting for {count} Secrets and ConfigMaps from the API server"
        self.state.waits_for_site(message, is_down=self.is_alone and not self._serves())

    def _note_served(self, reasons: tuple[Reason, ...]) -> None:
        refused = {reason.about for reason in reasons if reason.verdict in _NOT_SERVED}
        served = {name: ObjectKey("Ingress", name) not in refused for name in self._ours}
        if served != self.served:
            self.served = served
            self.on_served()
