"""Watched Pods, indexed so that a change of one looks only at the Services that select it."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Final

from rulegen.errors import Fault, Rejected
from rulegen.kube.objects.kinds import title_of
from rulegen.kube.objects.pods import can_be_endpoint
from rulegen.kube.snapshot.pods import has_derived_endpoints, slices_of_pods

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from rulegen.kube.objects.names import ObjectName
    from rulegen.kube.objects.structs import EndpointSlice, Pod, Service

MAX_MATCHES: Final = 250_000
"""Maximum number of pairs of a Service and a Pod that it selects, of one namespace. The work grows with this number."""

_Label = tuple[str, str, str]
"""Namespace, key and value."""


class LivePods:
    """The Pods that can be endpoints, and the Services that select them."""

    def __init__(self) -> None:
        self._pods: defaultdict[str, dict[str, Pod]] = defaultdict(dict)
        self._services: dict[ObjectName, Service] = {}
        self._label_of: dict[ObjectName, _Label] = {}
        self._services_by_label: defaultdict[_Label, set[ObjectName]] = defaultdict(set)
        self._pods_by_label: dict[_Label, dict[str, Pod]] = {}
        self._new_labels: defaultdict[str, set[_Label]] = defaultdict(set)
        self._counts: dict[ObjectName, int] = {}
        self._uncounted: defaultdict[str, set[ObjectName]] = defaultdict(set)
        self._totals: Counter[str] = Counter()
        self._refused: dict[str, frozenset[ObjectName]] = {}

    def add_pod(self, pod: Pod) -> None:
        """Add a Pod that is not known."""
        if not can_be_endpoint(pod):
            return
        metadata = pod.metadata
        self._pods[metadata.namespace][metadata.name] = pod
        for pair in metadata.labels.items():
            of_label = self._pods_by_label.get((metadata.namespace, *pair))
            if of_label is not None:
                of_label[metadata.name] = pod
        self._count(pod, 1)

    def remove_pod(self, pod: Pod) -> None:
        """Remove a Pod as it was added."""
        if not can_be_endpoint(pod):
            return
        metadata = pod.metadata
        self._pods[metadata.namespace].pop(metadata.name, None)
        for pair in metadata.labels.items():
            of_label = self._pods_by_label.get((metadata.namespace, *pair))
            if of_label is not None:
                of_label.pop(metadata.name, None)
        self._count(pod, -1)

    def add_service(self, name: ObjectName, service: Service) -> None:
        """Add a Service that is not known. It is indexed by the label of its selector that fewest Services use."""
        if not has_derived_endpoints(service):
            return
        labels = [(name.namespace, *pair) for pair in sorted(service.spec.selector.items())]
        label = min(labels, key=lambda each: len(self._services_by_label.get(each, ())))
        self._services[name], self._label_of[name] = service, label
        self._services_by_label[label].add(name)
        if label not in self._pods_by_label:
            self._pods_by_label[label] = {}
            self._new_labels[name.namespace].add(label)
        self._uncounted[name.namespace].add(name)

    def remove_service(self, name: ObjectName) -> None:
        """Remove a Service; nothing if it is not known."""
        if self._services.pop(name, None) is None:
            return
        label = self._label_of.pop(name)
        of_label = self._services_by_label[label]
        of_label.discard(name)
        if not of_label:
            del self._services_by_label[label], self._pods_by_label[label]
            self._new_labels[name.namespace].discard(label)
        self._uncounted[name.namespace].discard(name)
        self._totals[name.namespace] -= self._counts.pop(name, 0)

    def selecting(self, pod: Pod) -> Iterator[ObjectName]:
        """Yield the Services that a Pod is or could be an endpoint of; none if it cannot be an endpoint."""
        if not can_be_endpoint(pod):
            return
        namespace, labels = pod.metadata.namespace, pod.metadata.labels
        for pair in labels.items():
            for name in self._services_by_label.get((namespace, *pair), ()):
                if self._services[name].spec.selector.items() <= labels.items():
                    yield name

    def on_nodes(self, nodes: Collection[str]) -> set[ObjectName]:
        """Return the Services with an endpoint on one of these Nodes."""
        if not nodes:
            return set()
        pods = (pod for of_namespace in self._pods.values() for pod in of_namespace.values())
        return {name for pod in pods if pod.spec.node_name in nodes for name in self.selecting(pod)}

    def slices(self, name: ObjectName, zones: dict[str, str]) -> tuple[EndpointSlice, ...]:
        """Return the slices that the controller would write for a Service; none if it has no selector.

        Args:
            name: A Service.
            zones: The zones of all Nodes, empty for a Node without one.
        """
        service = self._services.get(name)
        if service is None:
            return ()
        pods = sorted(self._selected(name), key=lambda pod: pod.metadata.name)
        return slices_of_pods(service, pods, zones.get)

    def is_refused(self, name: ObjectName) -> bool:
        """Whether a Service gets no endpoints, because the Services of its namespace select too many Pods."""
        return name in self._refused.get(name.namespace, ())

    def settle(self, namespace: str) -> frozenset[ObjectName]:
        """Decide which Services of a namespace are refused, after any of its Services or Pods has changed.

        The oldest ones are served, as many as fit.

        Returns:
            The Services that are refused from now on, or no longer.
        """
        self._count_added(namespace)
        before = self._refused.pop(namespace, frozenset())
        now = self._beyond_limit(namespace) if self._totals[namespace] > MAX_MATCHES else frozenset()
        if now:
            self._refused[namespace] = now
        return before ^ now

    def _beyond_limit(self, namespace: str) -> frozenset[ObjectName]:
        names = [name for name in self._services if name.namespace == namespace]
        names.sort(key=lambda name: (self._services[name].metadata.creation_timestamp or "", name))
        refused, matches = set(), 0
        for name in names:
            matches += self._counts[name]
            if matches > MAX_MATCHES:
                refused.add(name)
        return frozenset(refused)

    @property
    def rejected(self) -> list[Rejected]:
        """The refused Services, each with the reason."""
        names = (name for refused in self._refused.values() for name in refused)
        services = (self._services[name] for name in sorted(names) if name in self._services)
        words = f"the selectors of this namespace's Services match Pods more than {MAX_MATCHES} times: no endpoints"
        return [
            Rejected(title_of(service), "", (Fault("spec.selector", words),), service.metadata.uid)
            for service in services
        ]

    def _selected(self, name: ObjectName) -> Iterator[Pod]:
        self._count_added(name.namespace)
        wanted = self._services[name].spec.selector.items()
        for pod in self._pods_by_label[self._label_of[name]].values():
            if wanted <= pod.metadata.labels.items():
                yield pod

    def _count(self, pod: Pod, by: int) -> None:
        """Change the counts of the Services that select a Pod."""
        for name in self.selecting(pod):
            if name in self._counts:
                self._counts[name] += by
                self._totals[name.namespace] += by

    def _count_added(self, namespace: str) -> None:
        """Index and count the Pods of added Services: once for all of them, because each reads all Pods."""
        labels = self._new_labels.pop(namespace, None)
        if labels:
            for pod in self._pods[namespace].values():
                for pair in pod.metadata.labels.items():
                    if (label := (namespace, *pair)) in labels:
                        self._pods_by_label[label][pod.metadata.name] = pod
        for name in self._uncounted.pop(namespace, ()):
            self._counts[name] = sum(1 for _ in self._selected(name))
            self._totals[namespace] += self._counts[name]
