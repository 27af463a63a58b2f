"""The addresses in the status of Services of type LoadBalancer."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from rulegen.agent.status.addresses import documents, entries_of, family_of, in_order, union
from rulegen.agent.status.changes import StatusChange
from rulegen.apiserver.objects import SERVICES, STRATEGIC_PATCH

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from rulegen.agent.status.addresses import Entries
    from rulegen.kube.objects.names import ObjectName
    from rulegen.kube.objects.structs import Service
    from rulegen.kube.snapshot.world import ServiceInput

PUBLISHED: Final = "rulegen.io/PublishedByNodes"
"""Type of the condition of a Service whose addresses rulegen has published; its message contains the addresses."""


@dataclass(slots=True)
class ServicePublication:
    """The status of Services of type LoadBalancer without another controller.

    A condition of the Service marks addresses that rulegen has published, so that this information survives a restart.
    A status that another client wrote is never changed.

    Attributes:
        services: Returns those of the cluster with their endpoints, as they are now.
        taken: Returns the ports that programs of the nodes listen on, such as the API server's: these are not
            published.
        refused: Called with each Service that is not published, and the reason.
    """

    services: Callable[[], Mapping[ObjectName, ServiceInput]]
    taken: Callable[[], frozenset[tuple[str, int]]]
    refused: Callable[[Mapping[ObjectName, str]], None] = lambda _: None
    now: Callable[[], dt.datetime] = lambda: dt.datetime.now(dt.UTC)

    def changes(self, live: Mapping[str, Entries]) -> Iterator[StatusChange]:
        """Yield the statuses that differ; of two Services with the same port, the older one is published."""
        here = self.taken()
        ports: dict[tuple[str, int], ObjectName] = {}
        refused: dict[ObjectName, str] = {}
        oldest_first = sorted(
            self.services().items(), key=lambda item: (item[1].service.metadata.creation_timestamp or "", item[0])
        )
        for name, given in oldest_first:
            service = given.service
            is_ours = is_published(service)
            if not is_ours and not _may_publish(service):
                continue
            # A port of a program is not taken from it now; later, no program takes a port from a Service.
            taken = frozenset() if is_ours else here
            target = self._target(name, given, live, ports, taken, refused) if is_candidate(service) else ()
            if entries_of(service.status.load_balancer.ingress) != target or bool(target) != is_ours:
                yield self._change(name, service, target)
        self.refused(refused)

    def wrote(self, change: StatusChange) -> None:
        """Do nothing: the condition of the Service contains it."""

    @staticmethod
    def _target(
        name: ObjectName,
        given: ServiceInput,
        live: Mapping[str, Entries],
        ports: dict[tuple[str, int], ObjectName],
        taken: frozenset[tuple[str, int]],
        refused: dict[ObjectName, str],
    ) -> Entries:
        service = given.service
        wanted = [(port.protocol, port.port) for port in service.spec.ports]
        clash = next((key for key in wanted if key in ports or key in taken), None)
        if clash is not None:
            who = f"Service {ports[clash]}" if clash in ports else "a program of the node"
            refused[name] = f"port {clash[1]}/{clash[0]} belongs to {who}"
            return ()
        ports.update(dict.fromkeys(wanted, name))
        if service.spec.external_traffic_policy == "Local":
            nodes = {
                endpoint.node_name
                for endpoints in given.slices
                for endpoint in endpoints.endpoints
                if endpoint.conditions.ready is not False and endpoint.node_name
            }
            live = {node: addresses for node, addresses in live.items() if node in nodes}
        families = set(service.spec.ip_families) or {"IPv4", "IPv6"}
        return tuple(entry for entry in union(live) if family_of(entry) in families)

    def _change(self, name: ObjectName, service: Service, target: Entries) -> StatusChange:
        time = self.now().strftime("%Y-%m-%dT%H:%M:%SZ")
        condition: dict[str, Any] = {
            "type": PUBLISHED,
            "status": "True",
            "reason": "NodeAddresses",
            "message": ",".join(target),
            "lastTransitionTime": time,
        }
        if not target:
            condition = {"type": PUBLISHED, "$patch": "delete"}
        entries: list[dict[str, str]] | None = [{**entry, "ipMode": "VIP"} for entry in documents(target)] or None
        status = {"loadBalancer": {"ingress": entries}, "conditions": [condition]}
        document = {"metadata": {"uid": service.metadata.uid}, "status": status}
        return StatusChange(SERVICES, name, STRATEGIC_PATCH, document, target)


def is_candidate(service: Service) -> bool:
    """Whether a Service requests a load balancer without a class."""
    spec = service.spec
    is_whole = service.metadata.deletion_timestamp is None and spec.cluster_ip not in {"", "None"}
    return spec.type == "LoadBalancer" and spec.load_balancer_class is None and is_whole


def is_published(service: Service) -> bool:
    """Whether rulegen has published the addresses in a Service's status."""
    ours = next((entry for entry in service.status.conditions if entry.type == PUBLISHED), None)
    if ours is None or ours.status != "True":
        return False
    now = entries_of(service.status.load_balancer.ingress)
    return not now or now == in_order(entry for entry in ours.message.split(",") if entry)


def _may_publish(service: Service) -> bool:
    return is_candidate(service) and not service.status.load_balancer.ingress
