"""The virtual servers, set entries and addresses of one Service, and its rules in shared chains."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rulegen.languages.addresses.language import NAME as LINKS
from rulegen.languages.addresses.state import BOUND, AddressKey
from rulegen.languages.ipset import state as ipset
from rulegen.languages.ipset.language import NAME as IPSET
from rulegen.languages.iptables import rules as r
from rulegen.languages.iptables import state as iptables
from rulegen.languages.iptables.language import NAME as IPTABLES
from rulegen.languages.iptables.state import Block
from rulegen.languages.ipvs import state as ipvs
from rulegen.languages.ipvs.language import NAME as IPVS
from rulegen.model.services.ir import Delivery, Semantics, TrafficPolicy
from rulegen.net import Protocol
from rulegen.ownership import chains, ipsets, virtual_servers
from rulegen.plan.fragments import OwnedObjects

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rulegen.model.services.ir import Endpoint, ResolvedNode, ResolvedPort, ResolvedService
    from rulegen.net import Address

_NODE_PORTS = {
    Protocol.TCP: (ipsets.NODE_PORT_TCP, ipsets.NODE_PORT_LOCAL_TCP),
    Protocol.UDP: (ipsets.NODE_PORT_UDP, ipsets.NODE_PORT_LOCAL_UDP),
    Protocol.SCTP: (ipsets.NODE_PORT_SCTP, ipsets.NODE_PORT_LOCAL_SCTP),
}


def compile_service(service: ResolvedService, node: ResolvedNode, *, counts: bool) -> OwnedObjects:  # noqa: ARG001 - counts nothing
    """Return the objects of one Service in the family of `node`.

    Args:
        service: The Service with all decisions taken.
        node: The decisions for all Services in this family.
        counts: Whether rules count with nfacct; no rule of this mode does.
    """
    work = _Service(node)
    for port in service.ports:
        if port.family is node.family:
            work.take(port)
    owner = str(service.name)
    return OwnedObjects(
        owner=owner,
        family=node.family,
        objects={
            IPTABLES: iptables.RulesFragment(owner, node.family, blocks=tuple(work.blocks)),
            IPSET: work.entries,
            IPVS: work.servers,
            LINKS: work.addresses,
        },
    )


class _Service:
    """Collects the objects of all ports of a Service."""

    def __init__(self, node: ResolvedNode) -> None:
        self._node = node
        self._is_strict = node.ipvs.semantics is Semantics.STRICT
        self.entries: ipset.Objects = {}
        self.servers: ipvs.Objects = {}
        self.addresses: dict[AddressKey, object] = {}
        self.blocks: list[Block] = []

    def take(self, port: ResolvedPort) -> None:
        """Add the objects of one port."""
        for endpoint in port.here:
            address = endpoint.address
            self._enter(ipsets.LOOP_BACK, ipset.ip_port_ip(address, port.protocol, endpoint.port, address))
        if port.cluster_ip is not None:
            self._enter(ipsets.CLUSTER_IP, ipset.ip_port(port.cluster_ip, port.protocol, port.port))
            self._serve(port, port.cluster_ip, port.port, self._internal_pool(port))
            self._bind(port.cluster_ip)
            if self._is_strict and port.internal is Delivery.DROP:
                self._refuse(port, port.cluster_ip)
        pool, keeps_source = self._external_pool(port)
        for address in port.external_ips:
            kind = ipsets.EXTERNAL_IP_LOCAL if keeps_source else ipsets.EXTERNAL_IP
            self._enter(kind, ipset.ip_port(address, port.protocol, port.port))
            self._serve_external(port, address, pool)
        for address in port.load_balancer_ips:
            self._load_balancer(port, address, pool, keeps_source=keeps_source)
        has_listeners = self._node_port(port, pool, keeps_source=keeps_source)
        if port.health_check_node_port and (has_listeners or self._is_strict):
            self._enter(ipsets.HEALTH_CHECK_NODE_PORT, ipset.port_entry(port.health_check_node_port))

    def _internal_pool(self, port: ResolvedPort) -> Sequence[Endpoint]:
        """Return the real servers of the ClusterIP.

        Without local endpoints, kube-proxy's ipvs mode falls back to the cluster pool, which is empty for a Service
        without external frontends.
        """
        if port.internal is Delivery.DROP:
            return () if self._is_strict else port.cluster
        return port.local if port.internal is Delivery.LOCAL else port.cluster

    def _external_pool(self, port: ResolvedPort) -> tuple[Sequence[Endpoint], bool]:
        """Return the real servers of external frontends, and whether they see the client's source address.

        With externalTrafficPolicy Local and no local endpoint, the real servers are those of the whole cluster. With
        strict semantics, only this node and its Pods get there, masqueraded. With kube-proxy's semantics, every client
        gets there with its own address, and the reply does not return through this node.
        """
        is_local = port.external_policy is TrafficPolicy.LOCAL
        if port.external is Delivery.LOCAL:
            return port.local, True
        if is_local and port.external is Delivery.DROP and self._is_strict:
            return port.cluster, False
        return port.cluster, is_local

    def _load_balancer(
        self, port: ResolvedPort, address: Address, pool: Sequence[Endpoint], *, keeps_source: bool
    ) -> None:
        entry = ipset.ip_port(address, port.protocol, port.port)
        self._enter(ipsets.LOAD_BALANCER, entry)
        if keeps_source:
            self._enter(ipsets.LOAD_BALANCER_LOCAL, entry)
        if port.source_ranges:
            self._enter(ipsets.LOAD_BALANCER_FW, entry)
            for network in port.source_ranges:
                self._enter(ipsets.SOURCE_CIDR, ipset.ip_port_net(address, port.protocol, port.port, network))
            if port.node_in_source_ranges:
                self._enter(ipsets.SOURCE_IP, ipset.ip_port_ip(address, port.protocol, port.port, address))
            else:
                to = r.virtual_server(address, port.protocol, port.port)
                rule = r.rule(
                    r.source_address(address),
                    to,
                    r.drop(),
                    comment=f"{port.label} this node is not in the source ranges",
                )
                self.blocks.append(Block(chains.filter_(chains.IPVS_OUT_FILTER), (rule,)))
        self._serve_external(port, address, pool)

    def _node_port(self, port: ResolvedPort, pool: Sequence[Endpoint], *, keeps_source: bool) -> bool:
        """Serve the node port. Return False if the Service has a node port and the node has no address for it."""
        if not port.node_port:
            return True
        whole, local = _NODE_PORTS[port.protocol]
        for address in self._node.listening:
            if address in port.node_port_except:
                continue
            entry = (
                ipset.ip_port(address, port.protocol, port.node_port)
                if port.protocol is Protocol.SCTP
                else ipset.port_entry(port.node_port)
            )
            self._enter(whole, entry)
            if keeps_source:
                self._enter(local, entry)
            self._serve(port, address, port.node_port, pool)
            if self._is_dropped_outside(port):
                self._refuse(port, address, port.node_port, from_outside=True)
        return bool(self._node.listening)

    def _serve_external(self, port: ResolvedPort, address: Address, pool: Sequence[Endpoint]) -> None:
        self._serve(port, address, port.port, pool)
        if address not in self._node.addresses:
            self._bind(address)
        if self._is_dropped_outside(port):
            self._refuse(port, address, from_outside=True)

    def _is_dropped_outside(self, port: ResolvedPort) -> bool:
        return self._is_strict and port.external is Delivery.DROP

    def _serve(self, port: ResolvedPort, address: Address, number: int, pool: Sequence[Endpoint]) -> None:
        """Add a virtual server and its real servers."""
        frontend = ipvs.Frontend.of(port.protocol, address, number)
        scheduler = port.scheduler or self._node.ipvs.scheduler
        self.servers[ipvs.VirtualServerKey(frontend)] = ipvs.VirtualServer(
            scheduler=scheduler,
            persistence_s=port.affinity_s,
            scheduler_flags=ipvs.MH_PORT if scheduler == "mh" else 0,
        )
        for endpoint in pool:
            key = ipvs.RealServerKey(frontend, endpoint.address, endpoint.port)
            self.servers[key] = ipvs.RealServer(endpoint.weight)

    def _bind(self, address: Address) -> None:
        self._enter(ipsets.IPVS_IPS, str(address))
        self.addresses[AddressKey.whole(virtual_servers.DEVICE, address)] = BOUND

    def _enter(self, kind: str, entry: str) -> None:
        self.entries[ipset.EntryKey(ipsets.name_of(kind, self._node.family), entry)] = ipset.PLAIN

    def _refuse(self, port: ResolvedPort, address: Address, number: int = 0, *, from_outside: bool = False) -> None:
        """Drop connections that a Local traffic policy keeps on this node, which has no endpoint for them."""
        words = []
        if from_outside and self._node.pods is not None:
            words.append(chains.not_from_pods(self._node.pods))
        to = (
            r.destination_address(address),
            r.protocol(port.protocol),
            r.destination_port(port.protocol, number or port.port),
        )
        if words and words[0].startswith("! -i"):
            words = [to[0], words[0], *to[1:]]
        else:
            words += to
        outside = [r.source_is_not_local()] if from_outside else []
        rule = r.rule(*words, *outside, r.drop(), comment=f"{port.label} has no local endpoints")
        self.blocks.append(Block(chains.filter_(chains.IPVS_POLICY), (rule,)))
