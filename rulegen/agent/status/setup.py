"""What is published of this node: publishers, each with its own Leases."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from rulegen.agent.status.addresses import EXCLUDED, node_addresses, service_addresses
from rulegen.agent.status.ingresses import IngressPublication
from rulegen.agent.status.leases import LeaseGroup
from rulegen.agent.status.publisher import Publisher
from rulegen.agent.status.services import ServicePublication
from rulegen.agent.telemetry.events import EventRequest, ObjectReference
from rulegen.apiserver.objects import ApiObjects, pod_namespace
from rulegen.host.node.listening_ports import listening_ports

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from rulegen.agent.ingress.sync import IngressSync
    from rulegen.agent.services.reports import SyncReports
    from rulegen.agent.status.changes import StatusSource
    from rulegen.agent.status.leases import Port
    from rulegen.apiserver.watch import Watch
    from rulegen.kube.objects.names import ObjectName
    from rulegen.kube.objects.structs import Node

LEASE_NAMESPACE: Final = "rulegen"
"""Default namespace of Leases outside a Pod."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Publishing:
    """Which addresses are published, and how.

    Attributes:
        ingresses: Whether addresses are published in the status of Ingresses.
        services: Whether they are published in the status of Services of type LoadBalancer without another controller.
        group: The class of Ingresses: nodes that serve the same one publish together.
        addresses: Published instead of the node's own; empty for the node's own.
        service: The Service whose addresses are published instead of the node's own; None for none.
        internal: Whether to publish internal addresses even if the node has external ones.
        withdraws: Whether they are removed at shutdown.
        namespace: Namespace of the Leases; empty for the Pod's own.
    """

    ingresses: bool = True
    services: bool = False
    group: str = ""
    addresses: tuple[str, ...] = ()
    service: ObjectName | None = None
    internal: bool = False
    withdraws: bool = True
    namespace: str = ""


def publishers_of(
    settings: Publishing,
    watch: Watch,
    reports: SyncReports,
    clock: Callable[[], float],
    site: IngressSync | None,
    site_served: threading.Event,
) -> list[Publisher]:
    """Return the publishers of this node's addresses, not started yet.

    Args:
        settings: What is published.
        watch: The connection to the API server.
        reports: Reports about this node.
        clock: Monotonic time in seconds.
        site: The part that serves Ingresses; None if they are not served.
        site_served: Set when the served Ingresses have changed.
    """
    objects = ApiObjects(watch.link)
    namespace = settings.namespace or pod_namespace() or LEASE_NAMESPACE
    node, state, log = reports.node, reports.state, reports.log

    def members(group: str, ports: Callable[[], frozenset[Port]] = frozenset) -> LeaseGroup:
        return LeaseGroup(objects, namespace, group, node.name, clock, ports=ports, now=objects.now)

    def publisher(
        group: LeaseGroup, source: StatusSource, serves: Callable[[], bool], changed: threading.Event
    ) -> Publisher:
        def addresses() -> tuple[str, ...] | None:
            if not serves() or not state.is_eligible:
                return None
            if settings.service is not None:
                known = node.cluster.service(settings.service)
                return service_addresses(known) or None if known is not None else None
            return settings.addresses or node_addresses(node.node(), internal=settings.internal) or None

        return Publisher(
            members=group,
            publications=(source,),
            addresses=addresses,
            node_uid=lambda: _uid_of(node.node()),
            log=log,
            state=state,
            clock=clock,
            withdraws=settings.withdraws,
            server=watch,
            changed=changed,
        )

    publishers: list[Publisher] = []
    if site is not None and settings.ingresses:
        ingresses = IngressPublication(node.cluster.ingresses, lambda: site.published)
        group = members(f"ingress-{settings.group}")
        publishers.append(publisher(group, ingresses, lambda: site.is_serving, site_served))
    if settings.services:
        everybody = members("services", listening_ports)
        services = ServicePublication(node.cluster.services, lambda: everybody.taken, _Refusals(reports).report)
        publishers.append(publisher(everybody, services, lambda: _may_serve(node.node()), threading.Event()))
    return publishers


def _uid_of(node: Node | None) -> str:
    return node.metadata.uid if node is not None else ""


def _may_serve(node: Node | None) -> bool:
    return node is not None and EXCLUDED not in node.metadata.labels


@dataclass(slots=True)
class _Refusals:
    """Reports Services that are not published, each once."""

    reports: SyncReports
    _reported: dict[ObjectName, str] = field(default_factory=dict)

    def report(self, refused: Mapping[ObjectName, str]) -> None:
        """Report Services that are new, or have another reason."""
        for name, why in refused.items():
            if self._reported.get(name) != why:
                self.reports.log.warning("no addresses are published", service=name, why=why)
                about = ObjectReference("v1", "Service", *name, self.reports.node.cluster.uid_of(name))
                note = f"no addresses are published: {why}"
                self.reports.send_event(EventRequest(about, "NotPublished", "Publish", note))
        self._reported = dict(refused)
