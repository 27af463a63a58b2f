"""Chains of every mode, by name; which of a node's chains are ours; and the rules that modes have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rulegen.languages.iptables import rules as r
from rulegen.languages.iptables.ruleset import ChainName
from rulegen.languages.iptables.state import Block, Kind, Layout, Place
from rulegen.model.ir import PodInterface

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from rulegen.languages.iptables.rules import Rule
    from rulegen.languages.iptables.ruleset import Ruleset
    from rulegen.model.ir import Node, PodTraffic
    from rulegen.net import Family

SERVICES = "KUBE-SERVICES"
NODE_PORTS = "KUBE-NODEPORTS"
EXTERNAL_SERVICES = "KUBE-EXTERNAL-SERVICES"
POSTROUTING = "KUBE-POSTROUTING"
MARK_MASQ = "KUBE-MARK-MASQ"
FORWARD = "KUBE-FORWARD"
FIREWALL = "KUBE-FIREWALL"
PROXY_FIREWALL = "KUBE-PROXY-FIREWALL"
CANARY = "KUBE-PROXY-CANARY"

LOAD_BALANCER = "KUBE-LOAD-BALANCER"
NODE_PORT = "KUBE-NODE-PORT"
SOURCE_RANGES_FIREWALL = "KUBE-SOURCE-RANGES-FIREWALL"
IPVS_FILTER = "KUBE-IPVS-FILTER"
IPVS_OUT_FILTER = "KUBE-IPVS-OUT-FILTER"
IPVS_POLICY = "KUBE-IPVS-POLICY"

PREFIXES = ("KUBE-SVC-", "KUBE-SVL-", "KUBE-EXT-", "KUBE-FW-", "KUBE-SEP-")
"""How the names of chains of one Service start in iptables mode: cluster and local pool, external, ranges, endpoint."""

KUBELET_CANARY = "KUBE-KUBELET-CANARY"
"""The kubelet's own mark of its presence; never ours."""


def nat(chain: str) -> ChainName:
    """Return a chain of the nat table."""
    return ChainName("nat", chain)


def filter_(chain: str) -> ChainName:
    """Return a chain of the filter table."""
    return ChainName("filter", chain)


CANARIES = tuple(ChainName(table, CANARY) for table in ("mangle", "nat", "filter"))
"""Empty chains by which it is seen that somebody has flushed a table."""

SHARED = (nat(SERVICES), nat(POSTROUTING), nat(MARK_MASQ), filter_(FORWARD), filter_(PROXY_FIREWALL))
"""Chains that every mode has, each with content of its own."""

OF_IPTABLES = frozenset(
    {
        nat(NODE_PORTS),
        filter_(SERVICES),
        filter_(EXTERNAL_SERVICES),
        filter_(NODE_PORTS),
        filter_(FIREWALL),
        *CANARIES,
        *SHARED,
    }
)
"""The fixed chains of iptables mode."""

OF_IPVS = frozenset(
    {
        nat(LOAD_BALANCER),
        nat(NODE_PORT),
        filter_(NODE_PORT),
        filter_(SOURCE_RANGES_FIREWALL),
        filter_(IPVS_FILTER),
        filter_(IPVS_OUT_FILTER),
        *SHARED,
    }
)
"""The fixed chains of ipvs mode."""

STRICT_IPVS = frozenset({filter_(IPVS_POLICY)})
"""What strict ipvs mode has besides."""

_KUBELET_MARK_DROP = "-m mark --mark 0x8000/0x8000 -j DROP"
"""What kubelets before 1.28 put into KUBE-FIREWALL."""


def own_layout(
    chains: Mapping[ChainName, Kind],
    *,
    tails: Mapping[ChainName, frozenset[str]] | None = None,
    pair_marks: Mapping[ChainName, str] | None = None,
    tolerated: Mapping[ChainName, frozenset[str]] | None = None,
) -> Layout:
    """Return the layout of one mode: its own chains, and those of the others, which are leftovers where it rules.

    Args:
        chains: The fixed chains of the mode.
        tails: As for `Layout`; the same for those below.
        pair_marks: The same.
        tolerated: The same.
    """
    others = (OF_IPTABLES | OF_IPVS | STRICT_IPVS) - chains.keys()
    return Layout(
        chains={**dict.fromkeys(others, Kind.EXACT), **chains},
        prefixes={"nat": PREFIXES},
        others=frozenset(others),
        tails=tails or {},
        pair_marks=pair_marks or {},
        tolerated=tolerated or {},
    )


