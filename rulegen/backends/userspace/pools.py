"""The proxy's objects for one Service port: its pool with a server for each endpoint, and its frontends.

These are the frontends whose connections the rules lead to the proxy, see `rulegen.backends.userspace.service`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rulegen.languages.listeners.state import (
    PoolServer,
    ProxyFrontend,
    ProxyKey,
    ProxyValue,
    ServerPool,
    frontend_key,
    pool_key,
    pool_name,
    server_key,
)
from rulegen.model.services.ir import Delivery
from rulegen.net import Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rulegen.model.services.ir import ResolvedPort
    from rulegen.net import Address


def objects_of(port: ResolvedPort) -> Iterator[tuple[ProxyKey, ProxyValue]]:
    """Yield the objects of a port with their keys; none if no connection to it reaches the proxy."""
    frontends = list(_frontends(port))
    if port.protocol is Protocol.SCTP or not port.cluster or not frontends:
        return
    family = port.family
    pool = pool_name(port.service.namespace, port.service.name, port.name or port.port, family)
    yield pool_key(family, pool, port.protocol), ServerPool(port.affinity_s)
    for endpoint in port.cluster:
        server = PoolServer(pool, endpoint.address, endpoint.port)
        yield server_key(family, server, port.protocol), server
    for address, number in frontends:
        yield frontend_key(family, address, number, port.protocol), ProxyFrontend(pool)


def _frontends(port: ResolvedPort) -> Iterator[tuple[Address | None, int]]:
    """Yield the addresses and ports; address None stands for all addresses of the node."""
    if port.cluster_ip is not None and port.internal is Delivery.CLUSTER:
        yield port.cluster_ip, port.port
    for address in (*port.external_ips, *port.load_balancer_ips):
        yield address, port.port
    if port.node_port:
        yield None, port.node_port
