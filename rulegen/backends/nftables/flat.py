"""Layout `flat`: a Service without session affinity and source ranges is nothing but elements of shared maps.

@service-ips-… ──► a chain for the shape of the Service ──► @endpoints-…: DNAT to the endpoint of frontend and number
@service-nodeports ──► nodeport-… of this shape ──► @nodeport-endpoints-…

The shape is what rules must know: how many numbers there are to choose from, which pools there are, and whether
connections are masqueraded. Chains are made with the first Service of their shape, and deleted with the last. The
node's own part is that of layout `kube-proxy`, but there are several maps of frontends and sets of ClusterIPs.

If a frontend is led to another chain, the kernel walks all elements of all maps of frontends, because rules could form
a loop. Therefore one chain serves up to eight numbers of endpoints, with a rule for each: the endpoints of a frontend
with three are at the numbers 0x300 to 0x302, where only the rule for three looks. An endpoint more or less then changes
elements of maps of endpoints alone.

With session affinity, or with very many endpoints, a port has chains of its own as in layout `kube-proxy`.
"""

from __future__ import annotations

from functools import cache, cached_property, lru_cache
from math import gcd
from typing import TYPE_CHECKING, Final, NamedTuple
from zlib import crc32

from rulegen.backends.nftables import words as w
from rulegen.backends.nftables.node import table_objects
from rulegen.backends.nftables.service import PortObjects
from rulegen.languages.nftables import state
from rulegen.languages.nftables.expressions import Concat, MapLookup, Numgen, VerdictCode
from rulegen.languages.nftables.language import NAME as NFTABLES
from rulegen.languages.nftables.state import ElementValue, NamedSet, NftChain, NftKey, ObjectKind
from rulegen.languages.nftables.statements import Dnat, VerdictLookup, nft_rule
from rulegen.model.services.ir import Delivery, NftExtra, TrafficPolicy
from rulegen.ownership import nftables as names
from rulegen.ownership.nftables import FLAT, FLAT_TABLE
from rulegen.plan.fragments import OwnedObjects

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence

    from rulegen.languages.nftables.state import NftObjects, NftValue
    from rulegen.languages.nftables.statements import NftRule
    from rulegen.model.services.ir import Endpoint, ResolvedNode, ResolvedPort, ResolvedService
    from rulegen.net import Address, Family

STEP: Final = 8
MOST_STEPPED: Final = 64
"""How many numbers of endpoints a chain has rules for, and the most that such a chain serves."""
MOST_PLACES: Final = 1024
MOST_ELEMENTS: Final = 8192
"""The most numbers of a pool, and the most endpoints of all frontends of a port. A port with more, for example because
of its weights, has chains of its own: one port must not have most of a map of all."""
MOST_ORDERED: Final = 64
"""The most endpoints whose order keeps moves few; the time for it grows with the square of their number."""
_ACCEPTED: Final = ElementValue(VerdictCode("accept"))


class _Kind(NamedTuple):
    """A kind of frontend: with an address, or a port on the addresses of the node.

    Attributes:
        prefix: What the names of its chains begin with.
        endpoints: What the names of its maps of endpoints begin with.
        has_address: Whether the address is a part of the key.
    """

    prefix: str
    endpoints: str
    has_address: bool

    def map_name(self, shard: int) -> str:
        """Return the name of a map of endpoints."""
        return _map_name(self.endpoints, shard)

    def pool_chain(self, delivery: Delivery, places: int, shard: int) -> str:
        """Return the name of the chain that chooses from a pool."""
        return _pool_chain(self.prefix, delivery, step_of(places), shard)


