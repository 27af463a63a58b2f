"""Limits of one Service, so that its cost cannot delay other Services.

A Service over a limit is served in part. The same objects always give the same part. Kubernetes limits an EndpointSlice
to 1,000 endpoints, but limits neither the ports and addresses of a Service nor the number of its EndpointSlices. etcd
limits an object to 1.5 MB.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec

from rulegen.model.services.ir import LimitKind, OverLimit

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from rulegen.kube.objects.structs import ServicePort
    from rulegen.kube.snapshot.world import ServiceInput
    from rulegen.model.services.ir import ResolvedService
    from rulegen.net import Address, Family, Network

ENDPOINTS: Final = 50_000
"""Default limit of endpoints: the scalability threshold of Kubernetes for a whole cluster."""
FRONTENDS: Final = 10_000
"""Default limit of frontends: the scalability threshold of Kubernetes for Services of a whole cluster."""
PORTS_OF_LIMIT: Final = 5
"""The limit of endpoints divided by this is the limit of one port: its rules are one chain, committed at once."""
REAL_SERVERS_PER_ENDPOINT: Final = 5
"""The limit of endpoints times this is the limit of real servers: in ipvs mode, each frontend has its own."""
LARGE: Final = 2_000
"""A Service with more endpoints and frontends than this is written after smaller Services."""


class ServiceLimits(msgspec.Struct, frozen=True, kw_only=True):
    """The limits of one Service in each family.

    Attributes:
        endpoints: Endpoints of all its ports together (ports times endpoints). The limit of one port is a fifth.
        frontends: Pairs of address and port (ports times addresses). A node port counts once.
    """

    endpoints: int = ENDPOINTS
    frontends: int = FRONTENDS


class Frontends(msgspec.Struct, frozen=True):
    """The part of a Service's ports and addresses that is served.

    Attributes:
        ports: The first ports.
        vips, external_ips: The first load balancer IPs and external IPs.
        ranges: The first source ranges. At least one is kept, because an empty list admits all clients.
        over: The exceeded limits.
    """

    ports: Sequence[ServicePort]
    vips: tuple[Address, ...]
    external_ips: tuple[Address, ...]
    ranges: tuple[Network, ...]
    over: tuple[OverLimit, ...] = ()


def limited_frontends(all_: Frontends, family: Family, limits: ServiceLimits) -> Frontends:
    """Return the frontends of a Service that are within the limit.

    First, ports are selected, each with its ClusterIP and node port. Then addresses are added, each with all these
    ports: load balancer IPs, then external IPs, in the order of the object.
    """
    most = limits.frontends
    ports = all_.ports
    had = len(all_.vips) + len(all_.external_ips)
    admitted = len(all_.ranges) * max(1, len(ports) * len(all_.vips))
    if len(ports) * (2 + had) <= most and admitted <= most:  # true for nearly all Services
        return all_
    base = _base(ports)
    if base > most:
        ports = _first_ports(ports, most)
        base = _base(ports)
    addresses = (most - base) // len(ports) if ports else 0
    vips = all_.vips[:addresses]
    external_ips = all_.external_ips[: addresses - len(vips)]
    over = []
    if len(ports) < len(all_.ports) or len(vips) + len(external_ips) < had:
        over.append(
            OverLimit(
                LimitKind.FRONTENDS,
                family,
                f"{len(all_.ports)} ports with a ClusterIP and {had} other addresses in {family} are more than {most}"
                f" frontends: the first {len(ports)} ports are served, at the first {len(vips) + len(external_ips)} of"
                " those addresses",
            )
        )
    ranges = all_.ranges[: max(1, most // max(1, len(ports) * len(vips)))]
    if len(ranges) < len(all_.ranges) and vips:
        over.append(
            OverLimit(
                LimitKind.SOURCE_RANGES,
                family,
                f"{len(all_.ranges)} source ranges for {len(ports)} ports and {len(vips)} load balancer addresses in"
                f" {family} are more than {most}: the first {len(ranges)} are allowed, all others are rejected",
            )
        )
    return Frontends(ports, vips, external_ips, ranges, tuple(over))


def _base(ports: Collection[ServicePort]) -> int:
    """Return the number of frontends without external addresses: ClusterIPs and node ports."""
    return len(ports) + sum(1 for port in ports if port.node_port)


def _first_ports(ports: Sequence[ServicePort], most: int) -> Sequence[ServicePort]:
    """Return the first ports whose ClusterIPs and node ports are within the limit; at least one port."""
    left = most
    for index, port in enumerate(ports):
        left -= 2 if port.node_port else 1
        if left < 0:
            return ports[: max(1, index)]
    return ports


def share_of_each(sizes: Collection[tuple[int, int]], most: int) -> int | None:
    """Return the largest number of endpoints for each port that keeps the total within the limit; at least 1.

    The result is None if all endpoints are within the limit.

    Args:
        sizes: For each port, the number of its endpoints, and how often each of them is written.
        most: The limit of the total.
    """
    if sum(count * copies for count, copies in sizes) <= most:
        return None
    low, high = 1, max(count for count, _ in sizes)
    while low < high:
        middle = (low + high + 1) // 2
        if sum(min(count, middle) * copies for count, copies in sizes) <= most:
            low = middle
        else:
            high = middle - 1
    return low


def is_large(service_input: ServiceInput | None, service: ResolvedService | None) -> bool:
    """Whether a Service is larger than `LARGE`, now or as it was served, so that others are written before it.

    Args:
        service_input: Its objects; None if it was deleted.
        service: The Service as it was served; None if it was not.
    """
    size = 0
    if service is not None:
        size = sum(
            len(port.endpoints) + 1 + len(port.external_ips) + len(port.load_balancer_ips) for port in service.ports
        )
    if service_input is not None:
        spec = service_input.service.spec
        addresses = 1 + len(spec.external_ips) + len(service_input.service.status.load_balancer.ingress)
        asked = len(spec.ports) * addresses + sum(
            len(endpoint_slice.ports) * len(endpoint_slice.endpoints) for endpoint_slice in service_input.slices
        )
        size = max(size, asked)
    return size > LARGE
