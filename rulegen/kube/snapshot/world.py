"""World: a frozen snapshot of all objects that a compile looks at, indexed for it."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rulegen.errors import Rejected
    from rulegen.kube.objects.names import ObjectKey, ObjectName
    from rulegen.kube.objects.structs import ConfigMap, EndpointSlice, Ingress, IngressClass, Node, Secret, Service
    from rulegen.kube.snapshot.addresses import ServiceAddresses


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceInput:
    """A Service with the slices that belong to it, and how both came to be.

    Attributes:
        service: The Service; its addresses and node ports are filled in.
        slices: Its EndpointSlices, of both families, in order of name. Endpoints from other sources are told as slices.
        endpoints_from: `EndpointSlice`, `Endpoints`, `Pods`, or empty where it has none.
        assigned: What was assigned for a preview, as `clusterIP 10.96.12.7`; an apply rejects such a Service.
    """

    service: Service
    slices: tuple[EndpointSlice, ...] = ()
    endpoints_from: str = ""
    assigned: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterSnapshot:
    """All that was read, and all that was not taken.

    Attributes:
        services: By name, in order of name.
        addresses: Which Services have which virtual addresses, where that is known already; else it follows from them.
        nodes: By name.
        ingresses: By name, in order of name; those of older API versions as v1.
        ingress_classes: By name.
        namespaces: Their labels by name; those that are known.
        secrets, config_maps: By name; those that Ingresses may refer to.
        unread: Objects that are referred to, and of which nobody can say whether they are there; each with the reason.
        recalled: Objects that are here as they were last read, since they cannot be read now, or are gone and others
            lean on them; each with the reason.
        service_cidrs: spec.cidrs of all ServiceCIDR objects, as written.
        rejected: Objects that were skipped, with their faults.
        unknown_kinds: Kinds that mean nothing here (`apps/v1 Deployment`), with how many were seen.
        warnings: What a user must be told although work continues.
        sources: Where the objects came from, for people.
    """

    services: Mapping[ObjectName, ServiceInput] = field(default_factory=lambda: MappingProxyType({}))
    addresses: ServiceAddresses | None = None
    nodes: Mapping[str, Node] = field(default_factory=lambda: MappingProxyType({}))
    ingresses: Mapping[ObjectName, Ingress] = field(default_factory=lambda: MappingProxyType({}))
    ingress_classes: Mapping[str, IngressClass] = field(default_factory=lambda: MappingProxyType({}))
    namespaces: Mapping[str, Mapping[str, str]] = field(default_factory=lambda: MappingProxyType({}))
    secrets: Mapping[ObjectName, Secret] = field(default_factory=lambda: MappingProxyType({}))
    config_maps: Mapping[ObjectName, ConfigMap] = field(default_factory=lambda: MappingProxyType({}))
    unread: Mapping[ObjectKey, str] = field(default_factory=lambda: MappingProxyType({}))
    recalled: Mapping[ObjectKey, str] = field(default_factory=lambda: MappingProxyType({}))
    service_cidrs: tuple[str, ...] = ()
    rejected: tuple[Rejected, ...] = ()
    unknown_kinds: Mapping[str, int] = field(default_factory=lambda: MappingProxyType({}))
    warnings: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
