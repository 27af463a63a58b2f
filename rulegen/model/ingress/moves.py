"""Upstreams whose servers have changed, and nothing else: derived from the changed Services alone.

The whole model is derived again later. Whatever might change more than servers is left to that.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from rulegen.model.ingress.upstreams.services import Targets
from rulegen.net import Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from rulegen.kube.objects.names import ObjectName
    from rulegen.kube.snapshot.world import ClusterSnapshot, ServiceInput
    from rulegen.model.ingress.ir import Upstream
    from rulegen.model.ingress.resolve import IngressDecisions
    from rulegen.model.ingress.upstreams.services import UsableEndpoints

_BY_CLUSTER_IP = ".vip"


def moved_upstreams(
    before: IngressDecisions,
    known_upstreams: Mapping[ObjectName, Iterable[Upstream]],
    world: ClusterSnapshot,
    services: Iterable[ObjectName],
) -> list[Upstream] | None:
    """Return the upstreams of Services with their present servers; None if more than servers may have changed.

    Args:
        before: The last decisions.
        known_upstreams: The upstreams of their model, by Service; see `upstreams_by_service`.
        world: The cluster.
        services: All Services that have changed since.
    """
    common, lookups = before.common, before.lookups
    if world.addresses is None or world.addresses is not lookups.world.addresses:
        return None
    targets = Targets(
        services=world.services,
        settings=common.settings,
        families=common.families,
        forbidden=common.forbidden,
        addresses=world.addresses,
    )
    moved: list[Upstream] = []
    for name in services:
        known, entry = lookups.endpoints.get(name), world.services.get(name)
        if known is None or entry is None or entry.service is not known.source.service:
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
