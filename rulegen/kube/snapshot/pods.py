"""Derives EndpointSlices from Pods, as the EndpointSlice controller of Kubernetes does.

A Pod that has finished or has no address is not an endpoint. A Pod that is being deleted is a terminating endpoint, and
serving as long as the Pod is ready (KEP-1672). A named targetPort is looked up in each Pod and can have different
numbers, so there is one slice for each set of port numbers.
"""

from __future__ import annotations

from collections import defaultdict
from functools import cache, partial
from typing import TYPE_CHECKING, Final

from rulegen.kube.objects.pods import addresses_of, can_be_endpoint, is_ready, running_containers
from rulegen.kube.objects.structs import (
    EndpointConditions,
    EndpointHints,
    EndpointSlice,
    ForZone,
    SliceEndpoint,
    SlicePort,
    TargetReference,
)
from rulegen.kube.snapshot.endpoints import slice_metadata
from rulegen.kube.validation.findings import family_of_text
from rulegen.net import Family

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from rulegen.kube.objects.structs import Node, Pod, Service, ServicePort

MAX_WORK: Final = 5_000_000
WORK_OF_ENDPOINT: Final = 4
ZONE_LABEL: Final = "topology.kubernetes.io/zone"
MANAGED_BY_LABEL: Final = "endpointslice.kubernetes.io/managed-by"
CONTROLLER: Final = "endpointslice-controller.k8s.io"
"""What the controller calls itself in that label."""
HEADLESS_LABEL: Final = "service.kubernetes.io/headless"
NO_HINTS: Final = EndpointHints()
TOPOLOGY_ANNOTATIONS: Final = ("service.kubernetes.io/topology-aware-hints", "service.kubernetes.io/topology-mode")
"""The first one that a Service has decides."""
ZONE_DISTRIBUTIONS: Final = frozenset({"PreferClose", "PreferSameZone", "PreferSameNode"})

_FIELDS_OF_SLICES: Final = frozenset({MANAGED_BY_LABEL, HEADLESS_LABEL})


class TooManyPodsError(Exception):
    """The selectors match too many Pods. The work grows with the product of both, so this may be an attack."""


class PodIndex:
    """Index of Pods by namespace and label, so that each of 10,000 selectors does not read 10,000 Pods.

    Attributes:
        work_left: The remaining budget, in units of work: reading a Pod, making an endpoint, looking up a port.
    """

    def __init__(self, pods: Iterable[Pod], work: int = MAX_WORK) -> None:
        self.work_left = work
        self._by_label: defaultdict[tuple[str, str, str], list[Pod]] = defaultdict(list)
        for pod in sorted(pods, key=lambda pod: (pod.metadata.namespace, pod.metadata.name)):
            if not can_be_endpoint(pod):
                continue
            for key, value in pod.metadata.labels.items():
                self._by_label[pod.metadata.namespace, key, value].append(pod)

    def selected(self, namespace: str, selector: Mapping[str, str]) -> Iterator[Pod]:
        """Yield the Pods that can be endpoints and match a selector, sorted by name; none for an empty selector."""
        if not selector:
            return
        narrowest = min((self._by_label.get((namespace, *pair), []) for pair in selector.items()), key=len)
        wanted = selector.items()
        self.spend(len(narrowest))
        for pod in narrowest:
            if wanted <= pod.metadata.labels.items():
                yield pod

    def spend(self, work: int) -> None:
        """Subtract work from the budget.

        Raises:
            TooManyPodsError: The budget is exhausted.
        """
        self.work_left -= work
        if self.work_left < 0:
            raise TooManyPodsError("all selectors together select too many Pods: no endpoints derived")


def has_derived_endpoints(service: Service) -> bool:
    """Whether the controller derives the endpoints of a Service from Pods."""
    return bool(service.spec.selector) and service.spec.type != "ExternalName"


def derive_slices(service: Service, pods: PodIndex, nodes: Mapping[str, Node]) -> tuple[EndpointSlice, ...]:
    """Return the slices of a Service: one for each family and set of port numbers.

    Args:
        service: A Service with a selector and families.
        pods: All known Pods of the cluster.
        nodes: The Nodes, for the zones of endpoints. A Pod counts even if its Node is not among them: files need not
            contain all Nodes.

    Raises:
        TooManyPodsError: This Service and earlier ones have exhausted the budget of `pods`.
    """
    return slices_of_pods(service, _paid(service, pods), partial(_zone_of, nodes))


def slices_of_pods(
    service: Service, pods: Iterable[Pod], zone_of: Callable[[str], str | None]
) -> tuple[EndpointSlice, ...]:
    """Return the slices of a Service from the Pods that its selector matches, in order of name.

    Args:
        service: A Service with a selector and families.
        pods: Pods that can be endpoints.
        zone_of: Returns the zone of a Node, empty if it has none; None if there is no such Node.
    """
    slices: list[EndpointSlice] = []
    for family, ports, members in grouped_pods(service, pods, zone_of):
        if ports or not service.spec.ports:
            endpoints = tuple(endpoint for _, endpoint in members)
            metadata = slice_metadata(service.metadata, slice_labels(service), family, len(slices))
            slices.append(EndpointSlice(metadata=metadata, address_type=family.value, endpoints=endpoints, ports=ports))
    return tuple(slices)


