"""The model (IR): every decision about a node's Services, taken; nothing left to ask.

A backend reads it and expresses it. It never looks at a Kubernetes object, a condition of an endpoint or a traffic
policy. The words: a *frontend* is an address and port that packets are sent to; a *pool* is a set of endpoints; a
*delivery* says what happens to a new connection that reached a frontend.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

import msgspec

from rulegen.net import Address, AddressKind, Family, Network, Protocol, join_host_port, kind_of_address

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rulegen.kube.objects.names import ObjectName


class Delivery(enum.Enum):
    """What happens to a new connection to a frontend."""

    CLUSTER = "cluster"
    """An endpoint of the cluster pool gets it."""
    LOCAL = "local"
    """An endpoint of the local pool gets it."""
    REJECT = "reject"
    """It is rejected at once: the Service has no endpoints anywhere."""
    DROP = "drop"
    """It is dropped: the Service has endpoints, but its policy allows none that this node has."""

    @property
    def has_pool(self) -> bool:
        """Whether some endpoint gets the connection."""
        return self is Delivery.CLUSTER or self is Delivery.LOCAL


class TrafficPolicy(enum.Enum):
    """A traffic policy (KEP-2086, KEP-2138)."""

    CLUSTER = "Cluster"
    LOCAL = "Local"


class Masquerade(enum.Enum):
    """Which connections to a ClusterIP have their source rewritten to the node's."""

    NEVER = "never"
    OFF_CLUSTER = "off-cluster"
    """Those that do not come from a pod of this node, see `ResolvedNode.pods`."""
    ALWAYS = "always"


@dataclass(frozen=True, slots=True)
class PodNetwork:
    """Traffic of this node's pods is told by its source address."""

    network: Network


@dataclass(frozen=True, slots=True)
class PodInterface:
    """Traffic of this node's pods is told by the interface it comes in on; `prefix` means any that starts so."""

    name: str
    prefix: bool = False


PodTraffic = PodNetwork | PodInterface


class Endpoint(msgspec.Struct, frozen=True, gc=False):
    """Where a connection can end.

    Attributes:
        text: Address and port, by which kube-proxy sorts and hashes.
        weight: Its share of new connections, beside the weights of the others.
    """

    address: Address
    port: int
    text: str
    weight: int = 1

    @classmethod
    def of(cls, address: Address, port: int, weight: int = 1) -> Endpoint:
        """Return the endpoint with its text, `10.0.0.1:80` or `[fd00::1]:80`."""
        return cls(address, port, join_host_port(address, port), weight)

    @property
    def host(self) -> str:
        """The address as text, without the brackets of IPv6."""
        return self.text.rpartition(":")[0].strip("[]")


