"""Selects the endpoints of a port that this node uses.

The usable endpoints are the ready ones. If none is ready, they are the serving and terminating ones (KEP-1669).
Topology hints (KEP-2433, KEP-4444) apply only to ready endpoints of the cluster pool.
"""

from __future__ import annotations

import hashlib
import heapq
from collections import Counter
from collections.abc import Callable
from operator import itemgetter
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from rulegen.kube.snapshot.endpoints import SERVICE_NAME_LABEL
from rulegen.model.services.ir import Endpoint
from rulegen.net import Address, AddressUse, Family, address_text, family_of, is_ordinary_ipv4, parse_address, refusal

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from rulegen.kube.objects.structs import EndpointSlice, SliceEndpoint


class Candidate(msgspec.Struct, frozen=True, gc=False):
    """An endpoint of a port with its conditions and hints; unset conditions have their default."""

    endpoint: Endpoint
    ready: bool
    serving: bool
    terminating: bool
    is_local: bool
    zones: frozenset[str]
    nodes: frozenset[str]


Weigh = Callable[["SliceEndpoint"], int]
"""Returns the weight of an endpoint; 1 by default."""


class Topology(msgspec.Struct, frozen=True):
    """Name and zone of a node, for topology hints."""

    node: str
    zone: str


class Pools(msgspec.Struct, frozen=True):
    """The pools of one port, each sorted by text; see `ResolvedPort`."""

    cluster: tuple[Endpoint, ...] = ()
    local: tuple[Endpoint, ...] = ()
    endpoints: tuple[Endpoint, ...] = ()
    has_endpoints: bool = False


_NONE: Final[frozenset[str]] = frozenset()
_FAMILIES: Final[dict[str, Family]] = {family.value: family for family in Family}

PortKey = tuple[Family, str, str]
"""Family, name and protocol: the key that joins ports of Services and of EndpointSlices."""


def counts(slices: Iterable[EndpointSlice]) -> Counter[PortKey]:
    """Return the number of endpoints of each port; an endpoint in several slices counts once for each slice."""
    numbers: Counter[PortKey] = Counter()
    for slice_ in slices:
        if (family := _family(slice_)) is not None:
            for name, _, protocol in _ports(slice_):
                key = (family, name, protocol)
                numbers[key] = numbers.get(key, 0) + len(slice_.endpoints)
    return numbers


def candidates(
    slices: Iterable[EndpointSlice],
    node: str,
    warn: Callable[[str], None],
    weigh: Weigh | None = None,
    refused: Collection[Address] = (),
    origin: str = "EndpointSlice",
    most: Mapping[PortKey, int | None] | None = None,
    zone: str = "",
) -> dict[PortKey, list[Candidate]]:
    """Return the candidates of each port in the slices, sorted by text, each address and port once.

    If several slices contain an address and port, an endpoint that is not terminating wins over a terminating one
    (addresses of Pods are reused), then a ready one over one that is not. In kube-proxy, the latter choice is random.

    Args:
        slices: The EndpointSlices of a Service.
        node: Name of this node.
        warn: Receives a warning for each invalid endpoint.
        weigh: Returns the weight of an endpoint; None if all weights are 1.
        refused: Addresses that this node's kernel does not accept as destinations.
        origin: The kind of object that the slices were derived from, see `ServiceInput.endpoints_from`.
        most: The ports to return, each with the maximum number of its candidates, None for no maximum; `_first` selects
            them. Without `most`, all candidates of all ports are returned.
        zone: Zone of this node.
    """
    by_port: dict[PortKey, dict[str, Candidate]] = {}
    limited: dict[PortKey, list[tuple[list[_Ordered], int]]] = {}
    for slice_ in slices:
        family, ports = _family(slice_), _ports(slice_)
        if family is None or not ports:
            continue
        usable: list[tuple[SliceEndpoint, str, int]] = []
        for endpoint in slice_.endpoints:
            host = endpoint.addresses[0] if endpoint.addresses else ""
            if refused or family is not Family.IPV4 or not is_ordinary_ipv4(host):
                address, fault = _address(endpoint, family, refused)
                if fault:
                    warn(f"{_source_of(endpoint, slice_, origin)}: {fault}; the endpoint is ignored")
                if address is None:
                    continue
                host = address_text(address)
            usable.append((endpoint, host, weigh(endpoint) if weigh is not None else 1))
        ordered: list[_Ordered] | None = None
        for name, number, protocol in ports:
            key = (family, name, protocol)
            if most is not None and key not in most:
                continue
            if most is not None and most[key] is not None:
                if ordered is None:
                    ordered = sorted((_Ordered(_order(t, h, node, zone), t, h, w) for t, h, w in usable), key=_BY_ORDER)
                limited.setdefault(key, []).append((ordered, number))
                continue
            chosen = by_port.setdefault(key, {})
            for endpoint, host, weight in usable:
                _take(chosen, _candidate(endpoint, Endpoint.at(host, number, weight), node))
    for key, parts in limited.items():
        assert most is not None  # noqa: S101 - for the type checker: `limited` is empty otherwise
        by_port[key] = _first(parts, most[key] or 1, node)
    return {key: [chosen[text] for text in sorted(chosen)] for key, chosen in by_port.items()}


