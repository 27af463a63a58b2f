"""Reports of the sync of Services: in the log, by Kubernetes Events, in metrics and to load balancers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rulegen.agent.services.drift import certain, damage, tell
from rulegen.agent.services.problems import KnownProblems
from rulegen.agent.telemetry.events import EventRequest, to_nobody
from rulegen.kube.objects.names import ObjectName

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping

    from rulegen.agent.pages_server.health import ServiceHealth
    from rulegen.agent.telemetry.log import AgentLog
    from rulegen.agent.telemetry.state import AgentState
    from rulegen.agent.this_node import ThisNode
    from rulegen.compiler.services.incremental import ServiceRules
    from rulegen.diff.items import Item
    from rulegen.host.userspace.health_log import EndpointHealth
    from rulegen.model.services.ir import ResolvedService
    from rulegen.plan.plan import Plan


@dataclass(slots=True)
class SyncReports:
    """Reports what the sync does and finds, once each.

    Attributes:
        node: This node.
        mends: Whether differences are written; else they are only reported.
        send_event: Sends users an event.
        health: Answers load balancers; None if another proxy does.
    """

    node: ThisNode
    state: AgentState
    log: AgentLog
    mends: bool = True
    send_event: Callable[[EventRequest], None] = to_nobody
    health: ServiceHealth | None = None
    problems: KnownProblems = field(init=False)
    _left: frozenset[Item] = frozenset()
    _parameters: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.problems = KnownProblems(self.log, self.state, self.send_event, self.node.cluster.uid_of)

    def warnings(self, rules: ServiceRules, notes: tuple[str, ...]) -> None:
        """Report new warnings."""
        self.problems.warnings((*rules.warnings, *notes))
        self.problems.conflicts(rules.conflicts)
        self.problems.over_limits(rules.services)

    def status(self, rules: ServiceRules, changed: Mapping[ObjectName, ResolvedService | None] | None = None) -> None:
        """Report the state of the node, also to load balancers.

        Args:
            rules: The decisions.
            changed: Services that have changed; None if all may have.
        """
        self.state.node_is_deleted(deleted=self.node.is_leaving())
        self.problems.node(rules.kept)
        if self.health is not None:
            self.health.serve_on(rules.nodes)
            if changed is None:
                self.health.serve(rules.services, self.node.cluster.uid_of, rules.left_out)
            else:
                self.health.change(changed, self.node.cluster.uid_of)
        self.state.metrics.services.set(len(rules.services))
        self.problems.rejected(self.node.cluster.rejected())

    def drift_event(self, note: str) -> None:
        """Send an Event on the node about changes by another program."""
        reason, action = ("DriftMended", "Mend") if self.mends else ("DriftFound", "Report")
        self.send_event(EventRequest(self.node.reference(), reason, action, note))

    def drift(self, plan: Plan, changed: set[ObjectName], attempted: set[Hashable], *, is_first: bool) -> None:
        """Report changes by another program; if nothing is written, also report other differences, separately.

        Args:
            plan: The differences.
            changed: Services that have changed since the last check.
            attempted: Objects that differ because of rulegen's own writes.
            is_first: Whether the earlier state is unknown: then only certain cases count as drift.
        """
        if is_first and self.mends:  # a first write needs no items, which would be as many as objects
            self._left = frozenset()
            self.state.metrics.drift_unmended.set(0)
            return
        fresh = [item for item in plan.items if item not in self._left]  # a lasting difference is reported once
        ended = {str(key) for part in plan.parts.values() for key in part.ended}
        if is_first:
            changes = damage(certain(fresh), (), ended)
        else:
            changes = damage(fresh, changed if self.mends else (), ended, attempted)
        tell(changes, self.state, self.log, self.drift_event, mended=self.mends)
        others = len(fresh) - len(changes)
        if others and not self.mends:
            self.log.info("differs from the objects", differences=others, written=False)
            note = f"{others} differences from the objects; nothing is written"
            self.send_event(EventRequest(self.node.reference(), "DifferenceFound", "Report", note))
        self._left = frozenset() if self.mends else frozenset(plan.items)
        self.state.metrics.drift_unmended.set(len(self._left))

    def refused_parameters(self, refused: Mapping[str, str]) -> None:
        """Report the kernel parameters that cannot be set on this host.

        Args:
            refused: All of them, each with the reason.
        """
        self.state.metrics.parameters_refused.set(len(refused))
        for name in sorted(refused.keys() - self._parameters):
            self._parameters.add(name)
            self.log.warning("kernel parameter not set", name=name, error=refused[name])
            self.send_event(EventRequest(self.node.reference(), "ParameterNotSet", "SetParameter", refused[name]))

    def endpoint_health(self, health: EndpointHealth) -> None:
        """Report that the proxy does not use an endpoint any more, or uses it again."""
        outcome = "returned" if health.is_up else "ejected"
        self.state.metrics.ejections.add(outcome)
        self.log.info(f"endpoint {outcome}", service=health.service, endpoint=health.endpoint)
        about = self.problems.service(ObjectName(*health.service.split("/", 1)))
        if health.is_up:
            note = f"endpoint {health.endpoint} accepts connections and is used again"
            self.send_event(EventRequest(about, "EndpointReturned", "Serve", note, is_warning=False))
        else:
            note = (
                f"endpoint {health.endpoint} did not accept a connection and is not used, but tested every two seconds"
            )
            self.send_event(EventRequest(about, "EndpointEjected", "Serve", note))

    def silent_proxy(self, error: str) -> None:
        """Report that the proxy of Services serves nothing."""
        self.log.error("no TCP connection to a Service is accepted", error=error)
        note = f"{error}: no TCP connection to a Service is accepted"
        self.send_event(EventRequest(self.node.reference(), "ServicesNotServed", "Serve", note))

    def family_failure(self, family: str, fields: Mapping[str, str], pause_s: float) -> None:
        """Report that a family cannot be read or written, and the time of the next attempt; the other one goes on."""
        self.state.failed(fields["error"])
        self.log.error("not written", family=family, again_in_s=pause_s, **fields)
        self.send_event(EventRequest(self.node.reference(), "FailedToSync", "Sync", fields["error"]))

    def failure(self, fields: Mapping[str, str], pause_s: float) -> None:
        """Report a failure and the time of the next attempt."""
        self.state.failed(fields["error"])
        self.log.error("not written", again_in_s=pause_s, **fields)
        self.send_event(EventRequest(self.node.reference(), "FailedToSync", "Sync", fields["error"]))
