"""The sync of Ingresses: changes of Ingresses, their Services and Secrets are collected, decided, and served by nginx.

A reload costs memory and finally ends old connections. Changes are therefore collected until none has arrived for a
moment, but not for long. The pause between reloads is a multiple of the time of the last reload. Meanwhile, the rules
of the kernel, which change at once, handle requests that nginx sends to removed endpoints.

HAProxy takes most changes without a reload. It gets changed endpoints at once, and other changes as soon as they are
decided; the next decision then waits as long as the last one took. The files follow after a longer quiet time. For a
change that HAProxy cannot be given so, the quiet time is at most as long as the last change took.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from rulegen.agent.ingress.index import ReferenceIndex
from rulegen.agent.ingress.moving import EarlyChanges
from rulegen.agent.ingress.proxy_watch import ProxyWatch
from rulegen.agent.ingress.references import Memory, ReferencedObjects, SyncEndedError
from rulegen.agent.ingress.reports import IngressReports
from rulegen.agent.retry import LONGEST_PAUSE_S, RetryPause
from rulegen.agent.services.drift import ForeignChange
from rulegen.agent.telemetry.events import EventRequest, ObjectReference, to_nobody
from rulegen.agent.telemetry.state import SITE_THREAD
from rulegen.compiler.ingress.engine import DeployAction
from rulegen.errors import HostError, RulegenError, internal_error
from rulegen.kube.objects.names import ObjectKey, ObjectName
from rulegen.model.ingress.reasons import Verdict
from rulegen.model.ingress.routing.selection import selected
from rulegen.waits import StoppingError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

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
"""Quiet time after the last change, in seconds."""
LONGEST_S: Final = 2.0
"""Maximum wait of a change, in seconds."""
MOVED_QUIET_S: Final = 1.0
MOVED_LONGEST_S: Final = 5.0
"""The same if the proxy already has all changes, but its files do not."""
BREATH_S: Final = 1.0
"""Minimum pause between two reloads, in seconds."""
BREATHS: Final = 4
"""Minimum pause as a multiple of the time of the last reload."""
DECIDED_S: Final = 600.0
"""How long a decision is valid without changes: certificates expire meanwhile."""
_NOT_SERVED: Final = frozenset({Verdict.REJECTED, Verdict.OVER_LIMIT, Verdict.QUARANTINED})
LEFT_BEHIND_S: Final = 240.0
"""A stop waits this long for a reload that has begun."""
FOR_GOOD_S: Final = 9.0
LONGEST_DOWN_S: Final = 5.0
"""Maximum pause before the next attempt while nothing is served, in seconds."""


@dataclass(slots=True)
class IngressSync:
    """Keeps nginx up to date with the Ingresses of the cluster, in a thread of its own.

    Attributes:
        snapshot: Returns the current cluster.
        watch: Watches the Secrets and ConfigMaps that Ingresses name.
        cluster: Knows for which Secrets and ConfigMaps there was an answer; None if all are known.
        known: Last known contents of objects.
        mends: Whether differences are written; otherwise they are only reported.
        period_s: How often to check what nginx serves.
        announce: Receives a text about changes by other programs.
        tell: Sends Events on Ingresses.
        forget: Called with each Secret and ConfigMap that is no longer requested.
        about: Returns the reference of this node for Events.
        is_alone: Whether only Ingresses are managed, so that the health of the node is that of nginx.
        claim: Takes the lock on the engine, or raises `HostError`.
        on_served: Called when nginx serves the desired configuration, and when it stops or starts serving.
        site: The last decided configuration.
        index: The Services that were used for it.
        served: The selected Ingresses, each with whether it is served; None before nginx serves any.
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
    claim: Callable[[], None] = lambda: None
    on_served: Callable[[], None] = lambda: None
    served: Mapping[ObjectName, bool] | None = None
    site: IngressSite | None = None
    index: ReferenceIndex = field(default_factory=ReferenceIndex)
    _changed: threading.Event = field(default_factory=threading.Event)
    _woken: threading.Event = field(default_factory=threading.Event)
    _early: EarlyChanges = field(default_factory=EarlyChanges)
    _rested_at: float = 0.0
    _ended: threading.Event = field(default_factory=threading.Event)
    _touched_at: float = 0.0
    _first_at: float = 0.0
    _touch: object = field(default_factory=object)
    _decided_for: object = None
    _decided_at: float = 0.0
    _ours: tuple[ObjectName, ...] = ()
    _reload_s: float = 0.0
    _quiet_s: float = field(default_factory=lambda: QUIET_S)
    _served: str = ""
    _again_s: float = 0.0
    _thread: threading.Thread | None = None

    objects: ReferencedObjects = field(init=False)
    reports: IngressReports = field(init=False)
    proxy: ProxyWatch = field(init=False)

    def __post_init__(self) -> None:
        """Create the parts."""
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
            self.state,
            self.log,
            self.clock,
            self.mends,
            drift_event=self.announce,
            send_event=self.tell,
            node=self.about,
        )
        self.proxy = ProxyWatch(
            live=self.live,
            state=self.state,
            log=self.log,
            clock=self.clock,
            is_alone=self.is_alone,
            on_change=self._on_proxy,
            send_event=self.tell,
            about=self.about,
        )

    def start(self) -> None:
        """Start; nothing is served before the cluster is known."""
        self.state.waits_for_site("nothing was resolved yet")
        if self.mends:  # otherwise another program may serve Ingresses
            self.proxy.start()
        self.touch()
        self._thread = threading.Thread(target=self._run, name=SITE_THREAD, daemon=True)
        self._thread.start()

    def stop(self, *, for_good: bool = False) -> bool:
        """Stop; nginx keeps running. Return whether the thread has ended, or is left behind.

        Args:
            for_good: Whether the agent stops: then `StopDeadline` ends what the thread waits for.
        """
        self._ended.set()
        self._changed.set()
        self._woken.set()
        self.proxy.stop()
        if self._thread is not None:
            self._thread.join(FOR_GOOD_S if for_good else LEFT_BEHIND_S)
        return self._thread is None or not self._thread.is_alive()

    def write_rest(self) -> None:
        """After a stop: write to files what the proxy already serves, so that its next start serves the same."""
        if not self._early.is_ahead:
            return
        try:
            self.serve()
        except (SyncEndedError, RulegenError) as error:
            self.log.warning("the last changes are served, but were not written to files", error=str(error))

    def _on_proxy(self) -> None:
        """Check at once what is served, and publish whether it is; nothing is decided again."""
        self._changed.set()
        self.on_served()

    def touch(self, services: Collection[ObjectName] | None = None) -> None:
        """Record a change of an object that Ingresses depend on.

        Args:
            services: The Services of which endpoints may have changed, if nothing else has.
        """
        now = self.clock()
        self._touch = object()
        self._early.add(services)
        if not self._changed.is_set():
            self._first_at = now
        self._touched_at = now
        self._changed.set()
        self._woken.set()

    @property
    def is_woken(self) -> bool:
        """Whether there are changes that are not served yet."""
        return self._changed.is_set()

    def on_change(self, touched: Touched) -> None:
        """Record a change of the cluster; a change that Ingresses do not depend on wakes up nothing."""
        is_touched = self.index.is_touched(touched)
        self.state.metrics.ingress_changes.add("decided" if is_touched else "ignored")
        if is_touched:
            self.touch(None if touched.site or touched.nodes or touched.addresses else touched.services)

    def look_at_host(self) -> None:
        """Decide the configuration again if a change of the host affects it.

        The first decision looks at the host itself; before it, the program of the engine may hang.
        """
        if self.site is not None and self.live.refresh():
            self.touch()

    def _run(self) -> None:
        pause, next_at = RetryPause(BREATH_S, LONGEST_PAUSE_S), 0.0
        while not self._ended.is_set():
            self._changed.wait(self._pause_s(pause) or min(self.period_s, self._again_s or self.period_s))
            self.move()
            self.gather(next_at)
            if self._ended.is_set():
                return
            try:
                reloaded = self.serve()
            except (SyncEndedError, StoppingError):
                return
            except Exception as error:  # noqa: BLE001 - whatever it is, Ingresses are to be served by this thread
                pause.failed()
                self.reports.failure(error, self._pause_s(pause))
                continue
            finally:
                if self.mends:
                    self.proxy.look()
            pause.succeeded()
            self.reports.success()
            next_at = self.clock() + (max(BREATH_S, BREATHS * self._reload_s) if reloaded else 0.0)

    def _pause_s(self, pause: RetryPause) -> float:
        """Return the seconds before the next attempt after a failure; 0 after a success."""
        is_down = self.site is None or not self.proxy.is_serving or bool(self.proxy.hindrance)
        return min(pause.now_s, LONGEST_DOWN_S) if self.mends and is_down else pause.now_s

    def _serves(self) -> bool:
        """Return whether nginx serves anything."""
        try:
            return self.live.is_serving
        except RulegenError:
            return False

    def gather(self, not_before: float) -> None:
        """Wait for the quiet time, or the maximum wait of the first change, and for the pause after the last reload."""
        while not self._ended.is_set():
            now = self.clock()
            rests = self._early.needs_decision
            is_early = rests or self._early.is_done
            quiet, longest = (MOVED_QUIET_S, MOVED_LONGEST_S) if is_early else (self._quiet_s, LONGEST_S)
            due = min(self._touched_at + quiet, self._first_at + longest) if self._changed.is_set() else now
            if not self.objects.is_all_answered:
                due = max(due, not_before)
            if now >= due:
                return
            rest_s = max(self._rested_at - now, 0.0) if rests else QUIET_S
            self._woken.wait(min(due - now, QUIET_S, rest_s))
            self.move()

    def move(self) -> None:
        """Give the proxy what has changed at once, before its files are written, as far as it takes that."""
        self._woken.clear()
        names, site = self._early.take(), self.site
        try:
            if names:
                is_moved = site is not None and self.mends and self.live.move(site, self.snapshot(), names)
                (self._early.moved if is_moved else self._early.not_moved)()
            self._give()
        except (SyncEndedError, StoppingError):
            self._early.failed()  # the thread ends
        except Exception as error:  # noqa: BLE001 - whatever it is, the changes are served with all else
            self._early.failed()
            if not isinstance(error, RulegenError):  # such an error is reported when all is decided again
                self.log.warning("changes wait for the whole configuration", error=internal_error(error))

    def _give(self) -> None:
        """Decide all, and give it to the proxy, if nothing less serves the changes; then rest as long as that took."""
        if not self._early.needs_decision or self.clock() < self._rested_at:
            return
        site, began = self.site, self.clock()
        self._early.begin()
        if site is not None and self.mends and self.live.give(site, lambda: self._decided(None)):
            self._early.given()
        else:
            self._early.failed()
        now = self.clock()
        self._rested_at = 2 * now - began

    def serve(self) -> bool:
        """Serve the current cluster; return whether nginx was started or reloaded.

        Raises:
            RulegenError: It cannot be served; nginx serves the previous configuration.
        """
        self._changed.clear()
        self._early.begin()
        woken_at = self.clock()
        if self.mends:
            self.claim()
        is_own = self.site is not None and self._served == self.site.digest
        # Reading the served files takes longer than deciding, so files that this process has deployed are read
        # afterwards.
        observed = None if is_own else self.live.observe()
        site = self._decided(observed)
        observed = observed if observed is not None else self.live.observe()
        plan = self.live.plan(site, observed)
        self.state.metrics.site_changes.set(len(plan.items))
        was_served = self._served == site.digest
        if not self.mends:
            self.reports.drift(plan.items, site.digest)
            return False
        began, self.proxy.is_busy = self.clock(), True
        try:
            outcome = self.live.deploy(site)
        except BaseException:
            if was_served:  # so only other programs can have changed anything
                self.reports.drift(plan.items, site.digest, mended=False)
            raise
        finally:
            self.proxy.is_busy = False
        self._early.written()
        if was_served:
            self.reports.drift(plan.items, site.digest, mended=True)
        self.live.follow_files()
        self._reload_s = self.clock() - began
        self._served, self._again_s = outcome.digest, outcome.again_s
        for note in (*outcome.notes, *self.live.notes, *self.objects.known.notes):
            self.log.warning(note)
        self.live.notes.clear()
        self.objects.known.notes.clear()
        self._note_served(site.model.reasons)
        if outcome.action is DeployAction.NOTHING:
            return False
        if was_served and not plan.items and outcome.action is not DeployAction.STARTED:
            change = ForeignChange("file", f"a file of {self.live.name} was just changed")
            self.reports.foreign([change], mended=True)
        is_updated = outcome.action is DeployAction.UPDATED
        self._quiet_s = min(QUIET_S, self.clock() - woken_at) if is_updated else QUIET_S
        self.state.metrics.reloads.add(outcome.action.value)
        self.log.info(
            f"{self.live.name} {outcome.action.value}",
            digest=outcome.digest,
            changes=len(plan.items),
            seconds=outcome.seconds,
        )
        return not is_updated

    def _decided(self, observed: Any) -> IngressSite:
        """Return the desired configuration: the last decided one, if nothing has changed since.

        Raises:
            RulegenError: No decision is possible.
        """
        if self.live.refresh():
            self._touch = object()
        # Before the cluster is read, so that changes during the decision lead to another one.
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
        if self.index.end(site.reads) and self._touch is touch:
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
        self.state.waits_for_site(f"waiting for {count} Secrets and ConfigMaps from the API server")

    @property
    def is_serving(self) -> bool:
        """Whether this agent has served a configuration, and the proxy answers."""
        return self.served is not None and self.proxy.is_serving

    @property
    def published(self) -> Mapping[ObjectName, bool] | None:
        """The Ingresses in whose status addresses are published, each with whether it is served; None if unknown.

        While nothing was served yet, these are the selected ones: addresses of an earlier run are removed from them.
        """
        return self.served if self.served is not None else dict.fromkeys(self._ours, True) or None

    def _note_served(self, reasons: tuple[Reason, ...]) -> None:
        refused = {reason.about for reason in reasons if reason.verdict in _NOT_SERVED}
        served = {name: ObjectKey("Ingress", name) not in refused for name in self._ours}
        if served != self.served:
            self.served = served
            self.on_served()
