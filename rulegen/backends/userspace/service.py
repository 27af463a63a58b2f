"""One Service in userspace mode: its rules that lead TCP and UDP to the proxy, and the rest as in iptables mode.

PORTALS-CONTAINER, NODEPORT-CONTAINER ─► listener of the proxy                     to the cluster pool
└─ source ranges, policy Local ─► KUBE-FW, KUBE-EXT ─► listener of the proxy       allowed, or from inside
                                                    └─► KUBE-SVL ─► KUBE-SEP       from outside, policy Local
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rulegen.backends.iptables.service import PortChains
from rulegen.backends.userspace.node import proxy_of
from rulegen.backends.userspace.pools import objects_of
from rulegen.languages.iptables import rules as r
from rulegen.languages.iptables.language import NAME as IPTABLES
from rulegen.languages.iptables.state import Block, RulesFragment
from rulegen.languages.listeners.language import NAME as LISTENERS
from rulegen.model.services.ir import Delivery, TrafficPolicy
from rulegen.net import Protocol, join_host_port
from rulegen.ownership import chains
from rulegen.plan.fragments import OwnedObjects

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rulegen.languages.iptables.rules import Rule
    from rulegen.languages.iptables.ruleset import ChainName
    from rulegen.languages.listeners.state import ProxyKey, ProxyValue
    from rulegen.model.services.ir import ConnectionProxy, ResolvedNode, ResolvedPort, ResolvedService
    from rulegen.net import Address


def compile_service(service: ResolvedService, node: ResolvedNode, *, counts: bool) -> OwnedObjects:
    """Return the chains and rules of one Service in the family of `node`.

    Args:
        service: The Service with all decisions taken.
        node: The decisions for all Services in this family.
        counts: Whether rules of iptables mode count with nfacct; those that lead to the proxy do not.
    """
    exact: dict[ChainName, tuple[Rule, ...]] = {}
    blocks: list[Block] = []
    proxied: dict[ProxyKey, ProxyValue] = {}
    for port in service.ports:
        if port.family is node.family:
            chains_of = PortChains if port.protocol is Protocol.SCTP else ProxiedPort
            own = chains_of(port, node, counts=counts)
            exact.update(own.exact())
            blocks += own.blocks()
            proxied.update(objects_of(port))
    owner = str(service.name)
    rules = RulesFragment(owner, node.family, exact, blocks=tuple(blocks))
    return OwnedObjects(owner, node.family, {IPTABLES: rules, LISTENERS: proxied})


def translated(proxy: ConnectionProxy) -> str:
    """Return the target that rewrites the destination of an IPv4 packet to the listener.

    REDIRECT rewrites it to the address of the interface that has received the packet, and drops the packet if that
    interface has none. Interfaces of Pods often have none, so an address of the node is used.
    """
    return r.redirect(proxy.port) if proxy.address is None else r.dnat(join_host_port(proxy.address, proxy.port))


class ProxiedPort(PortChains):
    """The chains and rules of a TCP or UDP port, whose cluster pool is served by the proxy."""

    def __init__(self, port: ResolvedPort, node: ResolvedNode, *, counts: bool) -> None:
        """Take the port and the decisions for the node."""
        super().__init__(port, node, counts=counts)
        proxy = proxy_of(node)
        self._mark = proxy.mark
        self._translates = proxy.translates and port.protocol is Protocol.TCP
        self._table = chains.nat if self._translates else chains.mangle
        self._verdict = translated(proxy) if self._translates else r.tproxy(proxy.port, proxy.mark, self._bits)
        self._is_local = port.external_policy is TrafficPolicy.LOCAL

    def exact(self) -> Iterator[tuple[ChainName, tuple[Rule, ...]]]:
        """Yield the port's own chains: of the local pool, and of external frontends that decide by the source."""
        port = self._port
        if port.local:
            yield chains.nat(self._chains_of[Delivery.LOCAL]), tuple(self._balance(Delivery.LOCAL, port.local))
            names = {self._endpoints[endpoint.text] for endpoint in port.local}
            yield from ((name, rules) for name, rules in self._endpoint_rules() if name.chain in names)
        if self._has_external and (self._is_local or self._is_guarded):
            yield self._table(self._external), tuple(self._external_rules())
            if self._keeps_source:
                yield chains.nat(self._external), tuple(self._kept_rules())
        if self._is_guarded:
            yield self._table(self._allowed), tuple(self._allowed_rules())
            if self._keeps_source:
                yield chains.nat(self._allowed), tuple(self._allowed_rules())

    @property
    def _keeps_source(self) -> bool:
        """Whether nat has chains in addition to those of table mangle, for connections from outside."""
        return self._is_local and not self._translates

    def _cluster_ip_blocks(self) -> Iterator[Block]:
        port = self._port
        if port.cluster_ip is not None and port.internal is Delivery.CLUSTER:
            yield from self._portal(port.cluster_ip, self._verdict, "cluster IP")
        else:
            yield from super()._cluster_ip_blocks()

    def _served_blocks(self, frontends: Sequence[tuple[Address, str, str]]) -> Iterator[Block]:
        for address, what, chain in frontends:
            decides = self._is_local or chain == self._allowed
            yield from self._portal(address, r.jump(chain) if decides else self._verdict, what)
        port = self._port
        if port.node_port:
            verdict = r.jump(self._external) if self._is_local else self._verdict
            words = (r.protocol(port.protocol), r.destination_port(port.protocol, port.node_port))
            rule = r.rule(*words, verdict, comment=f"{self._label} node port")
            yield Block(self._table(chains.NODEPORT_CONTAINER), (rule,))
        if self._keeps_source:
            yield from super()._served_blocks(frontends)

    def _portal(self, address: Address, verdict: str, what: str) -> Iterator[Block]:
        """Yield the rules for a frontend; for TPROXY, the packets of this node must first be led to PREROUTING."""
        comment = f"{self._label} {what}"
        yield Block(self._table(chains.PORTALS_CONTAINER), (r.rule(*self._to(address), verdict, comment=comment),))
        if not self._translates:
            rule = r.rule(*self._to(address), r.set_mark(self._mark), comment=comment)
            yield Block(chains.mangle(chains.PORTALS_HOST), (rule,))

    def _external_rules(self) -> Iterator[Rule]:
        """Yield the rules for external frontends: which connections the proxy gets; with DNAT, also where others go."""
        node, tcp = self._node, r.protocol(self._port.protocol)
        if not self._is_local:
            yield r.rule(tcp, self._verdict, comment=f"{self._label} from outside, to any node")
            return
        if node.pods is not None:
            words = (chains.from_pods(node.pods), tcp, self._verdict)
            yield r.rule(*words, comment=f"{self._label} from a pod of this node")
        yield r.rule(tcp, r.source_is_local(), self._verdict, comment=f"{self._label} from this node")
        if self._translates:
            yield from self._to_local_pool()

    def _kept_rules(self) -> Iterator[Rule]:
        """Yield the rules in nat for external frontends with TPROXY and the policy Local.

        Packets of this node pass nat before they pass PREROUTING; those to its node ports have no mark yet.
        """
        yield r.rule(r.is_marked(self._mark), r.accept(), comment=f"{self._label} goes to the proxy")
        yield r.rule(r.source_is_local(), r.accept(), comment=f"{self._label} from this node")
        yield from self._to_local_pool()

    def _to_local_pool(self) -> Iterator[Rule]:
        if self._port.external is Delivery.LOCAL:
            yield r.rule(r.jump(self._chains_of[Delivery.LOCAL]), comment=f"{self._label} from outside")

    def _not_accepted(self) -> tuple[str, ...]:
        """Return the matches for packets that do not go to the proxy; TPROXY leaves the destination unchanged."""
        return () if self._translates else (r.is_not_marked(self._mark),)
