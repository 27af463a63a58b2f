"""The kinds that rulegen reads, with the struct for each apiVersion and kind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rulegen.kube.objects.legacy_ingress import LEGACY_VERSIONS, LegacyIngress
from rulegen.kube.objects.structs import (
    ConfigMap,
    Endpoints,
    EndpointSlice,
    Ingress,
    IngressClass,
    Namespace,
    Node,
    Pod,
    Secret,
    Service,
    ServiceCIDR,
)

if TYPE_CHECKING:
    from collections.abc import Mapping

KubeObject = (
    Service
    | EndpointSlice
    | Endpoints
    | Pod
    | Node
    | Namespace
    | ServiceCIDR
    | Ingress
    | IngressClass
    | Secret
    | ConfigMap
)
"""An object of a kind that rulegen reads."""

KINDS: Final[Mapping[tuple[str, str], type[KubeObject | LegacyIngress]]] = {
    ("v1", "Service"): Service,
    ("v1", "Endpoints"): Endpoints,
    ("v1", "Pod"): Pod,
    ("v1", "Node"): Node,
    ("v1", "Namespace"): Namespace,
    ("v1", "Secret"): Secret,
    ("v1", "ConfigMap"): ConfigMap,
    ("discovery.k8s.io/v1", "EndpointSlice"): EndpointSlice,
    ("networking.k8s.io/v1", "ServiceCIDR"): ServiceCIDR,
    ("networking.k8s.io/v1", "Ingress"): Ingress,
    ("networking.k8s.io/v1", "IngressClass"): IngressClass,
    ("networking.k8s.io/v1beta1", "IngressClass"): IngressClass,
    **{(version, "Ingress"): LegacyIngress for version in LEGACY_VERSIONS},
}

CLUSTER_SCOPED: Final = frozenset({Node, Namespace, ServiceCIDR, IngressClass})
CONFIDENTIAL: Final = frozenset({Secret, ConfigMap})
"""Kinds whose values no message may show; some ConfigMaps contain passwords too."""


def kind_of(kube_object: KubeObject) -> str:
    """Return the kind of an object, such as `Service` or `EndpointSlice`."""
    return type(kube_object).__name__


def title(kind: str, namespace: str, name: str) -> str:
    """Return the title of an object for messages, such as `Service shop/web` or `Node node1`."""
    return f"{kind} {namespace}/{name}" if namespace else f"{kind} {name}"


def title_of(kube_object: KubeObject) -> str:
    """Return the title of an object for messages."""
    metadata = kube_object.metadata
    return title(kind_of(kube_object), metadata.namespace, metadata.name)
