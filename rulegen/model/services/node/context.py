"""Node-wide decisions: masquerading, addresses of node ports, recognition of Pod traffic, kernel parameters."""

from __future__ import annotations

import re
from contextlib import suppress
from ipaddress import IPv4Network, IPv6Network, collapse_addresses
from types import MappingProxyType
from typing import TYPE_CHECKING

import msgspec

from rulegen.model.forbidden import NOTHING, Forbidden, forbidden
from rulegen.model.host.facts import HostFacts
from rulegen.model.services.endpoints import Topology
from rulegen.model.services.ir import (
    ConnectionProxy,
    IpvsOptions,
    Masquerade,
    PodInterface,
    PodNetwork,
    PodTraffic,
    ResolvedNode,
    Semantics,
)
from rulegen.model.services.limits import ServiceLimits
from rulegen.model.services.options import DetectLocalMode, Options
from rulegen.net import Address, Family, Network, family_of, parse_address, parse_network

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from rulegen.kube.objects import structs

ZONE_LABEL = "topology.kubernetes.io/zone"
ROUTE_LOCALNET = "net.ipv4.conf.all.route_localnet"
PROXY_PORT = 10261
PROXY_TABLE = 10261
PROXY_BITS = (13, 12)
"""The bit of the mark of packets for the proxy, and the one that is used if that bit requests masquerading."""
_KERNEL = re.compile(r"(\d+)\.(\d+)")
_REUSE_SINCE, _REUSE_UNTIL = (4, 1), (5, 9)
_FIRST_IS_UNICAST_SINCE = (5, 14)
BE_LIBERAL = "net.netfilter.nf_conntrack_tcp_be_liberal"


class NodeContext(msgspec.Struct, frozen=True, kw_only=True):
    """The node that Services are resolved for.

    Attributes:
        place: Name and zone of the node.
        addresses: The node's primary address of each family; the loopback address if unknown.
        external_ips: Whether spec.externalIPs is served.
        schedulers: IPVS schedulers that this kernel offers; None if unknown.
        scheduler: Default IPVS scheduler of Services; empty in a mode without virtual servers.
        broadcasts: Broadcast addresses of this node's networks. IPVS rejects them as real servers.
        others: Known addresses of the cluster's other Nodes, each with the name of its Node.
        binds_others: Whether a Service's external address is bound even if it is in `others`, as kube-proxy does.
        binds: Whether external addresses of Services are bound to this node, as in ipvs mode.
        proxies: Whether a proxy of this node serves all Services, as in userspace mode.
        has_proxy: Whether this node can have a proxy; if not, Services that ask for one do not get it.
        limits: Limits of one Service.
        forbidden: Addresses of the node and its networks that a Service may not use; without those of API servers.
        guards: Whether an external address that is not the Service's to use is ignored. Otherwise it is served, with
            a warning.
    """

    place: Topology
    addresses: Mapping[Family, Address]
    external_ips: bool
    schedulers: frozenset[str] | None = None
    scheduler: str = ""
    broadcasts: frozenset[Address] = frozenset()
    others: Mapping[Address, str] = msgspec.field(default_factory=lambda: MappingProxyType({}))
    binds_others: bool = True
    binds: bool = False
    proxies: bool = False
    has_proxy: bool = True
    limits: ServiceLimits = msgspec.field(default_factory=ServiceLimits)
    forbidden: Forbidden = NOTHING
    guards: bool = False


