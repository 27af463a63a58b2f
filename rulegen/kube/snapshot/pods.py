"""Derives EndpointSlices from Pods, as the EndpointSlice controller of Kubernetes does.

A Pod that has finished or has no address is not an endpoint. A Pod that is being deleted is a terminating endpoint, and
serving as long as the Pod is ready (KEP-1672). A named targetPort is looked up in each Pod and can have different
numbers, so there is one slice for each set of port numbers.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Final

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
    from collections.abc import Iterable, Iterator, Mapping

    from rulegen.kube.objects.structs import Node, Pod, Service, ServicePort

MAX_WORK: Final = 5_000_000
WORK_OF_ENDPOINT: Final = 4
ZONE_LABEL: Final = "topology.kubernetes.io/zone"
HEADLESS_LABEL: Final = "service.kubernetes.io/headless"
ZONE_DISTRIBUTIONS: Final = frozenset({"PreferClose", "PreferSameZone", "PreferSameNode"})

_FINISHED: Final = frozenset({"Succeeded", "Failed"})
_FIELDS_OF_SLICES: Final = frozenset({"endpointslice.kubernetes.io/managed-by", HEADLESS_LABEL})


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
            if pod.status.phase in _FINISHED or not _addresses(pod):
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


def derive_slices(service: Service, pods: PodIndex, nodes: Mapping[str, Node]) -> tuple[EndpointSlice, ...]:
    """Return the slices of a Service: one for each family and set of port numbers.

    Args:
        service: A Service with a selector and families.
        pods: All known Pods of the cluster.
        nodes: The Nodes, for the zones of endpoints.

    Raises:
        TooManyPodsError: This Service and earlier ones have exhausted the budget of `pods`.
    """
    members: defaultdict[tuple[SlicePort, ...], list[Pod]] = defaultdict(list)
    for pod in pods.selected(service.metadata.namespace, service.spec.selector):
        pods.spend(WORK_OF_ENDPOINT + len(service.spec.ports) * (1 + _size(pod)))
        ports = _ports(service, pod)
        if ports or not service.spec.ports:
            members[ports].append(pod)
    families = [family for family in Family if not service.spec.ip_families or family in service.spec.ip_families]
    slices: list[EndpointSlice] = []
    for family in families:
        for ports in sorted(members, key=_port_order):
            endpoints = tuple(_endpoint(pod, service, family, nodes) for pod in members[ports] if _has(pod, family))
            if endpoints:
                metadata = slice_metadata(service.metadata, _labels(service), family, len(slices))
                slices.append(
                    EndpointSlice(metadata=metadata, address_type=family.value, endpoints=endpoints, ports=ports)
                )
    return tuple(slices)


def _labels(service: Service) -> dict[str, str]:
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
    sidecars = (container for container in pod.spec.init_containers if container.restart_policy == "Always")
    for container in (*pod.spec.containers, *sidecars):
        for own in container.ports:
            if own.name == target and (own.protocol or "TCP") == port.protocol:
                return own.container_port
    return None


def _size(pod: Pod) -> int:
    """Return the number of entries to read in a Pod: containers, addresses and ports."""
    containers = (*pod.spec.containers, *pod.spec.init_containers)
    return len(containers) + len(pod.status.pod_ips) + sum(len(container.ports) for container in containers)


def _addresses(pod: Pod) -> tuple[str, ...]:
    if pod.status.pod_ips:
        return tuple(entry.ip for entry in pod.status.pod_ips)
    return (pod.status.pod_ip,) if pod.status.pod_ip else ()


def _has(pod: Pod, family: Family) -> bool:
    return any(family_of_text(address) is family for address in _addresses(pod))


def _endpoint(pod: Pod, service: Service, family: Family, nodes: Mapping[str, Node]) -> SliceEndpoint:
    terminating = pod.metadata.deletion_timestamp is not None
    serving = any(condition.type == "Ready" and condition.status == "True" for condition in pod.status.conditions)
    ready = service.spec.publish_not_ready_addresses or (serving and not terminating)
    node = nodes.get(pod.spec.node_name)
    zone = node.metadata.labels.get(ZONE_LABEL) if node else None
    return SliceEndpoint(
        addresses=tuple(address for address in _addresses(pod) if family_of_text(address) is family),
        conditions=EndpointConditions(ready=ready, serving=serving, terminating=terminating),
        hints=_hints(service, zone, pod.spec.node_name) if ready else EndpointHints(),
        node_name=pod.spec.node_name or None,
        zone=zone or None,
        target_ref=TargetReference(kind="Pod", name=pod.metadata.name),
    )


def _hints(service: Service, zone: str | None, node_name: str) -> EndpointHints:
    """Return the hints that spec.trafficDistribution requests (KEP-4444, KEP-3015)."""
    distribution = service.spec.traffic_distribution
    if distribution not in ZONE_DISTRIBUTIONS:
        return EndpointHints()
    same_node = distribution == "PreferSameNode" and node_name
    return EndpointHints(
        for_zones=(ForZone(name=zone),) if zone else (),
        for_nodes=(ForZone(name=node_name),) if same_node else (),
    )
