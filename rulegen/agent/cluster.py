"""The known state of the cluster: one thread changes it, all threads read it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from rulegen.kube.endpoints_from import EndpointsFrom
from rulegen.kube.objects.structs import ConfigMap, Ingress, Secret
from rulegen.kube.snapshot.cluster import Cluster
from rulegen.model.ingress.values.references import ReferencedNames

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rulegen.errors import Rejected
    from rulegen.kube.objects.events import Event
    from rulegen.kube.objects.names import Decoded, ObjectKey, ObjectName
    from rulegen.kube.objects.structs import Node, Service
    from rulegen.kube.snapshot.cluster import Touched
    from rulegen.kube.snapshot.world import ClusterSnapshot, ServiceInput


class SharedCluster:
    """The cluster for several threads: one thread applies events, any thread may read.

    Attributes:
        objects: The cluster itself, for the thread that applies events.
    """

    def __init__(self, endpoints_from: EndpointsFrom = EndpointsFrom.SLICES, node: str = "") -> None:
        """Start without any objects; for the arguments, see `Cluster`."""
        self.objects = Cluster(endpoints_from, node)
        self._lock = threading.Lock()

    def apply_event(self, event: Event) -> Touched:
        """Apply an event; return what it affects."""
        with self._lock:
            return self.objects.apply_event(event)

    def services(self) -> Mapping[ObjectName, ServiceInput]:
        """Return all Services with their endpoints."""
        with self._lock:
            inputs = {name: self.objects.service(name) for name in self.objects.names()}
        return {name: service_input for name, service_input in inputs.items() if service_input is not None}

    def service(self, name: ObjectName) -> Service | None:
        """Return a Service; None if it does not exist."""
        with self._lock:
            known = self.objects.service(name)
        return known.service if known is not None else None

    def ingresses(self) -> Mapping[ObjectName, Ingress]:
        """Return all Ingresses."""
        with self._lock:
            return self.objects.of_kind(Ingress)

    def node(self, name: str) -> Node | None:
        """Return a node; None if it does not exist."""
        with self._lock:
            return self.objects.node(name)

    def rejected(self) -> list[Rejected]:
        """Return the objects that are skipped."""
        with self._lock:
            return self.objects.rejected

    def snapshot(self) -> list[Decoded | Rejected]:
        """Return a snapshot of all objects."""
        with self._lock:
            return self.objects.snapshot()

    def for_ingresses(self) -> ClusterSnapshot:
        """Return all objects that Ingresses depend on; unchanged objects are identical to those of the last call."""
        with self._lock:
            return self.objects.for_ingresses()

    def gone(self) -> frozenset[ObjectKey]:
        """Return the Secrets and ConfigMaps that the API server has reported as missing."""
        with self._lock:
            return self.objects.gone

    def named(self) -> ReferencedNames:
        """Return the Secrets and ConfigMaps that the API server has reported as existing or as missing."""
        with self._lock:
            secrets, config_maps = self.objects.of_kind(Secret), self.objects.of_kind(ConfigMap)
            gone = self.objects.gone
        return ReferencedNames(
            frozenset(secrets.keys() | {key.name for key in gone if key.kind == "Secret"}),
            frozenset(config_maps.keys() | {key.name for key in gone if key.kind == "ConfigMap"}),
        )

    def is_reported(self, key: ObjectKey) -> bool:
        """Return whether the API server has reported that a Secret or ConfigMap exists or is missing."""
        with self._lock:
            return self.objects.is_reported(Secret if key.kind == "Secret" else ConfigMap, key.name)

    def uid_of(self, service: ObjectName) -> str:
        """Return the UID of a Service; empty if it does not exist."""
        known = self.service(service)
        return known.metadata.uid if known is not None else ""