def resolve_site(
    node: structs.Node | None,
    name: str,
    options: Options,
    facts: HostFacts | None = None,
    nodes: Iterable[structs.Node] = (),
) -> NodeContext:
    """Return the context of the node `name`.

    Args:
        node: Its Node object; None if there is none.
        name: Its name.
        options: The configuration.
        facts: Facts of the host; None if unknown.
        nodes: All known Node objects.
    """
    zone = node.metadata.labels.get(ZONE_LABEL, "") if node else ""
    primary = primary_addresses(node, options)
    loopback = {Family.IPV4: parse_address("127.0.0.1"), Family.IPV6: parse_address("::1")}
    addresses = {family: primary[family] or loopback[family] for family in Family}
    schedulers = facts.schedulers if facts is not None else None
    known = tuple(nodes)
    return NodeContext(
        place=Topology(name, zone),
        addresses=addresses,
        external_ips=options.external_ips,
        schedulers=schedulers,
        scheduler=options.ipvs_scheduler if options.needs.has_virtual_servers else "",
        broadcasts=_broadcasts(facts) if facts is not None and options.needs.has_virtual_servers else frozenset(),
        others=_others(known, name),
        binds_others=options.ipvs_semantics is not Semantics.STRICT,
        binds=options.needs.has_virtual_servers,
        proxies=options.needs.has_proxy,
        has_proxy=facts is None or facts.has_proxy,
        limits=options.limits,
        forbidden=forbidden(facts or HostFacts(), node, pod_networks=_pod_networks(options, known)),
        guards=options.external_ip_semantics is Semantics.STRICT,
    )


def _pod_networks(options: Options, nodes: Iterable[structs.Node]) -> tuple[Network, ...]:
    """Return the Pod networks of the configuration and of all Nodes; adjacent prefixes are merged."""
    networks = list(options.cluster_cidrs)
    for node in nodes:
        for cidr in node.spec.pod_cidrs or ((node.spec.pod_cidr,) if node.spec.pod_cidr else ()):
            with suppress(ValueError):  # the decoder has already reported the invalid text
                networks.append(parse_network(cidr))
    v4 = [network for network in networks if isinstance(network, IPv4Network)]
    v6 = [network for network in networks if isinstance(network, IPv6Network)]
    return (*collapse_addresses(v4), *collapse_addresses(v6))


def _others(nodes: Iterable[structs.Node], name: str) -> dict[Address, str]:
    """Return the addresses of all Nodes except `name`, each with the name of its Node."""
    others: dict[Address, str] = {}
    for node in nodes:
        for known in node.status.addresses if node.metadata.name != name else ():
            if known.type in {"InternalIP", "ExternalIP"}:
                with suppress(ValueError):  # the decoder has already reported the invalid text
                    others.setdefault(parse_address(known.address), node.metadata.name)
    return others


def primary_addresses(node: structs.Node | None, options: Options) -> dict[Family, Address | None]:
    """Return the node's primary address of each family, from bindAddress, else its Node object; None if neither."""
    known = {family: _node_address(node, family) for family in Family}
    if options.bind_address is not None:
        known[family_of(options.bind_address)] = options.bind_address
    return known


def resolve_node(
    family: Family,
    site: NodeContext,
    node: structs.Node | None,
    options: Options,
    facts: HostFacts,
    warn: Callable[[str], None],
    service_cidrs: Iterable[str] = (),
) -> ResolvedNode:
    """Return the decisions that apply to all Services in one family; `service_cidrs` are the ranges of ClusterIPs."""
    pods = _pod_traffic(family, node, options)
    networks = _node_port_networks(family, site, node, options)
    if networks == ():
        warn(
            f"nodePortAddresses is primary, but no address of the Node {site.place.node!r} is known: node ports accept"
            " no connections"
        )
    chosen_addresses = _node_port_addresses(family, options, networks, facts)
    own = tuple(facts.addresses(family))
    is_liberal = _sets_liberal(options, facts) or facts.sysctls.get(BE_LIBERAL, "0") != "0"
    if options.conntrack_be_liberal and not is_liberal:
        warn(f"conntrack.tcpBeLiberal: {BE_LIBERAL} cannot be set here, so the rule that drops INVALID packets stays")
    return ResolvedNode(
        family=family,
        masquerade_mark=1 << options.masquerade_bit,
        masquerade_cluster_ip=(
            Masquerade.ALWAYS if options.masquerade_all else Masquerade.OFF_CLUSTER if pods else Masquerade.NEVER
        ),
        pods=pods,
        node_port_addresses=chosen_addresses,
        localhost_node_ports=_localhost_node_ports(family, options, networks),
        drop_invalid=not is_liberal,
        random_fully=facts.random_fully,
        addresses=frozenset(a for a in own if not (a.version == 6 and a.is_link_local)),
        listening=tuple(
            a
            for a in (own if chosen_addresses is None else chosen_addresses)
            if not _has_no_node_ports(a, chosen=chosen_addresses)
        ),
        link_local_node_ports=not options.needs.has_virtual_servers or chosen_addresses is not None,
        ipvs=IpvsOptions(
            scheduler=options.ipvs_scheduler,
            excluded=tuple(n for n in options.ipvs_excluded if family_of(n) is family),
            semantics=options.ipvs_semantics,
        ),
        proxy=_proxy(options, site.addresses[family], own, family),
        service_networks=_of_family(service_cidrs, options, family) if options.needs.drops_unused_cluster_ips else (),
        nft_extras=tuple(sorted(options.nft_extras)) if options.needs.uses_nft else (),
    )


