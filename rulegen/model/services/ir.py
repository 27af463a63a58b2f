"""The model (IR): all decisions about the Services of a node.

A backend translates the model. It never reads a Kubernetes object, a condition of an endpoint or a traffic policy.
Terms: a *frontend* is an address and port that clients connect to; a *pool* is a set of endpoints; a *delivery* is the
decision for new connections to a frontend.
"""

from __future__ import annotations

import enum
from types import MappingProxyType
from typing import TYPE_CHECKING

import msgspec

from rulegen.net import Address, AddressKind, Family, Network, Protocol, address_text, kind_of_address, parse_address

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rulegen.kube.objects.names import ObjectName


class Delivery(enum.Enum):
    """The decision for new connections to a frontend."""

    CLUSTER = "cluster"
    """Sent to an endpoint of the cluster pool."""
    LOCAL = "local"
    """Sent to an endpoint of the local pool."""
    REJECT = "reject"
    """Rejected: the Service has no endpoints."""
    DROP = "drop"
    """Dropped: the Service has endpoints, but its traffic policy is Local and none is on this node."""

    __hash__ = object.__hash__  # faster than Enum's; each member is one object

    @property
    def has_pool(self) -> bool:
        """Whether connections are sent to endpoints."""
        return self is Delivery.CLUSTER or self is Delivery.LOCAL


class TrafficPolicy(enum.Enum):
    """A traffic policy (KEP-2086, KEP-2138)."""

    CLUSTER = "Cluster"
    LOCAL = "Local"


class Masquerade(enum.Enum):
    """Which connections to ClusterIPs are masqueraded."""

    NEVER = "never"
    OFF_CLUSTER = "off-cluster"
    """Connections that do not match `ResolvedNode.pods`."""
    ALWAYS = "always"


class PodNetwork(msgspec.Struct, frozen=True):
    """Traffic with a source address in this network comes from Pods."""

    network: Network


class PodInterface(msgspec.Struct, frozen=True):
    """Traffic received on this interface comes from Pods; with `prefix`, on any interface whose name starts with it."""

    name: str
    prefix: bool = False


PodTraffic = PodNetwork | PodInterface


class Endpoint(msgspec.Struct, frozen=True, gc=False):
    """An endpoint of a port.

    Attributes:
        host: The address as text, in documents `address`.
        text: Address and port as text; kube-proxy sorts and hashes by this text.
        weight: Its share of new connections, relative to the weights of the other endpoints.
    """

    host: str = msgspec.field(name="address")
    port: int
    text: str
    weight: int = 1

    @classmethod
    def of(cls, address: Address, port: int, weight: int = 1) -> Endpoint:
        """Return the endpoint with its texts, such as `10.0.0.1:80` or `[fd00::1]:80`."""
        return cls.at(address_text(address), port, weight)

    @classmethod
    def at(cls, host: str, port: int, weight: int = 1) -> Endpoint:
        """Return the endpoint at an address in the spelling of `address_text`."""
        return cls(host, port, f"[{host}]:{port}" if ":" in host else f"{host}:{port}", weight)

    @property
    def address(self) -> Address:
        """The address; most modes need only its text."""
        return parse_address(self.host)


