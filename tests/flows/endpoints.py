"""Which endpoints of a Service's port are usable, and which are meant for a node: a part of the specification.

Sources: the EndpointSlice API; KEP-1669 (terminating endpoints), KEP-2433 and KEP-3015 (topology hints).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple

from rulegen.kube.objects.structs import ServicePort, SliceEndpoint
from rulegen.kube.snapshot.world import ServiceInput
from rulegen.net import Address, Family, parse_address

_address = cache(parse_address)


class Usable(NamedTuple):
    """An endpoint that takes connections: it is ready, or it still drains, and nothing better is there."""

    address: Address
    port: int
    ready: bool
    is_local: bool
    given: SliceEndpoint


def endpoints_of(reported: ServiceInput, port: ServicePort, family: Family, node: str) -> list[Usable]:
    """Return the usable endpoints of a Service's port, wherever they are, each address and port once.

    Slices may tell one address twice, as pods' addresses are given away again: one that does not terminate counts
    before one that does, then one that is ready, one that serves, one that is here; then the one told first.
    """
    collected: dict[tuple[Address, int], list[tuple[bool, bool, bool, bool, SliceEndpoint]]] = {}
    for slice_ in reported.slices:
        if slice_.address_type != family or "service.kubernetes.io/headless" in slice_.metadata.labels:
            continue
        numbers = [p.port for p in slice_.ports if (p.name, p.protocol) == (port.name, port.protocol) and p.port]
        for endpoint in slice_.endpoints:
            given = endpoint.conditions
            rank = (given.terminating is True, given.ready is False, given.serving is False, endpoint.node_name != node)
            for number in numbers:
                collected.setdefault((_address(endpoint.addresses[0]), number), []).append((*rank, endpoint))
    counted = []
    for (address, number), rivals in collected.items():
        terminating, unready, unserving, is_elsewhere, endpoint = min(rivals, key=lambda rival: rival[:4])
        if not unready or (terminating and not unserving):
            counted.append(Usable(address, number, not unready, not is_elsewhere, endpoint))
    return counted


def local(usable: Sequence[Usable]) -> list[Usable]:
    """Return the ready endpoints on this node; without any, those on this node that still drain."""
    here = [e for e in usable if e.is_local]
    return [e for e in here if e.ready] or [e for e in here if _drains(e)]


def meant_for(usable: Sequence[Usable], node: str, zone: str) -> list[Usable]:
    """Return the ready endpoints that are meant for a node; without any, all that still drain.

    Hints count only if every ready endpoint has one and one of them is for here; those for nodes go first.
    """
    ready = [e for e in usable if e.ready]
    for here, hints in (
        (node, [{hint.name for hint in e.given.hints.for_nodes} for e in ready]),
        (zone, [{hint.name for hint in e.given.hints.for_zones} for e in ready]),
    ):
        if here and all(hints) and any(here in hint for hint in hints):
            return [e for e, hint in zip(ready, hints, strict=True) if here in hint]
    return ready or [e for e in usable if _drains(e)]


def _drains(endpoint: Usable) -> bool:
    conditions = endpoint.given.conditions
    return conditions.serving is not False and conditions.terminating is True
