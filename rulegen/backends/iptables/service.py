"""One Service's chains and its rules in the shared chains.

KUBE-SERVICES ──ClusterIP──────────────► KUBE-SVC (cluster pool) or KUBE-SVL (local pool) ─► KUBE-SEP: DNAT
│  └─load balancer IP─► KUBE-FW ─┐         ▲
├──external IP, VIP──────────────┴► KUBE-EXT
└──node port─► KUBE-NODEPORTS ─────────┘
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rulegen.backends.iptables import names
from rulegen.backends.iptables.node import LOCALHOST_COUNTER
from rulegen.languages.iptables import rules as r
from rulegen.languages.iptables import state as iptables
from rulegen.languages.iptables.language import NAME as IPTABLES
from rulegen.languages.iptables.state import Block
from rulegen.model.services.ir import Delivery, Masquerade, PodNetwork, TrafficPolicy
from rulegen.ownership import chains
from rulegen.plan.fragments import OwnedObjects

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rulegen.languages.iptables.rules import Rule
    from rulegen.languages.iptables.ruleset import ChainName
    from rulegen.model.services.ir import Endpoint, ResolvedNode, ResolvedPort, ResolvedService
    from rulegen.net import Address


def compile_service(service: ResolvedService, node: ResolvedNode, *, counts: bool) -> OwnedObjects:
    """Return the chains and rules of one Service in the family of `node`.

    Args:
        service: The Service with all decisions taken.
        node: The decisions for all Services in this family.
        counts: Whether rules count with nfacct.
    """
    exact: dict[ChainName, tuple[Rule, ...]] = {}
    blocks: list[Block] = []
    for port in service.ports:
        if port.family is node.family:
            own = PortChains(port, node, counts=counts)
            exact.update(own.exact())
            blocks += own.blocks()
    owner = str(service.name)
    fragment = iptables.RulesFragment(owner, node.family, exact, blocks=tuple(blocks))
    return OwnedObjects(owner, node.family, {IPTABLES: fragment})


class PortChains:
    """The chains of one Service port, and its rules in shared chains."""

    def __init__(self, port: ResolvedPort, node: ResolvedNode, *, counts: bool) -> None:
        self._port, self._node, self._counts = port, node, counts
        self._label, self._bits = port.label, node.family.bits
        self._to_port = (r.protocol(port.protocol), r.destination_port(port.protocol, port.port))
        hashed = names.service_hash(port)
        self._cluster = f"KUBE-SVC-{hashed}"
        self._local = f"KUBE-SVL-{hashed}"
        self._external = f"KUBE-EXT-{hashed}"
        self._allowed = f"KUBE-FW-{hashed}"
        self._chains_of = {Delivery.CLUSTER: self._cluster, Delivery.LOCAL: self._local}
        self._endpoints = {text: f"KUBE-SEP-{ending}" for text, ending in names.endpoint_hashes(port).items()}
        self._has_external = port.has_endpoints and port.is_external
        self._is_guarded = self._has_external and bool(port.load_balancer_ips and port.source_ranges)

    def exact(self) -> Iterator[tuple[ChainName, tuple[Rule, ...]]]:
        """Yield the port's own chains."""
        port = self._port
        for delivery, pool in ((Delivery.CLUSTER, port.cluster), (Delivery.LOCAL, port.local)):
            if pool:
                yield chains.nat(self._chains_of[delivery]), tuple(self._balance(delivery, pool))
        if self._has_external:
            yield chains.nat(self._external), tuple(self._external_rules())
        if self._is_guarded:
            yield chains.nat(self._allowed), tuple(self._allowed_rules())
        yield from self._endpoint_rules()

    def blocks(self) -> Iterator[Block]:
        """Yield the port's rules in shared chains."""
        yield from self._cluster_ip_blocks()
        yield from self._external_blocks()
        port = self._port
        if port.health_check_node_port:
            rule = r.rule(
                "-p tcp -m tcp --dport",
                str(port.health_check_node_port),
                r.accept(),
                comment=f"{self._label} health check",
            )
            yield Block(chains.filter_(chains.NODE_PORTS), (rule,))

    def _to(self, address: Address) -> tuple[str, ...]:
        """Return the matches for packets to the Service port on an address."""
        return (r.destination_address(address), *self._to_port)

    def _refusal(self, delivery: Delivery) -> tuple[str, str]:
        """Return the verdict for a frontend without endpoints, and its reason."""
        if delivery is Delivery.REJECT:
            return r.reject(self._bits), "has no endpoints"
        return r.drop(), "has no local endpoints"

    def _cluster_ip_blocks(self) -> Iterator[Block]:
        port = self._port
        if port.cluster_ip is None:
            return
        if port.internal.has_pool:
            jump = r.jump(self._chains_of[port.internal])
            rule = r.rule(*self._to(port.cluster_ip), jump, comment=f"{self._label} cluster IP")
            yield Block(chains.nat(chains.SERVICES), (rule,))
        else:
            verdict, reason = self._refusal(port.internal)
            rule = r.rule(*self._to(port.cluster_ip), verdict, comment=f"{self._label} {reason}")
            yield Block(chains.filter_(chains.SERVICES), (rule,))

    def _external_blocks(self) -> Iterator[Block]:
        port = self._port
        vip_chain = self._allowed if self._is_guarded else self._external
        frontends = [
            *((address, "external IP", self._external) for address in port.external_ips),
            *((address, "load balancer IP", vip_chain) for address in port.load_balancer_ips),
        ]
        if port.has_endpoints:
            yield from self._served_blocks(frontends)
        if not port.external.has_pool:
            yield from self._refused_blocks([address for address, _, _ in frontends])
        if self._is_guarded:
            for address in port.load_balancer_ips:
                words = (*self._to(address), *self._not_accepted(), r.drop())
                rule = r.rule(*words, comment=f"{self._label} rejected by its source ranges")
                yield Block(chains.filter_(chains.PROXY_FIREWALL), (rule,))

    def _served_blocks(self, frontends: Sequence[tuple[Address, str, str]]) -> Iterator[Block]:
        """Yield the rules that lead external frontends (address, description, chain) and the node port to endpoints."""
        for address, what, chain in frontends:
            rule = r.rule(*self._to(address), r.jump(chain), comment=f"{self._label} {what}")
            yield Block(chains.nat(chains.SERVICES), (rule,))
        if self._port.node_port:
            yield Block(chains.nat(chains.NODE_PORTS), tuple(self._node_port_rules()))

    def _refused_blocks(self, addresses: Sequence[Address]) -> Iterator[Block]:
        """Yield the rules that refuse connections from outside to external frontends and to the node port."""
        port = self._port
        verdict, reason = self._refusal(port.external)
        matches = [self._to(address) for address in addresses]
        if port.node_port:
            number = r.destination_port(port.protocol, port.node_port)
            matches.append((r.protocol(port.protocol), r.destination_is_local(), number))
        for words in matches:
            rule = r.rule(*words, *self._not_accepted(), verdict, comment=f"{self._label} {reason}")
            yield Block(chains.filter_(chains.EXTERNAL_SERVICES), (rule,))

    def _not_accepted(self) -> tuple[str, ...]:
        """Return the matches for packets that nothing has accepted before table filter; here nat rewrites those."""
        return ()

    def _node_port_rules(self) -> Iterator[Rule]:
        port = self._port
        words = (r.protocol(port.protocol), r.destination_port(port.protocol, port.node_port))
        comment = f"{self._label} node port"
        if self._counts and self._node.localhost_node_ports:
            loopback = r.destination(self._node.family.loopback)
            yield r.rule(loopback, *words, r.counted(LOCALHOST_COUNTER), r.jump(self._external), comment=comment)
        yield r.rule(*words, r.jump(self._external), comment=comment)

    def _balance(self, delivery: Delivery, pool: Sequence[Endpoint]) -> Iterator[Rule]:
        """Yield the rules that choose an endpoint: by session affinity first, then at random by weight.

        A rule matches only the connections that the rules before it left over. Its probability is therefore its
        endpoint's part of the remaining weight.
        """
        port = self._port
        if delivery is port.internal and port.cluster_ip is not None:
            yield from self._masquerade_cluster_ip(port.cluster_ip)
        if port.affinity_s is not None:
            for endpoint in pool:
                chain = self._endpoints[endpoint.text]
                seen = r.seen_within(port.affinity_s, chain, self._bits)
                yield r.rule(seen, r.jump(chain), comment=f"{self._label} session affinity to {endpoint.text}")
        left = sum(endpoint.weight for endpoint in pool)
        for endpoint in pool:
            odds = [r.at_odds(left, endpoint.weight)] if left > endpoint.weight else []
            left -= endpoint.weight
            jump = r.jump(self._endpoints[endpoint.text])
            yield r.rule(*odds, jump, comment=f"{self._label} to {endpoint.text}")

    def _masquerade_cluster_ip(self, address: Address) -> Iterator[Rule]:
        node = self._node
        mark = r.jump(chains.MARK_MASQ)
        comment = f"{self._label} cluster IP"
        match node.masquerade_cluster_ip:
            case Masquerade.ALWAYS:
                yield r.rule(*self._to(address), mark, comment=comment)
            case Masquerade.OFF_CLUSTER if isinstance(node.pods, PodNetwork):
                yield r.rule(chains.not_from_pods(node.pods), *self._to(address), mark, comment=comment)
            case Masquerade.OFF_CLUSTER if node.pods is not None:
                to, *rest = self._to(address)
                yield r.rule(to, chains.not_from_pods(node.pods), *rest, mark, comment=comment)
            case _:
                return

    def _external_rules(self) -> Iterator[Rule]:
        """Yield the rules for external frontends: connections of this node and its Pods, then those from outside."""
        port, node = self._port, self._node
        mark, cluster = r.jump(chains.MARK_MASQ), r.jump(self._cluster)
        if port.external_policy is TrafficPolicy.CLUSTER:
            yield r.rule(mark, comment=f"{self._label} from outside, to any node")
        else:
            if node.pods is not None:
                yield r.rule(chains.from_pods(node.pods), cluster, comment=f"{self._label} from a pod of this node")
            yield r.rule(r.source_is_local(), mark, comment=f"{self._label} from this node")
            yield r.rule(r.source_is_local(), cluster, comment=f"{self._label} from this node")
        if port.external.has_pool:
            yield r.rule(r.jump(self._chains_of[port.external]), comment=f"{self._label} from outside")

    def _allowed_rules(self) -> Iterator[Rule]:
        port = self._port
        jump = r.jump(self._external)
        for network in port.source_ranges:
            yield r.rule(r.source(network), jump, comment=f"{self._label} allowed source")
        if port.node_in_source_ranges:
            for address in port.load_balancer_ips:
                yield r.rule(r.source_address(address), jump, comment=f"{self._label} from this node")
        yield r.rule(comment=f"{self._label} other sources are dropped in KUBE-PROXY-FIREWALL")

    def _endpoint_rules(self) -> Iterator[tuple[ChainName, tuple[Rule, Rule]]]:
        """Yield the chain of each endpoint: mark its connections to itself (hairpin), then DNAT to the endpoint."""
        port, mark, comment = self._port, r.jump(chains.MARK_MASQ), f"{self._label} to itself"
        protocol, ports = r.protocol(port.protocol), r.ports_of(port.protocol)
        for endpoint in port.endpoints:
            chain = self._endpoints[endpoint.text]
            affinity = [] if port.affinity_s is None else [r.remember(chain, self._bits)]
            hairpin = r.rule(r.source_host(endpoint.host, self._bits), mark, comment=comment)
            sent = r.rule(protocol, *affinity, ports, r.dnat(endpoint.text), comment=self._label)
            yield chains.nat(chain), (hairpin, sent)