class _Ordered(NamedTuple):
    """An endpoint of a slice with its sort key, for ports of which not all endpoints are served."""

    order: tuple[int, bool, bool, bytes]
    source: SliceEndpoint
    host: str
    weight: int


_BY_ORDER = itemgetter(0)


def _order(endpoint: SliceEndpoint, host: str, node: str, zone: str) -> tuple[int, bool, bool, bytes]:
    """Return the sort key of an endpoint, if not all are served: usable, then on this node, then hinted here.

    The last criterion is a digest of the address. It spreads the selection over nodes and zones, and all nodes select
    the same endpoints. If an endpoint is added or removed, at most one other changes.
    """
    conditions = endpoint.conditions
    serving, terminating = conditions.serving is not False, conditions.terminating is True
    use = 0 if conditions.ready is not False else 1 if serving and terminating else 2
    is_near = any(hint.name == node for hint in endpoint.hints.for_nodes) or any(
        bool(zone) and hint.name == zone for hint in endpoint.hints.for_zones
    )
    is_here = bool(node) and endpoint.node_name == node
    return use, not is_here, not is_near, hashlib.blake2b(parse_address(host).packed, digest_size=8).digest()


def _first(parts: Sequence[tuple[list[_Ordered], int]], most: int, node: str) -> dict[str, Candidate]:
    """Return the first `most` endpoints of a port, in the order of `_order`, without reading all of them.

    If several slices contain an address, the first in this order is returned: a usable one precedes others.
    """
    chosen: dict[str, Candidate] = {}

    def numbered(ordered: list[_Ordered], number: int) -> Iterator[tuple[_Ordered, int]]:
        return ((nearest, number) for nearest in ordered)

    for nearest, number in heapq.merge(*(numbered(*part) for part in parts), key=lambda pair: pair[0].order):
        endpoint = Endpoint.at(nearest.host, number, nearest.weight)
        if endpoint.text in chosen:
            continue
        if len(chosen) >= most:
            break
        chosen[endpoint.text] = _candidate(nearest.source, endpoint, node)
    return chosen


def _take(chosen: dict[str, Candidate], candidate: Candidate) -> None:
    """Add a candidate, unless a better one with the same address and port exists."""
    rival = chosen.setdefault(candidate.endpoint.text, candidate)
    if rival is not candidate and _rank(candidate) > _rank(rival):
        chosen[candidate.endpoint.text] = candidate


def _family(slice_: EndpointSlice) -> Family | None:
    return _FAMILIES.get(slice_.address_type)


