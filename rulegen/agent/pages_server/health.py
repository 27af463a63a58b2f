"""Health of the agent, and of each Service with a health-check node port."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from rulegen.agent.pages_server.http_loop import HttpLoop
from rulegen.agent.pages_server.reply import Reply
from rulegen.agent.pages_server.server import PageServer
from rulegen.agent.telemetry.events import EventRequest, ObjectReference, to_nobody
from rulegen.errors import HostError
from rulegen.net import Address, Family

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Mapping

    from rulegen.agent.telemetry.log import AgentLog
    from rulegen.agent.telemetry.state import AgentState
    from rulegen.kube.objects.names import ObjectName
    from rulegen.model.services.ir import ResolvedNode, ResolvedService

EVERYWHERE: Final = {Family.IPV4: "0.0.0.0", Family.IPV6: "::"}  # noqa: S104 - load balancers come from outside


def healthz(state: AgentState) -> Reply:
    """Answer 200 if load balancers may use this node: changes reach the kernel, and the node is not being removed."""
    reply = _answer(state, is_well=state.is_eligible, node_eligible=state.is_eligible or not state.is_alive)
    state.metrics.healthz.add(str(reply.status))
    return reply


def livez(state: AgentState) -> Reply:
    """Answer 200 if changes reach the kernel, even if the node is being removed, because a restart would not help."""
    reply = _answer(state, is_well=state.is_working)
    state.metrics.livez.add(str(reply.status))
    return reply


def _answer(state: AgentState, *, is_well: bool, node_eligible: bool | None = None) -> Reply:
    document: dict[str, object] = {
        "lastUpdated": _time(state.last_applied),
        "currentTime": _time(state.wall()),
        "healthy": is_well,
        "desiredGeneration": state.desired,
        "appliedGeneration": state.applied,
        "oldestUnappliedSeconds": round(state.age_s, 3),
    }
    if node_eligible is not None:
        document["nodeEligible"] = node_eligible
    if not_served := state.not_served:
        document["ingressesNotServed"] = not_served
    silence = state.service_proxy_silence or (not_served if state.site_is_down else "")
    if error := state.last_error or silence or state.sync_wait:
        document["lastError"] = error
    return Reply.of_json(200 if is_well else 503, document)


def _time(when: float) -> str | None:
    """Return a time in the format for JSON; None for never."""
    if not when:
        return None
    return dt.datetime.fromtimestamp(when, dt.UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


class _HealthAddress(NamedTuple):
    """The address at which a Service's health is answered."""

    family: Family
    address: str
    port: int


