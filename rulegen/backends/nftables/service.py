"""One Service's chains in kube-proxy's table, and its elements in the shared sets and maps.

@service-ips ──ClusterIP─────────────► service-… (cluster pool) or local-… (local pool): DNAT
│  └─external IP, VIP─► external-… ──►   └─ with session affinity ► endpoint-…: DNAT
@service-nodeports ─────┘
@firewall-ips ─► firewall-…: drops clients outside of the source ranges
@no-endpoint-services, @no-endpoint-nodeports ─► drop or reject-chain
"""

from __future__ import annotations

from functools import cached_property, lru_cache
from math import gcd
from typing import TYPE_CHECKING, Final

from rulegen.backends.nftables import words as w
from rulegen.languages.nftables import state
from rulegen.languages.nftables.expressions import (
    AnonymousMap,
    Concat,
    Expression,
    Fib,
    Literal,
    MapLookup,
    Numgen,
    VerdictCode,
    addresses_in,
)
from rulegen.languages.nftables.language import NAME as NFTABLES
from rulegen.languages.nftables.state import ElementValue, NamedSet, NftChain
from rulegen.languages.nftables.statements import Compare, Dnat, UpdateSet, VerdictLookup, nft_rule
from rulegen.model.services.ir import Delivery, TrafficPolicy
from rulegen.net import Protocol, address_text
from rulegen.ownership import nftables as names
from rulegen.ownership.nftables import KUBE_PROXY, TableLayout
from rulegen.plan.fragments import OwnedObjects

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from rulegen.languages.nftables.state import NftKey, NftObjects, NftValue
    from rulegen.languages.nftables.statements import NftRule
    from rulegen.model.services.ir import Endpoint, ResolvedNode, ResolvedPort, ResolvedService
    from rulegen.net import Address

_PROTOCOLS: Final = {protocol: protocol.lower() for protocol in Protocol}
AFFINITY_SIZE = 65535
"""The most clients that nft lets a dynamic set remember by default."""

_DROP = ElementValue(VerdictCode("drop"))
_FROM_THIS_NODE = Compare(Fib(("saddr",), "type"), Literal("local"))


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
            objects.update(PortObjects(port, node).objects())
    return OwnedObjects(str(service.name), node.family, {NFTABLES: objects})