def _ports(slice_: EndpointSlice) -> list[tuple[str, int, str]]:
    """Return name, number and protocol of the ports of a slice that have a name (it may be empty) and a number."""
    return [(p.name, p.port, p.protocol) for p in slice_.ports if p.name is not None and p.port]


def pools(candidates: Sequence[Candidate], place: Topology, *, uses_cluster: bool, uses_local: bool) -> Pools:
    """Return the pools of one port.

    Args:
        candidates: All candidates of the port, sorted by text.
        place: Name and zone of this node.
        uses_cluster: Whether a delivery uses the cluster pool.
        uses_local: Whether a delivery uses the local pool.
    """
    ready: list[Candidate] = []
    cluster: list[Candidate] = []
    local: list[Candidate] = []
    if uses_cluster:
        ready = [c for c in candidates if c.ready]
        cluster = _near(ready, place) or _terminating(candidates)
    if uses_local:
        here = [c for c in candidates if c.is_local]
        local = [c for c in here if c.ready] or _terminating(here)
    of_cluster = tuple([c.endpoint for c in cluster])
    of_node = tuple([c.endpoint for c in local])
    if of_node:
        union = {endpoint.text: endpoint for endpoint in (*of_cluster, *of_node)}
        endpoints = tuple([endpoint for _, endpoint in sorted(union.items())])
    else:
        endpoints = of_cluster
    return Pools(
        cluster=of_cluster,
        local=of_node,
        endpoints=endpoints,
        has_endpoints=bool(ready) or any(c.ready or (c.serving and c.terminating) for c in candidates),
    )


def _terminating(candidates: Sequence[Candidate]) -> list[Candidate]:
    return [c for c in candidates if c.serving and c.terminating]


def _near(ready: list[Candidate], place: Topology) -> list[Candidate]:
    """Return the endpoints with hints for this node, else for its zone; all if one lacks hints or none match."""
    if all(c.nodes for c in ready) and (of_node := [c for c in ready if place.node in c.nodes]):
        return of_node
    if place.zone and all(c.zones for c in ready) and (of_zone := [c for c in ready if place.zone in c.zones]):
        return of_zone
    return ready


def _rank(candidate: Candidate) -> tuple[bool, bool, bool, bool]:
    return (not candidate.terminating, candidate.ready, candidate.serving, candidate.is_local)


def _candidate(source: SliceEndpoint, endpoint: Endpoint, node: str) -> Candidate:
    conditions, hints = source.conditions, source.hints
    return Candidate(
        endpoint,
        conditions.ready is not False,
        conditions.serving is not False,
        conditions.terminating is True,
        bool(node) and source.node_name == node,
        frozenset([zone.name for zone in hints.for_zones]) if hints.for_zones else _NONE,
        frozenset([node_hint.name for node_hint in hints.for_nodes]) if hints.for_nodes else _NONE,
    )


def _address(endpoint: SliceEndpoint, family: Family, refused: Collection[Address]) -> tuple[Address | None, str]:
    """Return the first address; None if there is none or it is invalid, with the reason."""
    if not endpoint.addresses:
        return None, ""
    try:
        address = parse_address(endpoint.addresses[0])
    except ValueError as error:
        return None, str(error)
    if family_of(address) is not family:
        return None, f"{address} is not {family}"
    if refused and address in refused:
        return None, f"{address} is the broadcast address of a network of this node"
    fault = refusal(address, AddressUse.ENDPOINT)
    return (None, fault) if fault else (address, "")


def _source_of(endpoint: SliceEndpoint, slice_: EndpointSlice, origin: str) -> str:
    """Return kind and name of the object that contains an endpoint, for messages."""
    namespace, name = slice_.metadata.namespace, slice_.metadata.name
    if origin == "Endpoints":
        return f"Endpoints {namespace}/{slice_.metadata.labels.get(SERVICE_NAME_LABEL, name)}"
    if origin == "Pods" and endpoint.target_ref is not None:
        return f"Pod {namespace}/{endpoint.target_ref.name}"
    return f"EndpointSlice {namespace}/{name}"
