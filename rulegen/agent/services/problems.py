"""What is not as it should be and may stay so: told when it is new, and once more when it is over."""

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
"""Of the faults of an object, so many are told one by one."""
_API_VERSIONS: Final = {
    "Service": "v1",
    "Node": "v1",
    "EndpointSlice": "discovery.k8s.io/v1",
    "Ingress": "networking.k8s.io/v1",
    "IngressClass": "networking.k8s.io/v1",
}


@dataclass(slots=True)
class KnownProblems:
    """What was told of what stays so, so that each is told once."""

    journal: AgentLog
    state: AgentState
    _rejected: frozenset[Rejected] = frozenset()
    _warnings: frozenset[str] = frozenset()
    _conflicts: frozenset[Conflict] = frozenset()
    _connections: str = ""
    _kept: tuple[str, ...] = ()
    _over: frozenset[tuple[ObjectName, LimitKind, Family]] = frozenset()

    def rejected(self, rejected: list[Rejected], tell: Callable[[EventRequest], None]) -> None:
        """Log what is new of objects that are skipped and what is no longer so; `tell` tells their users by events."""
        self.state.metrics.rejected.set(len(rejected))
        now = frozenset(rejected)
        for one in rejected:
            if one not in self._rejected:
                faults = "; ".join(map(str, one.faults[:SHOWN]))
                self.journal.warning("skipped", object=one.object, faults=faults)
                if (about := _referred(one)) is not None:
                    tell(EventRequest(about, "Rejected", "Serve", f"not served: {faults}", is_shared=True))
        for one in sorted(self._rejected - now, key=lambda one: one.object):
            self.journal.info("no longer skipped", object=one.object)
        self._rejected = now

    def warnings(self, texts: Iterable[str]) -> None:
        """Log what is new of what a user must be told although work goes on."""
        now = frozenset(texts)
        for text in sorted(now - self._warnings):
            self.journal.warning(text)
        self._warnings = now

    def over_limits(
        self,
        services: Iterable[ResolvedService],
        tell: Callable[[EventRequest], None],
        uid_of: Callable[[ObjectName], str],
    ) -> None:
        """Count the Services of which a part is served, and tell users of them by events; `warnings` logs it.

        Args:
            services: All that are served.
            tell: Receives the events.
            uid_of: Returns the UID of a Service, as far as it is known.
        """
        now = {(service.name, one): None for service in services for one in service.over}
        for name, one in now:
            if (name, one.kind, one.family) not in self._over:  # how many it has now may change all the time
                about = ObjectReference("v1", "Service", name.namespace, name.name, uid_of(name))
                note = f"served in part: {one.text} ({one.kind.option})"
                tell(EventRequest(about, "OverLimit", "Serve", note, is_shared=True))
        for kind in LimitKind:
            self.state.metrics.over_limit.set(kind.value, len({name for name, one in now if one.kind is kind}))
        self._over = frozenset((name, one.kind, one.family) for name, one in now)

    def conflicts(
        self,
        conflicts: Iterable[Conflict],
        tell: Callable[[EventRequest], None],
        uid_of: Callable[[ObjectName], str],
    ) -> None:
        """Tell users by events of what is new of addresses and ports that two have; `warnings` logs it.

        Args:
            conflicts: All that there are now; each is told about both Services.
            tell: Receives the events.
            uid_of: Returns the UID of a Service, as far as it is known.
        """
        now = dict.fromkeys(conflicts)
        for one in now:
            if one in self._conflicts:
                continue
            for name in (one.service, one.owner):
                if name is not None:
                    about = ObjectReference("v1", "Service", name.namespace, name.name, uid_of(name))
                    tell(EventRequest(about, "AddressConflict", "Serve", one.text, is_shared=True))
        self._conflicts = frozenset(now)

    def node(self, kept: tuple[str, ...]) -> None:
        """Log that nothing is kept any more of what an earlier Node object said; `warnings` logs what is kept."""
        if self._kept and not kept:
            self.journal.info("the Node is complete again: it alone decides")
        self._kept = kept

    def connections(self, error: HostError | None) -> None:
        """Log why stale connections are not forgotten; None where they are."""
        if error is not None and error.message != self._connections:
            self.journal.warning("stale connections are not looked for", error=error.message, hint=error.hint)
        self._connections = error.message if error is not None else ""


def _referred(rejected: Rejected) -> ObjectReference | None:
    """Return what an event about a rejected object is about; None for kinds of which nobody looks at events."""
    kind, _, name = rejected.object.partition(" ")
    version = _API_VERSIONS.get(kind)
    namespace, slash, short = name.partition("/")
    if version is None:
        return None
    return ObjectReference(version, kind, namespace if slash else "", short if slash else name, rejected.uid)