def step_of(places: int) -> int:
    """Return the most numbers that the chain for so many numbers serves."""
    return places if places > MOST_STEPPED else -(-places // STEP) * STEP


@cache
def _map_name(endpoints: str, shard: int) -> str:
    return f"{endpoints}-{shard}"


@lru_cache(maxsize=4096)
def _pool_chain(prefix: str, delivery: Delivery, most: int, shard: int) -> str:
    return names.shape_chain(f"{prefix}{delivery.value}", (most,), shard)


_BY_ADDRESS: Final = _Kind("", names.ENDPOINTS, has_address=True)
_BY_NODE_PORT: Final = _Kind("nodeport-", names.NODE_PORT_ENDPOINTS, has_address=False)


def compile_node(node: ResolvedNode, *, counts: bool, filled: Collection[str]) -> OwnedObjects:  # noqa: ARG001 - counts nothing
    """Return the objects of the node itself.

    Args:
        node: The decisions for all Services in this family.
        counts: Whether rules count with nfacct; no rule of this mode does.
        filled: Not empty if a Service uses the proxy of the node; the sets of the node always exist.
    """
    objects = table_objects(node, FLAT, filled)
    if NftExtra.DROP_INVALID in node.nft_extras and node.drop_invalid:
        _put_first(objects, "filter-forward", nft_rule(w.INVALID, VerdictCode("drop")))
    if NftExtra.HEALTH_PORTS in node.nft_extras:
        objects[state.set_key(FLAT_TABLE, names.HEALTH_PORTS)] = NamedSet(w.PORT_TYPES, (state.VERDICT,))
        _put_first(objects, "filter-input", nft_rule(VerdictLookup(w.PORT, w.named(names.HEALTH_PORTS))))
    if node.localhost_node_ports:
        objects[names.LOOPBACK_GUARD.key] = names.LOOPBACK_GUARD.chain
    return OwnedObjects("", node.family, {NFTABLES: objects})


def _put_first(objects: NftObjects, name: str, rule: NftRule) -> None:
    """Put a rule before the others of a chain of the node."""
    key = state.chain_key(FLAT_TABLE, name)
    chain = objects[key]
    if isinstance(chain, NftChain):
        objects[key] = NftChain((rule, *chain.rules), chain.base)


def compile_service(service: ResolvedService, node: ResolvedNode, *, counts: bool) -> OwnedObjects:  # noqa: ARG001 - counts nothing
    """Return the objects of one Service in the family of `node`.

    Args:
        service: The Service with all decisions taken.
        node: The decisions for all Services in this family.
        counts: Whether rules count with nfacct; no rule of this mode does.
    """
    objects: NftObjects = {}
    for port in service.ports:
        if port.family is node.family:
            for key, value in _port_objects(port, node):
                objects[key] = value
            if port.health_check_node_port and NftExtra.HEALTH_PORTS in node.nft_extras:
                element = ("tcp", str(port.health_check_node_port))
                objects[state.element_key(FLAT_TABLE, names.HEALTH_PORTS, element)] = _ACCEPTED
    return OwnedObjects(str(service.name), node.family, {NFTABLES: objects})


def _port_objects(port: ResolvedPort, node: ResolvedNode) -> Iterator[tuple[NftKey, NftValue]]:
    cluster, local = places_of(port.cluster), places_of(port.local)
    if port.affinity_s is not None or cluster is None or local is None:
        return PortObjects(port, node, FLAT).objects()
    frontends = len(port.external_ips) + len(port.load_balancer_ips) + 2
    if frontends * (len(cluster) + len(local)) > MOST_ELEMENTS:
        return PortObjects(port, node, FLAT).objects()
    return FlatPort(port, node, {Delivery.CLUSTER: cluster, Delivery.LOCAL: local}).objects()


class FlatPort(PortObjects):
    """The elements of one Service port, and the chains of its shape."""

    def __init__(self, port: ResolvedPort, node: ResolvedNode, pools: Mapping[Delivery, Sequence[Endpoint]]) -> None:
        """Take the endpoints of each number, by pool."""
        super().__init__(port, node, FLAT)
        self._pools = pools
        self._shard = names.endpoint_shard(port)

    @cached_property
    def _chains(self) -> Mapping[Delivery, str]:
        """The chain of each pool, for frontends with an address."""
        return self._pool_chains(_BY_ADDRESS)

    @cached_property
    def _external(self) -> str:
        """The chain of external frontends with an address."""
        return self._external_chain(_BY_ADDRESS)

    @cached_property
    def _to_node_port(self) -> str:
        """The chain of the node port."""
        return self._external_chain(_BY_NODE_PORT)

    def objects(self) -> Iterator[tuple[NftKey, NftValue]]:
        """Yield the objects of the port with their keys."""
        port = self._port
        yield from self._shared_objects()
        if port.cluster_ip is not None and port.internal.has_pool:
            yield from self._pool_objects(_BY_ADDRESS, port.internal)
            yield from self._endpoint_elements(port.cluster_ip, port.internal)
        if not self._has_external:
            return
        addresses = (*port.external_ips, *port.load_balancer_ips)
        if addresses:
            yield from self._external_objects(_BY_ADDRESS, addresses)
        if port.node_port:
            yield from self._external_objects(_BY_NODE_PORT, (None,))

    def _pool_chains(self, kind: _Kind) -> dict[Delivery, str]:
        return {
            delivery: kind.pool_chain(delivery, len(places), self._shard) for delivery, places in self._pools.items()
        }

    def _external_chain(self, kind: _Kind) -> str:
        """Return the name of the chain for external frontends. It says all that the rules of this chain depend on."""
        cluster, local = (step_of(len(self._pools[delivery])) for delivery in (Delivery.CLUSTER, Delivery.LOCAL))
        if self._port.external_policy is TrafficPolicy.CLUSTER:
            return names.shape_chain(f"{kind.prefix}external", (cluster,), self._shard)
        here = local if self._port.external is Delivery.LOCAL else 0
        return names.shape_chain(f"{kind.prefix}external-local", (cluster, here), self._shard)

    @property
    def _external_pools(self) -> Iterator[Delivery]:
        """The pools that connections to external frontends are sent to."""
        yield Delivery.CLUSTER
        if self._port.external is Delivery.LOCAL:
            yield Delivery.LOCAL

    def _external_objects(self, kind: _Kind, addresses: Sequence[Address | None]) -> Iterator[tuple[NftKey, NftValue]]:
        """Yield the objects of external frontends of one kind; a node port has no address."""
        yield self._chain(self._external_chain(kind), self._external_rules(self._pool_chains(kind)))
        for delivery in self._external_pools:
            yield from self._pool_objects(kind, delivery)
            for address in addresses:
                yield from self._endpoint_elements(address, delivery)

    def _pool_objects(self, kind: _Kind, delivery: Delivery) -> Iterator[tuple[NftKey, NftValue]]:
        """Yield the map of endpoints, and the chain that chooses from it."""
        yield from _pool_objects(kind, self._node.family, delivery, step_of(len(self._pools[delivery])), self._shard)

    def _endpoint_elements(self, address: Address | None, delivery: Delivery) -> Iterator[tuple[NftKey, NftValue]]:
        """Yield the endpoint of each number, for one frontend."""
        port = self._port
        kind = _BY_NODE_PORT if address is None else _BY_ADDRESS
        number_of = port.node_port if address is None else port.port
        frontend = (*(() if address is None else (self._text(address),)), self._protocol, w.number_text(number_of))
        table, name, pool = self._table, _map_name(kind.endpoints, self._shard), self._pools[delivery]
        for number, endpoint in enumerate(pool, _first(delivery, len(pool))):
            key = NftKey(table, ObjectKind.SET, name, (*frontend, _mark(number)))
            yield key, ElementValue((endpoint.host, w.number_text(endpoint.port)))


def places_of(pool: Sequence[Endpoint]) -> tuple[Endpoint, ...] | None:
    """Return the endpoint of each number: as often as its weight says, side by side; None for too many numbers."""
    if len({endpoint.weight for endpoint in pool}) == 1 and len(pool) <= MOST_ORDERED:
        return tuple(_ordered(pool))
    if not pool:
        return ()
    unit = gcd(*(endpoint.weight for endpoint in pool))
    shares = [(endpoint, endpoint.weight // unit) for endpoint in pool]
    if sum(share for _, share in shares) > MOST_PLACES:
        return None
    return tuple(endpoint for endpoint, share in shares for _ in range(share))


def _ordered(pool: Sequence[Endpoint]) -> Iterator[Endpoint]:
    """Yield the endpoints in an order in which another endpoint moves few of them.

    Each place has the one of the remaining endpoints whose hash with the place is the lowest. Where a new endpoint is
    lower, it takes the place, and only the displaced endpoint looks for another one among the later places.
    """
    if len(pool) < 2:
        yield from pool
        return
    left = {endpoint.text: endpoint for endpoint in pool}
    for place in range(len(pool) - 1):
        yield left.pop(min([(crc32(f"{place} {text}".encode()), text) for text in left])[1])
    yield from left.values()


def _first(delivery: Delivery, places: int) -> int:
    """Return the first of so many numbers."""
    first = names.FIRST_LOCAL if delivery is Delivery.LOCAL else 0
    return first + (names.FIRST_OF_MANY if places > MOST_STEPPED else places << 8)


@lru_cache(maxsize=1 << 16)
def _mark(number: int) -> str:
    """Return a number in the spelling of marks."""
    return f"0x{number:08x}"


@cache
def _endpoints_map(kind: _Kind, family: Family) -> NamedSet:
    address = w.address_type(family)
    frontend = (address, *w.PORT_TYPES) if kind.has_address else w.PORT_TYPES
    return NamedSet((*frontend, "mark"), (address, "inet_service"))


@lru_cache(maxsize=4096)
def _pool_objects(
    kind: _Kind, family: Family, delivery: Delivery, most: int, shard: int
) -> tuple[tuple[NftKey, NftValue], ...]:
    """Return the map of endpoints, and the chain that chooses from it: the same for all ports of one shape."""
    return (
        (state.set_key(FLAT_TABLE, kind.map_name(shard)), _endpoints_map(kind, family)),
        (
            state.chain_key(FLAT_TABLE, kind.pool_chain(delivery, most, shard)),
            _choice(kind, family, delivery, most, shard),
        ),
    )


def _choice(kind: _Kind, family: Family, delivery: Delivery, most: int, shard: int) -> NftChain:
    """Return the chain that sends connections to the endpoint of a random number; rules for other sizes find none."""
    frontend = w.frontend(family) if kind.has_address else w.PORT
    endpoints = w.named(kind.map_name(shard))
    sizes = (most,) if most > MOST_STEPPED else range(most - STEP + 1, most + 1)
    choices = (Numgen("random", size, _first(delivery, size)) for size in sizes)
    return NftChain(tuple(nft_rule(Dnat(MapLookup(Concat((*frontend.parts, each)), endpoints))) for each in choices))
