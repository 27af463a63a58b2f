"""The agent's ingress: what changes of Ingresses, their Services and Secrets come to, served by nginx in batches.

A reload costs memory and cuts old connections in the end, so changes are gathered: until it has been quiet for a
moment, but not for long, and never more often than a few times what the last reload took. Meanwhile the kernel's rules,
which are changed at once, serve what nginx still passes on to servers that are gone.

An object that the API server has not told of is unknown, and not absent: hosts that depend on it are served as before,
else they are closed, and all others are served.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from rulegen.agent.ingress.index import ReferenceIndex
from rulegen.agent.retry import RetryPause
from rulegen.agent.services.drift import ForeignChange, certain, damage, tell
from rulegen.agent.telemetry.events import EventRequest, ObjectReference, to_nobody
from rulegen.agent.telemetry.log import fault
from rulegen.compiler.ingress.engine import DeployAction
from rulegen.errors import HostError, RulegenError
from rulegen.kube.objects.events import Unfollowed
from rulegen.kube.objects.names import ObjectKey, ObjectName
from rulegen.kube.objects.structs import ConfigMap, Secret
from rulegen.kube.syntax import is_label, is_subdomain
from rulegen.model.ingress.last_read import CompletedSnapshot, completed, held, renewed, unread_by
from rulegen.model.ingress.reasons import Verdict
from rulegen.model.ingress.routing.ingresses import selected
from rulegen.model.ingress.unread import REFUSED, UNANSWERED
from rulegen.model.ingress.values.references import References

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from rulegen.agent.cluster import SharedCluster
    from rulegen.agent.telemetry.log import AgentLog
    from rulegen.agent.telemetry.state import AgentState
    from rulegen.apiserver.watching.watch import Watch
    from rulegen.compiler.ingress.engine import AnyEngine, IngressSite, KnownObjects
    from rulegen.kube.objects.structs import Ingress
    from rulegen.kube.snapshot.cluster import Touched
    from rulegen.kube.snapshot.world import ClusterSnapshot
    from rulegen.model.ingress.last_read import Recollection
    from rulegen.model.ingress.reasons import Reason
    from rulegen.plan.items import Item

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
ANSWER_S: Final = 1.0
"""How long a nginx that serves waits for the API server to tell of what is named for the first time."""
SILENCE_S: Final = 10.0
"""How long the first start waits for the next answer."""
FIRST_S: Final = 60.0
"""How long the first start waits for all answers."""
LOOK_S: Final = 0.05
"""How often to look for answers."""
SHOWN: Final = 5
_NOT_SERVED: Final = frozenset({Verdict.REJECTED, Verdict.OVER_LIMIT, Verdict.QUARANTINED})
_TOLD: Final = {
    Verdict.REJECTED: "Rejected",
    Verdict.CLOSED: "Closed",
    Verdict.IGNORED: "Ignored",
    Verdict.UNSUPPORTED: "Unsupported",
    Verdict.LOST: "Conflict",
    Verdict.REFUSED: "ForbiddenAddress",
    Verdict.DEFAULT_CERTIFICATE: "DefaultCertificate",
    Verdict.WAITING: "Waiting",
    Verdict.OVER_LIMIT: "OverLimit",
    Verdict.QUARANTINED: "Quarantined",
}
"""Reasons of events; of what is left out, nobody has to do anything about the Ingress."""
LONGEST_PAUSE_S: Final = 60.0
NOTHING: Final = References(frozenset(), frozenset())


class _EndedError(Exception):
    """It is to end, and waits no longer."""


@dataclass(slots=True)
class Memory:
    """What objects said when they were last read, known to this process alone."""

    objects: Recollection = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def keep(self, objects: Recollection) -> None:
        """Know these from now on, and nothing else."""
        self.objects = objects


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
    journal: AgentLog
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
    _asked: References | None = None
    _ingresses: Mapping[ObjectName, Ingress | None] = field(default_factory=dict)
    _waited: frozenset[ObjectKey] = frozenset()
    _unanswered: frozenset[ObjectKey] = frozenset()
    _unread: Mapping[ObjectKey, str] = field(default_factory=dict)
    _reload_s: float = 0.0
    _failure: str = ""
    _told: frozenset[Reason] = frozenset()
    _served: str = ""
    _damage: frozenset[Item] = frozenset()
    _compared: str = ""
    _thread: threading.Thread | None = None

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
            except _EndedError:
                return
            except Exception as error:  # noqa: BLE001 - whatever it is, Ingresses are to be served by this thread
                self._tell_failure(error, pause.failed())
                continue
            pause.succeeded()
            self._failure = ""
            self.state.served_site()
            next_at = self.clock() + (max(BREATH_S, BREATHS * self._reload_s) if reloaded else 0.0)

    def _tell_failure(self, error: Exception, pause_s: float) -> None:
        """Tell that nothing new is served, and why; at /healthz too, and users once."""
        told = fault(error)
        self.state.metrics.site_failures.add()
        self.journal.error("not served", again_in_s=pause_s, **told)
        message = told["error"]
        self.state.waits_for_site(message, is_down=self.is_alone and not self._serves())
        if message != self._failure and self.about is not None:
            self.tell(EventRequest(self.about(), "IngressesNotServed", "Serve", message))
        self._failure = message

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
            if not self._is_all_told():
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
        observed = self.live.observe()
        site = self._decided(observed)
        plan = self.live.plan(site, observed)
        self.state.metrics.site_changes.set(len(plan.items))
        was_served = self._served == site.digest
        if not self.mends or was_served:  # so nobody but others has changed anything
            self._tell_damage(plan.items, site.digest)
        if not self.mends:
            return False
        began = self.clock()
        outcome = self.live.deploy(site)
        self._reload_s = self.clock() - began
        self._served = outcome.digest
        for note in (*outcome.notes, *self.live.notes, *self.known.notes):
            self.journal.warning(note)
        self.live.notes.clear()
        self.known.notes.clear()
        self._note_served(site.model.reasons)
        if outcome.action is DeployAction.NOTHING:
            return False
        if was_served and not plan.items:
            found = [ForeignChange("file", f"a file of {self.live.name} was just changed")]
            tell(found, self.state, self.journal, self.announce, mended=True)
        self.state.metrics.reloads.add(outcome.action.value)
        self.journal.info(
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
        is_same = self._decided_for is touch and self._unread == self._reasons(self._unread)
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
        self._remember(world, wanted)
        self._tell(site.model.reasons, world)
        return site

    def _completed(self) -> CompletedSnapshot:
        """Return the cluster with what its Ingresses name, once the API server was given time to tell of it."""
        began = answered_at = self.clock()
        while True:
            world, wanted = self._looked()
            self._refer(wanted)
            unknown = {key for key, why in world.unread.items() if why == UNANSWERED}
            missing = frozenset(unknown | {key for key, why in world.recalled.items() if why == UNANSWERED})
            fresh = missing - self._waited
            if not fresh:
                self._waited &= missing
                return CompletedSnapshot(world, wanted)
            # Before anything was decided, waiting takes nothing from anybody: what nginx serves, it serves on.
            is_first = self.site is None and not fresh.isdisjoint(unknown)
            until = min(answered_at + SILENCE_S, began + FIRST_S) if is_first else began + ANSWER_S
            if is_first:
                serves = self._serves()
                if serves and not self.known.objects:
                    until = math.inf  # nobody remembers what these hosts are served with, so they are left alone
                message = f"waiting for {len(fresh)} Secrets and ConfigMaps from the API server"
                self.state.waits_for_site(message, is_down=self.is_alone and not serves)
            left = self._await(fresh, until=until)
            if len(left) < len(fresh) and is_first:
                answered_at = self.clock()
            else:
                self._waited |= left

    def _await(self, keys: frozenset[ObjectKey], *, until: float) -> frozenset[ObjectKey]:
        """Wait for the API server to tell of objects, or to refuse them; return those of which it did not."""
        while True:
            left = frozenset(key for key, why in self._reasons(keys).items() if why == UNANSWERED)
            if not left or self.clock() >= until:
                return left
            if self._ended.wait(LOOK_S):
                raise _EndedError

    def _looked(self) -> CompletedSnapshot:
        """Return the cluster as it is now, with what is known from before."""
        options = self.live.options
        refused = self.watch.refused()
        gone = self.cluster.gone() if self.cluster is not None else None  # first: what comes meanwhile is in the world

        def unread(key: ObjectKey) -> str:
            if gone is None or key in gone or not (is_label(key.name.namespace) and is_subdomain(key.name.name)):
                return ""
            return REFUSED if key in refused else UNANSWERED

        world, wanted = completed(self.snapshot(), options, self.known.objects, unread)
        if self.site is None or not world.unread:
            return CompletedSnapshot(world, wanted)
        earlier, also = completed(held(world, options, self._ingresses), options, self.known.objects, unread)
        return CompletedSnapshot(
            earlier, References(wanted.secrets | also.secrets, wanted.config_maps | also.config_maps)
        )

    def _reasons(self, keys: Iterable[ObjectKey]) -> Mapping[ObjectKey, str]:
        """Return those of some objects of which the API server has not told, each with the reason."""
        if self.cluster is None:
            return {}
        refused, told = self.watch.refused(), self.cluster.is_told
        return {key: REFUSED if key in refused else UNANSWERED for key in keys if not told(key)}

    def _is_all_told(self) -> bool:
        """Return whether all has been told of that was waited for when it was decided last."""
        return bool(self._unanswered) and not self._reasons(self._unanswered)

    def _refer(self, wanted: References) -> None:
        """Have the API server asked for these objects, and forget those that are not asked for any more."""
        if wanted == self._asked:
            return
        self.watch.refer_to(secrets=wanted.secrets, config_maps=wanted.config_maps)
        asked = self._asked
        if asked is None:  # an agent before this one asked for what the cluster has, and nobody follows the rest of it
            asked = self.cluster.named() if self.cluster is not None else NOTHING
        for kind, names in (
            (Secret, asked.secrets - wanted.secrets),
            (ConfigMap, asked.config_maps - wanted.config_maps),
        ):
            for name in sorted(names):
                self.forget(Unfollowed(kind, name))
        self._asked = wanted

    def _remember(self, world: ClusterSnapshot, wanted: References) -> None:
        """Know what was decided from, for the next time and for the next process."""
        options = self.live.options
        self._unread = dict(world.unread)
        self._unread |= {key: why for key, why in world.recalled.items() if why in {UNANSWERED, REFUSED}}
        self._unanswered = frozenset(key for key, why in self._unread.items() if why == UNANSWERED)
        self._ingresses = {
            name: None if unread_by(one, world, options.prefix) else one for name, one in world.ingresses.items()
        }
        try:
            self.known.keep(renewed(world, wanted, options))
        except HostError as error:
            self.journal.warning("not saved to disk", error=error.message)

    def _tell_damage(self, items: Collection[Item], digest: str) -> None:
        """Tell and count what others have changed, once for as long as it stays so.

        Where nothing is written, what differs as soon as another configuration is wanted is no work of others, and
        neither is what a first look finds.

        Args:
            items: Of a plan against what nginx has.
            digest: Which configuration is wanted.
        """
        fresh = [item for item in items if item not in self._damage]
        is_asked_for = not self.mends and digest != self._compared
        found = damage(certain(fresh) if is_asked_for else fresh, ())
        tell(found, self.state, self.journal, self.announce, mended=self.mends)
        if is_asked_for and len(fresh) > len(found):
            self.journal.info("differs from the objects", differences=len(fresh) - len(found), written=False)
        self._compared = digest
        self._damage = frozenset() if self.mends else frozenset(items)

    def _note_served(self, reasons: tuple[Reason, ...]) -> None:
        refused = {reason.about for reason in reasons if reason.verdict in _NOT_SERVED}
        served = {name: ObjectKey("Ingress", name) not in refused for name in self._ours}
        if served != self.served:
            self.served = served
            self.on_served()

    def _tell(self, reasons: tuple[Reason, ...], world: ClusterSnapshot) -> None:
        """Tell what is new of what users must be told, and count what is in quarantine."""
        now = frozenset(reasons)
        for reason in sorted(now - self._told):
            if reason.verdict is not Verdict.WAITING:
                self.journal.warning(str(reason))
            self._tell_user(reason, world)
        for reason in sorted(self._told - now):
            if reason.verdict is not Verdict.WAITING:
                self.journal.info(f"no longer: {reason}")
        self._tell_waiting(now)
        self._told = now
        refused = sum(reason.verdict is Verdict.QUARANTINED for reason in now)
        self.state.metrics.quarantined.set(refused)
        self.state.metrics.over_limit.set("ingresses", sum(one.verdict is Verdict.OVER_LIMIT for one in now))

    def _tell_waiting(self, now: frozenset[Reason]) -> None:
        """Tell in one line of all that could not be read, however much it is; and when all of it was."""
        before = {reason for reason in self._told if reason.verdict is Verdict.WAITING}
        waiting = {reason for reason in now if reason.verdict is Verdict.WAITING}
        if new := sorted(waiting - before):
            shown = "; ".join(str(reason) for reason in new[:SHOWN])
            more = f"; and {len(new) - SHOWN} more" if len(new) > SHOWN else ""
            self.journal.warning(
                "waiting for objects that could not be read", reasons=f"{shown}{more}", count=len(waiting)
            )
        elif before and not waiting:
            self.journal.info("no longer waiting: all objects were read")
        self.state.metrics.unread.set(len(waiting))

    def _tell_user(self, reason: Reason, world: ClusterSnapshot) -> None:
        if reason.about is None and reason.verdict is Verdict.NOTE and self.about is not None:
            if any(reason.path == str(key) for key in world.recalled):
                self.tell(EventRequest(self.about(), "ServedAsBefore", "Serve", str(reason)))
            return
        if reason.verdict is Verdict.WAITING and REFUSED not in reason.message:
            return  # whoever is silent takes no event either
        told = _TOLD.get(reason.verdict)
        if told is None or reason.about is None:
            return
        kind, name = reason.about
        ingress = world.ingresses.get(name)
        uid = ingress.metadata.uid if ingress is not None else ""
        note = f"{reason.path}: {reason.message}" if reason.path else reason.message
        about = ObjectReference("networking.k8s.io/v1", kind, *name, uid)
        self.tell(EventRequest(about, told, "Serve", note, is_shared=True))