def _of_family(cidrs: Iterable[str], options: Options, family: Family) -> tuple[Network, ...]:
    """Return the valid ranges of ClusterIPs of a family, sorted; those of the options if there are none."""
    networks = set()
    for cidr in cidrs:
        with suppress(ValueError):  # the decoder has already reported the invalid text
            networks.add(parse_network(cidr))
    known = networks or options.service_networks
    return tuple(sorted(network for network in known if family_of(network) is family))


def _proxy(options: Options, primary: Address, own: tuple[Address, ...], family: Family) -> ConnectionProxy:
    """Return the proxy; its mark differs from the one that requests masquerading.

    The primary address of the node is used if the host has it, else the first address of the host.
    """
    bit = next(bit for bit in PROXY_BITS if bit != options.masquerade_bit)
    usable = [address for address in own if not (address.is_loopback or address.is_link_local)]
    address = primary if primary in usable else next(iter(usable), None)
    return ConnectionProxy(
        port=PROXY_PORT,
        mark=1 << bit,
        table=PROXY_TABLE,
        address=address,
        translates=family is Family.IPV4 and not options.needs.uses_nft,
    )


def resolve_sysctls(nodes: Iterable[ResolvedNode], options: Options, facts: HostFacts) -> dict[str, str]:
    """Return the kernel parameters that these decisions need, each with its value."""
    liberal = {BE_LIBERAL: "1"} if _sets_liberal(options, facts) else {}
    if options.needs.has_virtual_servers:
        return {**_ipvs_sysctls(options, facts), **liberal}
    return {**({ROUTE_LOCALNET: "1"} if any(node.localhost_node_ports for node in nodes) else {}), **liberal}


def _sets_liberal(options: Options, facts: HostFacts) -> bool:
    """Whether nf_conntrack_tcp_be_liberal is set to 1: it is configured, and this host can set it.

    The rule that drops INVALID packets is omitted only if this parameter is set. Without both, a packet out of the TCP
    window reaches the client with the endpoint's address and resets the connection (kubernetes/kubernetes#74839).
    """
    return options.conntrack_be_liberal and BE_LIBERAL not in facts.fixed_sysctls


def _ipvs_sysctls(options: Options, facts: HostFacts) -> dict[str, str]:
    """Return the parameters of ipvs mode.

    conntrack must track IPVS connections, so that they can be masqueraded. Connections to a removed real server must
    expire. Kernels from 4.1 to before 5.9 delay a new connection from a reused port by a second unless conn_reuse_mode
    is 0 (kubernetes/kubernetes#81775); kernels before 4.1 do not have this parameter.
    """
    wanted = {
        "net.ipv4.vs.conntrack": "1",
        "net.ipv4.vs.expire_nodest_conn": "1",
        "net.ipv4.vs.expire_quiescent_template": "1",
        "net.ipv4.ip_forward": "1",
    }
    version = _KERNEL.match(facts.kernel)
    if version and _REUSE_SINCE <= (int(version[1]), int(version[2])) < _REUSE_UNTIL:
        wanted["net.ipv4.vs.conn_reuse_mode"] = "0"
    if options.ipvs_strict_arp:
        wanted |= {"net.ipv4.conf.all.arp_ignore": "1", "net.ipv4.conf.all.arp_announce": "2"}
    return wanted


