"""ClusterSnapshot: a frozen, indexed snapshot of all objects that a compilation reads."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rulegen.errors import Rejected
    from rulegen.kube.objects.names import ObjectKey, ObjectName
    from rulegen.kube.objects.structs import ConfigMap, EndpointSlice, Ingress, IngressClass, Node, Pod, Secret, Service
    from rulegen.kube.snapshot.addresses import ServiceAddresses
    from rulegen.kube.validation.unusable_ingress import UnusableIngress


@dataclass(frozen=True, slots=True, kw_only=True, weakref_slot=True)
class ServiceInput:
    """A Service with its EndpointSlices, and where both come from.

    Attributes:
        service: The Service, with addresses and node ports.
        slices: Its EndpointSlices, of both families, sorted by name. Endpoints of other kinds are converted.
        endpoints_from: `EndpointSlice`, `Endpoints` or `Pods`; empty if it has no endpoints.
        assigned: Values that were assigned for a preview, such as `clusterIP 10.96.12.7`; `apply` rejects the Service.
    """

    service: Service
    slices: tuple[EndpointSlice, ...] = ()
    endpoints_from: str = ""
    assigned: tuple[str, ...] = ()


class ClusterSnapshot(msgspec.Struct, frozen=True, kw_only=True):
    """All objects that were read, and what was rejected.

    Attributes:
        services: The Services by name, sorted by name.
        addresses: Index of Services by address, if it exists already; None to derive it from `services`.
        nodes: The Nodes by name.
        pods: The Pods of files; endpoints of Services without other ones are derived from them.
        ingresses: The Ingresses by name, sorted by name; older API versions are converted to v1.
        unusable: What can be read of invalid Ingresses, by name; see `named_apart`.
        ingress_classes: The IngressClasses by name.
        namespaces: The labels of known Namespaces, by name.
        secrets, config_maps: The Secrets and ConfigMaps that Ingresses may refer to, by name.
        unread: Referenced objects of which it is unknown whether they exist, each with the reason.
        recalled: Objects in the state in which they were last read, because they cannot be read now, or were deleted
            while others refer to them; each with the reason.
        service_cidrs: spec.cidrs of all ServiceCIDR objects, as written.
        rejected: Objects that were skipped, with their faults.
        unknown_kinds: The number of objects of each ignored kind, such as `apps/v1 Deployment`.
        warnings: Warnings for the user.
        sources: Names of the objects' sources, for messages.
    """

    services: Mapping[ObjectName, ServiceInput] = msgspec.field(default_factory=lambda: MappingProxyType({}))
    addresses: ServiceAddresses | None = None
    nodes: Mapping[str, Node] = msgspec.field(default_factory=lambda: MappingProxyType({}))
    pods: tuple[Pod, ...] = ()
    ingresses: Mapping[ObjectName, Ingress] = msgspec.field(default_factory=lambda: MappingProxyType({}))
    unusable: Mapping[ObjectName, UnusableIngress] = msgspec.field(default_factory=lambda: MappingProxyType({}))
    ingress_classes: Mapping[str, IngressClass] = msgspec.field(default_factory=lambda: MappingProxyType({}))
    namespaces: Mapping[str, Mapping[str, str]] = msgspec.field(default_factory=lambda: MappingProxyType({}))
    secrets: Mapping[ObjectName, Secret] = msgspec.field(default_factory=lambda: MappingProxyType({}))
    config_maps: Mapping[ObjectName, ConfigMap] = msgspec.field(default_factory=lambda: MappingProxyType({}))
    unread: Mapping[ObjectKey, str] = msgspec.field(default_factory=lambda: MappingProxyType({}))
    recalled: Mapping[ObjectKey, str] = msgspec.field(default_factory=lambda: MappingProxyType({}))
    service_cidrs: tuple[str, ...] = ()
    rejected: tuple[Rejected, ...] = ()
    unknown_kinds: Mapping[str, int] = msgspec.field(default_factory=lambda: MappingProxyType({}))
    warnings: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
