"""The node's own chains: what the rules of all Services hang on.

        PREROUTING ─┐                          ┌─ FORWARD ─ KUBE-FORWARD, refusals ─┐
    packet          ├─ nat KUBE-SERVICES ─ DNAT ┤                                     ├─ POSTROUTING ─ KUBE-POSTROUTING
        OUTPUT ─────┘                          └─ INPUT ─ KUBE-NODEPORTS, refusals ──┘      (masquerades what is marked)

A reply must pass this node again to have its addresses put back; so a packet whose reply might not is marked on its
way through nat, and masqueraded at the end.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from rulegen.backends.iptables import names
from rulegen.languages.iptables import rules as r
from rulegen.languages.iptables.ruleset import ChainName
from rulegen.languages.iptables.state import Block, Fragment, Kind, Layout, Place

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rulegen.languages.iptables.rules import Rule
    from rulegen.languages.iptables.ruleset import Ruleset
    from rulegen.model.ir import Node
    from rulegen.net import Family

INVALID_COUNTER = "ct_state_invalid_dropped_pkts"
LOCALHOST_COUNTER = "localhost_nps_accepted_pkts"
COUNTERS = (INVALID_COUNTER, LOCALHOST_COUNTER)
"""Names of the nfacct objects that the rules count with."""

_NEW = ("NEW",)
_JUMPS: tuple[tuple[str, str, str, tuple[str, ...]], ...] = (
    # table, built-in chain, our chain, states; top to bottom
    ("filter", "INPUT", names.FIREWALL, ()),
    ("filter", "INPUT", names.PROXY_FIREWALL, _NEW),
    ("filter", "INPUT", names.NODE_PORTS, ()),
    ("filter", "INPUT", names.EXTERNAL_SERVICES, _NEW),
    ("filter", "FORWARD", names.PROXY_FIREWALL, _NEW),
    ("filter", "FORWARD", names.FORWARD, ()),
    ("filter", "FORWARD", names.SERVICES, _NEW),
    ("filter", "FORWARD", names.EXTERNAL_SERVICES, _NEW),
    ("filter", "OUTPUT", names.FIREWALL, ()),
    ("filter", "OUTPUT", names.PROXY_FIREWALL, _NEW),
    ("filter", "OUTPUT", names.SERVICES, _NEW),
    ("nat", "PREROUTING", names.SERVICES, ()),
    ("nat", "OUTPUT", names.SERVICES, ()),
    ("nat", "POSTROUTING", names.POSTROUTING, ()),
)

_PURPOSE = {
    names.FIREWALL: "kubernetes firewall",
    names.PROXY_FIREWALL: "kubernetes load balancer source ranges",
    names.NODE_PORTS: "kubernetes health check node ports",
    names.EXTERNAL_SERVICES: "kubernetes external frontends without endpoints",
    names.FORWARD: "kubernetes forwarding",
    names.SERVICES: "kubernetes services",
    names.POSTROUTING: "kubernetes masquerading",
}

_DISPATCH = (
    names.nat(names.SERVICES),
    names.nat(names.NODE_PORTS),
    names.filter_(names.SERVICES),
    names.filter_(names.EXTERNAL_SERVICES),
    names.filter_(names.NODE_PORTS),
    names.filter_(names.PROXY_FIREWALL),
    names.filter_(names.FIREWALL),
)

_CANARIES = tuple(ChainName(table, names.CANARY) for table in ("mangle", "nat", "filter"))
"""Empty chains by which it is seen that somebody has flushed a table."""

_EXACT = (names.nat(names.POSTROUTING), names.nat(names.MARK_MASQ), names.filter_(names.FORWARD), *_CANARIES)

_KUBELET_MARK_DROP = "-m mark --mark 0x8000/0x8000 -j DROP"
"""What kubelets before 1.28 put into KUBE-FIREWALL."""


def layout(node: Node) -> Layout:
    """Return how our chains are told from others'.

    KUBE-FIREWALL is shared with the kubelet, whose own rules in it are nobody's drift.
    """
    kubelets = {_KUBELET_MARK_DROP, _martian_drop(node.family).spec} - {rule.spec for rule in _firewall(node)}
    return _layout({names.filter_(names.FIREWALL): frozenset(kubelets)})


def cleanup_layout(ruleset: Ruleset) -> Layout:
    """Return how our chains are told where all of them go.

    Where a kubelet is at work, KUBE-FIREWALL and the jumps to it are left out: it has put them there too.
    """
    if ChainName("mangle", names.KUBELET_CANARY) not in ruleset.chains:
        return _layout({})
    whole = _layout({})
    return replace(
        whole, chains={name: kind for name, kind in whole.chains.items() if name != names.filter_(names.FIREWALL)}
    )


def _layout(tolerated: Mapping[ChainName, frozenset[str]]) -> Layout:
    return Layout(
        chains={**dict.fromkeys(_DISPATCH, Kind.DISPATCH), **dict.fromkeys(_EXACT, Kind.EXACT)},
        prefixes={"nat": names.PREFIXES},
        tails={names.nat(names.SERVICES): frozenset({names.NODE_PORTS})},
        pair_marks={names.nat(names.NODE_PORTS): f"--nfacct-name {LOCALHOST_COUNTER}"},
        tolerated=tolerated,
    )


def compile_node(node: Node, *, counts: bool) -> Fragment:
    """Return the node's fragment.

    Args:
        node: What holds for all Services.
        counts: Whether rules count with nfacct.
    """
    return Fragment(
        owner="",
        family=node.family,
        exact={
            names.nat(names.POSTROUTING): tuple(_postrouting(node)),
            names.nat(names.MARK_MASQ): (
                r.rule(r.set_mark(node.masquerade_mark), comment="mark for masquerading in KUBE-POSTROUTING"),
            ),
            names.filter_(names.FORWARD): tuple(_forward(node, counts=counts)),
            **dict.fromkeys(_CANARIES, ()),
        },
        dispatch=_DISPATCH,
        blocks=(
            *(_jump(*jump) for jump in _JUMPS),
            *(Block(names.filter_(names.FIREWALL), (rule,)) for rule in _firewall(node)),
            *(Block(names.nat(names.SERVICES), (rule,), Place.TAIL) for rule in _to_node_ports(node)),
        ),
    )


def _jump(table: str, built_in: str, chain: str, states: tuple[str, ...]) -> Block:
    words = [r.connection_state(*states)] if states else []
    return Block(ChainName(table, built_in), (r.rule(*words, r.jump(chain), comment=_PURPOSE[chain]),), Place.HEAD)


def _postrouting(node: Node) -> Iterator[Rule]:
    mark = node.masquerade_mark
    yield r.rule(r.is_not_marked(mark), r.return_(), comment="not marked: nothing to masquerade")
    yield r.rule(r.flip_mark(mark), comment="clear the mark: a packet may pass here again, in a tunnel")
    yield r.rule(r.masquerade(random_fully=node.random_fully), comment="service traffic that needs its reply here")


def _forward(node: Node, *, counts: bool) -> Iterator[Rule]:
    if node.drop_invalid:
        counter = [r.counted(INVALID_COUNTER)] if counts else []
        yield r.rule(
            r.connection_state("INVALID"),
            *counter,
            r.drop(),
            comment="no stray packet reaches a client unNATed and resets it",
        )
    yield r.rule(r.is_marked(node.masquerade_mark), r.accept(), comment="service traffic, whatever the policy")
    yield r.rule(
        r.connection_state("RELATED", "ESTABLISHED"), r.accept(), comment="what belongs to an accepted connection"
    )


def _firewall(node: Node) -> Iterator[Rule]:
    if node.localhost_node_ports:
        yield _martian_drop(node.family)


def _martian_drop(family: Family) -> Rule:
    """With route_localnet on, neighbours could reach the loopback prefix: CVE-2020-8558."""
    return r.rule(
        r.not_source(family.loopback),
        r.destination(family.loopback),
        r.not_connection_state("RELATED", "ESTABLISHED", "DNAT"),
        r.drop(),
        comment="nobody else reaches the loopback addresses",
    )


def _to_node_ports(node: Node) -> Iterator[Rule]:
    """Node ports come last: a Service's own addresses go before them, also where they are local."""
    comment = "node ports; this comes last"
    jump = r.jump(names.NODE_PORTS)
    if node.node_port_addresses is None:
        loopback = [] if node.localhost_node_ports else [r.not_destination(node.family.loopback)]
        yield r.rule(*loopback, r.destination_is_local(), jump, comment=comment)
        return
    for address in node.node_port_addresses:
        yield r.rule(r.destination_address(address), jump, comment=comment)
