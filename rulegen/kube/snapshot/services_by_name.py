"""Services of a snapshot whose objects are kept packed: each is read when it is looked up."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, TypeVar, overload

from rulegen.kube.objects.structs import EndpointSlice, Service
from rulegen.kube.snapshot.world import ServiceInput

if TYPE_CHECKING:
    from rulegen.kube.objects.names import Decoded, ObjectName

Default = TypeVar("Default")


class PackedInput:
    """A Service with its EndpointSlices, as they were at one moment."""

    __slots__ = ("_lasting", "_service", "_slices")

    def __init__(self, service: Decoded, slices: tuple[Decoded, ...]) -> None:
        self._service = service
        self._slices = slices
        self._lasting: weakref.ref[ServiceInput] | None = None

    def read(self) -> ServiceInput:
        """Return the Service: the same Python object for as long as anything refers to it.

        Decisions refer to the Services that they have looked up. They therefore see which ones have not changed.
        """
        known = self._lasting() if self._lasting is not None else None
        if known is None:
            known = service_input(self._service, self._slices)
            self._lasting = weakref.ref(known)
        return known


class ServicesByName(Mapping["ObjectName", ServiceInput]):
    """The Services of one snapshot."""

    __slots__ = ("_inputs",)

    def __init__(self, inputs: Mapping[ObjectName, ServiceInput | PackedInput]) -> None:
        """Take over a mapping that does not change any more."""
        self._inputs = inputs

    @overload
    def get(self, name: ObjectName, /) -> ServiceInput | None: ...

    @overload
    def get(self, name: ObjectName, /, default: ServiceInput | Default) -> ServiceInput | Default: ...

    def get(self, name: ObjectName, /, default: object = None) -> object:
        """Return a Service; the default if it does not exist."""
        known = self._inputs.get(name)
        if known is None:
            return default
        return known.read() if isinstance(known, PackedInput) else known

    def __getitem__(self, name: ObjectName) -> ServiceInput:
        known = self._inputs[name]
        return known.read() if isinstance(known, PackedInput) else known

    def __contains__(self, name: object) -> bool:
        return name in self._inputs

    def __iter__(self) -> Iterator[ObjectName]:
        return iter(self._inputs)

    def __len__(self) -> int:
        return len(self._inputs)


def service_input(service: Decoded, slices: tuple[Decoded, ...]) -> ServiceInput:
    """Return a Service with its EndpointSlices.

    Args:
        service: The Service.
        slices: Its EndpointSlices, sorted by name.
    """
    content = service.object
    if not isinstance(content, Service):
        raise TypeError(f"{service.name} is not a Service")
    read = tuple(each for entry in slices if isinstance(each := entry.object, EndpointSlice))
    return ServiceInput(service=content, slices=read, endpoints_from="EndpointSlice" if read else "")
