"""The part of the node itself: all ipsets, and the rules that match them.

           ┌─ nat KUBE-SERVICES: mark what must be masqueraded, by set ─┐
    packet ┤                                                            ├─ INPUT ─ IPVS ─ real server
           └─ filter: source ranges, ports without a Service ───────────┘      └─ POSTROUTING ─ KUBE-POSTROUTING

The addresses of Services are bound to kube-ipvs0, so packets to them arrive in INPUT, where IPVS takes them. A rule
that matches a set exists only while the set has entries; so the rules depend on the names of the filled sets.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from rulegen.languages.addresses.language import NAME as LINKS
from rulegen.languages.addresses.state import DeviceKey
from rulegen.languages.ipset import state as ipset
from rulegen.languages.ipset.language import NAME as IPSET
from rulegen.languages.ipset.language import SetsUnion
from rulegen.languages.ipset.script import replaced
from rulegen.languages.iptables import rules as r
from rulegen.languages.iptables import state as iptables
from rulegen.languages.iptables.language import NAME as IPTABLES
from rulegen.languages.iptables.state import Kind
from rulegen.languages.ipvs.language import NAME as IPVS
from rulegen.languages.ipvs.state import Timeouts, TimeoutsKey
from rulegen.model.services.ir import Masquerade, Semantics
from rulegen.net import Protocol
from rulegen.ownership import chains, ipsets, virtual_servers
from rulegen.plan.fragments import OwnedObjects

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from rulegen.languages.iptables.rules import Rule
    from rulegen.languages.iptables.ruleset import ChainName, Ruleset
    from rulegen.languages.iptables.state import Layout
    from rulegen.languages.language import Changes, Union
    from rulegen.model.services.ir import Model, ResolvedNode
    from rulegen.ownership.table import OwnershipContext

_KIND_OF_DEVICE = "dummy"

_JUMPS: tuple[tuple[str, str, str, tuple[str, ...]], ...] = (
    # table, built-in chain, our chain, states; top to bottom
    ("filter", "INPUT", chains.IPVS_FILTER, ()),
    ("filter", "INPUT", chains.PROXY_FIREWALL, ()),
    ("filter", "INPUT", chains.NODE_PORT, ()),
    ("filter", "FORWARD", chains.PROXY_FIREWALL, ()),
    ("filter", "FORWARD", chains.FORWARD, ()),
    ("filter", "OUTPUT", chains.IPVS_OUT_FILTER, ()),
    ("nat", "PREROUTING", chains.SERVICES, ()),
    ("nat", "OUTPUT", chains.SERVICES, ()),
    ("nat", "POSTROUTING", chains.POSTROUTING, ()),
)
_STRICT_JUMPS = (("filter", "INPUT", chains.IPVS_POLICY, ("NEW",)),)

_PURPOSE = {
    chains.IPVS_FILTER: "kubernetes ports without a Service",
    chains.PROXY_FIREWALL: "kubernetes load balancer source ranges",
    chains.NODE_PORT: "kubernetes health check node ports",
    chains.FORWARD: "kubernetes forwarding",
    chains.IPVS_OUT_FILTER: "kubernetes load balancer source ranges",
    chains.SERVICES: "kubernetes services",
    chains.POSTROUTING: "kubernetes masquerading",
    chains.IPVS_POLICY: "kubernetes traffic policies",
}

_NODE_PORT_SETS = (
    # protocol, set, set of the ports that keep the client's source address, fields of the packet to match
    (Protocol.TCP, ipsets.NODE_PORT_TCP, ipsets.NODE_PORT_LOCAL_TCP, "dst"),
    (Protocol.UDP, ipsets.NODE_PORT_UDP, ipsets.NODE_PORT_LOCAL_UDP, "dst"),
    (Protocol.SCTP, ipsets.NODE_PORT_SCTP, ipsets.NODE_PORT_LOCAL_SCTP, "dst,dst"),
)

_KINDS = {
    **dict.fromkeys(chains.OF_IPVS, Kind.EXACT),
    chains.filter_(chains.IPVS_OUT_FILTER): Kind.DISPATCH,
}


def layout(node: ResolvedNode, ruleset: Ruleset) -> Layout:
    """Return which chains belong to rulegen in ipvs mode; KUBE-FIREWALL is the kubelet's if a kubelet runs here."""
    is_strict = node.ipvs.semantics is Semantics.STRICT
    return _without_kubelets(chains.own_layout(_strict_kinds() if is_strict else _KINDS), ruleset)


