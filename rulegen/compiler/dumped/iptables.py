"""Reads iptables rules as Services: from the dispatch chains to the chains of a port, and to its endpoints.

A comment of kube-proxy or rulegen names the Service. In a large cluster, rules have no comments: a port is then known
by the end of its chains' names, which is a hash.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from rulegen.languages.iptables.language import NAME
from rulegen.languages.iptables.ruleset import TABLES, ChainName, is_unreadable, target
from rulegen.net import Family, join_host_port, parse_address
from rulegen.ownership import chains
from rulegen.plan.dumped.services import (
    DumpedEndpoint,
    DumpedFrontend,
    DumpedNode,
    DumpedPort,
    ForeignRule,
    OtherRules,
)

if TYPE_CHECKING:
    from rulegen.languages.iptables.rules import Rule
    from rulegen.languages.iptables.ruleset import Chain, Ruleset

_NAME: Final = r"[a-z0-9][-a-z0-9.]{0,252}"
_LABEL: Final = re.compile(rf"({_NAME}/{_NAME})(?::([-a-z0-9]{{1,63}}))?(?: (.*)|\Z)")
_PORT_CHAIN: Final = re.compile(r"KUBE-(SVC|SVL|EXT|FW|XLB)-([A-Z0-9]{1,16})\Z")
_FRONTEND: Final = re.compile(
    r"(?:-d (?P<address>[0-9a-f.:]+)/(?P<bits>\d+) )?-p (?P<protocol>tcp|udp|sctp) (?:-m addrtype --dst-type LOCAL )?"
    r"-m (?P=protocol) --dport (?P<port>\d{1,5})(?: -m nfacct --nfacct-name \S+)?(?: -m mark ! --mark \S+)?"
    r" -j (?P<target>\S+)(?: --reject-with \S+)?\Z"
)
_PROBABILITY: Final = re.compile(r"--probability ([01]\.\d+)")
_AFFINITY: Final = re.compile(r"-m recent --rcheck --seconds (\d+) ")
_DNAT: Final = re.compile(r"-p (tcp|udp|sctp) .*-j DNAT --to-destination (\S+)")
_SOURCE: Final = re.compile(r"-s (\S+) -j KUBE-(?:EXT|XLB)-\S+\Z")
_KINDS: Final = (("cluster IP", "cluster IP"), ("external IP", "external IP"), ("load", "load balancer IP"))
_KIND_OF_CHAIN: Final = {"SVC": "cluster IP", "SVL": "cluster IP", "FW": "load balancer IP"}
_REFUSALS: Final = {"REJECT": "rejected", "DROP": "dropped"}
_REFUSING: Final = (chains.filter_(chains.SERVICES), chains.filter_(chains.EXTERNAL_SERVICES))
_NODE_PORT: Final = "node port"


def is_of_proxy(ruleset: Ruleset) -> bool:
    """Whether the node has rules of the userspace mode."""
    return any(name in ruleset.chains for name in chains.PORTALS)


def rules_as_services(ruleset: Ruleset) -> DumpedNode:
    """Return what the rules of one family say in terms of Services."""
    return _RulesReader(ruleset).read()


class _RulesReader:
    """Reads one ruleset."""

    def __init__(self, ruleset: Ruleset) -> None:
        self._rules = ruleset
        self._family = ruleset.family.value
        self._layout = chains.own_layout({})
        self._ports: dict[str, DumpedPort] = {}
        self._by_name: dict[tuple[str, str], DumpedPort] = {}
        self._node = DumpedNode(seen=[f"{NAME} {self._family}"])

    def read(self) -> DumpedNode:
        """Return all that the ruleset says."""
        node = self._node
        node.unseen += (f"{NAME} {self._family}: table {table}" for table in TABLES if table in self._rules.unknown)
        for name in (chains.nat(chains.SERVICES), chains.nat(chains.NODE_PORTS)):
            self._frontends(name)
        named = ((_PORT_CHAIN.match(name.chain), chain) for name, chain in self._rules.chains.items() if _is_nat(name))
        of_ports = [(match[1], match[2], chain) for match, chain in named if match]
        for kind, key, chain in sorted(of_ports, key=lambda each: each[:2]):  # the cluster pool before the local one
            self._port_chain(kind, key, chain)
        for name in _REFUSING:
            self._refusals(name)
        self._health_checks()
        self._foreign()
        node.ports = list(self._ports.values())
        return node

    def _of(self, name: ChainName) -> list[Rule]:
        chain = self._rules.chains.get(name)
        return chain.rules if chain is not None else []

    def _port(self, key: str, comment: str, address: str = "") -> DumpedPort:
        """Return the port of a hash; without one, that of the Service in the comment; else that of an address."""
        label = _LABEL.match(comment)
        if not key and label and (known := self._by_name.get((label[1], label[2] or ""))):
            return known
        port = self._ports.setdefault(
            key or (label[0].partition(" ")[0] if label else address),
            DumpedPort(language=NAME, family=self._family, key=key),
        )
        if label:
            self._name(port, label)
        return port

    def _name(self, port: DumpedPort, label: re.Match[str]) -> None:
        """Name a port after a comment, if it has no name yet."""
        if not port.service:
            port.service, port.name = label[1], label[2] or ""
        self._by_name.setdefault((port.service, port.name), port)

    def _frontends(self, name: ChainName) -> None:
        """Read a dispatch chain: each rule leads a frontend to the chain of its port."""
        for rule in self._of(name):
            lead = _PORT_CHAIN.match(target(rule))
            if lead is None:
                continue
            match = _FRONTEND.match(rule.spec)
            if match is None:
                self._node.foreign.append(self._as_foreign(name, rule))
                continue
            kind = _kind(rule, lead[1])
            if name.chain == chains.NODE_PORTS:
                kind, address = _NODE_PORT, f"{match['protocol'].upper()} {match['port']}"
            else:
                address = _address(match)
            self._port(lead[2], rule.comment).add(DumpedFrontend(kind, address))

    def _refusals(self, name: ChainName) -> None:
        """Read a chain that refuses connections to frontends without endpoints."""
        for rule in self._of(name):
            match = _FRONTEND.match(rule.spec)
            refusal = _REFUSALS.get(match["target"], "") if match else ""
            if match is None or not refusal:
                continue
            address = _address(match) if match["address"] else f"{match['protocol'].upper()} {match['port']}"
            kind = "address" if match["address"] else _NODE_PORT
            if name.chain == chains.SERVICES and match["address"]:
                kind = "cluster IP"
            self._port("", rule.comment, address).add(DumpedFrontend(kind, address, refusal))

    def _port_chain(self, kind: str, key: str, chain: Chain) -> None:
        """Read a chain of one port: its endpoints, its policy for external traffic, or its source ranges."""
        comments = (rule.comment for rule in chain.rules if _LABEL.match(rule.comment))
        port = self._port(key, next(comments, ""))
        if kind in {"SVC", "SVL"}:
            self._pool(port, chain, pool="local" if kind == "SVL" else "")
        elif kind in {"EXT", "XLB"}:
            masquerades_all = any(rule.spec == f"-j {chains.MARK_MASQ}" for rule in chain.rules)
            port.limit(f"external traffic policy {'Cluster' if masquerades_all else 'Local'}")
        else:
            ranges = [match[1] for rule in chain.rules if (match := _SOURCE.match(rule.spec))]
            port.limit(f"load balancer IPs only from {', '.join(ranges) or 'no source'}")

    def _pool(self, port: DumpedPort, chain: Chain, *, pool: str) -> None:
        """Read the rules that choose an endpoint. Each takes its probability of the connections that are left."""
        left = 1.0
        known = {endpoint.address for endpoint in port.endpoints}
        chosen: list[str] = []
        for rule in chain.rules:
            affinity = _AFFINITY.search(rule.spec)
            if affinity:
                port.limit(f"session affinity by client address, {affinity[1]} s")
                continue
            name = target(rule)
            if not name.startswith("KUBE-SEP-"):
                continue
            odds = _PROBABILITY.search(rule.spec)
            share = left * (float(odds[1]) if odds else 1.0)
            left -= share
            address = self._endpoint(port, chains.nat(name))
            chosen.append(address)
            if not pool or address not in known:
                port.endpoints.append(DumpedEndpoint(address, round(100 * share, 1), pool))
        if pool:
            port.limit(f"local pool: {', '.join(chosen) or 'empty'}")

    def _endpoint(self, port: DumpedPort, name: ChainName) -> str:
        """Return the endpoint that a chain translates to."""
        for rule in self._of(name):
            match = _DNAT.match(rule.spec)
            if match:
                label = _LABEL.match(rule.comment)
                if label:
                    self._name(port, label)
                return match[2]
        return f"unknown ({name.chain} has no DNAT rule)"

    def _health_checks(self) -> None:
        for rule in self._of(chains.filter_(chains.NODE_PORTS)):
            match = re.fullmatch(r"-p tcp -m tcp --dport (\d{1,5}) -j ACCEPT", rule.spec)
            if match:
                label = _LABEL.match(rule.comment)
                self._node.health_ports.append(f"TCP {match[1]} ({label[1] if label else 'unknown Service'})")

    def _foreign(self) -> None:
        """Find rules of other programs: in our chains one by one, elsewhere by chain."""
        node = self._node
        for name, chain in self._rules.chains.items():
            if self._layout.kind(name) is not None:
                node.foreign += (self._as_foreign(name, rule) for rule in chain.rules if self._is_foreign(name, rule))
            elif name.chain != chains.KUBELET_CANARY:
                count = sum(not self._leads_to_ours(name, rule) for rule in chain.rules)
                if count:
                    node.others.append(OtherRules(NAME, self._family, str(name), count))

    def _is_foreign(self, name: ChainName, rule: Rule) -> bool:
        """Whether neither rulegen nor kube-proxy writes a rule of this form in a chain."""
        if is_unreadable(rule) or self._leads_to_ours(name, rule):
            return False
        if name == chains.filter_(chains.FIREWALL) and rule.spec in chains.kubelets_rules(self._rules.family):
            return False
        shape = self._layout.shape(name)
        patterns = (*([shape] if shape is not None else []), *self._layout.optional_rules)
        return not any(pattern.fullmatch(rule.spec) for pattern in patterns)

    def _leads_to_ours(self, name: ChainName, rule: Rule) -> bool:
        lead = target(rule)
        return bool(lead) and self._layout.kind(ChainName(name.table, lead)) is not None

    def _as_foreign(self, name: ChainName, rule: Rule) -> ForeignRule:
        return ForeignRule(NAME, self._family, str(name), rule.line)


def _is_nat(name: ChainName) -> bool:
    """Whether a chain is in the table that translates addresses."""
    return name == chains.nat(name.chain)


def _kind(rule: Rule, chain: str) -> str:
    """Return the kind of a frontend: from the comment, else from the kind of chain that its rule leads to."""
    label = _LABEL.match(rule.comment)
    about = (label[3] or "") if label else ""
    named = next((kind for start, kind in _KINDS if about.startswith(start)), "")
    return named or _KIND_OF_CHAIN.get(chain, "external IP or load balancer IP")


def _address(match: re.Match[str]) -> str:
    """Return protocol, address and port of a frontend."""
    text, bits = match["address"] or "", match["bits"]
    try:
        address = parse_address(text)
    except ValueError:
        return f"{match['protocol'].upper()} {text} port {match['port']}"
    full = str(Family.IPV4.bits if address.version == 4 else Family.IPV6.bits)
    if bits != full:
        return f"{match['protocol'].upper()} {text}/{bits} port {match['port']}"
    return f"{match['protocol'].upper()} {join_host_port(address, int(match['port']))}"
