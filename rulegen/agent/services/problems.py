"""Lasting problems: each is reported when it starts and when it ends."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from rulegen.agent.telemetry.events import EventRequest, ObjectReference
from rulegen.model.services.ir import LimitKind

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from rulegen.agent.telemetry.log import AgentLog
    from rulegen.agent.telemetry.state import AgentState
    from rulegen.errors import HostError, Rejected
    from rulegen.kube.objects.names import ObjectName
    from rulegen.model.services.conflicts import Conflict
    from rulegen.model.services.ir import ResolvedService
    from rulegen.net import Family

SHOWN: Final = 5
"""Maximum number of faults of an object that are reported."""
_API_VERSIONS: Final = {
    "Service": "v1",
    "Node": "v1",
    "EndpointSlice": "discovery.k8s.io/v1",
    "Ingress": "networking.k8s.io/v1",
    "IngressClass": "networking.k8s.io/v1",
}


@dataclass(slots=True)
class KnownProblems:
    """The problems that were already reported.

    Attributes:
        send_event: Sends users an event.
        uid_of: Returns the UID of a Service, if known.
    """

    log: AgentLog
    state: AgentState
    send_event: Callable[[EventRequest], None]
    uid_of: Callable[[ObjectName], str]
    _rejected: frozenset[Rejected] = frozenset()
    _warnings: frozenset[str] = frozenset()
    _conflicts: frozenset[Conflict] = frozenset()
    _connections: str = ""
    _kept: tuple[str, ...] = ()
    _over: frozenset[tuple[ObjectName, LimitKind, Family]] = frozenset()

    def rejected(self, rejected: list[Rejected]) -> None:
        """Report objects that are newly skipped, and those that are no longer skipped."""
        self.state.metrics.rejected.set(len(rejected))
        now = frozenset(rejected)
        for fresh in rejected:
            if fresh not in self._rejected:
                faults = "; ".join(map(str, fresh.faults[:SHOWN]))
                self.log.warning("skipped", object=fresh.object, faults=faults)
                if (about := _referred(fresh)) is not None:
                    note = f"not served: {faults}"
                    self.send_event(EventRequest(about, "Rejected", "Serve", note, is_shared=True))
        for name in sorted(rejection.object for rejection in self._rejected - now):
            self.log.info("no longer skipped", object=name)
        self._rejected = now

    def warnings(self, texts: Iterable[str]) -> None:
        """Log warnings that are new."""
        now = frozenset(texts)
        for text in sorted(now - self._warnings):
            self.log.warning(text)
        self._warnings = now

    def over_limits(self, services: Iterable[ResolvedService]) -> None:
        """Count the Services that are served in part, and send events about them; `warnings` logs it.

        Args:
            services: All that are served.
        """
        now = {(service.name, excess): None for service in services for excess in service.over}
        for name, excess in now:
            if (name, excess.kind, excess.family) not in self._over:  # the current number may change all the time
                note = f"served in part: {excess.text} ({excess.kind.option})"
                self.send_event(EventRequest(self.service(name), "OverLimit", "Serve", note, is_shared=True))
        for kind in LimitKind:
            self.state.metrics.over_limit.set(kind.value, len({name for name, excess in now if excess.kind is kind}))
        self._over = frozenset((name, excess.kind, excess.family) for name, excess in now)

    def conflicts(self, conflicts: Iterable[Conflict]) -> None:
        """Send events about new conflicts over addresses and ports; `warnings` logs them.

        Args:
            conflicts: All current conflicts; each is reported for both Services.
        """
        now = dict.fromkeys(conflicts)
        for conflict in now:
            if conflict in self._conflicts:
                continue
            for name in (conflict.service, conflict.owner):
                if name is not None:
                    about = self.service(name)
                    self.send_event(EventRequest(about, "AddressConflict", "Serve", conflict.text, is_shared=True))
        self._conflicts = frozenset(now)

    def node(self, kept: tuple[str, ...]) -> None:
        """Log when no part of an earlier Node object is in use any more; `warnings` logs which parts are."""
        if self._kept and not kept:
            self.log.info("the Node object is complete again and is used")
        self._kept = kept

    def connections(self, error: HostError | None) -> None:
        """Log why stale connections are not deleted from conntrack; None if they are."""
        if error is not None and error.message != self._connections:
            self.log.warning("cannot search for stale connections", error=error.message, hint=error.hint)
        self._connections = error.message if error is not None else ""

    def service(self, name: ObjectName) -> ObjectReference:
        """Return the reference of a Service for an Event."""
        return ObjectReference("v1", "Service", name.namespace, name.name, self.uid_of(name))


def _referred(rejected: Rejected) -> ObjectReference | None:
    """Return the reference of a rejected object for an Event; None for kinds whose Events nobody reads."""
    kind, _, name = rejected.object.partition(" ")
    version = _API_VERSIONS.get(kind)
    namespace, slash, short = name.partition("/")
    if version is None:
        return None
    return ObjectReference(version, kind, namespace if slash else "", short if slash else name, rejected.uid)