class ResolvedPort(msgspec.Struct, frozen=True, kw_only=True):
    """One port of a Service in one family, resolved for this node.

    Attributes:
        service: Namespace and name of the Service.
        name: The port's name; empty if it has none.
        cluster_ip: The ClusterIP; None if an older Service has claimed the address and port.
        internal: Delivery of connections to the ClusterIP.
        external: Delivery of connections from outside to an external frontend. Connections from this node and its Pods
            go to the cluster pool if the port has endpoints, regardless of the traffic policy (KEP-3178).
        external_policy: CLUSTER: all external connections are masqueraded. LOCAL: the client's address is kept.
        has_endpoints: Whether the port has a usable endpoint on any node.
        cluster, local: The pools, sorted by text.
        endpoints: The union of both pools, sorted by text.
        here: All endpoints on this node, regardless of conditions and policies: an endpoint may connect to itself.
        serving: Texts of all serving endpoints of a UDP port, on all nodes. Conntrack entries to these are kept,
            regardless of the pools.
        external_ips, load_balancer_ips: External frontends on the Service's port.
        node_port: External frontend on the node's addresses; 0 for none.
        node_port_except: Addresses of the node on which an older Service owns this port.
        source_ranges: Clients that may connect to load balancer IPs; empty for all.
        node_in_source_ranges: Whether the node's address is in `source_ranges`. Packets from the node to a load
            balancer IP that loop back have this IP as source address, and are then allowed too.
        affinity_s: Timeout of session affinity in seconds; None for no affinity.
        health_check_node_port: TCP port for health checks of load balancers; 0 for none.
        scheduler: The IPVS scheduler; empty for the node's default.
        ready_here: Addresses of ready endpoints on this node; empty without `health_check_node_port`. Terminating
            endpoints are not counted, so that load balancers choose other nodes.
        is_proxied: Whether the proxy of this node serves TCP and UDP to the cluster pool: the mode has one, or the
            Service asks for it.
    """

    service: ObjectName
    name: str
    protocol: Protocol
    family: Family
    port: int
    cluster_ip: Address | None
    internal: Delivery
    external: Delivery
    external_policy: TrafficPolicy
    has_endpoints: bool
    cluster: tuple[Endpoint, ...] = ()
    local: tuple[Endpoint, ...] = ()
    endpoints: tuple[Endpoint, ...] = ()
    here: tuple[Endpoint, ...] = ()
    serving: frozenset[str] = frozenset()
    external_ips: tuple[Address, ...] = ()
    load_balancer_ips: tuple[Address, ...] = ()
    node_port: int = 0
    node_port_except: frozenset[Address] = frozenset()
    source_ranges: tuple[Network, ...] = ()
    node_in_source_ranges: bool = False
    affinity_s: int | None = None
    health_check_node_port: int = 0
    scheduler: str = ""
    ready_here: frozenset[Address] = frozenset()
    is_proxied: bool = False

    @property
    def label(self) -> str:
        """`namespace/name:port`, or `namespace/name` for a port without a name; kube-proxy hashes this text."""
        return f"{self.service.namespace}/{self.service.name}" + (f":{self.name}" if self.name else "")

    @property
    def is_external(self) -> bool:
        """Whether the port has an external frontend."""
        return bool(self.node_port or self.external_ips or self.load_balancer_ips)


class LimitKind(enum.StrEnum):
    """A limit of one Service."""

    ENDPOINTS = "endpoints"
    FRONTENDS = "frontends"
    SOURCE_RANGES = "source_ranges"

    @property
    def option(self) -> str:
        """The command line option that sets the limit."""
        return "--max-service-endpoints" if self is LimitKind.ENDPOINTS else "--max-service-frontends"


class OverLimit(msgspec.Struct, frozen=True):
    """A limit that a Service exceeds, so that it is served in part.

    Attributes:
        kind: The limit.
        family: The family in which it is exceeded.
        text: The warning: what the Service has, and which part is served.
    """

    kind: LimitKind
    family: Family
    text: str


class ResolvedService(msgspec.Struct, frozen=True, kw_only=True):
    """A Service as this node serves it.

    Attributes:
        ports: The ports, one entry for each family; sorted by family, then in the order of the Service.
        endpoints_from: The kind of object that endpoints were read from: `EndpointSlice`, `Endpoints` or `Pods`; or
            empty.
        assigned: Values that were assigned for a preview only.
        over: The limits that the Service exceeds.
    """

    name: ObjectName
    type: str
    ports: tuple[ResolvedPort, ...]
    endpoints_from: str = ""
    assigned: tuple[str, ...] = ()
    over: tuple[OverLimit, ...] = ()


class Semantics(enum.StrEnum):
    """Behaviour in cases where kube-proxy does not check for conflicts, or where its modes differ."""

    KUBE_PROXY = "kube-proxy"
    """The same as kube-proxy."""
    STRICT = "strict"
    """As Kubernetes documents it, as far as the mode can; no Service gets an address of another owner."""


class IpvsOptions(msgspec.Struct, frozen=True, kw_only=True):
    """Node-wide options of ipvs mode.

    Attributes:
        scheduler: The default scheduler.
        excluded: Prefixes of virtual servers that belong to other programs (`ipvs.excludeCIDRs`).
        semantics: Behaviour where kube-proxy's ipvs mode differs from its other modes.
    """

    scheduler: str = "rr"
    excluded: tuple[Network, ...] = ()
    semantics: Semantics = Semantics.KUBE_PROXY


