"""The current state of the cluster, updated by events of watches. Each update returns what it affects.

The parts of one Service can be read by name, and a ClusterSnapshot of all objects can be made at any time.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeVar

from msgspec.structs import replace

from rulegen.errors import Rejected
from rulegen.kube.endpoints_from import EndpointsFrom
from rulegen.kube.objects.events import Changed, Gone, Listed, Unfollowed, called
from rulegen.kube.objects.names import ObjectKey, ObjectName
from rulegen.kube.objects.packed import PackedObject
from rulegen.kube.objects.structs import (
    ConfigMap,
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
from rulegen.kube.snapshot.addresses import ServiceAddresses
from rulegen.kube.snapshot.build import build_world
from rulegen.kube.snapshot.endpoints import SERVICE_NAME_LABEL
from rulegen.kube.snapshot.live_endpoints import LiveEndpoints
from rulegen.kube.snapshot.services_by_name import PackedInput, ServicesByName, service_input
from rulegen.kube.snapshot.world import ClusterSnapshot, ServiceInput
from rulegen.kube.validation.unusable_ingress import UnusableIngress, named_apart

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rulegen.kube.objects.events import Event
    from rulegen.kube.objects.kinds import KubeObject
    from rulegen.kube.objects.names import Decoded


@dataclass(slots=True)
class Touched:
    """What changes affect.

    Attributes:
        services: Services of which the object, an EndpointSlice or a Pod was added, changed or deleted.
        addresses: ClusterIPs and external IPs that were added or removed; empty before the first call of
            `for_ingresses`.
        nodes: Whether a Node or a ServiceCIDR has changed.
        site: Whether an object of another kind has changed; these kinds affect only Ingresses.
    """

    services: set[ObjectName] = field(default_factory=set)
    addresses: set[str] = field(default_factory=set)
    nodes: bool = False
    site: bool = False

    def add(self, other: Touched) -> None:
        """Add services, nodes and site of another value. `addresses` must be read from each change."""
        self.services |= other.services
        self.nodes |= other.nodes
        self.site |= other.site

    def __bool__(self) -> bool:
        return bool(self.services or self.nodes or self.site)


_BY_NAME: Final = (Secret, ConfigMap)
"""Kinds whose objects are watched by name: for each, an event reports that it exists or that it does not."""

AnyObject = TypeVar("AnyObject", Service, Ingress, IngressClass, Namespace, Node, ServiceCIDR, Secret, ConfigMap)


@dataclass(slots=True)
class _IngressView:
    """Parts of snapshots for Ingresses, kept between snapshots, so that the cost of each is that of the changes.

    Attributes:
        inputs: Services with their endpoints; those in `stale` are outdated.
        addresses: The index of addresses, updated with each change.
        shared: The copy of `addresses` that was returned last; None if they have changed since.
        kinds: All other objects, by kind and name. An object stays the same if only fields without effect change.
        copies: Copies of `kinds` that were returned last, without kinds that have changed since.
    """

    inputs: dict[ObjectName, ServiceInput | PackedInput] = field(default_factory=dict)
    stale: set[ObjectName] = field(default_factory=set)
    addresses: ServiceAddresses = field(default_factory=ServiceAddresses)
    shared: ServiceAddresses | None = None
    kinds: dict[type[KubeObject], dict[ObjectName, Any]] = field(default_factory=dict)
    copies: dict[type[KubeObject], dict[ObjectName, Any]] = field(default_factory=dict)


class Cluster:
    """All objects by kind and name."""

    def __init__(self, endpoints_from: EndpointsFrom = EndpointsFrom.SLICES, node: str = "") -> None:
        """Start without objects. Nothing may be written to the kernel before all lists were received.

        Args:
            endpoints_from: Where the endpoints of Services come from.
            node: Name of this node, if endpoints come from Pods: events about all Nodes are then expected, and only
                this Node is kept.
        """
        self._objects: dict[type[KubeObject], dict[ObjectName, Decoded]] = defaultdict(dict)
        self._slices: dict[ObjectName, dict[str, Decoded]] = defaultdict(dict)
        self._rejected: dict[tuple[type[KubeObject], str], Rejected] = {}
        self._gone: set[ObjectKey] = set()
        self._warned: dict[tuple[type[KubeObject], ObjectName], tuple[str, ...]] = {}
        self._view: _IngressView | None = None
        self._live = LiveEndpoints(endpoints_from, node) if endpoints_from.has_pods else None

    def apply_event(self, event: Event) -> Touched:
        """Apply an event; return what it affects: nothing if it changes only fields without effect."""
        touched = Touched()
        if self._live is None:
            self._apply(event, touched)
            return touched
        part: Event | None = event
        if event.kind is Node:
            touched.services, part = self._live.follow_nodes(event)
        if part is not None:
            self._apply(part, touched)
        touched.services |= self._live.settle(touched.services)
        if self._view is not None:
            self._view.stale |= touched.services
        return touched

    def _apply(self, event: Event, touched: Touched) -> None:
        match event:
            case Listed(kind, objects):
                self._replace(kind, objects, touched)
            case Changed(kind, entry, name):
                self._put(kind, entry, name, touched)
            case Gone(kind, name):
                self._record_answer(kind, name, touched)
                self._drop(kind, name, touched)
                if kind in _BY_NAME:
                    self._gone.add(ObjectKey(kind.__name__, name))
            case Unfollowed(kind, name):
                self._drop(kind, name, Touched())
                self._gone.discard(ObjectKey(kind.__name__, name))

    def service(self, name: ObjectName) -> ServiceInput | None:
        """Return a Service with its endpoints; None if it does not exist."""
        decoded = self._objects[Service].get(name)
        if decoded is None:
            return None
        known = service_input(decoded, self._slices_of(name))
        if self._live is None:
            return known
        complete = self._live.complete(known.service, known.slices)
        if complete is None:
            return None
        slices, origin = complete
        return ServiceInput(service=known.service, slices=slices, endpoints_from=origin)

    def _slices_of(self, name: ObjectName) -> tuple[Decoded, ...]:
        known = self._slices.get(name, {})
        return tuple(known[key] for key in sorted(known))

    @property
    def gone(self) -> frozenset[ObjectKey]:
        """Secrets and ConfigMaps that do not exist, as reported by events."""
        return frozenset(self._gone)

    def is_reported(self, kind: type[KubeObject], name: ObjectName) -> bool:
        """Return whether an event has reported that a Secret or ConfigMap exists, or that it does not."""
        is_there = name in self._objects[kind] or (kind, called(kind, name)) in self._rejected
        return is_there or ObjectKey(kind.__name__, name) in self._gone

    def names(self) -> list[ObjectName]:
        """Return the sorted names of all Services."""
        return sorted(self._objects[Service])

    def of_kind(self, kind: type[AnyObject]) -> dict[ObjectName, AnyObject]:
        """Return all objects of a kind, by name."""
        return {name: entry.object for name, entry in self._objects[kind].items() if isinstance(entry.object, kind)}

    def node(self, name: str) -> Node | None:
        """Return the Node of this name; None if it does not exist."""
        decoded = self._objects[Node].get(ObjectName("", name))
        return decoded.object if decoded is not None and isinstance(decoded.object, Node) else None

    @property
    def warnings(self) -> list[str]:
        """Warnings about ignored entries of objects, one line each. Thread-safe."""
        return [warning for warnings in [*self._warned.values()] for warning in warnings]

    @property
    def rejected(self) -> list[Rejected]:
        """Invalid objects, which are skipped, each with its faults."""
        refused = self._live.rejected if self._live is not None else []
        known = [self._rejected[key] for key in sorted(self._rejected, key=lambda key: (key[0].__name__, key[1]))]
        return known + refused

    def snapshot(self) -> list[Decoded | Rejected]:
        """Return all objects, so that another thread can build a ClusterSnapshot from them."""
        return [entry for kind in [*self._objects.values()] for entry in [*kind.values()]] + self.rejected

    def world(self) -> ClusterSnapshot:
        """Return all objects as a ClusterSnapshot."""
        return build_world(self.snapshot())

    def for_ingresses(self) -> ClusterSnapshot:
        """Return all objects that Ingresses depend on; unchanged parts are the same Python objects as in the last call.

        The first call builds an index of all Services; later changes update it. No values are assigned to Services: the
        API server has assigned them.
        """
        if self._view is None:
            self._view = _IngressView(stale=set(self._objects[Service]))
            for name, entry in self._objects[Service].items():
                if isinstance(service := entry.object, Service):
                    self._view.addresses.change(name, None, service)
        view = self._view
        for name in view.stale:
            self._renew(view, name)
        view.stale.clear()
        if view.shared is None:
            view.shared = view.addresses.copy()
        ingresses = self._copied(view, Ingress)
        return ClusterSnapshot(
            services=ServicesByName(view.inputs.copy()),
            addresses=view.shared,
            nodes={name.name: entry for name, entry in self._copied(view, Node).items()},
            ingresses=ingresses,
            unusable=named_apart(self._unusable().values(), ingresses),
            ingress_classes={name.name: entry for name, entry in self._copied(view, IngressClass).items()},
            namespaces={name.name: entry.metadata.labels for name, entry in self._copied(view, Namespace).items()},
            secrets=self._copied(view, Secret),
            config_maps=self._copied(view, ConfigMap),
            rejected=tuple(self.rejected),
        )

    def _renew(self, view: _IngressView, name: ObjectName) -> None:
        """Read a Service again that has changed. A packed one is not decoded before it is looked up."""
        decoded = self._objects[Service].get(name)
        is_packed = isinstance(decoded, PackedObject)
        known = PackedInput(decoded, self._slices_of(name)) if decoded and is_packed else self.service(name)
        if known is None:
            view.inputs.pop(name, None)
        else:
            view.inputs[name] = known

    def _unusable(self) -> dict[str, UnusableIngress]:
        """Return what can be read of invalid Ingresses, by the names in their rejections."""
        return {
            called: entry.readable
            for (_, called), entry in sorted(self._rejected.items(), key=lambda item: item[0][1])
            if isinstance(entry.readable, UnusableIngress)
        }

    def _copied(self, view: _IngressView, kind: type[AnyObject]) -> dict[ObjectName, AnyObject]:
        """Return all objects of a kind, by name: the same mapping until one of them changes."""
        if kind not in view.kinds:
            view.kinds[kind] = self.of_kind(kind)
        if kind not in view.copies:
            view.copies[kind] = view.kinds[kind].copy()
        return view.copies[kind]

    def _replace(self, kind: type[KubeObject], objects: Iterable[Decoded | Rejected], touched: Touched) -> None:
        gone, unusable = set(self._objects[kind]), self._unusable()
        self._rejected = {key: entry for key, entry in self._rejected.items() if key[0] is not kind}
        rejected = []
        for entry in objects:
            if isinstance(entry, Rejected):
                rejected.append(entry)
            else:
                name = entry.name
                gone.discard(name)
                self._put(kind, entry, name, touched)
        for name in gone:
            self._drop(kind, name, touched)
        # After the drops: an object that was valid before and is invalid now is in both.
        self._rejected.update({(kind, entry.object): entry for entry in rejected})
        touched.site |= self._unusable() != unusable

    def _record_answer(self, kind: type[KubeObject], name: ObjectName, touched: Touched) -> None:
        """Record that an event has reported an object watched by name; the first report counts as a change."""
        if kind in _BY_NAME:
            touched.site |= not self.is_reported(kind, name)
            self._gone.discard(ObjectKey(kind.__name__, name))

    def _put(self, kind: type[KubeObject], entry: Decoded | Rejected, name: ObjectName, touched: Touched) -> None:
        self._record_answer(kind, name, touched)
        if isinstance(entry, Rejected):
            # An old valid version is not kept: it does not exist any more.
            key = kind, called(kind, name)
            earlier = self._rejected.pop(key, None)
            self._drop(kind, name, touched)
            self._rejected[key] = entry
            touched.site |= entry.readable != (earlier.readable if earlier is not None else None)
            return
        self._rejected.pop((kind, called(kind, name)), None)
        self._warned.pop((kind, name), None)
        if entry.warnings:
            self._warned[kind, name] = entry.warnings
        before = self._objects[kind].get(name)
        if before is not None and before.is_same(entry):
            return
        was, now = before.object if before is not None else None, entry.object
        if was is not None and _are_served_alike(was, now):
            self._objects[kind][name] = entry
            return
        if was is not None:
            self._touch(was, touched)
            self._unlink(was)
        self._objects[kind][name] = entry
        self._link(entry, now)
        self._touch(now, touched)
        self._follow(kind, name, was, now, touched)

    def _drop(self, kind: type[KubeObject], name: ObjectName, touched: Touched) -> None:
        rejected = self._rejected.pop((kind, called(kind, name)), None)
        touched.site |= rejected is not None and rejected.readable is not None
        self._warned.pop((kind, name), None)
        before = self._objects[kind].pop(name, None)
        if before is not None:
            was = before.object
            self._unlink(was)
            self._touch(was, touched)
            self._follow(kind, name, was, None, touched)

    def _follow(
        self,
        kind: type[KubeObject],
        name: ObjectName,
        before: KubeObject | None,
        after: KubeObject | None,
        touched: Touched,
    ) -> None:
        """Apply a change to the next snapshot for Ingresses."""
        view = self._view
        if view is None:
            return
        if kind in view.kinds:
            view.copies.pop(kind, None)
            if after is None:
                view.kinds[kind].pop(name, None)
            else:
                view.kinds[kind][name] = after
        view.stale.update(owner for entry in (before, after) if entry is not None and (owner := _service_of(entry)))
        if kind is Service:
            was = before if isinstance(before, Service) else None
            changed = view.addresses.change(name, was, after if isinstance(after, Service) else None)
            if changed:
                view.shared = None
                touched.addresses |= changed

    def _link(self, entry: Decoded, content: KubeObject) -> None:
        if isinstance(content, EndpointSlice) and (owner := _owner(content)):
            self._slices[owner][entry.name.name] = entry
        if self._live is not None:
            self._live.link(content)

    def _unlink(self, entry: KubeObject) -> None:
        if isinstance(entry, EndpointSlice) and (owner := _owner(entry)):
            self._slices[owner].pop(entry.metadata.name, None)
            if not self._slices[owner]:
                del self._slices[owner]
        if self._live is not None:
            self._live.unlink(entry)

    def _touch(self, entry: KubeObject, touched: Touched) -> None:
        match entry:
            case Service():
                touched.services.add(_name(entry))
            case EndpointSlice():
                if owner := _owner(entry):
                    touched.services.add(owner)
            case Pod():
                if self._live is not None:
                    touched.services.update(self._live.selecting(entry))
            case Node() | ServiceCIDR():
                touched.nodes = True
            case _:
                touched.site = True


def _are_served_alike(before: KubeObject, after: KubeObject) -> bool:
    """Whether two states of an object give the same rules and the same nginx configuration.

    This holds if only the status of an Ingress differs, or only annotations of a Node, which some programs change every
    few seconds.
    """
    match before, after:
        case Ingress(), Ingress():
            return before == replace(after, status=before.status)
        case Node(), Node():
            metadata = replace(after.metadata, annotations=before.metadata.annotations)
            return before == replace(after, metadata=metadata)
    return False


def _name(entry: KubeObject) -> ObjectName:
    return ObjectName(entry.metadata.namespace, entry.metadata.name)


def _service_of(entry: KubeObject) -> ObjectName | None:
    """Return the name of a Service, or of the Service that an EndpointSlice belongs to; None for other kinds."""
    if isinstance(entry, EndpointSlice):
        return _owner(entry)
    return _name(entry) if isinstance(entry, Service) else None


def _owner(entry: EndpointSlice) -> ObjectName | None:
    owner = entry.metadata.labels.get(SERVICE_NAME_LABEL)
    return ObjectName(entry.metadata.namespace, owner) if owner else None
