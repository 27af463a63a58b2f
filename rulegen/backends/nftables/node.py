"""The node's own part of kube-proxy's table, which the chains and elements of all Services depend on.

prerouting, output  dstnat - 10  firewall-check: source ranges of load balancers
prerouting, output  dstnat       services: marks for masquerading, then goes to the chain of a Service: DNAT
input, forward, output  filter   …-endpoints-check, cluster-ips-check: refuses what has no endpoints
postrouting         srcnat       masquerading: what is marked, and connections of an endpoint to itself
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rulegen.backends.nftables import words as w
from rulegen.languages.nftables import state
from rulegen.languages.nftables.expressions import Fib, Literal, VerdictCode, addresses_in
from rulegen.languages.nftables.language import NAME as NFTABLES
from rulegen.languages.nftables.state import BaseChain, NamedSet, NftChain, TableValue
from rulegen.languages.nftables.statements import Compare, RejectPacket, VerdictLookup, nft_rule
from rulegen.model.services.ir import Masquerade
from rulegen.ownership import nftables as names
from rulegen.ownership.nftables import KUBE_PROXY, TableLayout
from rulegen.plan.fragments import OwnedObjects

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from rulegen.languages.nftables.state import NftObjects
    from rulegen.languages.nftables.statements import NftRule, NftStatement
    from rulegen.model.services.ir import ResolvedNode

_FIRST, _DSTNAT, _FILTER, _SRCNAT = -110, -100, 0, 100

_BASES: Final[tuple[tuple[str, BaseChain, tuple[str, ...]], ...]] = (
    # chain, hook, the chains for new connections in order
    ("filter-prerouting-pre-dnat", BaseChain("filter", "prerouting", _FIRST), (names.FIREWALL_CHECK,)),
    ("filter-output-pre-dnat", BaseChain("filter", "output", _FIRST), (names.FIREWALL_CHECK,)),
    ("filter-input", BaseChain("filter", "input", _FILTER), (names.NODE_PORT_CHECK, names.SERVICE_CHECK)),
    ("filter-forward", BaseChain("filter", "forward", _FILTER), (names.SERVICE_CHECK, names.CLUSTER_IPS_CHECK)),
    ("filter-output", BaseChain("filter", "output", _FILTER), (names.SERVICE_CHECK, names.CLUSTER_IPS_CHECK)),
)
_NAT_BASES: Final = (
    ("nat-prerouting", BaseChain("nat", "prerouting", _DSTNAT), names.SERVICES),
    ("nat-output", BaseChain("nat", "output", _DSTNAT), names.SERVICES),
    ("nat-postrouting", BaseChain("nat", "postrouting", _SRCNAT), names.MASQUERADING),
)
_LOCAL: Final = Literal("local")


def compile_node(node: ResolvedNode, *, counts: bool, filled: Collection[str]) -> OwnedObjects:  # noqa: ARG001 - counts nothing
    """Return the objects of the node itself.

    Args:
        node: The decisions for all Services in this family.
        counts: Whether rules count with nfacct; no rule of this mode does.
        filled: Not empty if a Service uses the proxy of the node; all sets exist in this mode.
    """
    return OwnedObjects("", node.family, {NFTABLES: table_objects(node, KUBE_PROXY, filled)})


def table_objects(node: ResolvedNode, layout: TableLayout, filled: Collection[str]) -> NftObjects:
    """Return the objects of the node in the table of a layout; if `filled` says so, marked packets go to a proxy."""
    table = layout.table
    objects: NftObjects = {state.table_key(table): TableValue()}
    for name, value in _sets(node, layout):
        objects[state.set_key(table, name)] = value
    for address in node.node_port_addresses or ():
        objects[state.element_key(table, names.NODE_PORT_IPS, (str(address),))] = state.IN_SET
    for name, chain in _chains(node, layout, proxied=_to_proxy(node, filled)):
        objects[state.chain_key(table, name)] = chain
    return objects


def _sets(node: ResolvedNode, layout: TableLayout) -> Iterator[tuple[str, NamedSet]]:
    """Yield the sets and maps. They have no size: the kernel reserves places for one, and refuses more elements.

    Without it, a set grows with its elements.
    """
    address = w.address_type(node.family)
    verdict = (state.VERDICT,)
    for name in layout.cluster_ips:
        yield name, NamedSet((address,))
    for name in layout.service_ips:
        yield name, NamedSet((address, *w.PORT_TYPES), verdict)
    yield names.HAIRPINS, NamedSet((address, address, *w.PORT_TYPES))
    if node.node_port_addresses is not None:
        yield names.NODE_PORT_IPS, NamedSet((address,))
    for name in (names.NO_ENDPOINT_SERVICES, names.FIREWALL_IPS):
        yield name, NamedSet((address, *w.PORT_TYPES), verdict)
    for name in (names.SERVICE_NODE_PORTS, names.NO_ENDPOINT_NODE_PORTS):
        yield name, NamedSet(w.PORT_TYPES, verdict)


def _to_proxy(node: ResolvedNode, filled: Collection[str]) -> tuple[NftRule, ...]:
    """Return the rule for packets that a proxy gets, with the destination that the client chose; none without one."""
    return (nft_rule(w.is_marked(node.proxy.mark), VerdictCode("return")),) if node.proxy and filled else ()


def _chains(node: ResolvedNode, layout: TableLayout, *, proxied: tuple[NftRule, ...]) -> Iterator[tuple[str, NftChain]]:
    for name, base, targets in _BASES:
        yield name, NftChain(tuple(nft_rule(w.NEW, VerdictCode("jump", target)) for target in targets), base)
    for name, base, target in _NAT_BASES:
        yield name, NftChain((nft_rule(VerdictCode("jump", target)),), base)
    frontend = w.frontend(node.family)
    yield names.FIREWALL_CHECK, NftChain((_lookup(frontend, names.FIREWALL_IPS),))
    yield names.SERVICE_CHECK, NftChain((_lookup(frontend, names.NO_ENDPOINT_SERVICES),))
    yield names.NODE_PORT_CHECK, NftChain((_refused_node_ports(node),))
    yield names.SERVICES, NftChain((*proxied, *_services(node, layout)))
    yield names.MASQUERADING, NftChain(tuple(_masquerading(node)))
    yield names.CLUSTER_IPS_CHECK, NftChain((*proxied, *_other_cluster_ips(node, layout)))
    yield names.REJECT, NftChain((nft_rule(RejectPacket()),))


def _lookup(key: w.Key, name: str, *conditions: NftStatement) -> NftRule:
    return nft_rule(*conditions, VerdictLookup(key, w.named(name)))


def _services(node: ResolvedNode, layout: TableLayout) -> Iterator[NftRule]:
    mark = w.mark(node.masquerade_mark)
    for to_cluster_ip in _to_cluster_ips(node, layout):
        match node.masquerade_cluster_ip:
            case Masquerade.ALWAYS:
                yield nft_rule(to_cluster_ip, mark)
            case Masquerade.OFF_CLUSTER if node.pods is not None:
                yield nft_rule(to_cluster_ip, w.from_pods(node.family, node.pods, is_from=False), mark)
            case _:
                pass
    for name in layout.service_ips:
        yield _lookup(w.frontend(node.family), name)
    if node.node_port_addresses is None:
        is_local = Compare(Fib(("daddr",), "type"), _LOCAL)
        yield _lookup(w.PORT, names.SERVICE_NODE_PORTS, is_local, *_no_loopback(node))
    else:
        yield _lookup(w.PORT, names.SERVICE_NODE_PORTS, _on_node_port_address(node))


def _to_cluster_ips(node: ResolvedNode, layout: TableLayout) -> Iterator[Compare]:
    for name in layout.cluster_ips:
        yield Compare(w.destination(node.family), w.named(name))


def _refused_node_ports(node: ResolvedNode) -> NftRule:
    """Return the rule for node ports without endpoints; it is in hook input, so destinations are local."""
    conditions = _no_loopback(node) if node.node_port_addresses is None else (_on_node_port_address(node),)
    return _lookup(w.PORT, names.NO_ENDPOINT_NODE_PORTS, *conditions)


def _no_loopback(node: ResolvedNode) -> tuple[Compare, ...]:
    """Return the condition that excludes loopback addresses, unless node ports answer there."""
    if node.localhost_node_ports:
        return ()
    return (Compare(w.destination(node.family), addresses_in([node.family.loopback]), "!="),)


def _on_node_port_address(node: ResolvedNode) -> Compare:
    return Compare(w.destination(node.family), w.named(names.NODE_PORT_IPS))


def _masquerading(node: ResolvedNode) -> Iterator[NftRule]:
    """Yield the rules that masquerade; the mark is cleared, so that a later chain does not see it."""
    yield nft_rule(w.is_marked(node.masquerade_mark), w.unmark(node.masquerade_mark), w.MASQUERADE)
    connection = w.hairpin(node.family)
    yield nft_rule(w.TRANSLATED, Compare(connection, w.named(names.HAIRPINS)), w.MASQUERADE)


def _other_cluster_ips(node: ResolvedNode, layout: TableLayout) -> Iterator[NftRule]:
    """Yield the rules that refuse other ports of ClusterIPs, and addresses of their range that no Service has."""
    for to_cluster_ip in _to_cluster_ips(node, layout):
        yield nft_rule(to_cluster_ip, RejectPacket())
    if node.service_networks:
        networks = addresses_in(node.service_networks)
        yield nft_rule(Compare(w.destination(node.family), networks), VerdictCode("drop"))
