"""Converts core Endpoints to EndpointSlices, as the EndpointSliceMirroring controller of Kubernetes does (KEP-752)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rulegen.kube.objects.structs import EndpointConditions, EndpointSlice, ObjectMeta, SliceEndpoint, SlicePort
from rulegen.kube.validation.findings import family_of_text
from rulegen.net import Family

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rulegen.kube.objects.structs import EndpointAddress, Endpoints, EndpointSubset

SERVICE_NAME_LABEL: Final = "kubernetes.io/service-name"

_READY: Final = EndpointConditions(ready=True, serving=True, terminating=False)
_NOT_READY: Final = EndpointConditions(ready=False, serving=False, terminating=False)


def slices_of(endpoints: Endpoints) -> tuple[EndpointSlice, ...]:
    """Return the slices for core Endpoints: one for each subset and family that has addresses."""
    slices: list[EndpointSlice] = []
    for index, subset in enumerate(endpoints.subsets):
        ports = tuple(SlicePort(name=port.name, port=port.port, protocol=port.protocol) for port in subset.ports)
        for family in Family:
            if members := _members(subset, family):
                metadata = slice_metadata(endpoints.metadata, endpoints.metadata.labels, family, index)
                slices.append(
                    EndpointSlice(metadata=metadata, address_type=family.value, endpoints=members, ports=ports)
                )
    return tuple(slices)


def slice_metadata(owner: ObjectMeta, labels: Mapping[str, str], family: Family, index: int) -> ObjectMeta:
    """Return the metadata of a derived slice, which does not exist in the API."""
    return ObjectMeta(
        name=f"{owner.name}-{family.value.lower()}-{index}",
        namespace=owner.namespace,
        labels={**labels, SERVICE_NAME_LABEL: owner.name},
    )


def _members(subset: EndpointSubset, family: Family) -> tuple[SliceEndpoint, ...]:
    return tuple(
        _member(address, conditions)
        for addresses, conditions in ((subset.addresses, _READY), (subset.not_ready_addresses, _NOT_READY))
        for address in addresses
        if family_of_text(address.ip) is family
    )


def _member(address: EndpointAddress, conditions: EndpointConditions) -> SliceEndpoint:
    return SliceEndpoint(
        addresses=(address.ip,),
        conditions=conditions,
        node_name=address.node_name,
        target_ref=address.target_ref,
    )
