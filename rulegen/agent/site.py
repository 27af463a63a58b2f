"""The agent's ingress: what changes of Ingresses, their Services and Secrets come to, served by nginx in batches.

A reload costs memory and cuts old connections in the end, so changes are gathered: until it has been quiet for a
moment, but not for long, and never more often than a few times what the last reload took. Meanwhile the kernel's rules,
which are changed at once, serve what nginx still passes on to servers that are gone.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from rulegen.agent.drift import Damage, damage, tell
from rulegen.agent.journal import fault
from rulegen.agent.recorder import Announcement, ObjectReference, to_nobody
from rulegen.host.nginx.service import Action
from rulegen.kube.world import ObjectName
from rulegen.model.ingress.ir import Verdict
from rulegen.model.ingress.references import header_maps, references
from rulegen.road.ingress import ours

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from rulegen.agent.journal import Journal
    from rulegen.agent.state import AgentState
    from rulegen.host.apiwatch import Watch
    from rulegen.host.nginx.site import LiveSite
    from rulegen.kube.world import World
    from rulegen.languages.nginx.configuration import Configuration
    from rulegen.model.ingress.ir import Reason
    from rulegen.plan.items import Item
    from rulegen.road.ingress import Site

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
ANSWER_S: Final = 10.0
"""How long to wait for Secrets that were named for the first time."""
_NOT_SERVED: Final = frozenset({Verdict.REJECTED, Verdict.QUARANTINED})
_TOLD: Final = {
    Verdict.REJECTED: "Rejected",
    Verdict.CLOSED: "Closed",
    Verdict.IGNORED: "Ignored",
    Verdict.UNSUPPORTED: "Unsupported",
    Verdict.LOST: "Conflict",
    Verdict.DEFAULT_CERTIFICATE: "DefaultCertificate",
    Verdict.QUARANTINED: "Quarantined",
}
"""Reasons of events; of what is left out, nobody has to do anything about the Ingress."""
LONGEST_PAUSE_S: Final = 60.0


@dataclass(slots=True)
class SiteLoop:
    """Keeps nginx serving what the Ingresses of the cluster ask for, from a thread of its own.

    Attributes:
        snapshot: Returns the cluster as it is now.
        watch: Follows the Secrets and ConfigMaps that Ingresses name.
        named: Secrets and ConfigMaps that the options name, in this order.
        mends: Whether anything is written; else what is not as wanted is told.
        period_s: How often to look whether nginx still serves what it should.
        announce: Is told what others have changed, as a user reads it.
        tell: Tells users, by events on their Ingresses, what they must know.
        on_served: Called when nginx serves what it should.
        site: What nginx is to serve, as it was last decided.
        served: The Ingresses that are ours, each with whether it is served; None before nginx serves any of it.
    """

    live: LiveSite
    snapshot: Callable[[], World]
    watch: Watch
    state: AgentState
    journal: Journal
    clock: Callable[[], float]
    named: tuple[frozenset[ObjectName], frozenset[ObjectName]] = (frozenset(), frozenset())
    mends: bool = True
    period_s: float = 30.0
    announce: Callable[[str], None] = lambda _: None
    tell: Callable[[Announcement], None] = to_nobody
    on_served: Callable[[], None] = lambda: None
    served: Mapping[ObjectName, bool] | None = None
    site: Site | None = None
    _changed: threading.Event = field(default_factory=threading.Event)
    _ended: threading.Event = field(default_factory=threading.Event)
    _touched_at: float = 0.0
    _first_at: float = 0.0
    _touch: object = field(default_factory=object)
    _decided_for: object = None
    _decided_at: float = 0.0
    _ours: tuple[str, ...] = ()
    _told: frozenset[Reason] = frozenset()
    _served: str = ""
    _damage: frozenset[Item] = frozenset()
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin; nothing is served before the cluster is known."""
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

    def _run(self) -> None:
        pause_s, next_at = 0.0, 0.0
        while not self._ended.is_set():
            self._changed.wait(pause_s or self.period_s)
            self._gather(next_at)
            if self._ended.is_set():
                return
            self._changed.clear()
            began = self.clock()
            try:
                reloaded = self.serve()
            except Exception as error:  # noqa: BLE001 - whatever it is, Ingresses are to be served by this thread
                pause_s = min(max(2 * pause_s, BREATH_S), LONGEST_PAUSE_S)
                self.state.count("site_failures")
                self.journal.error("not served", again_in_s=pause_s, **fault(error))
                continue
            pause_s = 0.0
            took = self.clock() - began
            next_at = self.clock() + (max(BREATH_S, BREATHS * took) if reloaded else 0.0)

    def _gather(self, not_before: float) -> None:
        """Wait until it is quiet, or the first change has waited for long, and the last reload is some time ago."""
        while not self._ended.is_set():
            now = self.clock()
            due = min(self._touched_at + QUIET_S, self._first_at + LONGEST_S) if self._changed.is_set() else now
            due = max(due, not_before)
            if now >= due:
                return
            self._ended.wait(min(due - now, QUIET_S))

    def serve(self) -> bool:
        """Serve what the cluster asks for now; return whether nginx was started or reloaded.

        Raises:
            RulegenError: It cannot be done; what was served before still is.
        """
        observed = self.live.observed()
        site = self._decided(observed)
        plan = self.live.plan(site, observed)
        self.state.gauge("site_changes", len(plan.items))
        was_served = self._served == site.configuration.digest
        if not self.mends or was_served:  # so nobody but others has changed anything
            self._tell_damage(plan.items)
        if not self.mends:
            return False
        outcome = self.live.apply(site)
        self._served = outcome.digest
        for note in (*outcome.notes, *self.live.notes):
            self.journal.warning(note)
        self.live.notes.clear()
        self._note_served(site.model.reasons)
        if outcome.action is Action.NOTHING:
            return False
        if was_served and not plan.items:
            found = [Damage("file", "a file of nginx was changed just now")]
            tell(found, self.state, self.journal, self.announce, mended=True)
        self.state.count("reloads", outcome.action.value)
        self.journal.info(
            f"nginx {outcome.action.value}", digest=outcome.digest, changes=len(plan.items), seconds=outcome.seconds
        )
        return True

    def _decided(self, observed: Configuration | None) -> Site:
        """Return what nginx is to serve: as it was decided last, where nothing changed since.

        Raises:
            RulegenError: It cannot be decided.
        """
        # Before the cluster is looked at, so that what changes meanwhile is decided anew.
        touch, began = self._touch, self.clock()
        if self.site is not None and self._decided_for is touch and began < self._decided_at + DECIDED_S:
            return self.site
        world = self._whole()
        site = self.site = self.live.settled(world, observed, self.site)
        self._ours = tuple(ours(world, self.live.options))
        self._decided_for, self._decided_at = touch, began
        self._tell(site.model.reasons, world)
        return site

    def _whole(self) -> World:
        """Return the cluster with the Secrets and ConfigMaps that its Ingresses name, once they were asked for."""
        until = self.clock() + ANSWER_S
        while True:
            world = self.snapshot()
            options = self.live.options
            ours = [one for one in world.ingresses.values() if not options.selection.refusal(one, world)]
            found = references(ours, options.prefix)
            secrets, config_maps = (told | given for told, given in zip(found, self.named, strict=True))
            for name in self.named[1]:
                if (settings := world.config_maps.get(name)) is not None:
                    config_maps |= header_maps(settings)
            self.watch.refer_to(secrets=secrets, config_maps=config_maps)
            missing = [one for one in self.watch.unanswered() if "/" in one]
            if not missing or self._ended.is_set():
                return world
            if self.clock() > until:
                self.journal.warning("no answer in time: served with what is known", missing=", ".join(missing[:5]))
                return world
            self._ended.wait(0.05)

    def _tell_damage(self, items: Collection[Item]) -> None:
        """Tell and count what others have changed, once for as long as it stays so."""
        now = frozenset(items)
        found = damage(items, ()) if now - self._damage else []
        tell(found, self.state, self.journal, self.announce, mended=self.mends)
        self._damage = frozenset() if self.mends else now

    def _note_served(self, reasons: tuple[Reason, ...]) -> None:
        refused = {reason.ingress for reason in reasons if reason.verdict in _NOT_SERVED}
        served = {ObjectName(*name.split("/", 1)): name not in refused for name in self._ours}
        if served != self.served:
            self.served = served
            self.on_served()

    def _tell(self, reasons: tuple[Reason, ...], world: World) -> None:
        """Tell what is new of what users must be told, and count what is in quarantine."""
        now = frozenset(reasons)
        for reason in sorted(now - self._told):
            self.journal.warning(str(reason))
            self._tell_user(reason, world)
        for reason in sorted(self._told - now):
            self.journal.info(f"no longer: {reason}")
        self._told = now
        refused = sum(reason.verdict is Verdict.QUARANTINED for reason in now)
        self.state.gauge("quarantined", refused)

    def _tell_user(self, reason: Reason, world: World) -> None:
        told = _TOLD.get(reason.verdict)
        if told is None or "/" not in reason.ingress:
            return
        name = ObjectName(*reason.ingress.split("/", 1))
        ingress = world.ingresses.get(name)
        uid = ingress.metadata.uid if ingress is not None else ""
        note = f"{reason.path}: {reason.message}" if reason.path else reason.message
        about = ObjectReference("networking.k8s.io/v1", "Ingress", *name, uid)
        self.tell(Announcement(about, told, "Serve", note, is_shared=True))
