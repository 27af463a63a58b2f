"""Reports about Ingresses: logs, Events on Ingresses and on the node, metrics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from rulegen.agent.services.drift import certain, damage, tell
from rulegen.agent.telemetry.events import EventRequest, ObjectReference
from rulegen.agent.telemetry.log import fault
from rulegen.diff.items import Action
from rulegen.model.ingress.reasons import Verdict
from rulegen.model.ingress.unread import REFUSED
from rulegen.model.ingress.values.configmap import KEPT

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from rulegen.agent.services.drift import ForeignChange
    from rulegen.agent.telemetry.log import AgentLog
    from rulegen.agent.telemetry.state import AgentState
    from rulegen.diff.items import Item
    from rulegen.kube.snapshot.world import ClusterSnapshot
    from rulegen.model.ingress.reasons import Reason

SHOWN: Final = 5
REPEATS_S: Final = 60.0
"""Time after which the same failure is logged again, in seconds."""
_EVENT_REASONS: Final = {
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
"""Reasons of Events. Omitted reasons need no action from the owner of an Ingress."""


@dataclass(slots=True)
class IngressReports:
    """Reports each new fact once, as long as it stays the same.

    Attributes:
        mends: Whether differences are written; otherwise they are only reported.
        drift_event: Receives a text about changes by other programs.
        send_event: Sends Events on Ingresses.
        node: Returns the reference of this node for Events; None if there are no such Events.
    """

    state: AgentState
    log: AgentLog
    clock: Callable[[], float]
    mends: bool
    drift_event: Callable[[str], None]
    send_event: Callable[[EventRequest], None]
    node: Callable[[], ObjectReference] | None
    _failure: str = ""
    _repeat_at: float = 0.0
    _repeated: int = 0
    _reasons: frozenset[Reason] = frozenset()
    _damage: frozenset[Item] = frozenset()
    _compared: str = ""

    def failure(self, error: Exception, pause_s: float) -> None:
        """Report that changes cannot be served, and why: in the log, at /healthz, and once by an Event.

        The same failure is logged once a minute at most.
        """
        fields = fault(error)
        self.state.metrics.site_failures.add()
        message = fields["error"]
        self._repeated += 1
        if message != self._failure or self.clock() >= self._repeat_at:
            self.log.error("not served", again_in_s=pause_s, **fields, times=self._repeated)
            self._repeat_at, self._repeated = self.clock() + REPEATS_S, 0
        self.state.waits_for_site(message)
        if message != self._failure and self.node is not None:
            self.send_event(EventRequest(self.node(), "IngressesNotServed", "Serve", message))
        self._failure = message

    def success(self) -> None:
        """Record that the desired configuration is served."""
        self._failure, self._repeated = "", 0
        self.state.served_site()

    def foreign(self, changes: list[ForeignChange], *, mended: bool) -> None:
        """Report and count changes by other programs."""
        tell(changes, self.state, self.log, self.drift_event, mended=mended)

    def drift(self, items: Collection[Item], digest: str, *, mended: bool = False) -> None:
        """Report changes of files by other programs, each once. A program that has ended is no such change.

        If nothing is written, differences are not drift when the desired configuration has just changed, or at the
        first check.

        Args:
            items: Items of the plan against the state of nginx.
            digest: Digest of the desired configuration.
            mended: Whether the files were written again.
        """
        items = [item for item in items if item.kind != "process" or item.action is not Action.ADD]
        fresh = [item for item in items if item not in self._damage]
        is_asked_for = not self.mends and digest != self._compared
        changes = damage(certain(fresh) if is_asked_for else fresh, ())
        self.foreign(changes, mended=mended)
        if is_asked_for and len(fresh) > len(changes):
            self.log.info("differs from the objects", differences=len(fresh) - len(changes), written=False)
        self._compared = digest
        self._damage = frozenset() if mended else frozenset(items)

    def decisions(self, reasons: tuple[Reason, ...], world: ClusterSnapshot) -> None:
        """Report new reasons why Ingresses are not served as specified."""
        now = frozenset(reasons)
        for reason in sorted(now - self._reasons):
            if reason.verdict is not Verdict.WAITING:
                self.log.warning(str(reason))
            self._event(reason, world)
        for reason in sorted(self._reasons - now):
            if reason.verdict is not Verdict.WAITING:
                self.log.info(f"no longer: {reason}")
        self._report_waiting(now)
        self._reasons = now
        refused = sum(reason.verdict is Verdict.QUARANTINED for reason in now)
        self.state.metrics.quarantined.set(refused)
        self.state.metrics.over_limit.set("ingresses", sum(reason.verdict is Verdict.OVER_LIMIT for reason in now))

    def _report_waiting(self, now: frozenset[Reason]) -> None:
        """Log all unread objects in one line, and log when all were read."""
        before = {reason for reason in self._reasons if reason.verdict is Verdict.WAITING}
        waiting = {reason for reason in now if reason.verdict is Verdict.WAITING}
        if new := sorted(waiting - before):
            shown = "; ".join(str(reason) for reason in new[:SHOWN])
            more = f"; and {len(new) - SHOWN} more" if len(new) > SHOWN else ""
            self.log.warning("waiting for objects that could not be read", reasons=f"{shown}{more}", count=len(waiting))
        elif before and not waiting:
            self.log.info("no longer waiting: all objects were read")
        self.state.metrics.unread.set(len(waiting))

    def _event(self, reason: Reason, world: ClusterSnapshot) -> None:
        if reason.about is None and reason.verdict is Verdict.NOTE and self.node is not None:
            if any(reason.path == str(key) for key in world.recalled):
                self.send_event(EventRequest(self.node(), "ServedAsBefore", "Serve", str(reason)))
            return
        if reason.about is None and reason.verdict is Verdict.CLOSED and self.node is not None:
            self.send_event(EventRequest(self.node(), "IngressesClosed", "Serve", str(reason)))
        if reason.about is None and KEPT in reason.message and self.node is not None:
            self.send_event(EventRequest(self.node(), "SettingsNotUsed", "Serve", str(reason)))
        if reason.verdict is Verdict.WAITING and REFUSED not in reason.message:
            return  # if the log is silent, there is no Event either
        event_reason = _EVENT_REASONS.get(reason.verdict)
        if event_reason is None or reason.about is None:
            return
        kind, name = reason.about
        ingress = world.ingresses.get(name)
        uid = ingress.metadata.uid if ingress is not None else ""
        note = f"{reason.path}: {reason.message}" if reason.path else reason.message
        about = ObjectReference("networking.k8s.io/v1", kind, *name, uid)
        self.send_event(EventRequest(about, event_reason, "Serve", note, is_shared=True))
