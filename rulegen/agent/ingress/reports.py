"""What users are told of Ingresses: logs, events on their objects and on the node, metrics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from rulegen.agent.services.drift import certain, damage, tell
from rulegen.agent.telemetry.events import EventRequest, ObjectReference
from rulegen.agent.telemetry.log import fault
from rulegen.model.ingress.reasons import Verdict
from rulegen.model.ingress.unread import REFUSED

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from rulegen.agent.services.drift import ForeignChange
    from rulegen.agent.telemetry.log import AgentLog
    from rulegen.agent.telemetry.state import AgentState
    from rulegen.diff.items import Item
    from rulegen.kube.snapshot.world import ClusterSnapshot
    from rulegen.model.ingress.reasons import Reason

SHOWN: Final = 5
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
"""Reasons of events; of what is left out, nobody has to do anything about the Ingress."""


@dataclass(slots=True)
class IngressReports:
    """Reports what is new, once for as long as it stays so.

    Attributes:
        mends: Whether anything is written; else differences are only reported.
        drift_event: Is given what others have changed, as a user reads it.
        send_event: Sends users events on their Ingresses.
        node: Returns what an event about this node is about; None where there are no such events.
    """

    state: AgentState
    log: AgentLog
    mends: bool
    drift_event: Callable[[str], None]
    send_event: Callable[[EventRequest], None]
    node: Callable[[], ObjectReference] | None
    _failure: str = ""
    _reasons: frozenset[Reason] = frozenset()
    _damage: frozenset[Item] = frozenset()
    _compared: str = ""

    def failure(self, error: Exception, pause_s: float, *, is_down: bool) -> None:
        """Report that nothing new is served, and why; at /healthz too, and by an event once."""
        fields = fault(error)
        self.state.metrics.site_failures.add()
        self.log.error("not served", again_in_s=pause_s, **fields)
        message = fields["error"]
        self.state.waits_for_site(message, is_down=is_down)
        if message != self._failure and self.node is not None:
            self.send_event(EventRequest(self.node(), "IngressesNotServed", "Serve", message))
        self._failure = message

    def success(self) -> None:
        """Note that what was wanted is served."""
        self._failure = ""
        self.state.served_site()

    def foreign(self, changes: list[ForeignChange]) -> None:
        """Report what others have changed, and count it."""
        tell(changes, self.state, self.log, self.drift_event, mended=self.mends)

    def drift(self, items: Collection[Item], digest: str) -> None:
        """Report what others have changed.

        Where nothing is written, what differs as soon as another configuration is wanted is no work of others, and
        neither is what a first look finds.

        Args:
            items: Of a plan against what nginx has.
            digest: Which configuration is wanted.
        """
        fresh = [item for item in items if item not in self._damage]
        is_asked_for = not self.mends and digest != self._compared
        changes = damage(certain(fresh) if is_asked_for else fresh, ())
        self.foreign(changes)
        if is_asked_for and len(fresh) > len(changes):
            self.log.info("differs from the objects", differences=len(fresh) - len(changes), written=False)
        self._compared = digest
        self._damage = frozenset() if self.mends else frozenset(items)

    def decisions(self, reasons: tuple[Reason, ...], world: ClusterSnapshot) -> None:
        """Report what is new of the reasons why Ingresses are not served as they were written."""
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
        """Log in one line all that could not be read, however much it is; and when all of it was."""
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
        if reason.verdict is Verdict.WAITING and REFUSED not in reason.message:
            return  # whoever is silent takes no event either
        event_reason = _EVENT_REASONS.get(reason.verdict)
        if event_reason is None or reason.about is None:
            return
        kind, name = reason.about
        ingress = world.ingresses.get(name)
        uid = ingress.metadata.uid if ingress is not None else ""
        note = f"{reason.path}: {reason.message}" if reason.path else reason.message
        about = ObjectReference("networking.k8s.io/v1", kind, *name, uid)
        self.send_event(EventRequest(about, event_reason, "Serve", note, is_shared=True))