class ResolvedPort(msgspec.Struct, frozen=True, kw_only=True):
    """One port of a Service in one family, decided for this node.

    Attributes:
        service: Namespace and name of the Service.
        name: The port's name; empty if it has none.
        cluster_ip: None where an older Service has claimed address and port.
        internal: Delivery of connections to the ClusterIP.
        external: Delivery of connections from outside to an external frontend. Those from this node and its pods go to
            the cluster pool whenever there is an endpoint (KEP-3178), whatever the policy.
        external_policy: CLUSTER: all external connections are masqueraded. LOCAL: the client's address is kept.
        has_endpoints: Whether anything serves this port anywhere.
        cluster, local: The pools, sorted by text.
        endpoints: Both pools together, sorted by text, each once.
        here: Every endpoint on this node, whatever its state and the policies: one may still talk to itself.
        serving: Text of every endpoint of a UDP port that serves at all, here or elsewhere: a client that is with one
            of them may stay, whatever the pools say now.
        external_ips, load_balancer_ips: External frontends on the Service's port.
        node_port: External frontend on the node's addresses; 0 for none.
        node_port_except: Addresses of the node on which an older Service has that number as its own.
        source_ranges: Who may use the load balancer's addresses; empty for everybody.
        node_in_source_ranges: Whether the node itself may, so that its packets to the VIP, which loop back with the
            VIP as source, are let in too.
        affinity_s: Seconds a client stays with its endpoint after its last connection; None for no affinity.
        health_check_node_port: TCP port that a load balancer requests health; 0 for none.
        scheduler: How IPVS spreads connections; empty for as the node has it.
        ready_here: Addresses of endpoints on this node that are ready, where there is such a port: those that terminate
            are still sent what comes, but a load balancer is to go elsewhere.
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

    @property
    def label(self) -> str:
        """`namespace/name:port`, or `namespace/name` for a port without name, as kube-proxy prints and hashes it."""
        return f"{self.service.namespace}/{self.service.name}" + (f":{self.name}" if self.name else "")

    @property
    def is_external(self) -> bool:
        """Whether it has a frontend beside the ClusterIP."""
        return bool(self.node_port or self.external_ips or self.load_balancer_ips)


class LimitKind(enum.StrEnum):
    """What a Service has too many of; the option that raises the limit."""

    ENDPOINTS = "endpoints"
    FRONTENDS = "frontends"
    SOURCE_RANGES = "source_ranges"

    @property
    def option(self) -> str:
        """The option of the command line that raises the limit."""
        return "--max-service-endpoints" if self is LimitKind.ENDPOINTS else "--max-service-frontends"


@dataclass(frozen=True, slots=True)
class OverLimit:
    """That a Service is served in part.

    Attributes:
        kind: What it has too many of.
        family: In which family.
        text: What it has, and which part is served.
    """

    kind: LimitKind
    family: Family
    text: str


class ResolvedService(msgspec.Struct, frozen=True, kw_only=True):
    """A Service as this node serves it.

    Attributes:
        ports: Of both families, in the order of the Service's ports.
        endpoints_from: Where its endpoints came from: `EndpointSlice`, `Endpoints`, `Pods`, or empty.
        assigned: What was assigned for a preview only.
        over: What of it is over a limit and not served.
    """

    name: ObjectName
    type: str
    ports: tuple[ResolvedPort, ...]
    endpoints_from: str = ""
    assigned: tuple[str, ...] = ()
    over: tuple[OverLimit, ...] = ()


class Semantics(enum.StrEnum):
    """What is made of a Service where kube-proxy leaves something open, or is at odds with its own other modes."""

    KUBE_PROXY = "kube-proxy"
    """The same as kube-proxy."""
    STRICT = "strict"
    """What Kubernetes promises, as far as the mode can; nobody gets what is another's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IpvsOptions:
    """What is wanted of IPVS as a whole.

    Attributes:
        scheduler: How connections are spread where a Service says nothing.
        excluded: Prefixes with virtual servers that are not ours.
        semantics: Whose semantics.
    """

    scheduler: str = "rr"
    excluded: tuple[Network, ...] = ()
    semantics: Semantics = Semantics.KUBE_PROXY


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedNode:
    """What holds for all Services on this node, in one family.

    Attributes:
        masquerade_mark: The packet mark, one bit, that requests masquerading.
        masquerade_cluster_ip: Which connections to ClusterIPs are masqueraded.
        pods: How traffic of this node's pods is told; None if it cannot be.
        node_port_addresses: Addresses that node ports listen on; None for every local address.
        localhost_node_ports: Whether node ports answer on the loopback prefix; never in ipvs mode.
        drop_invalid: Whether forwarded packets that conntrack calls INVALID are dropped (else a reset out of the
            window would reach a client behind the NAT and kill its connection).
        random_fully: Whether masquerading picks source ports at random, which avoids races between CPUs.
        addresses: All addresses of this node, those of Services and link-local ones of IPv6 apart.
        listening: Those that node ports are reached on, one by one; loopback ones are not among them, and link-local
            ones of IPv6 only where the configuration names them.
        link_local_node_ports: Whether node ports answer on link-local addresses of IPv6: in ipvs mode only on those
            that the configuration names.
        ipvs: What holds in ipvs mode only.
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

    def answers_node_ports(self, address: Address) -> bool:
        """Whether a packet to one of the node's own addresses of this family gets to a node port there."""
        if self.node_port_addresses is not None and address not in self.node_port_addresses:
            return False
        match kind_of_address(address):
            case AddressKind.LOOPBACK:
                return self.localhost_node_ports
            case AddressKind.LINK_LOCAL:
                return self.link_local_node_ports or self.family is Family.IPV4
            case _:
                return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """All decisions for one node.

    Attributes:
        node_name: The node's name.
        nodes: Node-wide decisions, for each family that is served.
        services: In order of name.
        sysctls: Kernel parameters that must have these values.
        timeouts: How long IPVS remembers connections: TCP, TCP after a FIN, UDP, in seconds; 0 leaves one alone.
        warnings: What a user must be told although work continues.
    """

    node_name: str
    nodes: Mapping[Family, ResolvedNode]
    services: Mapping[ObjectName, ResolvedService] = field(default_factory=lambda: MappingProxyType({}))
    sysctls: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    timeouts: tuple[int, int, int] = (0, 0, 0)
    warnings: tuple[str, ...] = ()
