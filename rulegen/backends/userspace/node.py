"""The node's own rules in userspace mode: those of iptables mode, and those that lead TCP to the proxy.

    IPv4: nat PREROUTING ─ KUBE-PORTALS-CONTAINER ─ DNAT ─► listener
          nat OUTPUT ──── KUBE-PORTALS-HOST ─┘
    IPv6: mangle OUTPUT ─ KUBE-PORTALS-HOST: mark ─► routing rule: loopback device ─┐
          mangle PREROUTING ─────────────────────────── KUBE-PORTALS-CONTAINER ─ TPROXY ─► listener

The proxy recognises a Service by the destination that the client chose. For IPv4 it asks conntrack for it. For IPv6 it
cannot, so the destination stays unchanged, and packets to it are delivered to this host by their mark.

What is not sent to the cluster pool over TCP stays with the rules of iptables mode: UDP, SCTP, and connections to the
local pool, which keep their source address.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import msgspec

from rulegen.backends.iptables import node as iptables_node
from rulegen.languages.iptables import rules as r
from rulegen.languages.iptables.language import NAME as IPTABLES
from rulegen.languages.iptables.ruleset import ChainName
from rulegen.languages.iptables.state import Block, ChainPosition, Kind
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

_KINDS: Mapping[Family, Mapping[ChainName, Kind]] = {
    Family.IPV4: {
        chains.nat(chains.PORTALS_CONTAINER): Kind.DISPATCH,
        chains.nat(chains.NODEPORT_CONTAINER): Kind.DISPATCH,
        chains.nat(chains.PORTALS_HOST): Kind.EXACT,
        chains.nat(chains.NODEPORT_HOST): Kind.EXACT,
        chains.filter_(chains.NODEPORT_NON_LOCAL): Kind.EXACT,
    },
    Family.IPV6: {
        chains.mangle(chains.PORTALS_CONTAINER): Kind.DISPATCH,
        chains.mangle(chains.NODEPORT_CONTAINER): Kind.DISPATCH,
        chains.mangle(chains.PORTALS_HOST): Kind.DISPATCH,
        chains.mangle(chains.PORTALS_ESTABLISHED): Kind.EXACT,
        chains.filter_(chains.NODEPORT_NON_LOCAL): Kind.EXACT,
    },
}
"""The chains of each family in addition to those of iptables mode."""

_TCP = r.protocol(Protocol.TCP)


def ownership(context: OwnershipContext) -> Layout:
    """Return which chains and rules belong to rulegen in one family, for a sync or (without a node) for a cleanup."""
    whole = iptables_node.ownership(context)
    kinds = _KINDS[context.state.family]
    return replace(
        whole,
        chains={**whole.chains, **kinds},
        others=whole.others - kinds.keys(),
        proof=frozenset(kinds),
        lasting={},  # a Service without a local pool has no chain in nat that lasts
    )


def proxy_of(node: ResolvedNode) -> ConnectionProxy:
    """Return the proxy of a node; the model has one in this mode."""
    assert node.proxy is not None  # noqa: S101 - for the type checker: `ModeNeeds.has_proxy`
    return node.proxy


def compile_node(node: ResolvedNode, *, counts: bool, filled: Collection[str]) -> OwnedObjects:
    """Return the objects of the node itself.

    Args:
        node: The decisions for all Services in this family.
        counts: Whether rules count with nfacct.
        filled: Names of the sets that have entries; rules of this mode match no sets.
    """
    proxy = proxy_of(node)
    rules = iptables_node.compile_node(node, counts=counts, filled=filled).objects[IPTABLES]
    exact = {chains.filter_(chains.NODEPORT_NON_LOCAL): tuple(_listener(node.family, proxy))}
    if node.family is Family.IPV4:
        exact |= {
            chains.nat(chains.PORTALS_HOST): (_goto(chains.PORTALS_CONTAINER),),
            chains.nat(chains.NODEPORT_HOST): (_goto(chains.NODEPORT_CONTAINER),),
        }
        first, last = _of_ipv4(node)
        routes: dict[Any, Any] = {}
    else:
        exact[chains.mangle(chains.PORTALS_ESTABLISHED)] = tuple(_established(proxy))
        first, last = _of_ipv6(node)
        routes = {
            LocalRouteKey(node.family, proxy.table): PRESENT,
            MarkRuleKey(node.family, proxy.table, proxy.table, proxy.mark): PRESENT,
        }
    dispatch = [name for name, kind in _KINDS[node.family].items() if kind is Kind.DISPATCH]
    whole = msgspec.structs.replace(
        rules,
        exact={**rules.exact, **exact},
        dispatch=(*rules.dispatch, *dispatch),
        blocks=(*first, *rules.blocks, *last),
    )
    listener = {listener_key(node.family): ProxyListener(proxy.port)}
    return OwnedObjects("", node.family, {IPTABLES: whole, ROUTES: routes, LISTENERS: listener})


def _of_ipv4(node: ResolvedNode) -> tuple[list[Block], list[Block]]:
    """Return the jumps before and after those of iptables mode; those after it are for node ports."""
    ways = (("PREROUTING", chains.PORTALS_CONTAINER), ("OUTPUT", chains.PORTALS_HOST))
    first = [_jump("nat", built_in, r.jump(chain), "portals: TCP to the proxy") for built_in, chain in ways]
    ways = (("PREROUTING", chains.NODEPORT_CONTAINER), ("OUTPUT", chains.NODEPORT_HOST))
    last = [
        _jump("nat", built_in, f"{words} {r.jump(chain)}".lstrip(), "node ports: TCP to the proxy")
        for built_in, chain in ways
        for words in _node_port_matches(node)
    ]
    return first, [*last, _guard()]


def _of_ipv6(node: ResolvedNode) -> tuple[list[Block], list[Block]]:
    """Return the jumps, as `_of_ipv4`. Packets of this node itself pass PREROUTING on the loopback device."""
    first = [
        _jump("mangle", "PREROUTING", r.jump(chains.PORTALS_ESTABLISHED), "connections of the proxy"),
        _jump("mangle", "PREROUTING", r.jump(chains.PORTALS_CONTAINER), "portals: TCP to the proxy"),
        *(
            _jump(
                "mangle", "PREROUTING", f"{words} {r.jump(chains.NODEPORT_CONTAINER)}", "node ports: TCP to the proxy"
            )
            for words in _node_port_matches(node)
        ),
        _jump("mangle", "OUTPUT", r.jump(chains.PORTALS_HOST), "portals: TCP of this node to the proxy"),
    ]
    return first, [_guard()]


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
    """Yield the rules for packets of connections that the proxy has accepted, also of Services that are gone."""
    yield r.rule(_TCP, r.clear_mark(proxy.mark), comment="a mark of this node's own packets has led them here")
    words = (_TCP, r.of_transparent_socket(), r.set_mark(proxy.mark))
    yield r.rule(*words, comment="connections that the proxy has accepted stay")


def _listener(family: Family, proxy: ConnectionProxy) -> Iterator[Rule]:
    """Yield the rules that let only those connections reach the listener which a portal has led there."""
    to_port = r.destination_port(Protocol.TCP, proxy.port)
    led = (_TCP, to_port, r.is_translated()) if family is Family.IPV4 else (_TCP, r.is_marked(proxy.mark))
    yield r.rule(*led, r.accept(), comment="connections to Services")
    yield r.rule(_TCP, to_port, r.drop(), comment="nobody else reaches the listener of the proxy")
