"""The kinds that mean something here: apiVersion and kind, to the struct that reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rulegen.kube.objects import Endpoints, EndpointSlice, KubeObject, Namespace, Node, Pod, Service, ServiceCIDR

if TYPE_CHECKING:
    from collections.abc import Mapping

KINDS: Final[Mapping[tuple[str, str], type[KubeObject]]] = {
    ("v1", "Service"): Service,
    ("v1", "Endpoints"): Endpoints,
    ("v1", "Pod"): Pod,
    ("v1", "Node"): Node,
    ("v1", "Namespace"): Namespace,
    ("discovery.k8s.io/v1", "EndpointSlice"): EndpointSlice,
    ("networking.k8s.io/v1", "ServiceCIDR"): ServiceCIDR,
}

CLUSTER_SCOPED: Final = frozenset({Node, Namespace, ServiceCIDR})


def kind_of(kube_object: KubeObject) -> str:
    """Return the kind as people know it: `Service`, `EndpointSlice`."""
    return type(kube_object).__name__


def title(kind: str, namespace: str, name: str) -> str:
    """Return how an object is called in messages: `Service shop/web`, `Node node1`."""
    return f"{kind} {namespace}/{name}" if namespace else f"{kind} {name}"


def title_of(kube_object: KubeObject) -> str:
    """Return how a decoded object is called in messages."""
    metadata = kube_object.metadata
    return title(kind_of(kube_object), metadata.namespace, metadata.name)