def grouped_pods(
    service: Service, pods: Iterable[Pod], zone_of: Callable[[str], str | None]
) -> Iterator[tuple[Family, tuple[SlicePort, ...], list[tuple[Pod, SliceEndpoint]]]]:
    """Yield the endpoints of a Service with their Pods, by family and set of port numbers; no group is empty.

    A Pod that has none of the ports is in a group without ports. A Pod whose Node does not exist is not an endpoint,
    except if the Service publishes Pods that are not ready. For the arguments, see `slices_of_pods`.
    """
    members: defaultdict[tuple[SlicePort, ...], list[tuple[Pod, str]]] = defaultdict(list)
    for pod in pods:
        zone = zone_of(pod.spec.node_name)
        if zone is not None or service.spec.publish_not_ready_addresses:
            members[_ports(service, pod)].append((pod, zone or ""))
    for family in Family:
        if service.spec.ip_families and family not in service.spec.ip_families:
            continue
        for ports in sorted(members, key=_port_order):
            group = [(pod, _endpoint(pod, service, family, zone)) for pod, zone in members[ports] if _has(pod, family)]
            if group:
                yield family, ports, group


def grouped_of_files(
    service: Service, pods: PodIndex, nodes: Mapping[str, Node]
) -> Iterator[tuple[Family, tuple[SlicePort, ...], list[tuple[Pod, SliceEndpoint]]]]:
    """Yield the endpoints of a Service as `grouped_pods` does; for the arguments, see `derive_slices`.

    Raises:
        TooManyPodsError: See `derive_slices`.
    """
    return grouped_pods(service, _paid(service, pods), partial(_zone_of, nodes))


def _paid(service: Service, pods: PodIndex) -> Iterator[Pod]:
    """Yield the Pods that a Service selects, and subtract the work from the budget.

    Raises:
        TooManyPodsError: The budget is exhausted.
    """
    for pod in pods.selected(service.metadata.namespace, service.spec.selector):
        pods.spend(WORK_OF_ENDPOINT + len(service.spec.ports) * (1 + _size(pod)))
        yield pod


def _zone_of(nodes: Mapping[str, Node], name: str) -> str:
    node = nodes.get(name)
    return node.metadata.labels.get(ZONE_LABEL, "") if node is not None else ""


def slice_labels(service: Service) -> dict[str, str]:
    """Return the labels of the Service's slices: its own labels, without those that only the controller sets."""
    labels = {key: value for key, value in service.metadata.labels.items() if key not in _FIELDS_OF_SLICES}
    if service.spec.cluster_ip == "None" or HEADLESS_LABEL in service.metadata.labels:
        labels[HEADLESS_LABEL] = ""
    return labels


def _port_order(ports: tuple[SlicePort, ...]) -> list[tuple[str, int]]:
    return [(port.name or "", port.port or 0) for port in ports]


def _ports(service: Service, pod: Pod) -> tuple[SlicePort, ...]:
    """Return the ports of a Service with their numbers in one Pod, without named ports that the Pod does not have."""
    return tuple(
        SlicePort(name=port.name, port=number, protocol=port.protocol)
        for port in service.spec.ports
        if (number := _target(port, pod)) is not None
    )


def _target(port: ServicePort, pod: Pod) -> int | None:
    """Return the number of a Service's target port in a Pod; None if the Pod does not have it."""
    target = port.target_port
    if not target:
        return port.port
    if isinstance(target, int):
        return target
    for container in running_containers(pod):
        for own in container.ports:
            if own.name == target and (own.protocol or "TCP") == port.protocol:
                return own.container_port
    return None


def _size(pod: Pod) -> int:
    """Return the number of entries to read in a Pod: containers, addresses and ports."""
    containers = (*pod.spec.containers, *pod.spec.init_containers)
    return len(containers) + len(pod.status.pod_ips) + sum(len(container.ports) for container in containers)


def _has(pod: Pod, family: Family) -> bool:
    return any(family_of_text(address) is family for address in addresses_of(pod))


def _endpoint(pod: Pod, service: Service, family: Family, zone: str) -> SliceEndpoint:
    terminating, serving = pod.metadata.deletion_timestamp is not None, is_ready(pod)
    ready = service.spec.publish_not_ready_addresses or (serving and not terminating)
    return SliceEndpoint(
        addresses=tuple(address for address in addresses_of(pod) if family_of_text(address) is family),
        conditions=_conditions(ready, serving, terminating),
        hints=_hints(service, zone, pod.spec.node_name) if ready else NO_HINTS,
        node_name=pod.spec.node_name or None,
        zone=zone or None,
        target_ref=TargetReference(kind="Pod", name=pod.metadata.name),
    )


@cache
def _conditions(ready: bool, serving: bool, terminating: bool) -> EndpointConditions:  # noqa: FBT001 - as in the API
    return EndpointConditions(ready=ready, serving=serving, terminating=terminating)


def _hints(service: Service, zone: str, node_name: str) -> EndpointHints:
    """Return the hints that spec.trafficDistribution requests (KEP-4444, KEP-3015).

    The annotation topology-mode has precedence. Its hints depend on the CPUs of all Nodes and on earlier hints; none
    is derived.
    """
    distribution = service.spec.traffic_distribution
    if distribution not in ZONE_DISTRIBUTIONS or _wants_topology(service.metadata.annotations):
        return NO_HINTS
    same_node = distribution == "PreferSameNode" and node_name
    return EndpointHints(
        for_zones=(ForZone(name=zone),) if zone else (),
        for_nodes=(ForZone(name=node_name),) if same_node else (),
    )


def _wants_topology(annotations: Mapping[str, str]) -> bool:
    """Whether hints are requested by the annotation that is older than spec.trafficDistribution."""
    mode = next((annotations[key] for key in TOPOLOGY_ANNOTATIONS if key in annotations), "")
    return mode in {"Auto", "auto"}