@dataclass(slots=True)
class ServiceHealth:
    """The health-check node ports of this node (Services of type LoadBalancer whose traffic stays on the node).

    Each family has its own server on each of its node port addresses, for the endpoints of that family.

    Attributes:
        addresses: Addresses to listen on, by family; changed by `serve_on`.
        send_event: Sends an Event about a port that cannot be opened.
        names: Returns the names of this node, in lower case.
        http_loop: Serves the clients of all ports.
    """

    state: AgentState
    log: AgentLog
    addresses: Mapping[Family, tuple[str, ...]] = field(
        default_factory=lambda: {family: (address,) for family, address in EVERYWHERE.items()}
    )
    send_event: Callable[[EventRequest], None] = to_nobody
    names: Callable[[], Collection[str]] = frozenset
    http_loop: HttpLoop = field(default_factory=HttpLoop)
    _servers: dict[_HealthAddress, PageServer] = field(default_factory=dict)
    _ports: dict[ObjectName, list[tuple[Family, int, int]]] = field(default_factory=dict)
    _counts: dict[tuple[Family, int], tuple[ObjectName, int]] = field(default_factory=dict)
    _failed: dict[_HealthAddress, str] = field(default_factory=dict)
    _has_moved: bool = False

    def serve_on(self, nodes: Mapping[Family, ResolvedNode]) -> None:
        """Set the addresses for the next `serve`: all addresses, or nodePortAddresses."""
        addresses = {
            family: (EVERYWHERE[family],)
            if node.node_port_addresses is None
            else tuple(map(str, node.node_port_addresses))
            for family, node in nodes.items()
        }
        self._has_moved |= addresses != self.addresses
        self.addresses = addresses

    def serve(
        self,
        services: Iterable[ResolvedService],
        uid: Callable[[ObjectName], str] = lambda _: "",
        left_out: Collection[ObjectName] = (),
    ) -> None:
        """Listen on the ports of these Services only; a port that cannot be opened is tried again the next time.

        Args:
            services: All that are served.
            uid: Returns the UID of a Service, for events.
            left_out: Services whose old rules and old health answer stay.
        """
        stays = {name: ports for name, ports in self._ports.items() if name in left_out}
        self._ports = stays | {service.name: ports for service in services if (ports := _local_endpoints(service))}
        self._settle(uid)

    def change(self, services: Mapping[ObjectName, ResolvedService | None], uid: Callable[[ObjectName], str]) -> None:
        """Update the Services that have changed or were deleted; the cost does not depend on the number of others."""
        is_other = bool(self._failed) or self._has_moved
        for name, service in services.items():
            ports = _local_endpoints(service) if service is not None else []
            is_other |= self._ports.pop(name, []) != ports
            if ports:
                self._ports[name] = ports
        if is_other:
            self._settle(uid)

    def _settle(self, uid: Callable[[ObjectName], str]) -> None:
        self._has_moved = False
        self._counts = {
            (family, port): (name, count) for name, ports in self._ports.items() for family, port, count in ports
        }
        wanted = {
            _HealthAddress(family, address, port)
            for family, port in self._counts
            for address in self.addresses.get(family, ())
        }
        for place in self._servers.keys() - wanted:
            self._servers.pop(place).stop()
        self._failed = {place: error for place, error in self._failed.items() if place in wanted}
        for place in sorted(wanted - self._servers.keys()):
            self._listen(place, uid)

    def stop(self) -> None:
        """Stop listening."""
        self.serve(())

    def _listen(self, place: _HealthAddress, uid: Callable[[ObjectName], str]) -> None:
        try:
            pages = {"*": lambda: self._reply(place)}
            self._servers[place] = PageServer(
                place.address, place.port, pages, probes=True, names=self.names, loop=self.http_loop
            )
        except HostError as error:
            if self._failed.get(place) == error.message:
                return
            self._failed[place] = error.message
            name, _ = self._counts[place.family, place.port]
            self.log.warning("no health check", service=name, error=error.message)
            about = ObjectReference("v1", "Service", *name, uid(name))
            note = f"node port for health checks: {error.message}"
            self.send_event(EventRequest(about, "FailedToStartServiceHealthcheck", "StartHealthcheck", note))
        else:
            self._failed.pop(place, None)

    def _reply(self, place: _HealthAddress) -> Reply:
        known = self._counts.get((place.family, place.port))
        if known is None:
            return Reply(404, "no Service has this port\n")
        name, count = known
        is_well = self.state.is_alive
        document = {
            "service": {"namespace": name.namespace, "name": name.name},
            "localEndpoints": count,
            "serviceProxyHealthy": is_well,
        }
        headers = {"X-Load-Balancing-Endpoint-Weight": str(count)}
        return Reply.of_json(200 if count and is_well else 503, document, headers)


def _local_endpoints(service: ResolvedService) -> list[tuple[Family, int, int]]:
    """Return family and number of each health-check node port, with the number of ready endpoints on this node."""
    addresses: dict[tuple[Family, int], set[Address]] = {}
    for port in service.ports:
        if port.health_check_node_port:
            addresses.setdefault((port.family, port.health_check_node_port), set()).update(port.ready_here)
    return [(*port, len(ready)) for port, ready in addresses.items()]
