"""The node's own chains, which the rules of all Services depend on.

        PREROUTING ─┐                          ┌─ FORWARD ─ KUBE-FORWARD, REJECT ───┐
    packet          ├─ nat KUBE-SERVICES ─ DNAT ┤                                     ├─ POSTROUTING ─ KUBE-POSTROUTING
        OUTPUT ─────┘                          └─ INPUT ─ KUBE-NODEPORTS, REJECT ────┘      (masquerades what is marked)

A reply must pass this node again, because only this node can translate its addresses back. Packets whose replies could
take another way are marked in nat, and POSTROUTING masquerades marked packets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rulegen.languages.iptables import rules as r
from rulegen.languages.iptables import state as iptables
from rulegen.languages.iptables.language import NAME as IPTABLES
from rulegen.languages.iptables.state import Block, ChainPosition, Kind, Layout
from rulegen.ownership import chains
from rulegen.plan.fragments import OwnedObjects

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from rulegen.languages.iptables.rules import Rule
    from rulegen.languages.iptables.ruleset import ChainName, Ruleset
    from rulegen.model.services.ir import ResolvedNode
    from rulegen.ownership.table import OwnershipContext

INVALID_COUNTER = "ct_state_invalid_dropped_pkts"
LOCALHOST_COUNTER = "localhost_nps_accepted_pkts"
COUNTERS = (INVALID_COUNTER, LOCALHOST_COUNTER)
"""The names of the nfacct objects that rules refer to."""

_NEW = ("NEW",)
_JUMPS: tuple[tuple[str, str, str, tuple[str, ...]], ...] = (
    # table, built-in chain, our chain, states; top to bottom
    ("filter", "INPUT", chains.FIREWALL, ()),
    ("filter", "INPUT", chains.PROXY_FIREWALL, _NEW),
    ("filter", "INPUT", chains.NODE_PORTS, ()),
    ("filter", "INPUT", chains.EXTERNAL_SERVICES, _NEW),
    ("filter", "FORWARD", chains.PROXY_FIREWALL, _NEW),
    ("filter", "FORWARD", chains.FORWARD, ()),
    ("filter", "FORWARD", chains.SERVICES, _NEW),
    ("filter", "FORWARD", chains.EXTERNAL_SERVICES, _NEW),
    ("filter", "OUTPUT", chains.FIREWALL, ()),
    ("filter", "OUTPUT", chains.PROXY_FIREWALL, _NEW),
    ("filter", "OUTPUT", chains.SERVICES, _NEW),
    ("nat", "PREROUTING", chains.SERVICES, ()),
    ("nat", "OUTPUT", chains.SERVICES, ()),
    ("nat", "POSTROUTING", chains.POSTROUTING, ()),
)

_PURPOSE = {
    chains.FIREWALL: "kubernetes firewall",
    chains.PROXY_FIREWALL: "kubernetes load balancer source ranges",
    chains.NODE_PORTS: "kubernetes health check node ports",
    chains.EXTERNAL_SERVICES: "kubernetes external frontends without endpoints",
    chains.FORWARD: "kubernetes forwarding",
    chains.SERVICES: "kubernetes services",
    chains.POSTROUTING: "kubernetes masquerading",
}

_DISPATCH = (
    chains.nat(chains.SERVICES),
    chains.nat(chains.NODE_PORTS),
    chains.filter_(chains.SERVICES),
    chains.filter_(chains.EXTERNAL_SERVICES),
    chains.filter_(chains.NODE_PORTS),
    chains.filter_(chains.PROXY_FIREWALL),
    chains.filter_(chains.FIREWALL),
)

_EXACT = (
    chains.nat(chains.POSTROUTING),
    chains.nat(chains.MARK_MASQ),
    chains.filter_(chains.FORWARD),
    *chains.CANARIES,
)


def layout(node: ResolvedNode, ruleset: Ruleset) -> Layout:  # noqa: ARG001 - other modes look at it
    """Return which chains and rules belong to rulegen in iptables mode.

    The kubelet writes to KUBE-FIREWALL too; its rules there are tolerated and never count as drift.
    """
    kubelets = chains.kubelets_rules(node.family) - {rule.spec for rule in _firewall(node)}
    return _layout({chains.filter_(chains.FIREWALL): kubelets})


def ownership(context: OwnershipContext) -> Layout:
    """Return which chains and rules belong to rulegen in one family, for a sync or (without a node) for a cleanup."""
    whole = cleanup_layout(context.state) if context.node is None else layout(context.node, context.state)
    return whole.without(chains.filter_(chains.FIREWALL)) if context.keeps_guard else whole


def cleanup_layout(ruleset: Ruleset) -> Layout:
    """Return which chains and rules a cleanup removes.

    If a kubelet runs on the node, KUBE-FIREWALL and the jumps to it stay: they are the kubelet's too.
    """
    return _layout({}).without(chains.filter_(chains.FIREWALL)) if chains.has_kubelet(ruleset) else _layout({})


def _layout(tolerated: Mapping[ChainName, frozenset[str]]) -> Layout:
    return chains.own_layout(
        {**dict.fromkeys(_DISPATCH, Kind.DISPATCH), **dict.fromkeys(_EXACT, Kind.EXACT)},
        tails={chains.nat(chains.SERVICES): frozenset({chains.NODE_PORTS})},
        pair_marks={chains.nat(chains.NODE_PORTS): f"--nfacct-name {LOCALHOST_COUNTER}"},
        tolerated=tolerated,
    )


def compile_node(node: ResolvedNode, *, counts: bool, filled: Collection[str]) -> OwnedObjects:  # noqa: ARG001 - no sets here
    """Return the fragment of the node itself.

    Args:
        node: The decisions for all Services in this family.
        counts: Whether rules count with nfacct.
        filled: Names of the sets that have entries; rules of this mode match no sets.
    """
    rules = iptables.RulesFragment(
        owner="",
        family=node.family,
        exact={
            chains.nat(chains.POSTROUTING): tuple(chains.masquerade_marked(node)),
            chains.nat(chains.MARK_MASQ): chains.mark_masquerade(node),
            chains.filter_(chains.FORWARD): tuple(_forward(node, counts=counts)),
            **dict.fromkeys(chains.CANARIES, ()),
        },
        dispatch=_DISPATCH,
        blocks=(
            *chains.jumps(_JUMPS, _PURPOSE),
            *(Block(chains.filter_(chains.FIREWALL), (rule,)) for rule in _firewall(node)),
            *(Block(chains.nat(chains.SERVICES), (rule,), ChainPosition.TAIL) for rule in _to_node_ports(node)),
        ),
    )
    return OwnedObjects("", node.family, {IPTABLES: rules})


def _forward(node: ResolvedNode, *, counts: bool) -> Iterator[Rule]:
    if node.drop_invalid:
        counter = [r.counted(INVALID_COUNTER)] if counts else []
        yield r.rule(
            r.connection_state("INVALID"),
            *counter,
            r.drop(),
            comment="INVALID packets are not translated and would reset connections",
        )
    yield from chains.accept_forwarded(node)


def _firewall(node: ResolvedNode) -> Iterator[Rule]:
    if node.localhost_node_ports:
        yield chains.martian_drop(node.family)


def _to_node_ports(node: ResolvedNode) -> Iterator[Rule]:
    """Yield the jump to node ports. It is the last rule, so that Service addresses match first, local ones included."""
    comment = "node ports; must be the last rule"
    jump = r.jump(chains.NODE_PORTS)
    if node.node_port_addresses is None:
        loopback = [] if node.localhost_node_ports else [r.not_destination(node.family.loopback)]
        yield r.rule(*loopback, r.destination_is_local(), jump, comment=comment)
        return
    for address in node.node_port_addresses:
        yield r.rule(r.destination_address(address), jump, comment=comment)
