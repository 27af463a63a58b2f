"""The EndpointSlices that the EndpointSlice controller of Kubernetes would write, as documents."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any, Final

from rulegen.kube.snapshot.endpoints import SERVICE_NAME_LABEL
from rulegen.kube.snapshot.pods import (
    CONTROLLER,
    MANAGED_BY_LABEL,
    PodIndex,
    grouped_of_files,
    has_derived_endpoints,
    slice_labels,
)
from rulegen.net import Family, address_text, parse_address

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from rulegen.kube.objects.structs import Node, Pod, Service, SliceEndpoint, SlicePort

MAX_ENDPOINTS: Final = 100
"""Maximum number of endpoints of a slice, as of the controller."""


def controller_slices(
    services: Iterable[Service], pods: Iterable[Pod], nodes: Mapping[str, Node]
) -> Iterator[dict[str, Any]]:
    """Yield the EndpointSlices of all Services that have a selector, as documents, in order of namespace and name.

    Existing EndpointSlices have no effect. Names end with a digest of what distinguishes the slices of a Service.

    Raises:
        TooManyPodsError: The selectors match too many Pods.
    """
    index = PodIndex(pods)
    for service in sorted(services, key=lambda each: (each.metadata.namespace, each.metadata.name)):
        if has_derived_endpoints(service):
            yield from _slices(service, index, nodes)


def _slices(service: Service, pods: PodIndex, nodes: Mapping[str, Node]) -> Iterator[dict[str, Any]]:
    groups = list(grouped_of_files(service, pods, nodes))
    for family in _families(service):
        of_family = [(ports, members) for each, ports, members in groups if each is family]
        for ports, members in of_family or [((), [])]:  # a Service without endpoints has an empty slice
            for start in range(0, max(len(members), 1), MAX_ENDPOINTS):
                yield _document(service, family, ports, members[start : start + MAX_ENDPOINTS], start)


def _families(service: Service) -> list[Family]:
    """Return the families of a Service's slices; without ipFamilies, that of its ClusterIP, else both."""
    spec = service.spec
    if spec.ip_families:
        return [family for family in Family if family in spec.ip_families]
    if spec.cluster_ip in {"", "None"}:
        return list(Family)
    return [Family.IPV6 if ":" in spec.cluster_ip else Family.IPV4]


def _document(
    service: Service,
    family: Family,
    ports: Sequence[SlicePort],
    members: Sequence[tuple[Pod, SliceEndpoint]],
    start: int,
) -> dict[str, Any]:
    metadata = service.metadata
    distinct = f"{family} {start} {[(port.name, port.port, port.protocol) for port in ports]}"
    owner: dict[str, Any] = {"apiVersion": "v1", "kind": "Service", "name": metadata.name, "uid": metadata.uid}
    owner |= {"controller": True, "blockOwnerDeletion": True}
    labels = {**slice_labels(service), SERVICE_NAME_LABEL: metadata.name, MANAGED_BY_LABEL: CONTROLLER}
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "name": f"{metadata.name}-{hashlib.sha256(distinct.encode()).hexdigest()[:5]}",
            "namespace": metadata.namespace,
            "labels": labels,
            # An object in a file has no UID; the API server rejects an owner without one.
            **({"ownerReferences": [owner]} if metadata.uid else {}),
        },
        "addressType": family.value,
        "endpoints": [_endpoint(service, pod, endpoint) for pod, endpoint in members],
        "ports": [_port(service, port) for port in ports],
    }


def _endpoint(service: Service, pod: Pod, endpoint: SliceEndpoint) -> dict[str, Any]:
    conditions, hints = endpoint.conditions, endpoint.hints
    target = {"kind": "Pod", "namespace": pod.metadata.namespace, "name": pod.metadata.name}
    zones = {"forZones": [{"name": zone.name} for zone in hints.for_zones]} if hints.for_zones else {}
    nodes = {"forNodes": [{"name": node.name} for node in hints.for_nodes]} if hints.for_nodes else {}
    is_named = pod.spec.hostname and pod.spec.subdomain == service.metadata.name
    optional = {
        "hostname": pod.spec.hostname if is_named else "",
        "nodeName": endpoint.node_name,
        "zone": endpoint.zone,
        "hints": {**zones, **nodes},
    }
    return {
        "addresses": [address_text(parse_address(address)) for address in endpoint.addresses],
        "conditions": {
            "ready": conditions.ready,
            "serving": conditions.serving,
            "terminating": conditions.terminating,
        },
        "targetRef": {**target, **({"uid": pod.metadata.uid} if pod.metadata.uid else {})},
        **{key: value for key, value in optional.items() if value},
    }


def _port(service: Service, port: SlicePort) -> dict[str, Any]:
    protocols = {each.name: each.app_protocol for each in service.spec.ports}
    application = protocols.get(port.name or "")
    return {
        "name": port.name or "",
        "port": port.port,
        "protocol": port.protocol,
        **({"appProtocol": application} if application else {}),
    }
