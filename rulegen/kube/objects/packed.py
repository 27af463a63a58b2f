"""Services and EndpointSlices that are kept as compressed text: a tenth of the memory of their structs.

Nothing is left out. The object is decoded from the text each time that it is read.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING, Final

import msgspec

from rulegen.kube.objects.names import Decoded
from rulegen.kube.objects.structs import (
    EndpointConditions,
    EndpointSlice,
    ObjectMeta,
    Service,
    ServicePort,
    ServiceSpec,
    SliceEndpoint,
    SlicePort,
    TargetReference,
)

if TYPE_CHECKING:
    from rulegen.kube.objects.names import ObjectName

_LEVEL: Final = 1
_WINDOW: Final = -12
"""4 KiB without a header: most objects are smaller."""
_MEMORY: Final = 5
_ENCODER: Final = msgspec.json.Encoder(order="deterministic")


class _Packing:
    """How objects of one kind are packed.

    Attributes:
        sample: Text of a usual object. zlib finds in it the names of fields and usual values.
        decoder: Reads the text.
    """

    __slots__ = ("decoder", "sample")

    def __init__(self, sample: Service | EndpointSlice) -> None:
        self.sample = _ENCODER.encode(sample)
        self.decoder = msgspec.json.Decoder(type(sample))

    def packed(self, known: Service | EndpointSlice) -> bytes:
        """Return the compressed text of an object: equal texts for equal objects."""
        stream = zlib.compressobj(_LEVEL, zlib.DEFLATED, _WINDOW, _MEMORY, zlib.Z_DEFAULT_STRATEGY, self.sample)
        return stream.compress(_ENCODER.encode(known)) + stream.flush()

    def unpacked(self, packed: bytes) -> Service | EndpointSlice:
        """Return the object."""
        return self.decoder.decode(zlib.decompressobj(_WINDOW, self.sample).decompress(packed))


_PACKING: Final = {
    Service: _Packing(
        Service(
            metadata=ObjectMeta(
                name="web",
                namespace="default",
                uid="00000000-0000-0000-0000-000000000000",
                creation_timestamp="2026-01-01T00:00:00Z",
                labels={"app.kubernetes.io/name": "web", "app": "web"},
            ),
            spec=ServiceSpec(
                cluster_ip="10.96.0.1",
                cluster_ips=("10.96.0.1",),
                ip_families=("IPv4",),
                ip_family_policy="SingleStack",
                ports=(ServicePort(name="http", port=80, target_port=8080),),
                selector={"app": "web"},
                internal_traffic_policy="Cluster",
            ),
        )
    ),
    EndpointSlice: _Packing(
        EndpointSlice(
            metadata=ObjectMeta(
                name="web",
                namespace="default",
                uid="00000000-0000-0000-0000-000000000000",
                creation_timestamp="2026-01-01T00:00:00Z",
                labels={
                    "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
                    "kubernetes.io/service-name": "web",
                },
                annotations={"endpoints.kubernetes.io/last-change-trigger-time": "2026-01-01T00:00:00Z"},
            ),
            address_type="IPv4",
            endpoints=(
                SliceEndpoint(
                    addresses=("10.244.0.1",),
                    conditions=EndpointConditions(ready=True, serving=True, terminating=False),
                    node_name="node-1",
                    target_ref=TargetReference(kind="Pod", name="web-0"),
                ),
            ),
            ports=(SlicePort(name="http", port=8080),),
        )
    ),
}


class PackedObject(Decoded):
    """A valid Service or EndpointSlice, of which only the compressed text is kept.

    Attributes:
        packed: The compressed text.
        kind: Its struct.
    """

    __slots__ = ("_name", "kind", "packed")

    packed: bytes
    kind: type[Service | EndpointSlice]
    _name: ObjectName

    def __init__(self, known: Decoded, content: Service | EndpointSlice) -> None:
        """Pack an object.

        Args:
            known: The object as it was decoded.
            content: Its struct.
        """
        kind = type(content)
        fields = {
            "source": known.source,
            "warnings": known.warnings,
            "packed": _PACKING[kind].packed(content),
            "kind": kind,
            "_name": known.name,
        }
        for name, value in fields.items():
            object.__setattr__(self, name, value)

    @property
    def object(self) -> Service | EndpointSlice:
        """The object, decoded now."""
        return _PACKING[self.kind].unpacked(self.packed)

    @property
    def name(self) -> ObjectName:
        """Its name; nothing is decoded."""
        return self._name

    def is_same(self, other: Decoded) -> bool:
        """Return whether both have the same object; two packed ones are compared as texts."""
        if isinstance(other, PackedObject):
            return self.kind is other.kind and self.packed == other.packed
        return super().is_same(other)


def pack(known: Decoded) -> Decoded:
    """Return a Service or an EndpointSlice packed, and any other object as it is."""
    content = known.object
    return PackedObject(known, content) if isinstance(content, Service | EndpointSlice) else known
