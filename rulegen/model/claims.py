"""Who owns an address and port: two Services that claim one are told, and the older one wins.

kube-proxy does not look: which of the two gets the packets is then left to chance.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from rulegen.kube.world import ObjectName
    from rulegen.model.ir import Service, ServicePort
    from rulegen.net import Address

Claim = tuple[str, int, str, str]
"""Address, or nothing for a node port; port; protocol; family."""


def settle(
    services: Mapping[ObjectName, Service],
    ages: Mapping[ObjectName, str],
    warn: Callable[[str], None],
    *,
    oldest_wins: bool = True,
) -> dict[ObjectName, Service]:
    """Return the services, each without the frontends that an older one has claimed before.

    Args:
        services: By name.
        ages: creationTimestamp (RFC 3339, so text order is time order) by name; a Service without one is the youngest.
        warn: Told of both claimants of every conflict.
        oldest_wins: Else conflicts are told, but both keep what they claim, as kube-proxy has it.
    """
    owners: dict[Claim, ObjectName] = {}
    conflicts: set[ObjectName] = set()
    for name in sorted(services, key=lambda n: (not ages.get(n), ages.get(n, ""), n)):
        for port in services[name].ports:
            for claim in _claims(port):
                if owners.setdefault(claim, name) != name:
                    conflicts.add(name)
    settled = {name: _without_lost(services[name], owners, warn) for name in services if name in conflicts}
    return {**services, **settled} if oldest_wins else dict(services)


def _claims(port: ServicePort) -> Iterator[Claim]:
    for address in (port.cluster_ip, *port.external_ips, *port.load_balancer_ips):
        if address is not None:
            yield str(address), port.port, port.protocol, port.family
    if port.node_port:
        yield "", port.node_port, port.protocol, port.family


def _without_lost(service: Service, owners: Mapping[Claim, ObjectName], warn: Callable[[str], None]) -> Service:
    def keeps(port: ServicePort, address: Address | None, number: int) -> bool:
        text = "" if address is None else str(address)
        owner = owners[(text, number, port.protocol, port.family)]
        if owner != service.name:
            where = f"{address} port" if address else "node port"
            warn(
                f"Service {service.name}: {where} {number}/{port.protocol} is already claimed by the older Service"
                f" {owner}"
            )
        return owner == service.name

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
