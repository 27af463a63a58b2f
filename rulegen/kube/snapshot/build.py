"""Builds a ClusterSnapshot: joins slices to Services, and derives missing parts from Endpoints, Pods and previews."""

from __future__ import annotations

import gc
from collections import Counter, defaultdict
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from rulegen.errors import Fault, InputError, Rejected, Warnings
from rulegen.kube.objects.kinds import kind_of, title_of
from rulegen.kube.objects.names import Decoded, ObjectName
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
from rulegen.kube.reading.decode import Unknown, decode
from rulegen.kube.reading.documents import read_documents
from rulegen.kube.reading.workloads import Workloads
from rulegen.kube.snapshot.endpoints import SERVICE_NAME_LABEL, slices_of
from rulegen.kube.snapshot.pods import PodIndex, TooManyPodsError, derive_slices
from rulegen.kube.snapshot.preview import NODE_PORTS, Preview, service_networks, wants_health_check, wants_node_ports
from rulegen.kube.snapshot.world import ClusterSnapshot, ServiceInput
from rulegen.kube.validation.unusable_ingress import UnusableIngress, named_apart
from rulegen.kube.validation.validate import check
from rulegen.text import listed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from rulegen.kube.objects.kinds import KubeObject
    from rulegen.kube.reading.documents import Source
    from rulegen.net import Network

MAX_OBJECTS: Final = 200_000
"""Maximum number of objects in all sources: a cluster has at most 10,000 Services and 150,000 Pods."""
MAX_REJECTED: Final = 10_000
MAX_UNKNOWN: Final = 1_000
DEFAULT_SERVICE_CIDR: Final = "kubernetes"

_EMPTY: Final = "it is empty; objects of a cluster: `kubectl get nodes,services,endpointslices -A -o yaml`"
_MEANINGLESS_ALONE: Final = frozenset({"Secret", "ConfigMap"})


def build_world(
    inputs: Iterable[Decoded | Rejected | Unknown | KubeObject],
    *,
    service_cidrs: Sequence[Network] = (),
    node_port_range: tuple[int, int] = NODE_PORTS,
    sources: Sequence[str] = (),
) -> ClusterSnapshot:
    """Return the ClusterSnapshot of these objects. Of two different objects with the same name, the first is kept.

    Otherwise, their order does not matter.

    Args:
        inputs: Results of `decode`, or typed objects, which are validated here.
        service_cidrs: Prefixes of ClusterIPs for a preview, if there is no ServiceCIDR object.
        node_port_range: First and last node port of a preview.
        sources: Names of the objects' sources, for messages.
    """
    gathered = _Gathered()
    for entry in inputs:
        gathered.add(entry)
    return gathered.world(service_cidrs, node_port_range, tuple(sources))


def read_world(
    sources: Iterable[Source],
    *,
    service_cidrs: Sequence[Network] = (),
    node_port_range: tuple[int, int] = NODE_PORTS,
) -> ClusterSnapshot:
    """Return the ClusterSnapshot of the objects in texts; for the arguments, see `build_world`.

    Raises:
        InputError: There are more than `MAX_OBJECTS` objects, or no usable one. An empty snapshot would empty a node,
            so none is returned. Secrets and ConfigMaps alone are not usable.
    """
    names: list[str] = []
    gathered = _Gathered()
    with without_gc():
        for source in sources:
            names.append(source.name)
            for document in read_documents(source):
                gathered.add(document if isinstance(document, Rejected) else decode(document))
                if len(gathered.objects) > MAX_OBJECTS:
                    raise InputError(source.name, f"together with the files before it, more than {MAX_OBJECTS} objects")
        if not gathered.is_usable:
            raise gathered.nothing(names)
        return gathered.world(service_cidrs, node_port_range, tuple(names))