def ownership(context: OwnershipContext) -> Layout:
    """Return which chains and rules belong to rulegen in one family, for a sync or (without a node) for a cleanup."""
    whole = cleanup_layout(context.state) if context.node is None else layout(context.node, context.state)
    return whole.without(chains.filter_(chains.FIREWALL)) if context.keeps_guard else whole


def cleanup_layout(ruleset: Ruleset) -> Layout:
    """Return which chains and rules a cleanup removes."""
    return _without_kubelets(chains.own_layout(_KINDS), ruleset)


def _strict_kinds() -> dict[ChainName, Kind]:
    return {**_KINDS, chains.filter_(chains.IPVS_POLICY): Kind.DISPATCH}


def _without_kubelets(whole: Layout, ruleset: Ruleset) -> Layout:
    return whole.without(chains.filter_(chains.FIREWALL)) if chains.has_kubelet(ruleset) else whole


def compile_node(node: ResolvedNode, *, counts: bool, filled: Collection[str]) -> OwnedObjects:  # noqa: ARG001 - counts nothing
    """Return the fragment of the node itself: all sets without entries, and the rules that match filled sets.

    Args:
        node: The decisions for all Services in this family.
        counts: Whether rules count with nfacct; no rule of this mode does.
        filled: Names of the sets that have entries.
    """
    rules = _Rules(node, filled)
    is_strict = node.ipvs.semantics is Semantics.STRICT
    dispatch = (chains.filter_(chains.IPVS_OUT_FILTER), *((chains.filter_(chains.IPVS_POLICY),) if is_strict else ()))
    return OwnedObjects(
        owner="",
        family=node.family,
        objects={
            IPTABLES: iptables.RulesFragment(
                owner="",
                family=node.family,
                exact={
                    chains.nat(chains.SERVICES): tuple(rules.services()),
                    chains.nat(chains.LOAD_BALANCER): tuple(rules.load_balancer()),
                    chains.nat(chains.NODE_PORT): tuple(rules.node_port()),
                    chains.nat(chains.POSTROUTING): tuple(rules.postrouting()),
                    chains.nat(chains.MARK_MASQ): chains.mark_masquerade(node),
                    chains.filter_(chains.FORWARD): tuple(chains.accept_forwarded(node)),
                    chains.filter_(chains.NODE_PORT): tuple(rules.health_check()),
                    chains.filter_(chains.PROXY_FIREWALL): tuple(rules.proxy_firewall()),
                    chains.filter_(chains.SOURCE_RANGES_FIREWALL): tuple(rules.source_ranges()),
                    chains.filter_(chains.IPVS_FILTER): tuple(rules.ipvs_filter()),
                },
                dispatch=dispatch,
                blocks=tuple(chains.jumps((*_JUMPS, *(_STRICT_JUMPS if is_strict else ())), _PURPOSE)),
            ),
            IPSET: ipsets.all_sets(node.family),
        },
    )


def compile_host(model: Model) -> Mapping[str, Mapping[Any, Any]]:
    """Return the objects of no address family: the device, and IPVS timeouts if the configuration sets any."""
    timeouts = Timeouts(*model.timeouts)
    return {
        LINKS: {DeviceKey(virtual_servers.DEVICE): _KIND_OF_DEVICE},
        IPVS: {TimeoutsKey(): timeouts} if any(timeouts) else {},
    }


