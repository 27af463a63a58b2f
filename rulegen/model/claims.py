"""Who owns an address and port: two Services that claim one are told, and the older one wins.

kube-proxy does not look: which of the two gets the packets is then left to chance.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from rulegen.kube.world import ObjectName
    from rulegen.model.ir import Service, ServicePort
    from rulegen.net import Address

Claim = tuple[str, int, str, str]
"""Address, or nothing for a node port; port; protocol; family."""


class Claims:
    """The claims of all Services, kept as Services come, change and go."""

    def __init__(self, *, oldest_wins: bool = True) -> None:
        """Begin with none.

        Args:
            oldest_wins: Else conflicts are told, but both keep what they claim, as kube-proxy has it.
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
        """Return a Service without the frontends that an older one claims.

        Args:
            name: Of one that was put.
            warn: Told of both claimants of every conflict.
        """
        service = self._services[name]
        lost = {
            claim: owner
            for claim in _claims_of(service)
            if len(claimants := self._claimants[claim]) > 1 and (owner := min(claimants, key=self._rank)) != name
        }
        for (address, number, protocol, _), owner in lost.items():
            where = f"{address} port" if address else "node port"
            warn(f"Service {name}: {where} {number}/{protocol} is already claimed by the older Service {owner}")
        return _without(service, lost) if lost and self._oldest_wins else service

    def _rank(self, name: ObjectName) -> tuple[bool, str, ObjectName]:
        age = self._ages[name]
        return not age, age, name


def _claims_of(service: Service | None) -> Iterable[Claim]:
    return dict.fromkeys(claim for port in service.ports for claim in _claims(port)) if service else ()


def _claims(port: ServicePort) -> Iterator[Claim]:
    for address in (port.cluster_ip, *port.external_ips, *port.load_balancer_ips):
        if address is not None:
            yield str(address), port.port, port.protocol, port.family
    if port.node_port:
        yield "", port.node_port, port.protocol, port.family


def _without(service: Service, lost: Mapping[Claim, ObjectName]) -> Service:
    def keeps(port: ServicePort, address: Address | None, number: int) -> bool:
        return ("" if address is None else str(address), number, port.protocol, port.family) not in lost

    ports = (
        replace(
            port,
            cluster_ip=port.cluster_ip if port.cluster_ip and keeps(port, port.cluster_ip, port.port) else None,
            external_ips=tuple(a for a in port.external_ips if keeps(port, a, port.port)),
            load_balancer_ips=tuple(a for a in port.load_balancer_ips if keeps(port, a, port.port)),
            node_port=port.node_port if port.node_port and keeps(port, None, port.node_port) else 0,
        )
        for port in service.ports
    )
    return replace(service, ports=tuple(ports))
