"""Which endpoints of a port can be used from this node.

*Usable* is ready, or, where nothing is ready, serving though terminating (KEP-1669). The cluster pool obeys topology
hints (KEP-2433, KEP-4444) as long as something is ready; the local pool and the fall-back to terminating endpoints
ignore them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rulegen.kube.endpoints import SERVICE_NAME_LABEL
from rulegen.model.ir import Endpoint
from rulegen.net import Address, AddressUse, Family, family_of, parse_address, refusal

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from rulegen.kube.objects import EndpointSlice, SliceEndpoint


@dataclass(frozen=True, slots=True)
class Candidate:
    """An endpoint of a port with the conditions that decide about it; unknown conditions resolved."""

    endpoint: Endpoint
    ready: bool
    serving: bool
    terminating: bool
    is_local: bool
    zones: frozenset[str]
    nodes: frozenset[str]


Weigh = Callable[["SliceEndpoint"], int]
"""Returns the weight of an endpoint, 1 where nobody gave it another."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a node is, for topology hints."""

    node: str
    zone: str


@dataclass(frozen=True, slots=True)
class Pools:
    """The endpoints of one port, by use; each sorted by text. See `rulegen.model.ir.ServicePort`."""

    cluster: tuple[Endpoint, ...] = ()
    local: tuple[Endpoint, ...] = ()
    endpoints: tuple[Endpoint, ...] = ()
    has_endpoints: bool = False


PortKey = tuple[Family, str, str]
"""Family, name and protocol: what joins a port of a slice to a port of a Service."""


def candidates(
    slices: Iterable[EndpointSlice],
    node: str,
    warn: Callable[[str], None],
    weigh: Weigh | None = None,
    refused: Collection[Address] = (),
    origin: str = "EndpointSlice",
) -> dict[PortKey, list[Candidate]]:
    """Return the candidates of every port that the slices tell of, sorted by text, each address and port once.

    Where slices disagree about one address and port, one that is not terminating wins over one that is (pod addresses
    are reused), then a ready one over one that is not; kube-proxy leaves that last choice to chance.

    Args:
        slices: The slices.
        node: This node.
        warn: Told of endpoints that are skipped.
        weigh: How endpoints are weighed; None where all are alike.
        refused: Addresses that this node's kernel would refuse to send to.
        origin: What the slices were made of, as `ServiceInput.endpoints_from` has it.
    """
    found: dict[PortKey, dict[str, Candidate]] = {}
    for slice_ in slices:
        family = Family(slice_.address_type) if slice_.address_type in set(Family) else None
        ports = [(p.name, p.port, p.protocol) for p in slice_.ports if p.name is not None and p.port]
        if family is None or not ports:
            continue
        for told in slice_.endpoints:
            address, fault = _address(told, family, refused)
            if address is None:
                if fault:
                    warn(f"{_source_of(told, slice_, origin)}: {fault}; the endpoint is ignored")
                continue
            weight = weigh(told) if weigh is not None else 1
            for name, number, protocol in ports:
                candidate = _candidate(told, Endpoint.of(address, number, weight), node)
                known = found.setdefault((family, name, protocol), {})
                rival = known.get(candidate.endpoint.text)
                if rival is None or _rank(candidate) > _rank(rival):
                    known[candidate.endpoint.text] = candidate
    return {key: [known[text] for text in sorted(known)] for key, known in found.items()}


def pools(candidates: Sequence[Candidate], place: Place, *, uses_cluster: bool, uses_local: bool) -> Pools:
    """Sort the candidates of one port into pools.

    Args:
        candidates: All endpoints of the port, sorted by text.
        place: Where this node is.
        uses_cluster: Whether anything is delivered to the cluster pool.
        uses_local: Whether anything is delivered to the local pool.
    """
    cluster: list[Candidate] = []
    local: list[Candidate] = []
    if uses_cluster:
        fits = _topology([c for c in candidates if c.ready], place)
        cluster = [c for c in candidates if c.ready and fits(c)] or _terminating(candidates)
    if uses_local:
        here = [c for c in candidates if c.is_local]
        local = [c for c in here if c.ready] or _terminating(here)
    union = sorted({c.endpoint.text: c.endpoint for c in (*cluster, *local)}.items())
    return Pools(
        cluster=tuple(c.endpoint for c in cluster),
        local=tuple(c.endpoint for c in local),
        endpoints=tuple(endpoint for _, endpoint in union),
        has_endpoints=any(c.ready or (c.serving and c.terminating) for c in candidates),
    )


def _terminating(candidates: Sequence[Candidate]) -> list[Candidate]:
    return [c for c in candidates if c.serving and c.terminating]


def _topology(ready: Sequence[Candidate], place: Place) -> Callable[[Candidate], bool]:
    """Return the test that an endpoint of the cluster pool must pass; all pass unless every ready one has hints."""
    if ready and all(c.nodes for c in ready) and any(place.node in c.nodes for c in ready):
        return lambda c: place.node in c.nodes
    if ready and place.zone and all(c.zones for c in ready) and any(place.zone in c.zones for c in ready):
        return lambda c: place.zone in c.zones
    return lambda _: True


def _rank(candidate: Candidate) -> tuple[bool, bool, bool, bool]:
    return (not candidate.terminating, candidate.ready, candidate.serving, candidate.is_local)


def _candidate(told: SliceEndpoint, endpoint: Endpoint, node: str) -> Candidate:
    conditions = told.conditions
    return Candidate(
        endpoint=endpoint,
        ready=conditions.ready is not False,
        serving=conditions.serving is not False,
        terminating=conditions.terminating is True,
        is_local=bool(node) and told.node_name == node,
        zones=frozenset(zone.name for zone in told.hints.for_zones),
        nodes=frozenset(node_hint.name for node_hint in told.hints.for_nodes),
    )


def _address(told: SliceEndpoint, family: Family, refused: Collection[Address]) -> tuple[Address | None, str]:
    """Return the address that counts, the first; or None, and why it is not used, where there is one."""
    if not told.addresses:
        return None, ""
    try:
        address = parse_address(told.addresses[0])
    except ValueError as error:
        return None, str(error)
    if family_of(address) is not family:
        return None, f"{address} is not {family}"
    if address in refused:
        return None, f"{address} is the broadcast address of a network of this node"
    fault = refusal(address, AddressUse.ENDPOINT)
    return (None, fault) if fault else (address, "")


def _source_of(told: SliceEndpoint, slice_: EndpointSlice, origin: str) -> str:
    """Return which object names an endpoint."""
    namespace, name = slice_.metadata.namespace, slice_.metadata.name
    if origin == "Endpoints":
        return f"Endpoints {namespace}/{slice_.metadata.labels.get(SERVICE_NAME_LABEL, name)}"
    if origin == "Pods" and told.target_ref is not None:
        return f"Pod {namespace}/{told.target_ref.name}"
    return f"EndpointSlice {namespace}/{name}"