class ConnectionProxy(msgspec.Struct, frozen=True):
    """The proxy of the node, which accepts connections and datagrams, and chooses their endpoints.

    Attributes:
        port: The port of its listener. Connections to it are only accepted if a rule has led them there.
        address: An address of the node to which TCP connections over IPv4 are translated; None if the node has none but
            loopback addresses.
        translates: Whether TCP connections are translated to `address`. Otherwise their packets get the mark: over
            IPv6, and beside a mode whose own translation does not come after that of iptables.
        mark: The bit of the packet mark of packets that are delivered to it whatever their destination (UDP, IPv6).
        table: The number of the routing table for these packets, and the priority of the rule that leads there.
    """

    port: int
    mark: int
    table: int
    address: Address | None = None
    translates: bool = False


class NftExtra(enum.StrEnum):
    """What kube-proxy does in iptables mode but not in nftables mode; for layout `flat`."""

    DROP_INVALID = "drop-invalid"
    """Drop forwarded packets in conntrack state INVALID."""
    HEALTH_PORTS = "health-ports"
    """Accept connections to the health check ports of Services."""
    LOCALHOST_NODE_PORTS = "localhost-node-ports"
    """Node ports answer on 127.0.0.1, which needs route_localnet."""


class ResolvedNode(msgspec.Struct, frozen=True, kw_only=True):
    """The decisions for all Services on this node, in one family.

    Attributes:
        masquerade_mark: The bit of the packet mark that requests masquerading.
        masquerade_cluster_ip: Which connections to ClusterIPs are masqueraded.
        pods: How to recognise traffic from Pods of this node; None if impossible.
        node_port_addresses: Addresses on which node ports answer; None for all local addresses.
        localhost_node_ports: Whether node ports answer on the loopback prefix; never in ipvs mode.
        drop_invalid: Whether forwarded packets in conntrack state INVALID are dropped. Otherwise a packet out of the
            TCP window could reach the client untranslated, and the client would reset its connection.
        random_fully: Whether masquerading chooses random source ports, which avoids races between CPUs.
        addresses: All addresses of this node, without those of Services and without IPv6 link-local addresses.
        listening: The addresses of node ports as a list, without loopback addresses; IPv6 link-local addresses only if
            configured.
        link_local_node_ports: Whether node ports answer on IPv6 link-local addresses; in ipvs mode only on configured
            ones.
        ipvs: Options of ipvs mode.
        proxy: The proxy, which serves all Services in a mode that has one, else those that ask for it.
        service_networks: The ranges of ClusterIPs, if the mode drops connections to addresses in them that no Service
            has; empty if unknown.
        nft_extras: The rules of nftables mode that kube-proxy's does not have, sorted; only in that mode.
    """

    family: Family
    masquerade_mark: int
    masquerade_cluster_ip: Masquerade
    pods: PodTraffic | None
    node_port_addresses: tuple[Address, ...] | None
    localhost_node_ports: bool
    drop_invalid: bool
    random_fully: bool
    addresses: frozenset[Address] = frozenset()
    listening: tuple[Address, ...] = ()
    link_local_node_ports: bool = True
    ipvs: IpvsOptions = IpvsOptions()
    proxy: ConnectionProxy | None = None
    service_networks: tuple[Network, ...] = ()
    nft_extras: tuple[NftExtra, ...] = ()

    def answers_node_ports(self, address: Address) -> bool:
        """Whether node ports answer on this address of the node (of this family)."""
        if self.node_port_addresses is not None and address not in self.node_port_addresses:
            return False
        match kind_of_address(address):
            case AddressKind.LOOPBACK:
                return self.localhost_node_ports
            case AddressKind.LINK_LOCAL:
                return self.link_local_node_ports or self.family is Family.IPV4
            case _:
                return True


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """All decisions for one node.

    Attributes:
        node_name: The node's name.
        nodes: Node-wide decisions, for each family that is served.
        services: The Services, sorted by name.
        sysctls: Kernel parameters that must have these values.
        timeouts: IPVS timeouts of TCP, TCP after FIN, and UDP, in seconds; 0 leaves a timeout unchanged.
        warnings: Warnings for the user.
    """

    node_name: str
    nodes: Mapping[Family, ResolvedNode]
    services: Mapping[ObjectName, ResolvedService] = msgspec.field(default_factory=lambda: MappingProxyType({}))
    sysctls: Mapping[str, str] = msgspec.field(default_factory=lambda: MappingProxyType({}))
    timeouts: tuple[int, int, int] = (0, 0, 0)
    warnings: tuple[str, ...] = ()
