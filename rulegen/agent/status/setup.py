"""What is published of this node: from what was asked for to publishers, each with its own Leases."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from rulegen.agent.status.leases import LeaseGroup
from rulegen.agent.status.publisher import EXCLUDED, IngressPublication, Publisher, ServicePublication, node_addresses
from rulegen.agent.telemetry.events import EventRequest, ObjectReference
from rulegen.apiserver.objects import ApiObjects, pod_namespace
from rulegen.host.node.listening_ports import listening_ports

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from rulegen.agent.ingress.sync import IngressSync
    from rulegen.agent.services.sync import Loop
    from rulegen.agent.status.publisher import StatusSource
    from rulegen.apiserver.watching.watch import Watch
    from rulegen.kube.objects.names import ObjectName

LEASE_NAMESPACE: Final = "rulegen"
"""Where Leases are if nobody says where, and outside of a Pod."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Publishing:
    """What is published of this node, and how.

    Attributes:
        ingresses: Whether addresses are published in the status of Ingresses.
        services: Whether in that of Services of type LoadBalancer that nobody else serves.
        group: What tells those who serve the same Ingresses from others: the class.
        addresses: Instead of the node's own; empty for those.
        internal: Whether the node's internal addresses are meant though it has external ones.
        withdraws: Whether they are taken out at the end.
        namespace: Where the Leases are; empty for the Pod's own.
    """

    ingresses: bool = True
    services: bool = False
    group: str = ""
    addresses: tuple[str, ...] = ()
    internal: bool = False
    withdraws: bool = True
    namespace: str = ""


def publishers_of(told: Publishing, watch: Watch, loop: Loop, site: IngressSync | None) -> list[Publisher]:
    """Return what publishes this node's addresses; none has begun yet."""
    objects = ApiObjects(watch.link)
    namespace = told.namespace or pod_namespace() or LEASE_NAMESPACE
    found: list[Publisher] = []

    def members(group: str) -> LeaseGroup:
        return LeaseGroup(objects, namespace, group, loop.node_name, loop.clock, now=objects.now)

    def add(who: LeaseGroup, publication: StatusSource, serves: Callable[[], bool]) -> Publisher:
        def addresses() -> tuple[str, ...] | None:
            if not serves() or not loop.state.is_eligible:
                return None
            return told.addresses or node_addresses(loop.node(), internal=told.internal) or None

        one = Publisher(
            members=who,
            publications=(publication,),
            addresses=addresses,
            node_uid=lambda: node.metadata.uid if (node := loop.node()) is not None else "",
            journal=loop.journal,
            state=loop.state,
            clock=loop.clock,
            withdraws=told.withdraws,
        )
        one.failed = lambda error: watch.failed(one, error, one.touch)
        one.went_well = lambda: watch.went_well(one)
        found.append(one)
        return one

    if site is not None and told.ingresses:
        ingresses = IngressPublication(loop.cluster.ingresses, lambda: site.served)
        who = members(f"ingress-{told.group}")
        site.on_served = add(who, ingresses, lambda: site.served is not None).touch
    if told.services:
        everybody = members("services")
        everybody.ports = listening_ports
        services = ServicePublication(loop.cluster.services, lambda: everybody.taken, _Refusals(loop).tell)
        add(everybody, services, lambda: (node := loop.node()) is not None and EXCLUDED not in node.metadata.labels)
    return found


@dataclass(slots=True)
class _Refusals:
    """Tells of Services that are not published, each once."""

    loop: Loop
    _told: dict[ObjectName, str] = field(default_factory=dict)

    def tell(self, refused: Mapping[ObjectName, str]) -> None:
        """Tell what is new."""
        for name, why in refused.items():
            if self._told.get(name) != why:
                self.loop.journal.warning("no addresses are published", service=name, why=why)
                uid = self.loop.cluster.uid_of(name)
                about = ObjectReference("v1", "Service", *name, uid)
                self.loop.tell(EventRequest(about, "NotPublished", "Publish", f"no addresses are published: {why}"))
        self._told = dict(refused)
