"""Who owns an address and port: where two Services claim one, the older keeps it, and a warning names both.

kube-proxy does not look: which of the two gets the packets is then left to chance.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple

from rulegen.net import Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from rulegen.kube.world import ObjectName
    from rulegen.model.ir import Service, ServicePort
    from rulegen.net import Address, Family

NODE_PORT: Final = "node port"
HEALTH_PORT: Final = "healthCheckNodePort"


class Claim(NamedTuple):
    """What one Service alone can have.

    Attributes:
        address: As text; empty for a port of the node, on any of its addresses.
        port: The number.
        protocol: A health check is TCP.
        family: Of the address, or in which the node's port is served.
    """

    address: str
    port: int
    protocol: Protocol
    family: Family


class Claims:
    """The claims of all Services, kept as Services come, change and go."""

    def __init__(self, *, oldest_wins: bool = True) -> None:
        """Begin with none.

        Args:
            oldest_wins: Else both keep what they claim, as with kube-proxy; the warning is the same.
        """
        self._oldest_wins = oldest_wins
        self._services: dict[ObjectName, Service] = {}
        self._ages: dict[ObjectName, str] = {}
        self._claimants: dict[Claim, list[ObjectName]] = {}

    def put(self, name: ObjectName, service: Service | None, age: str = "") -> set[ObjectName]:
        """Take a Service in place of the one of this name, and return the others that share a claim with either.

        Args:
            name: Its name.
            service: What it claims; None where it is gone.
            age: creationTimestamp (RFC 3339, so text order is time order); a Service without one is the youngest.
        """
        touched: set[ObjectName] = set()
        for claim in _claims_of(self._services.pop(name, None)):
            left = [other for other in self._claimants.pop(claim, ()) if other != name]
            if left:
                self._claimants[claim] = left
                touched.update(left)
        self._ages.pop(name, None)
        if service is None:
            return touched
        self._services[name], self._ages[name] = service, age
        for claim in _claims_of(service):
            claimants = self._claimants.setdefault(claim, [])
            touched.update(claimants)
            claimants.append(name)
        return touched - {name}

    def settled(self, name: ObjectName, warn: Callable[[str], None]) -> Service:
        """Return a Service without the frontends and the health check port that an older one claims.

        A Service whose health check has the number of one of its own node ports keeps the node port.

        Args:
            name: Of one that was put.
            warn: Receives a line for each conflict, with the names of both claimants.
        """
        service = self._services[name]
        uses = _claims_of(service)
        lost: set[Claim] = set()
        for claim, own in uses.items():
            claimants = self._claimants[claim]
            if len(claimants) > 1 and (owner := min(claimants, key=self._rank)) != name:
                lost.add(claim)
                theirs = _claims_of(self._services[owner])[claim]
                for use in own:
                    warn(_conflict(name, claim, use, owner, theirs[0]))
        doubled = {claim for claim, own in uses.items() if len(own) > 1} - lost
        for claim in sorted(doubled):
            kept = "the node port keeps it" if self._oldest_wins else "both are written"
            warn(f"Service {name}: {HEALTH_PORT} {claim.port}/{claim.protocol} is its own node port too: {kept}")
        if not self._oldest_wins or not (lost or doubled):
            return service
        return _without(service, lost, lost | doubled)

    def _rank(self, name: ObjectName) -> tuple[bool, str, ObjectName]:
        age = self._ages[name]
        return not age, age, name


def _conflict(name: ObjectName, claim: Claim, use: str, owner: ObjectName, theirs: str) -> str:
    what = f"{use} {claim.port}/{claim.protocol}"
    as_what = "" if use == theirs else f", as its {theirs}"
    return f"Service {name}: {what} is already claimed by the older Service {owner}{as_what}"


def _claims_of(service: Service | None) -> Mapping[Claim, tuple[str, ...]]:
    """Return what a Service claims, each with what for: a node port stands before a health check."""
    claims: dict[Claim, tuple[str, ...]] = {}
    for claim, use in (each for port in (service.ports if service else ()) for each in _claims(port)):
        known = claims.get(claim, ())
        if use not in known:
            claims[claim] = (*known, use) if use == HEALTH_PORT else (use, *known)
    return claims


def _claims(port: ServicePort) -> Iterator[tuple[Claim, str]]:
    for address in (port.cluster_ip, *port.external_ips, *port.load_balancer_ips):
        if address is not None:
            yield Claim(str(address), port.port, port.protocol, port.family), f"{address} port"
    if port.node_port:
        yield Claim("", port.node_port, port.protocol, port.family), NODE_PORT
    if port.health_check_node_port:
        yield Claim("", port.health_check_node_port, Protocol.TCP, port.family), HEALTH_PORT


def _without(service: Service, lost: set[Claim], lost_health: set[Claim]) -> Service:
    """Return a Service without the frontends in `lost` and the health check ports in `lost_health`."""

    def keeps(port: ServicePort, address: Address | None, number: int) -> bool:
        return Claim("" if address is None else str(address), number, port.protocol, port.family) not in lost

    def checks_health(port: ServicePort) -> bool:
        return Claim("", port.health_check_node_port, Protocol.TCP, port.family) not in lost_health

    ports = (
        replace(
            port,
            cluster_ip=port.cluster_ip if port.cluster_ip and keeps(port, port.cluster_ip, port.port) else None,
            external_ips=tuple(a for a in port.external_ips if keeps(port, a, port.port)),
            load_balancer_ips=tuple(a for a in port.load_balancer_ips if keeps(port, a, port.port)),
            node_port=port.node_port if port.node_port and keeps(port, None, port.node_port) else 0,
            health_check_node_port=port.health_check_node_port if checks_health(port) else 0,
        )
        for port in service.ports
    )
    return replace(service, ports=tuple(ports))