def _broadcasts(facts: HostFacts) -> frozenset[Address]:
    """Return the IPv4 broadcast addresses of the node's networks; before Linux 5.14 also their first addresses."""
    version = _KERNEL.match(facts.kernel)
    is_old = version is not None and (int(version[1]), int(version[2])) < _FIRST_IS_UNICAST_SINCE
    networks = [
        IPv4Network((address, length), strict=False)
        for interface in facts.interfaces
        for address, length in interface.addresses
        if address.version == 4 and length < 31
    ]
    first = (network.network_address for network in networks) if is_old else ()
    return frozenset((*(network.broadcast_address for network in networks), *first))


def _node_address(node: structs.Node | None, family: Family) -> Address | None:
    """Return the first InternalIP of the family, else the first ExternalIP."""
    for kind in ("InternalIP", "ExternalIP"):
        for entry in node.status.addresses if node else ():
            if entry.type == kind:
                try:
                    address = parse_address(entry.address)
                except ValueError:
                    continue  # the decoder has already reported the invalid text
                if family_of(address) is family:
                    return address
    return None


def _pod_traffic(family: Family, node: structs.Node | None, options: Options) -> PodTraffic | None:
    match options.detect_local_mode:
        case DetectLocalMode.CLUSTER_CIDR:
            return _first_network(options.cluster_cidrs, family)
        case DetectLocalMode.NODE_CIDR:
            if node is None:
                return None
            cidrs = node.spec.pod_cidrs or ((node.spec.pod_cidr,) if node.spec.pod_cidr else ())
            return _first_network([parse_network(cidr) for cidr in cidrs], family)
        case DetectLocalMode.BRIDGE_INTERFACE:
            return PodInterface(options.bridge_interface) if options.bridge_interface else None
        case DetectLocalMode.INTERFACE_NAME_PREFIX:
            return PodInterface(options.interface_name_prefix, prefix=True) if options.interface_name_prefix else None


def _first_network(networks: Iterable[Network], family: Family) -> PodNetwork | None:
    return next((PodNetwork(network) for network in networks if family_of(network) is family), None)


def _node_port_networks(
    family: Family, site: NodeContext, node: structs.Node | None, options: Options
) -> tuple[Network, ...] | None:
    """Return the networks of one family that node ports are restricted to; None for all addresses.

    `nodePortAddresses: primary` gives the network of the primary address alone. If the Node has addresses, but none of
    this family, node ports are not restricted in this family, as in kube-proxy. If no address of the Node is known, the
    result is empty: node ports accept no connections.
    """
    if not options.node_port_primary:
        return tuple(network for network in options.node_port_networks if family_of(network) is family) or None
    primary = site.addresses[family]
    if not primary.is_loopback:
        return (parse_network(f"{primary}/{primary.max_prefixlen}"),)
    is_bound = options.bind_address is not None and family_of(options.bind_address) is family
    has_addresses = any(_node_address(node, each) is not None for each in Family)
    return None if is_bound or has_addresses else ()


def _node_port_addresses(
    family: Family, options: Options, networks: tuple[Network, ...] | None, facts: HostFacts
) -> tuple[Address, ...] | None:
    """Return the addresses of the host that accept connections to node ports; None for all local addresses.

    If all configured networks are of the other family, all addresses of this family accept them, as in kube-proxy.
    """
    if networks is None or any(network.prefixlen == 0 for network in networks):
        return None
    listens_on_loopback = _localhost_node_ports(family, options, networks)
    return tuple(
        address
        for address in facts.addresses(family)
        if (listens_on_loopback or not address.is_loopback)
        and (any(address in network for network in networks) or (options.has_localhost_extra and address.is_loopback))
    )


def _has_no_node_ports(address: Address, *, chosen: tuple[Address, ...] | None) -> bool:
    """Whether ipvs mode serves no node ports on an address: loopback, or IPv6 link-local that is not configured."""
    return address.is_loopback or (address.version == 6 and address.is_link_local and chosen is None)


def _localhost_node_ports(family: Family, options: Options, networks: tuple[Network, ...] | None) -> bool:
    """Whether node ports answer on 127.0.0.0/8. They never answer on ::1: the kernel does not route from it."""
    return family is Family.IPV4 and options.opens_loopback(networks)
