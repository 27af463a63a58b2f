"""Health: of the agent itself, and of each Service that a load balancer asks for by a port of its own."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rulegen.agent.servers import Reply, Server
from rulegen.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rulegen.agent.journal import Journal
    from rulegen.agent.state import AgentState
    from rulegen.kube.world import ObjectName
    from rulegen.model.ir import Service


def healthz(state: AgentState) -> Reply:
    """Answer whether load balancers may use this node: changes reach the kernel, and the node is to stay."""
    return _answer(state, is_well=state.is_eligible, node_eligible=state.is_eligible or not state.is_alive)


def livez(state: AgentState) -> Reply:
    """Answer whether the agent works, though its node may be on its way out: it is not to be restarted for that."""
    return _answer(state, is_well=state.is_working)


def _answer(state: AgentState, *, is_well: bool, node_eligible: bool | None = None) -> Reply:
    now = dt.datetime.now(dt.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    document: dict[str, object] = {
        "currentTime": now,
        "healthy": is_well,
        "desiredGeneration": state.desired,
        "appliedGeneration": state.applied,
        "oldestUnappliedSeconds": round(state.age_s, 3),
    }
    if node_eligible is not None:
        document["nodeEligible"] = node_eligible
    if state.last_error:
        document["lastError"] = state.last_error
    return Reply.of_json(200 if is_well else 503, document)


@dataclass(slots=True)
class ServiceHealth:
    """The health-check node ports of this node (Services of type LoadBalancer whose traffic stays on the node).

    Attributes:
        addresses: Where to listen, an address of each family.
    """

    state: AgentState
    journal: Journal
    addresses: tuple[str, ...] = ("0.0.0.0", "::")  # noqa: S104 - load balancers come from outside
    _servers: dict[int, list[Server]] = field(default_factory=dict)
    _counts: dict[int, tuple[ObjectName, int]] = field(default_factory=dict)

    def take(self, services: Iterable[Service]) -> None:
        """Listen for these Services, and for no others; what cannot be listened on is tried again the next time."""
        wanted = {port: (service.name, count) for service in services for port, count in _local_endpoints(service)}
        for port in self._servers.keys() - wanted.keys():
            for server in self._servers.pop(port):
                server.stop()
        self._counts = wanted
        for port in sorted(wanted.keys() - self._servers.keys()):
            self._listen(port)

    def stop(self) -> None:
        """Listen no longer."""
        self.take(())

    def _listen(self, port: int) -> None:
        found = []
        for address in self.addresses:
            try:
                found.append(Server(address, port, {"*": lambda: self._reply(port)}))
            except HostError as error:
                name, _ = self._counts[port]
                self.journal.warning("no health check", service=name, error=error.message)
        if found:
            self._servers[port] = found

    def _reply(self, port: int) -> Reply:
        known = self._counts.get(port)
        if known is None:
            return Reply(404, "no Service has this port any more\n")
        name, count = known
        is_well = self.state.is_alive
        document = {
            "service": {"namespace": name.namespace, "name": name.name},
            "localEndpoints": count,
            "serviceProxyHealthy": is_well,
        }
        headers = {"X-Load-Balancing-Endpoint-Weight": str(count)}
        return Reply.of_json(200 if count and is_well else 503, document, headers)


def _local_endpoints(service: Service) -> Iterable[tuple[int, int]]:
    """Return for each health-check node port how many endpoints' addresses are on this node."""
    found: dict[int, set[str]] = {}
    for port in service.ports:
        if port.health_check_node_port:
            addresses = found.setdefault(port.health_check_node_port, set())
            addresses.update(str(endpoint.address) for endpoint in port.local)
    return {port: len(addresses) for port, addresses in found.items()}.items()
