"""World out of objects: each once, slices joined to their Services, gaps filled from Endpoints and Pods."""

from __future__ import annotations

import gc
from collections import Counter, defaultdict
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from rulegen.errors import Fault, InputError, Rejected, Warnings
from rulegen.kube.decode import Unknown, decode
from rulegen.kube.documents import Source, read_documents
from rulegen.kube.kinds import kind_of, title_of
from rulegen.kube.objects import Endpoints, EndpointSlice, KubeObject, Node, Pod, Service, ServiceCIDR
from rulegen.kube.validate import Decoded
from rulegen.kube.world import ObjectName, ServiceInput, World

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from rulegen.net import Network

SERVICE_NAME_LABEL: Final = "kubernetes.io/service-name"
NODE_PORTS: Final = (30000, 32767)


def build_world(
    inputs: Iterable[Decoded | Rejected | Unknown | KubeObject],
    *,
    service_cidrs: Sequence[Network] = (),
    node_port_range: tuple[int, int] = NODE_PORTS,
    sources: Sequence[str] = (),
) -> World:
    """Return the World that the inputs make; the order of the inputs means nothing but which duplicate is kept."""
    del service_cidrs, node_port_range
    gathered = _Gathered()
    for one in inputs:
        gathered.take(one)
    return gathered.world(tuple(sources))


def read_world(
    sources: Iterable[Source],
    *,
    service_cidrs: Sequence[Network] = (),
    node_port_range: tuple[int, int] = NODE_PORTS,
) -> World:
    """Return the World that texts make.

    Raises:
        InputError: Nothing in them is an object that means something here: better no world than an empty one (an
            empty world empties a node).
    """
    names: list[str] = []
    with without_gc():
        world = build_world(
            _decoded(sources, names), service_cidrs=service_cidrs, node_port_range=node_port_range, sources=names
        )
    return world


def _decoded(sources: Iterable[Source], names: list[str]) -> Iterator[Decoded | Rejected | Unknown]:
    for source in sources:
        names.append(source.name)
        for document in read_documents(source):
            yield document if isinstance(document, Rejected) else decode(document)


@contextmanager
def without_gc() -> Iterator[None]:
    """Keep the cycle collector out of a bulk decode: it would look at every object again and again, and find nothing."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


@dataclass(slots=True)
class _Gathered:
    objects: dict[tuple[str, str, str], Decoded] = field(default_factory=dict)
    rejected: list[Rejected] = field(default_factory=list)
    unknown: Counter[str] = field(default_factory=Counter)
    warnings: Warnings = field(default_factory=Warnings)

    def take(self, one: Decoded | Rejected | Unknown | KubeObject) -> None:
        """Sort one input in. The same object twice is one object; two that differ are a fault of the later one."""
        match one:
            case Rejected():
                self.rejected.append(one)
            case Unknown():
                self.unknown[one.kind] += 1
            case Decoded():
                self._keep(one)
            case _:
                self._keep(Decoded(one, ""))

    def _keep(self, one: Decoded) -> None:
        metadata = one.object.metadata
        kept = self.objects.setdefault((kind_of(one.object), metadata.namespace, metadata.name), one)
        if kept is not one and kept.object != one.object:
            message = f"a different one of this name was read before, from {kept.source}: that one is kept"
            self.rejected.append(Rejected(title_of(one.object), one.source, (Fault("", message),)))

    def world(self, sources: tuple[str, ...]) -> World:
        """Join what was gathered."""
        slices: defaultdict[ObjectName, list[EndpointSlice]] = defaultdict(list)
        services: list[Service] = []
        nodes: dict[str, Node] = {}
        cidrs: list[str] = []
        for decoded in self.objects.values():
            for warning in decoded.warnings:
                self.warnings.add(warning)
            match decoded.object:
                case Service() as service:
                    services.append(service)
                case EndpointSlice() as piece:
                    owner = piece.metadata.labels.get(SERVICE_NAME_LABEL, "")
                    if owner:
                        slices[ObjectName(piece.metadata.namespace, owner)].append(piece)
                case Node() as node:
                    nodes[node.metadata.name] = node
                case ServiceCIDR() as cidr:
                    cidrs += cidr.spec.cidrs
        inputs: dict[ObjectName, ServiceInput] = {}
        for service in services:
            name = ObjectName(service.metadata.namespace, service.metadata.name)
            own = tuple(sorted(slices.get(name, ()), key=lambda piece: piece.metadata.name))
            inputs[name] = ServiceInput(service=service, slices=own, endpoints_from="EndpointSlice" if own else "")
        return World(
            services=MappingProxyType(dict(sorted(inputs.items()))),
            nodes=MappingProxyType(dict(sorted(nodes.items()))),
            service_cidrs=tuple(cidrs),
            rejected=tuple(self.rejected),
            unknown_kinds=MappingProxyType(dict(sorted(self.unknown.items()))),
            warnings=self.warnings.texts(),
            sources=sources,
        )
