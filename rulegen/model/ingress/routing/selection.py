"""The Ingresses that this node serves, by their class, oldest first."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rulegen.kube.objects.names import ObjectName

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rulegen.kube.objects.structs import Ingress
    from rulegen.kube.snapshot.world import ClusterSnapshot
    from rulegen.model.ingress.options import IngressOptions

YOUNGEST: Final = "~"
"""Sorts after all times. An Ingress without a time does not exist yet: the API server sets the time of each object."""


def age(ingress: Ingress) -> tuple[str, str, str]:
    """Return the sort key of Ingresses: oldest first, then namespace and name."""
    metadata = ingress.metadata
    return metadata.creation_timestamp or YOUNGEST, metadata.namespace, metadata.name


def in_order(ingresses: Iterable[Ingress]) -> list[Ingress]:
    """Return Ingresses sorted oldest first."""
    return sorted(ingresses, key=age)


def selected(world: ClusterSnapshot, options: IngressOptions) -> list[ObjectName]:
    """Return the names of the Ingresses that this node serves, oldest first."""
    refusal = options.selection.refusal
    return [
        ObjectName(ingress.metadata.namespace, ingress.metadata.name)
        for ingress in in_order(world.ingresses.values())
        if not refusal(ingress, world)
    ]