def filled_sets(unions: Mapping[str, Union], changes: Mapping[str, Changes]) -> frozenset[str]:
    """Return the names of the sets that have entries after the changes; rules match only these."""
    union = unions[IPSET]
    return union.filled_after(changes.get(IPSET, ())) if isinstance(union, SetsUnion) else frozenset()


def compile_between(
    node: ResolvedNode,
    *,
    counts: bool,
    unions: Mapping[str, Union],
    ours: Mapping[str, Mapping[Any, Any]],
    changes: Mapping[str, Changes],
) -> OwnedObjects | None:
    """Return node rules that are correct while sets change; None if the final rules are.

    They match the sets that have entries before or after the change, except for sets that must be created again.
    """
    if IPSET not in ours:
        return None
    filled = filled_sets(unions, {})
    either = filled | ipset.filled(ours[IPSET])
    anew = replaced(changes.get(IPSET, ()))
    if either == filled and not anew:
        return None
    fragment = compile_node(node, counts=counts, filled=either).objects[IPTABLES]
    return OwnedObjects("", node.family, {IPTABLES: _without_sets(fragment, anew) if anew else fragment})


def _without_sets(fragment: iptables.RulesFragment, names: Collection[str]) -> iptables.RulesFragment:
    """Return a fragment without the rules that match one of these sets."""
    looks = [f"--match-set {name} " for name in names]

    def keeps(spec: str) -> bool:
        return not any(text in spec for text in looks)

    exact = {name: tuple(rule for rule in rules if keeps(rule.spec)) for name, rules in fragment.exact.items()}
    return replace(fragment, exact=exact)


