"""Endpoints that are derived from watched Pods and Nodes, for `run --endpoints pods` and `auto`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rulegen.errors import Rejected
from rulegen.kube.endpoints_from import EndpointsFrom
from rulegen.kube.objects.events import Changed, Listed
from rulegen.kube.objects.kinds import title
from rulegen.kube.objects.names import ObjectName
from rulegen.kube.objects.structs import Node, Pod, Service
from rulegen.kube.snapshot.live_pods import LivePods
from rulegen.kube.snapshot.pods import ZONE_LABEL

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rulegen.kube.objects.events import Event
    from rulegen.kube.objects.kinds import KubeObject
    from rulegen.kube.objects.names import Decoded
    from rulegen.kube.objects.structs import EndpointSlice


class LiveEndpoints:
    """The Pods and the zones of all Nodes, updated by events.

    Of the Nodes, only that of this agent is an object of the cluster: of others, only the zone is needed.
    """

    def __init__(self, source: EndpointsFrom, node: str) -> None:
        """Start without Pods and Nodes.

        Args:
            source: Which Services get endpoints from Pods.
            node: Name of this node.
        """
        self._source = source
        self._node = ObjectName("", node)
        self._pods = LivePods()
        self._zones: dict[str, str] = {}

    def link(self, entry: KubeObject) -> None:
        """Add an object that is not known."""
        match entry:
            case Pod():
                self._pods.add_pod(entry)
            case Service():
                self._pods.add_service(ObjectName(entry.metadata.namespace, entry.metadata.name), entry)

    def unlink(self, entry: KubeObject) -> None:
        """Remove an object as it was added."""
        match entry:
            case Pod():
                self._pods.remove_pod(entry)
            case Service():
                self._pods.remove_service(ObjectName(entry.metadata.namespace, entry.metadata.name))

    def selecting(self, pod: Pod) -> Iterable[ObjectName]:
        """Return the Services that a Pod is an endpoint of."""
        return self._pods.selecting(pod)

    def follow_nodes(self, event: Event) -> tuple[set[ObjectName], Event | None]:
        """Apply an event about Nodes.

        Returns:
            The Services whose endpoints it may change, and the part of the event about this node; None for nothing.
        """
        part: Event | None
        if isinstance(event, Listed):
            before, self._zones = self._zones, dict(self._zone(entry) for entry in event.objects)
            names = before.keys() | self._zones.keys()
            changed = {name for name in names if before.get(name) != self._zones.get(name)}
            part = Listed(Node, tuple(entry for entry in event.objects if self._zone(entry)[0] == self._node.name))
        else:
            name = event.name.name
            was = self._zones.pop(name, None)
            if isinstance(event, Changed):
                self._zones[name] = self._zone(event.state)[1]
            changed = {name} if was != self._zones.get(name) else set()
            part = event if event.name == self._node else None
        return self._pods.on_nodes(changed), part

    def complete(
        self, service: Service, slices: tuple[EndpointSlice, ...]
    ) -> tuple[tuple[EndpointSlice, ...], str] | None:
        """Return the slices of a Service with those derived from Pods, and the kind that they come from.

        Args:
            service: A Service.
            slices: Its EndpointSlices.

        Returns:
            None if the Service is refused because the Services of its namespace select too many Pods.
        """
        name = ObjectName(service.metadata.namespace, service.metadata.name)
        derived: tuple[EndpointSlice, ...] = ()
        if self._source is EndpointsFrom.PODS or not slices:
            if self._pods.is_refused(name):
                return None
            derived = self._pods.slices(name, self._zones)
        return (*slices, *derived), "Pods" if derived else "EndpointSlice" if slices else ""

    def settle(self, touched: Iterable[ObjectName]) -> set[ObjectName]:
        """Decide which Services are refused, in the namespaces of touched ones; return those for which this changed."""
        return {name for namespace in {name.namespace for name in touched} for name in self._pods.settle(namespace)}

    @property
    def rejected(self) -> list[Rejected]:
        """The refused Services, each with the reason."""
        return self._pods.rejected

    @staticmethod
    def _zone(entry: Decoded | Rejected) -> tuple[str, str]:
        """Return the name and the zone of a Node; an invalid Node exists, but its zone is unknown."""
        if isinstance(entry, Rejected):
            return entry.object.removeprefix(title("Node", "", "")), ""
        return entry.object.metadata.name, entry.object.metadata.labels.get(ZONE_LABEL, "")