def has_kubelet(ruleset: Ruleset) -> bool:
    """Whether a kubelet is at work, which has put KUBE-FIREWALL and the jumps to it there too."""
    return ChainName("mangle", KUBELET_CANARY) in ruleset.chains


_OF_PROXIES = (OF_IPTABLES | OF_IPVS | STRICT_IPVS) - {nat(POSTROUTING), nat(MARK_MASQ), filter_(FIREWALL)}
"""Chains that only a Service proxy makes; kubelets before 1.28 made the others too."""


def is_proxys(name: ChainName) -> bool:
    """Whether a chain is one that only a Service proxy makes, ours or kube-proxy."""
    return name in _OF_PROXIES or (name.table == "nat" and name.chain.startswith(PREFIXES))


def has_proxy(ruleset: Ruleset) -> bool:
    """Whether a Service proxy, ours or kube-proxy, has left chains."""
    return any(map(is_proxys, ruleset.chains))


def kubelets_rules(family: Family) -> frozenset[str]:
    """Return what kubelets put into KUBE-FIREWALL."""
    return frozenset({_KUBELET_MARK_DROP, martian_drop(family).spec})


def jumps(table: Iterable[tuple[str, str, str, tuple[str, ...]]], purposes: Mapping[str, str]) -> Iterator[Block]:
    """Yield the jumps from built-in chains: table, built-in chain, our chain, states; top to bottom."""
    for name, built_in, chain, states in table:
        words = [r.connection_state(*states)] if states else []
        yield Block(ChainName(name, built_in), (r.rule(*words, r.jump(chain), comment=purposes[chain]),), Place.HEAD)


def mark_masquerade(node: Node) -> tuple[Rule, ...]:
    """Return the rules of KUBE-MARK-MASQ."""
    return (r.rule(r.set_mark(node.masquerade_mark), comment="mark for masquerading in KUBE-POSTROUTING"),)


def masquerade_marked(node: Node) -> Iterator[Rule]:
    """Yield the rules that masquerade what is marked, at the end of KUBE-POSTROUTING."""
    mark = node.masquerade_mark
    yield r.rule(r.is_not_marked(mark), r.return_(), comment="not marked: nothing to masquerade")
    yield r.rule(r.flip_mark(mark), comment="clear the mark: a packet may pass here again, in a tunnel")
    yield r.rule(r.masquerade(random_fully=node.random_fully), comment="service traffic that needs its reply here")


def accept_forwarded(node: Node) -> Iterator[Rule]:
    """Yield the rules that let service traffic through, whatever the policy of FORWARD."""
    yield r.rule(r.is_marked(node.masquerade_mark), r.accept(), comment="service traffic, whatever the policy")
    yield r.rule(
        r.connection_state("RELATED", "ESTABLISHED"), r.accept(), comment="what belongs to an accepted connection"
    )


def martian_drop(family: Family) -> Rule:
    """With route_localnet on, neighbours could reach the loopback prefix: CVE-2020-8558."""
    return r.rule(
        r.not_source(family.loopback),
        r.destination(family.loopback),
        r.not_connection_state("RELATED", "ESTABLISHED", "DNAT"),
        r.drop(),
        comment="nobody else reaches the loopback addresses",
    )


def from_pods(pods: PodTraffic) -> str:
    """Match traffic of this node's pods."""
    if isinstance(pods, PodInterface):
        return r.in_interface(f"{pods.name}+" if pods.prefix else pods.name)
    return r.source(pods.network)


def not_from_pods(pods: PodTraffic) -> str:
    """Match all other traffic."""
    if isinstance(pods, PodInterface):
        return r.not_in_interface(f"{pods.name}+" if pods.prefix else pods.name)
    return r.not_source(pods.network)