class _Rules:
    """The node's rules of one family, for the sets that have entries."""

    def __init__(self, node: ResolvedNode, filled: Collection[str]) -> None:
        self._node, self._filled = node, filled

    def _has(self, kind: str) -> bool:
        return ipsets.name_of(kind, self._node.family) in self._filled

    def _in(self, kind: str, what: str = "dst,dst") -> str:
        return r.in_set(ipsets.name_of(kind, self._node.family), what)

    def services(self) -> Iterator[Rule]:
        """Yield KUBE-SERVICES: mark for masquerading, and accept, so that no later rule rewrites the destination."""
        mark = r.jump(chains.MARK_MASQ)
        yield r.rule(r.source(self._node.family.loopback), r.return_(), comment="from the node to itself")
        if self._has(ipsets.LOAD_BALANCER):
            to = self._in(ipsets.LOAD_BALANCER)
            yield r.rule(to, r.jump(chains.LOAD_BALANCER), comment="load balancer IPs")
        if self._has(ipsets.CLUSTER_IP):
            yield r.rule(
                *self._masqueraded_cluster_ip(),
                mark,
                comment="cluster IPs, from clients whose replies could bypass this node",
            )
        if self._has(ipsets.EXTERNAL_IP):
            yield r.rule(self._in(ipsets.EXTERNAL_IP), mark, comment="external IPs, to any node")
            yield from self._accepted(ipsets.EXTERNAL_IP)
        if self._has(ipsets.EXTERNAL_IP_LOCAL):
            yield from self._accepted(ipsets.EXTERNAL_IP_LOCAL)
        yield r.rule(r.destination_is_local(), r.jump(chains.NODE_PORT), comment="node ports")
        for kind in (ipsets.CLUSTER_IP, ipsets.LOAD_BALANCER):
            if self._has(kind):
                yield r.rule(self._in(kind), r.accept(), comment="accepted: IPVS forwards it")

    def _masqueraded_cluster_ip(self) -> Iterator[str]:
        node = self._node
        match node.masquerade_cluster_ip:
            case Masquerade.ALWAYS:
                yield self._in(ipsets.CLUSTER_IP)
            case Masquerade.OFF_CLUSTER if node.pods is not None:
                yield chains.not_from_pods(node.pods)
                yield self._in(ipsets.CLUSTER_IP)
            case _:  # a process of this node connects to a ClusterIP, and the kernel chooses that ClusterIP as source
                yield self._in(ipsets.CLUSTER_IP, "src,dst")

    def _accepted(self, kind: str) -> Iterator[Rule]:
        to = self._in(kind)
        outside = (r.not_bridged(), r.source_is_not_local())
        yield r.rule(to, *outside, r.accept(), comment="from outside: accepted, IPVS forwards it")
        yield r.rule(to, r.destination_is_local(), r.accept(), comment="accepted: IPVS forwards it")

    def load_balancer(self) -> Iterator[Rule]:
        """Yield KUBE-LOAD-BALANCER: masquerade all but the Services that keep the client's source address."""
        if self._has(ipsets.LOAD_BALANCER_LOCAL):
            yield r.rule(self._in(ipsets.LOAD_BALANCER_LOCAL), r.return_(), comment="not masqueraded")
        yield r.rule(r.jump(chains.MARK_MASQ), comment="load balancer IPs, to any node")

    def node_port(self) -> Iterator[Rule]:
        """Yield KUBE-NODE-PORT of nat: masquerade all but the Services that keep the client's source address."""
        for protocol, kind, local, what in _NODE_PORT_SETS:
            if self._has(local):
                yield r.rule(r.protocol(protocol), self._in(local, what), r.return_(), comment="not masqueraded")
            if self._has(kind):
                mark = r.jump(chains.MARK_MASQ)
                yield r.rule(r.protocol(protocol), self._in(kind, what), mark, comment="node ports, to any node")

    def postrouting(self) -> Iterator[Rule]:
        """Yield KUBE-POSTROUTING."""
        if self._has(ipsets.LOOP_BACK):
            hairpin = self._in(ipsets.LOOP_BACK, "dst,dst,src")
            yield r.rule(hairpin, r.masquerade(random_fully=False), comment="an endpoint that connects to itself")
        yield from chains.masquerade_marked(self._node)

    def health_check(self) -> Iterator[Rule]:
        """Yield KUBE-NODE-PORT of filter."""
        yield r.rule(self._in(ipsets.HEALTH_CHECK_NODE_PORT, "dst"), r.accept(), comment="health check node ports")

    def proxy_firewall(self) -> Iterator[Rule]:
        """Yield KUBE-PROXY-FIREWALL."""
        if self._has(ipsets.LOAD_BALANCER_FW):
            guarded = self._in(ipsets.LOAD_BALANCER_FW)
            yield r.rule(guarded, r.jump(chains.SOURCE_RANGES_FIREWALL), comment="load balancer IPs with source ranges")

    def source_ranges(self) -> Iterator[Rule]:
        """Yield KUBE-SOURCE-RANGES-FIREWALL."""
        if self._has(ipsets.SOURCE_CIDR):
            yield r.rule(self._in(ipsets.SOURCE_CIDR, "dst,dst,src"), r.return_(), comment="allowed source")
        if self._has(ipsets.SOURCE_IP):
            yield r.rule(self._in(ipsets.SOURCE_IP, "dst,dst,src"), r.return_(), comment="from this node")
        yield r.rule(r.drop(), comment="rejected by source ranges")

    def ipvs_filter(self) -> Iterator[Rule]:
        """Yield KUBE-IPVS-FILTER: reject connections to Service addresses on ports that no Service has."""
        for kind in (ipsets.LOAD_BALANCER, ipsets.CLUSTER_IP, ipsets.EXTERNAL_IP, ipsets.EXTERNAL_IP_LOCAL):
            yield r.rule(self._in(kind), r.return_(), comment="a port that is served")
        yield r.rule(self._in(ipsets.HEALTH_CHECK_NODE_PORT, "dst"), r.return_(), comment="health check node ports")
        yield r.rule(
            r.connection_state("NEW"),
            self._in(ipsets.IPVS_IPS, "dst"),
            r.reject(self._node.family.bits),
            comment="a port without a Service",
        )
