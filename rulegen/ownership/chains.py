"""Names of the chains of every mode; which chains of a node belong to rulegen; rules that several modes use."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from rulegen.languages.iptables import rules as r
from rulegen.languages.iptables.ruleset import ChainName
from rulegen.languages.iptables.state import Block, ChainPosition, Kind, Layout
from rulegen.model.services.ir import PodInterface

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from rulegen.languages.iptables.rules import Rule
    from rulegen.languages.iptables.ruleset import Ruleset
    from rulegen.model.services.ir import PodTraffic, ResolvedNode
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

PORTALS_CONTAINER = "KUBE-PORTALS-CONTAINER"
PORTALS_HOST = "KUBE-PORTALS-HOST"
PORTALS_ESTABLISHED = "KUBE-PORTALS-ESTABLISHED"
NODEPORT_CONTAINER = "KUBE-NODEPORT-CONTAINER"
NODEPORT_HOST = "KUBE-NODEPORT-HOST"
NODEPORT_NON_LOCAL = "KUBE-NODEPORT-NON-LOCAL"

PREFIXES = ("KUBE-SVC-", "KUBE-SVL-", "KUBE-EXT-", "KUBE-FW-", "KUBE-SEP-")
"""Prefixes of the chains of one Service in iptables mode: cluster and local pool, external, ranges, endpoint."""

PROXIED_PREFIXES = ("KUBE-EXT-", "KUBE-FW-")
"""Prefixes of the chains of one Service in table mangle, which userspace mode has for IPv6."""

KUBELET_CANARY = "KUBE-KUBELET-CANARY"
"""Chain by which the kubelet marks its presence; never a chain of rulegen."""


def nat(chain: str) -> ChainName:
    """Return a chain of the nat table."""
    return ChainName("nat", chain)


def filter_(chain: str) -> ChainName:
    """Return a chain of the filter table."""
    return ChainName("filter", chain)


def mangle(chain: str) -> ChainName:
    """Return a chain of the mangle table."""
    return ChainName("mangle", chain)


CANARIES = tuple(ChainName(table, CANARY) for table in ("mangle", "nat", "filter"))
"""Empty chains that show whether another program has flushed a table."""

SHARED = (nat(SERVICES), nat(POSTROUTING), nat(MARK_MASQ), filter_(FORWARD), filter_(PROXY_FIREWALL))
"""Chains that every mode has, with different content."""

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
"""Additional chains of strict ipvs mode."""

PORTALS = frozenset(
    {
        nat(PORTALS_CONTAINER),
        nat(PORTALS_HOST),
        nat(NODEPORT_CONTAINER),
        nat(NODEPORT_HOST),
        mangle(PORTALS_ESTABLISHED),
        mangle(PORTALS_CONTAINER),
        mangle(PORTALS_HOST),
        mangle(NODEPORT_CONTAINER),
        filter_(NODEPORT_NON_LOCAL),
    }
)
"""The chains that userspace mode has in addition to those of iptables mode: nat for TCP over IPv4, else mangle."""

GUARDING = frozenset({filter_(IPVS_FILTER)})
"""Chains that protect addresses bound by another language: they exist before the first address and after the last."""

_KUBELET_MARK_DROP = "-m mark --mark 0x8000/0x8000 -j DROP"
"""Rules that kubelets before 1.28 put into KUBE-FIREWALL."""


_KUBELETS = frozenset({nat(MARK_MASQ), nat(POSTROUTING), filter_(FIREWALL)})
"""Fixed chains that kubelets also create, or created before 1.27."""

_MARK = r"(0x[0-9a-f]+)"
_BY_SET = r"(?:-p \w+ )?-m set --match-set KUBE-\S+ \S+(?: -m \S+ ! --\S+(?: LOCAL)?| -m addrtype --dst-type LOCAL)*"
_TO_PORT = r"(?:-d \S+ )?-p (tcp|udp|sctp) (?:-m addrtype --dst-type LOCAL )?-m \1 --dport \d+"
_PROXIED = r"(?:-d \S+ )?-p (tcp|udp) -m \1 --dport \d+"
_REFUSAL = rf"{_TO_PORT} (?:-m mark ! --mark \S+ )?-j (?:DROP|REJECT --reject-with \S+)"
_MARTIANS = r"! -s \S+ -d (?:127\.0\.0\.0/8|::1/128) -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP"
_INVALID = r"-m conntrack --ctstate INVALID(?: -m nfacct --nfacct-name \S+)? -j DROP"

_SHAPES: Mapping[ChainName, re.Pattern[str]] = {
    name: re.compile(shape)
    for name, shape in {
        nat(POSTROUTING): rf"-m mark ! --mark {_MARK}/\1 -j RETURN|-j MARK --set-xmark {_MARK}/0x0|"
        rf"(?:{_BY_SET} |-m mark --mark \S+ )?-j MASQUERADE(?: --random-fully)?",
        nat(MARK_MASQ): rf"-j MARK --set-xmark {_MARK}/\1",
        nat(SERVICES): rf"-s (?:127\.0\.0\.0/8|::1/128) -j RETURN|{_BY_SET} -j ACCEPT",
        nat(LOAD_BALANCER): rf"{_BY_SET} -j RETURN",
        nat(NODE_PORT): rf"{_BY_SET} -j RETURN",
        nat("KUBE-SEP-"): r"-p (tcp|udp|sctp) (?:-m recent --set --name \S+ --mask \S+ --rsource )?-m \1 "
        r"-j DNAT --to-destination \S+",
        nat("KUBE-FW-"): r"(?:-j KUBE-MARK-DROP)?",
        filter_(FORWARD): rf"{_INVALID}|-m mark --mark {_MARK}/\1 -j ACCEPT|"
        r"(?:-[sd] \S+ )?-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        filter_(FIREWALL): _MARTIANS,
        filter_(SERVICES): _REFUSAL,
        filter_(EXTERNAL_SERVICES): _REFUSAL,
        filter_(NODE_PORTS): r"-p tcp -m tcp --dport \d+ -j ACCEPT",
        filter_(PROXY_FIREWALL): _REFUSAL,
        filter_(NODE_PORT): rf"{_BY_SET} -j ACCEPT",
        filter_(SOURCE_RANGES_FIREWALL): rf"{_BY_SET} -j RETURN|-j DROP",
        filter_(
            NODEPORT_NON_LOCAL
        ): r"-p (tcp|udp) (?:-m \1 --dport \d+ )?(?:-m conntrack --ctstate \w+ |-m mark --mark \S+ )?"
        r"-j (?:ACCEPT|DROP)",
        nat(PORTALS_CONTAINER): rf"{_PROXIED} -j (?:DNAT --to-destination \S+|REDIRECT --to-ports \d+)",
        nat(NODEPORT_CONTAINER): rf"{_PROXIED} -j (?:DNAT --to-destination \S+|REDIRECT --to-ports \d+)",
        mangle(PORTALS_CONTAINER): rf"{_PROXIED} -j TPROXY --on-port \d+ --on-ip \S+ --tproxy-mark \S+",
        mangle(NODEPORT_CONTAINER): rf"{_PROXIED} -j TPROXY --on-port \d+ --on-ip \S+ --tproxy-mark \S+",
        mangle(PORTALS_HOST): rf"{_PROXIED} (?:-m addrtype --dst-type LOCAL )?-j MARK --set-xmark {_MARK}/\2",
        mangle(PORTALS_ESTABLISHED): r"-p (?:tcp|udp) (?:-m socket --transparent )?-j MARK --set-xmark \S+",
        filter_(IPVS_FILTER): rf"{_BY_SET} -j RETURN|-m mark --mark {_MARK}/\1 -j RETURN|"
        rf"-m conntrack --ctstate NEW {_BY_SET} -j REJECT --reject-with \S+",
        filter_(IPVS_OUT_FILTER): r"-s \S+ -m ipvs --vproto \d+ --vaddr \S+ --vport \d+ -j DROP",
        filter_(IPVS_POLICY): r"(?:! -[si] \S+ )?-d \S+ (?:! -i \S+ )?-p (tcp|udp|sctp) -m \1 --dport \d+ "
        r"(?:-m addrtype ! --src-type LOCAL )?-j DROP",
    }.items()
}
"""Rules that rulegen and kube-proxy write in each chain, with any options, in addition to jumps to their chains."""

_OPTIONAL = tuple(
    map(
        re.compile,
        (
            _INVALID,
            rf"(?:! -[si] \S+ )?-d \S+ (?:! -i \S+ )?-p \S+ -m \S+ --dport \d+ -j {MARK_MASQ}",
            r"-[si] \S+ -j KUBE-SVC-\S+",
            rf"(?:(?:! )?-d \S+ )?(?:-m addrtype --dst-type LOCAL )?-j {NODE_PORTS}",
        ),
    )
)
"""Rules that depend on options: liberal conntrack, masquerading of ClusterIPs, local Pods, addresses of node ports."""

_LISTED = (re.compile(r"-s \S+ -j KUBE-EXT-\S+"),)
"""Rules for the source ranges of a Service: a Service may list a range twice, and in any order."""


def own_layout(
    chains: Mapping[ChainName, Kind],
    *,
    tails: Mapping[ChainName, frozenset[str]] | None = None,
    pair_marks: Mapping[ChainName, str] | None = None,
    tolerated: Mapping[ChainName, frozenset[str]] | None = None,
) -> Layout:
    """Return the layout of one mode: its own chains, and those of other modes, which are leftovers.

    Args:
        chains: The fixed chains of the mode.
        tails: As in `Layout`; the same for the next two.
        pair_marks: As in `Layout`.
        tolerated: As in `Layout`.
    """
    others = (OF_IPTABLES | OF_IPVS | STRICT_IPVS | PORTALS) - chains.keys()
    return Layout(
        proof=frozenset(chains.keys() - _KUBELETS),
        optional=STRICT_IPVS,
        optional_rules=_OPTIONAL,
        listed_rules=_LISTED,
        shapes=_SHAPES,
        lasting={nat(SERVICES): ("KUBE-SVC-", "KUBE-SVL-")},
        chains={**dict.fromkeys(others, Kind.EXACT), **chains},
        prefixes={"nat": PREFIXES, "mangle": PROXIED_PREFIXES},
        others=frozenset(others),
        tails=tails or {},
        pair_marks=pair_marks or {},
        tolerated=tolerated or {},
    )


def has_kubelet(ruleset: Ruleset) -> bool:
    """Whether a kubelet is active that also creates KUBE-FIREWALL and the jumps to it."""
    return ChainName("mangle", KUBELET_CANARY) in ruleset.chains


_OF_PROXIES = (OF_IPTABLES | OF_IPVS | STRICT_IPVS | PORTALS) - {nat(POSTROUTING), nat(MARK_MASQ), filter_(FIREWALL)}
"""Chains that only a Service proxy creates; kubelets before 1.28 also created the others."""


def is_proxys(name: ChainName) -> bool:
    """Whether only a Service proxy (rulegen or kube-proxy) creates this chain."""
    return name in _OF_PROXIES or (name.table == "nat" and name.chain.startswith(PREFIXES))


def kubelets_rules(family: Family) -> frozenset[str]:
    """Return the rules that kubelets put into KUBE-FIREWALL."""
    return frozenset({_KUBELET_MARK_DROP, martian_drop(family).spec})


def jumps(table: Iterable[tuple[str, str, str, tuple[str, ...]]], purposes: Mapping[str, str]) -> Iterator[Block]:
    """Yield the jumps from built-in chains, in order: table, built-in chain, target chain, states."""
    for name, built_in, chain, states in table:
        words = [r.connection_state(*states)] if states else []
        yield Block(
            ChainName(name, built_in), (r.rule(*words, r.jump(chain), comment=purposes[chain]),), ChainPosition.HEAD
        )


def mark_masquerade(node: ResolvedNode) -> tuple[Rule, ...]:
    """Return the rules of KUBE-MARK-MASQ."""
    return (r.rule(r.set_mark(node.masquerade_mark), comment="mark for masquerading in KUBE-POSTROUTING"),)


def masquerade_marked(node: ResolvedNode) -> Iterator[Rule]:
    """Yield the rules at the end of KUBE-POSTROUTING that masquerade marked packets."""
    mark = node.masquerade_mark
    yield r.rule(r.is_not_marked(mark), r.return_(), comment="not marked: nothing to masquerade")
    yield r.rule(r.flip_mark(mark), comment="clear the mark: a packet may pass here again, in a tunnel")
    yield r.rule(
        r.masquerade(random_fully=node.random_fully),
        comment="masquerade Service traffic, so that replies return to this node",
    )


def accept_forwarded(node: ResolvedNode) -> Iterator[Rule]:
    """Yield the rules that accept Service traffic, whatever the policy of FORWARD."""
    yield r.rule(r.is_marked(node.masquerade_mark), r.accept(), comment="service traffic, whatever the policy")
    yield r.rule(r.connection_state("RELATED", "ESTABLISHED"), r.accept(), comment="packets of accepted connections")


def martian_drop(family: Family) -> Rule:
    """Block access from other hosts to the loopback prefix, which route_localnet would allow: CVE-2020-8558."""
    return r.rule(
        r.not_source(family.loopback),
        r.destination(family.loopback),
        r.not_connection_state("RELATED", "ESTABLISHED", "DNAT"),
        r.drop(),
        comment="block access from other hosts to loopback addresses",
    )


def from_pods(pods: PodTraffic) -> str:
    """Match traffic of this node's Pods."""
    if isinstance(pods, PodInterface):
        return r.in_interface(f"{pods.name}+" if pods.prefix else pods.name)
    return r.source(pods.network)


def not_from_pods(pods: PodTraffic) -> str:
    """Match all other traffic."""
    if isinstance(pods, PodInterface):
        return r.not_in_interface(f"{pods.name}+" if pods.prefix else pods.name)
    return r.not_source(pods.network)
