"""The node's own rules in userspace mode: those of iptables mode, and those that lead TCP and UDP to the proxy.

    TCP over IPv4:        nat PREROUTING ─ KUBE-PORTALS-CONTAINER ─ DNAT ─► listener
                          nat OUTPUT ──── KUBE-PORTALS-HOST ─┘
    TCP over IPv6, UDP:   mangle OUTPUT ─ KUBE-PORTALS-HOST: mark ─► routing rule: loopback device ─┐
                          mangle PREROUTING ─────────────────────────── KUBE-PORTALS-CONTAINER ─ TPROXY ─► listener

The proxy recognises a Service by the destination that the client chose. HAProxy asks conntrack for it, for TCP over
IPv4. Otherwise the destination cannot be queried, so it stays unchanged, and packets to it are delivered to this host
by their mark. Connections that rules of another mode have translated already stay with their endpoints.

What is not sent to the cluster pool over TCP or UDP stays with the rules of iptables mode: SCTP, and connections to
the local pool, which keep their source address.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec
from msgspec.structs import replace

from rulegen.backends.iptables import node as iptables_node
from rulegen.languages.iptables import rules as r
from rulegen.languages.iptables.language import NAME as IPTABLES
from rulegen.languages.iptables.ruleset import ChainName
from rulegen.languages.iptables.state import Block, ChainPosition, Kind, RulesFragment
from rulegen.languages.listeners.language import NAME as LISTENERS
from rulegen.languages.listeners.state import ProxyListener, listener_key
from rulegen.languages.routes.language import NAME as ROUTES
from rulegen.languages.routes.state import PRESENT, LocalRouteKey, MarkRuleKey
from rulegen.net import Family, Protocol
from rulegen.ownership import chains
from rulegen.plan.fragments import OwnedObjects

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from rulegen.languages.iptables.rules import Rule
    from rulegen.languages.iptables.state import Layout
    from rulegen.model.services.ir import ConnectionProxy, ResolvedNode
    from rulegen.ownership.table import OwnershipContext

COUNTERS = iptables_node.COUNTERS

_TRANSPARENT: Mapping[ChainName, Kind] = {
    chains.mangle(chains.PORTALS_CONTAINER): Kind.DISPATCH,
    chains.mangle(chains.NODEPORT_CONTAINER): Kind.DISPATCH,
    chains.mangle(chains.PORTALS_HOST): Kind.DISPATCH,
    chains.mangle(chains.PORTALS_ESTABLISHED): Kind.EXACT,
    chains.filter_(chains.NODEPORT_NON_LOCAL): Kind.EXACT,
}
_KINDS: Mapping[Family, Mapping[ChainName, Kind]] = {
    Family.IPV4: {
        chains.nat(chains.PORTALS_CONTAINER): Kind.DISPATCH,
        chains.nat(chains.NODEPORT_CONTAINER): Kind.DISPATCH,
        chains.nat(chains.PORTALS_HOST): Kind.EXACT,
        chains.nat(chains.NODEPORT_HOST): Kind.EXACT,
        **_TRANSPARENT,
    },
    Family.IPV6: _TRANSPARENT,
}
"""The chains of each family in addition to those of iptables mode."""

_TCP, _UDP = r.protocol(Protocol.TCP), r.protocol(Protocol.UDP)


def ownership(context: OwnershipContext) -> Layout:
    """Return which chains and rules belong to rulegen in one family, for a sync or (without a node) for a cleanup."""
    own = with_portal_chains(iptables_node.ownership(context), context.state.family)
    # A Service without a local pool has no chain in nat that lasts.
    return replace(own, proof=frozenset(_KINDS[context.state.family]), lasting={})


def with_portal_chains(layout: Layout, family: Family) -> Layout:
    """Return a layout that also has the chains of the proxy as its own."""
    kinds = _KINDS[family]
    return replace(layout, chains={**layout.chains, **kinds}, others=layout.others - kinds.keys())


def proxy_of(node: ResolvedNode) -> ConnectionProxy:
    """Return the proxy of a node."""
    assert node.proxy is not None  # noqa: S101 - for the type checker: every node has one
    return node.proxy


def compile_node(node: ResolvedNode, *, counts: bool, filled: Collection[str]) -> OwnedObjects:
    """Return the objects of the node itself.

    Args:
        node: The decisions for all Services in this family.
        counts: Whether rules count with nfacct.
        filled: Names of the sets that have entries; rules of this mode match no sets.
    """
    return with_portals(iptables_node.compile_node(node, counts=counts, filled=filled), node)


def with_portals(own: OwnedObjects, node: ResolvedNode) -> OwnedObjects:
    """Return the objects of a node in any mode, and those that lead connections and datagrams to the proxy."""
    proxy = proxy_of(node)
    rules = own.objects.get(IPTABLES) or RulesFragment("", node.family)
    exact = {
        chains.filter_(chains.NODEPORT_NON_LOCAL): tuple(_listener(proxy)),
        chains.mangle(chains.PORTALS_ESTABLISHED): tuple(_established(proxy)),
    }
    first, last = _transparent(node), [_guard()]
    if proxy.translates:
        exact |= {
            chains.nat(chains.PORTALS_HOST): (_goto(chains.PORTALS_CONTAINER),),
            chains.nat(chains.NODEPORT_HOST): (_goto(chains.NODEPORT_CONTAINER),),
        }
        translating, node_ports = _translating(node)
        first, last = [*first, *translating], [*node_ports, *last]
    routes: dict[Any, Any] = {
        LocalRouteKey(node.family, proxy.table): PRESENT,
        MarkRuleKey(node.family, proxy.table, proxy.table, proxy.mark): PRESENT,
    }
    kinds = _KINDS[Family.IPV4 if proxy.translates else Family.IPV6]
    dispatch = [name for name, kind in kinds.items() if kind is Kind.DISPATCH]
    whole = msgspec.structs.replace(
        rules,
        exact={**rules.exact, **exact},
        dispatch=(*rules.dispatch, *dispatch),
        blocks=(*first, *rules.blocks, *last),
    )
    listeners = {listener_key(node.family, each): ProxyListener(proxy.port) for each in (Protocol.TCP, Protocol.UDP)}
    return OwnedObjects("", node.family, {**own.objects, IPTABLES: whole, ROUTES: routes, LISTENERS: listeners})


def _translating(node: ResolvedNode) -> tuple[list[Block], list[Block]]:
    """Return the jumps in table nat before and after those of iptables mode; those after it are for node ports."""
    ways = (("PREROUTING", chains.PORTALS_CONTAINER), ("OUTPUT", chains.PORTALS_HOST))
    first = [_jump("nat", built_in, r.jump(chain), "portals: TCP to the proxy") for built_in, chain in ways]
    ways = (("PREROUTING", chains.NODEPORT_CONTAINER), ("OUTPUT", chains.NODEPORT_HOST))
    last = [
        _jump("nat", built_in, f"{words} {r.jump(chain)}".lstrip(), "node ports: TCP to the proxy")
        for built_in, chain in ways
        for words in _node_port_matches(node)
    ]
    return first, last


def _transparent(node: ResolvedNode) -> list[Block]:
    """Return the jumps in table mangle. Packets of this node itself pass PREROUTING on the loopback device."""
    to_proxy = "portals: to the proxy"
    untranslated = r.not_connection_state("DNAT")
    portals = (
        ("PREROUTING", chains.PORTALS_CONTAINER, to_proxy),
        ("OUTPUT", chains.PORTALS_HOST, f"{to_proxy}, from this node"),
    )
    return [
        _jump("mangle", "PREROUTING", r.jump(chains.PORTALS_ESTABLISHED), "connections of the proxy"),
        *(_jump("mangle", built_in, f"{untranslated} {r.jump(chain)}", what) for built_in, chain, what in portals),
        *(
            _jump(
                "mangle",
                "PREROUTING",
                f"{words} {untranslated} {r.jump(chains.NODEPORT_CONTAINER)}".lstrip(),
                "node ports: to the proxy",
            )
            for words in _node_port_matches(node)
        ),
    ]


def _node_port_matches(node: ResolvedNode) -> Iterator[str]:
    """Yield the matches for packets to the addresses on which node ports answer."""
    if node.node_port_addresses is None:
        loopback = [] if node.localhost_node_ports else [r.not_destination(node.family.loopback)]
        yield " ".join((*loopback, r.destination_is_local()))
        return
    yield from (r.destination_address(address) for address in node.node_port_addresses)


def _guard() -> Block:
    return _jump("filter", "INPUT", r.jump(chains.NODEPORT_NON_LOCAL), "the listener of the proxy")


def _jump(table: str, built_in: str, words: str, comment: str) -> Block:
    return Block(ChainName(table, built_in), (r.rule(words, comment=comment),), ChainPosition.HEAD)


def _goto(chain: str) -> Rule:
    return r.rule(r.jump(chain), comment="the same for connections of this node")


def _established(proxy: ConnectionProxy) -> Iterator[Rule]:
    """Yield the rules that clear marks, and those for connections the proxy has accepted, also of Services gone."""
    cleared = "a mark of this node's own packets has led them here"
    yield r.rule(_UDP, r.clear_mark(proxy.mark), comment=cleared)
    if not proxy.translates:
        yield r.rule(_TCP, r.clear_mark(proxy.mark), comment=cleared)
        words = (_TCP, r.of_transparent_socket(), r.set_mark(proxy.mark))
        yield r.rule(*words, comment="connections that the proxy has accepted stay")


def _listener(proxy: ConnectionProxy) -> Iterator[Rule]:
    """Yield the rules that let only those connections reach the listeners which a portal has led there."""
    for protocol in (Protocol.TCP, Protocol.UDP):
        words, to_port = r.protocol(protocol), r.destination_port(protocol, proxy.port)
        is_translated = proxy.translates and protocol is Protocol.TCP
        led = (words, to_port, r.is_translated()) if is_translated else (words, r.is_marked(proxy.mark))
        yield r.rule(*led, r.accept(), comment="connections to Services")
        yield r.rule(words, to_port, r.drop(), comment="no other connection reaches the listener of the proxy")
