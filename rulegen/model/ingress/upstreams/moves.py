"""Upstreams whose servers have changed, and nothing else: derived from the changed Services alone.

The whole model is derived again later. Whatever might change more than servers is left to that.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from rulegen.net import Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from rulegen.kube.objects.names import ObjectName
    from rulegen.kube.snapshot.world import ServiceInput
    from rulegen.model.ingress.ir import Upstream
    from rulegen.model.ingress.upstreams.services import Targets, UsableEndpoints

_BY_CLUSTER_IP = ".vip"


def moved_upstreams(
    targets: Targets, known_upstreams: Mapping[ObjectName, Iterable[Upstream]], services: Iterable[ObjectName]
) -> list[Upstream] | None:
    """Return the upstreams of Services with their present servers; None if more than servers may have changed.

    Args:
        targets: The present Services, with the endpoints that the last decisions have checked.
        known_upstreams: The upstreams of the last decisions, by Service; see `upstreams_by_service`.
        services: All Services that have changed since.
    """
    moved: list[Upstream] = []
    for name in services:
        known, entry = targets.endpoints.get(name), targets.services.get(name)
        if known is None or entry is None or entry.service != known.source.service:
            return None
        now = targets.checked(name, entry)
        if (now.refused, now.notes, now.ready.keys()) != (known.refused, known.notes, known.ready.keys()):
            return None
        with_servers = [_moved(upstream, entry, known, now) for upstream in known_upstreams.get(name, ())]
        if None in with_servers:
            return None
        moved += (upstream for upstream in with_servers if upstream is not None)
    return moved


def upstreams_by_service(upstreams: Iterable[Upstream]) -> dict[ObjectName, list[Upstream]]:
    """Return upstreams by their Service."""
    by_service: dict[ObjectName, list[Upstream]] = {}
    for upstream in upstreams:
        by_service.setdefault(upstream.service, []).append(upstream)
    return by_service


def _moved(upstream: Upstream, entry: ServiceInput, known: UsableEndpoints, now: UsableEndpoints) -> Upstream | None:
    """Return an upstream with its present servers; None if it is unknown which these are."""
    if upstream.name.endswith(_BY_CLUSTER_IP):
        return upstream
    number = upstream.name.split(".")[2]
    ports = [x for x in entry.service.spec.ports if str(x.port) == number and x.protocol == Protocol.TCP]
    if len(ports) != 1 or known.ready_of(ports[0]) != upstream.servers:
        return None
    return replace(upstream, servers=now.ready_of(ports[0]))