@contextmanager
def without_gc() -> Iterator[None]:
    """Disable the cyclic garbage collector during bulk work: it would scan all objects repeatedly without effect."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@dataclass(slots=True)
class _Gathered:
    """Objects by kind and name, and all inputs that were not usable."""

    objects: dict[tuple[str, str, str], Decoded] = field(default_factory=dict)
    rejected: list[Rejected] = field(default_factory=list)
    more_rejected: int = 0
    more_may_hide_hosts: bool = False
    unusable: list[UnusableIngress] = field(default_factory=list)
    unknown: Counter[str] = field(default_factory=Counter)
    workloads: Workloads = field(default_factory=Workloads)
    warnings: Warnings = field(default_factory=Warnings)

    def add(self, entry: Decoded | Rejected | Unknown | KubeObject) -> None:
        """Add one input. Equal objects count once; a different object with the same name is rejected."""
        match entry:
            case Decoded():
                self._keep(entry)
            case Rejected():
                self._reject(entry)
            case Unknown():
                known = entry.kind in self.unknown or len(self.unknown) < MAX_UNKNOWN
                self.unknown[entry.kind if known else "other kinds"] += 1
                if entry.workload is not None:
                    self.workloads.add(entry.workload)
            case _:
                self.add(check(entry, ""))

    def _keep(self, entry: Decoded) -> None:
        metadata = entry.object.metadata
        kept = self.objects.setdefault((kind_of(entry.object), metadata.namespace, metadata.name), entry)
        if kept is not entry and kept.object != entry.object:
            origin = f"in {kept.source}" if kept.source else "before"
            message = f"differs from the object of the same name {origin}: that object is used"
            self._reject(Rejected(title_of(entry.object), entry.source, (Fault("", message),)))

    def _reject(self, entry: Rejected) -> None:
        """Store a rejection; after `MAX_REJECTED`, only count it, to limit memory."""
        if isinstance(entry.readable, UnusableIngress):
            self.unusable.append(entry.readable)
        if len(self.rejected) < MAX_REJECTED:
            self.rejected.append(entry)
        else:
            self.more_rejected += 1
            self.more_may_hide_hosts |= entry.may_hide_hosts

    def _refuse(self, service: Service, faults: tuple[Fault, ...]) -> None:
        """Reject a Service that is valid by itself."""
        source = self.objects["Service", service.metadata.namespace, service.metadata.name].source
        self._reject(Rejected(title_of(service), source, faults))

    def _all_rejected(self) -> tuple[Rejected, ...]:
        if not self.more_rejected:
            return tuple(self.rejected)
        fault = Fault("", f"{self.more_rejected} more objects were rejected")
        more = Rejected("input", "", (fault,), may_hide_hosts=self.more_may_hide_hosts)
        return (*self.rejected, more)

    @property
    def is_usable(self) -> bool:
        """Whether there is an object of a kind that has an effect alone."""
        return any(kind not in _MEANINGLESS_ALONE for kind, _, _ in self.objects)

    def nothing(self, names: Sequence[str]) -> InputError:
        """Return the error for inputs without a usable object, with the reasons."""
        lines = [line for rejected in self.rejected for line in rejected.lines()]
        lines += [f"{count} of the unknown kind {kind}" for kind, count in sorted(self.unknown.items())]
        alone = Counter(kind for kind, _, _ in self.objects)
        lines += [f"{count} of kind {kind}, which has no effect alone" for kind, count in sorted(alone.items())]
        return InputError(
            listed(names) or "input", "no usable Kubernetes object in it", hint=listed(lines, "; ") or _EMPTY
        )

    def world(self, given: Sequence[Network], node_ports: tuple[int, int], sources: tuple[str, ...]) -> ClusterSnapshot:
        """Return the ClusterSnapshot of all inputs."""
        for decoded in self.objects.values():
            for warning in decoded.warnings:
                self.warnings.add(warning)
        parts = _Parts()
        for _, decoded in sorted(self.objects.items(), key=lambda item: item[0]):
            parts.add(decoded.object)
        preview = Preview(service_networks(parts.cidrs, given), node_ports)
        services: dict[ObjectName, ServiceInput] = {}
        for service, assigned, faults in preview.assign(parts.services):
            name = _name_of(service)
            try:
                slices, origin = ((), "") if faults else parts.slices_for(service, name)
            except TooManyPodsError as error:
                self._refuse(service, (Fault("spec.selector", str(error)),))
                continue
            if faults:
                self._refuse(service, faults)
                continue
            self._warn_of_gaps(service)
            if not origin and (warning := self.workloads.missing_pods(service)):
                self.warnings.add(warning)
            services[name] = ServiceInput(service=service, slices=slices, endpoints_from=origin, assigned=assigned)
        self._warn_of_orphans(parts)
        return ClusterSnapshot(
            services=MappingProxyType(services),
            nodes=MappingProxyType(parts.nodes),
            pods=tuple(parts.pods),
            ingresses=MappingProxyType(parts.ingresses),
            unusable=MappingProxyType(named_apart(self.unusable, parts.ingresses)),
            ingress_classes=MappingProxyType(parts.ingress_classes),
            namespaces=MappingProxyType(parts.namespaces),
            secrets=MappingProxyType(parts.secrets),
            config_maps=MappingProxyType(parts.config_maps),
            service_cidrs=tuple(parts.cidrs),
            rejected=self._all_rejected(),
            unknown_kinds=MappingProxyType(dict(sorted(self.unknown.items()))),
            warnings=self.warnings.texts(),
            sources=sources,
        )

    def _warn_of_gaps(self, service: Service) -> None:
        """Warn about missing node ports of a Service that has a ClusterIP: the API server would have assigned them."""
        if wants_node_ports(service) and any(not port.node_port for port in service.spec.ports):
            self.warnings.add(f"{title_of(service)}: has a clusterIP but not all node ports: none is assigned")
        if wants_health_check(service):
            self.warnings.add(f"{title_of(service)}: has a clusterIP but no healthCheckNodePort: none is assigned")

    def _warn_of_orphans(self, parts: _Parts) -> None:
        """Warn about slices without a Service in the input, except if the Service was rejected."""
        refused = {entry.object for entry in self.rejected}
        orphans = [str(name) for name in sorted(parts.slices) if ("Service", *name) not in self.objects]
        orphans = [name for name in orphans if f"Service {name}" not in refused]
        if orphans:
            self.warnings.add(f"EndpointSlices of Services that are not in the input: {listed(orphans)}")
        if parts.unowned:
            names = listed([str(name) for name in parts.unowned])
            self.warnings.add(f"EndpointSlices without the label {SERVICE_NAME_LABEL} belong to no Service: {names}")


@dataclass(slots=True)
class _Parts:
    """Objects sorted into the parts of a ClusterSnapshot; they are added in order of kind, namespace and name."""

    services: list[Service] = field(default_factory=list)
    slices: defaultdict[ObjectName, list[EndpointSlice]] = field(default_factory=lambda: defaultdict(list))
    unowned: list[ObjectName] = field(default_factory=list)
    endpoints: dict[ObjectName, Endpoints] = field(default_factory=dict)
    pods: list[Pod] = field(default_factory=list)
    nodes: dict[str, Node] = field(default_factory=dict)
    cidrs: list[str] = field(default_factory=list)
    ingresses: dict[ObjectName, Ingress] = field(default_factory=dict)
    ingress_classes: dict[str, IngressClass] = field(default_factory=dict)
    namespaces: dict[str, dict[str, str]] = field(default_factory=dict)
    secrets: dict[ObjectName, Secret] = field(default_factory=dict)
    config_maps: dict[ObjectName, ConfigMap] = field(default_factory=dict)
    _index: PodIndex | None = None

    def add(self, entry: KubeObject) -> None:
        """Add an object to the part of its kind."""
        match entry:
            case Service():
                self.services.append(entry)
            case EndpointSlice():
                if owner := entry.metadata.labels.get(SERVICE_NAME_LABEL):
                    self.slices[ObjectName(entry.metadata.namespace, owner)].append(entry)
                else:
                    self.unowned.append(_name_of(entry))
            case Endpoints():
                self.endpoints[_name_of(entry)] = entry
            case Pod():
                self.pods.append(entry)
            case Node():
                self.nodes[entry.metadata.name] = entry
            case ServiceCIDR():
                # The default ServiceCIDR comes first: its first family is the default family of Services.
                start = 0 if entry.metadata.name == DEFAULT_SERVICE_CIDR else len(self.cidrs)
                self.cidrs[start:start] = entry.spec.cidrs
            case Ingress():
                self.ingresses[_name_of(entry)] = entry
            case IngressClass():
                self.ingress_classes[entry.metadata.name] = entry
            case Namespace():
                self.namespaces[entry.metadata.name] = entry.metadata.labels
            case Secret():
                self.secrets[_name_of(entry)] = entry
            case ConfigMap():
                self.config_maps[_name_of(entry)] = entry

    def slices_for(self, service: Service, name: ObjectName) -> tuple[tuple[EndpointSlice, ...], str]:
        """Return the slices of a Service, and the kind that they come from: EndpointSlice, else Endpoints, else Pods.

        Raises:
            TooManyPodsError: See `derive_slices`.
        """
        if name in self.slices:
            return tuple(self.slices[name]), "EndpointSlice"
        if name in self.endpoints:
            slices, origin = slices_of(self.endpoints[name]), "Endpoints"
        elif self.pods and service.spec.selector and service.spec.type != "ExternalName":
            if self._index is None:
                self._index = PodIndex(self.pods)
            slices, origin = derive_slices(service, self._index, self.nodes), "Pods"
        else:
            return (), ""
        return slices, origin if slices else ""


def _name_of(entry: KubeObject) -> ObjectName:
    return ObjectName(entry.metadata.namespace, entry.metadata.name)