class PortObjects:
    """The chains, sets and elements of one Service port."""

    def __init__(self, port: ResolvedPort, node: ResolvedNode, layout: TableLayout = KUBE_PROXY) -> None:
        self._port, self._node, self._layout = port, node, layout
        self._table = layout.table
        self._protocol = _PROTOCOLS[port.protocol]
        self._has_external = port.has_endpoints and port.is_external
        self._is_guarded = bool(port.load_balancer_ips and port.source_ranges)
        # One text of the ClusterIP for all elements that have it.
        self._cluster_ip = address_text(port.cluster_ip) if port.cluster_ip is not None else ""

    def _text(self, address: Address) -> str:
        return self._cluster_ip if address is self._port.cluster_ip else address_text(address)

    @cached_property
    def _base(self) -> str:
        return names.port_base(self._port)

    @cached_property
    def _chains(self) -> Mapping[Delivery, str]:
        """The chain of each pool."""
        return {Delivery.CLUSTER: f"service-{self._base}", Delivery.LOCAL: f"local-{self._base}"}

    @cached_property
    def _external(self) -> str:
        """The chain of external frontends with an address."""
        return f"external-{self._base}"

    @cached_property
    def _to_node_port(self) -> str:
        """The chain of the node port."""
        return self._external

    @property
    def _firewall(self) -> str:
        return f"firewall-{self._base}"

    def objects(self) -> Iterator[tuple[NftKey, NftValue]]:
        """Yield the objects of the port with their keys."""
        port = self._port
        for delivery, pool in ((Delivery.CLUSTER, port.cluster), (Delivery.LOCAL, port.local)):
            if pool:
                yield self._chain(self._chains[delivery], self._balance(pool))
        if self._has_external:
            yield self._chain(self._external, self._external_rules(self._chains))
        if port.affinity_s is not None:
            yield from self._endpoint_objects()
        yield from self._shared_objects()

    def _shared_objects(self) -> Iterator[tuple[NftKey, NftValue]]:
        """Yield the elements of the port in the sets and maps of all Services, and its chain of source ranges."""
        port = self._port
        if self._is_guarded:
            yield self._chain(self._firewall, (self._source_ranges(),))
        yield from self._cluster_ip_elements()
        yield from self._external_elements()
        here = {endpoint.text for endpoint in port.here}
        for endpoint in port.endpoints if here else ():
            if endpoint.text in here:
                host = endpoint.host
                parts = (host, host, self._protocol, w.number_text(endpoint.port))
                yield state.element_key(self._table, names.HAIRPINS, parts), state.IN_SET

    def _chain(self, name: str, rules: Sequence[NftRule] | Iterator[NftRule]) -> tuple[NftKey, NftChain]:
        return state.chain_key(self._table, name), NftChain(tuple(rules))

    def _cluster_ip_elements(self) -> Iterator[tuple[NftKey, NftValue]]:
        port = self._port
        if port.cluster_ip is None:
            return
        address = self._cluster_ip
        yield state.element_key(self._table, self._layout.cluster_ips_of(address), (address,)), state.IN_SET
        if port.internal.has_pool:
            yield self._served(port.cluster_ip, _to_chain(self._chains[port.internal]))
        else:
            yield self._frontend(names.NO_ENDPOINT_SERVICES, port.cluster_ip, _refusal(port.internal))

    def _external_elements(self) -> Iterator[tuple[NftKey, NftValue]]:
        port = self._port
        for address in (*port.external_ips, *port.load_balancer_ips):
            if self._has_external:
                yield self._served(address, _to_chain(self._external))
            if not port.external.has_pool:
                yield self._frontend(names.NO_ENDPOINT_SERVICES, address, _refusal(port.external))
        for address in port.load_balancer_ips if self._is_guarded else ():
            yield self._frontend(names.FIREWALL_IPS, address, _to_chain(self._firewall))
        if port.node_port:
            if self._has_external:
                yield self._node_port(names.SERVICE_NODE_PORTS, _to_chain(self._to_node_port))
            if not port.external.has_pool:
                yield self._node_port(names.NO_ENDPOINT_NODE_PORTS, _refusal(port.external))

    def _served(self, address: Address, verdict: ElementValue) -> tuple[NftKey, NftValue]:
        frontend = f"{self._text(address)} {self._protocol} {self._port.port}"
        return self._frontend(self._layout.service_ips_of(frontend), address, verdict)

    def _frontend(self, name: str, address: Address, verdict: ElementValue) -> tuple[NftKey, NftValue]:
        parts = (self._text(address), self._protocol, w.number_text(self._port.port))
        return state.element_key(self._table, name, parts), verdict

    def _node_port(self, name: str, verdict: ElementValue) -> tuple[NftKey, NftValue]:
        parts = (self._protocol, w.number_text(self._port.node_port))
        return state.element_key(self._table, name, parts), verdict

    def _balance(self, pool: Sequence[Endpoint]) -> Iterator[NftRule]:
        """Yield the rules that choose an endpoint: by session affinity first, then at random by weight."""
        if self._port.affinity_s is None:
            lookup = MapLookup(*_shares(pool, _target))
            yield nft_rule(Compare(w.PROTOCOL, Literal(self._protocol)), Dnat(lookup))
            return
        for endpoint in pool:
            base = names.endpoint_base(self._port, endpoint)
            known = Compare(w.source(self._node.family), w.named(f"affinity-{base}"))
            yield nft_rule(known, _goto(f"endpoint-{base}"))
        yield nft_rule(VerdictLookup(*_shares(pool, self._to_endpoint)))

    def _to_endpoint(self, endpoint: Endpoint) -> VerdictCode:
        return _goto(f"endpoint-{names.endpoint_base(self._port, endpoint)}")

    def _endpoint_objects(self) -> Iterator[tuple[NftKey, NftValue]]:
        """Yield for each endpoint the set of its clients, and the chain that remembers a client and translates."""
        family = self._node.family
        remembered = NamedSet(
            (w.address_type(family),), (), frozenset({"timeout"}), self._port.affinity_s, AFFINITY_SIZE
        )
        for endpoint in self._port.endpoints:
            base = names.endpoint_base(self._port, endpoint)
            yield state.set_key(self._table, f"affinity-{base}"), remembered
            remember = UpdateSet("update", w.named(f"affinity-{base}"), w.source(family))
            to_endpoint = Dnat(Literal(endpoint.host), Literal(str(endpoint.port)))
            translate = nft_rule(Compare(w.PROTOCOL, Literal(self._protocol)), to_endpoint)
            yield self._chain(f"endpoint-{base}", (nft_rule(remember), translate))

    def _external_rules(self, chains: Mapping[Delivery, str]) -> Iterator[NftRule]:
        """Yield the rules for external frontends: connections of this node and its Pods, then those from outside.

        Args:
            chains: The chains that choose from the pools.
        """
        port, node = self._port, self._node
        mark, cluster = w.mark(node.masquerade_mark), _goto(chains[Delivery.CLUSTER])
        if port.external_policy is TrafficPolicy.CLUSTER:
            yield nft_rule(mark)
        else:
            if node.pods is not None:
                yield nft_rule(w.from_pods(node.family, node.pods, is_from=True), cluster)
            yield nft_rule(_FROM_THIS_NODE, mark)
            yield nft_rule(_FROM_THIS_NODE, cluster)
        if port.external.has_pool:
            yield nft_rule(_goto(chains[port.external]))

    def _source_ranges(self) -> NftRule:
        """Return the rule that drops other clients. Packets that loop back have the VIP as their source address."""
        port = self._port
        looped = port.load_balancer_ips if port.node_in_source_ranges else ()
        allowed = addresses_in((*port.source_ranges, *looped))
        return nft_rule(Compare(w.source(self._node.family), allowed, "!="), VerdictCode("drop"))


def _goto(chain: str) -> VerdictCode:
    return VerdictCode("goto", chain)


@lru_cache(maxsize=4096)
def _to_chain(chain: str) -> ElementValue:
    """Return the value of an element that leads to a chain: one for all Services of one shape."""
    return ElementValue(_goto(chain))


def _refusal(delivery: Delivery) -> ElementValue:
    """Return the verdict for a frontend without endpoints."""
    return _to_chain(names.REJECT) if delivery is Delivery.REJECT else _DROP


def _target(endpoint: Endpoint) -> Expression:
    return Concat((Literal(endpoint.host), Literal(str(endpoint.port))))


def _shares(pool: Sequence[Endpoint], value: Callable[[Endpoint], Expression]) -> tuple[Numgen, AnonymousMap]:
    """Return a random number, and the value of the endpoint that each number stands for, by weight."""
    unit = gcd(*(endpoint.weight for endpoint in pool))
    items: list[tuple[Expression, Expression]] = []
    number = 0
    for endpoint in pool:
        share = endpoint.weight // unit
        last = number + share - 1
        items.append((Literal(str(number) if share == 1 else f"{number}-{last}"), value(endpoint)))
        number += share
    return Numgen("random", number), AnonymousMap.of(items)
