"""Where a packet to a Service must end, packet by packet, in the words of Kubernetes.

It asks about one packet what a reader of the API's documentation would ask, in that order: which Service has this
frontend, who sends, what the traffic policy allows, which endpoints are usable. It shares no code with the model or the
backends, which go Service by Service.

Sources: the Service and EndpointSlice API; "Virtual IPs and Service Proxies" of the documentation; KEP-1669
(terminating endpoints), KEP-2086 (internalTrafficPolicy), KEP-2433 and KEP-3015 (topology hints), KEP-1860 (ipMode).
"""

from __future__ import annotations

import enum
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from typing import NamedTuple

from rulegen.kube.objects.structs import Service, ServicePort
from rulegen.kube.snapshot.world import ClusterSnapshot, ServiceInput
from rulegen.net import Address, Family, Network, family_of, join_host_port, parse_address, parse_network
from tests.flows.endpoints import Usable, endpoints_of, local, meant_for
from tests.flows.packets import Disposition, Outcome, Packet

_address, _network = cache(parse_address), cache(parse_network)
DROP = {Disposition("DROP"): 1}
REJECT = {Disposition("REJECT"): 1}
ACCEPT = {Disposition("ACCEPT"): 1}
NONE = {Disposition("NONE"): 1}


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """The node that packets meet.

    Attributes:
        local: All its addresses.
        pod_networks: Sources that are pods; empty for a node that tells pods by interface, or not at all.
        pod_interface: Where pods' packets come in; with a + at the end, how such interfaces' names begin.
        node_port_networks: Node ports listen on the node's addresses in these; empty for all. Those of the other family
            alone restrict nothing.
        forwards: Whether it lets packets pass that no rule speaks of (the policy of FORWARD).
    """

    node: str
    local: frozenset[Address]
    pod_networks: tuple[Network, ...] = ()
    pod_interface: str = ""
    masquerade_all: bool = False
    localhost_node_ports: bool = True
    node_port_networks: tuple[Network, ...] = ()
    external_ips: bool = True
    drops_invalid: bool = True
    forwards: bool = True


class Way(enum.Enum):
    """By which of its frontends a Service is reached."""

    CLUSTER_IP = 1
    EXTERNAL_IP = 2
    LOAD_BALANCER = 3
    NODE_PORT = 4


class Frontend(NamedTuple):
    """A frontend that a packet is sent to."""

    given: ServiceInput
    port: ServicePort
    way: Way

    @property
    def service(self) -> Service:
        return self.given.service


def expected(world: ClusterSnapshot, site: Site, packet: Packet) -> Outcome:
    """Return where a packet must end, with the odds of each end."""
    node = _Node(world, site)
    frontend = node.frontend(packet) if packet.state == "NEW" else None
    if frontend is None:
        return node.to_nobody(packet)
    usable = endpoints_of(frontend.given, frontend.port, family_of(packet.destination), site.node)
    if not usable:
        return node.refused(packet, frontend, REJECT)
    if frontend.way is Way.LOAD_BALANCER and not node.is_admitted(packet, frontend):
        return node.refused(packet, frontend, DROP)
    if frontend.way is Way.NODE_PORT and not node.listens_on(packet.destination):
        is_refused = _external_is_local(frontend.service) and not local(usable)
        return node.refused(packet, frontend, DROP) if is_refused else node.to_nobody(packet)
    pool, masquerades = node.policy(packet, frontend, usable)
    return node.delivered(packet, pool, masquerades=masquerades) if pool else node.refused(packet, frontend, DROP)


def stays_s(world: ClusterSnapshot, site: Site, packet: Packet) -> int | None:
    """Return for how many seconds a client keeps to the endpoint that it was given; None where it does not."""
    frontend = _Node(world, site).frontend(packet)
    if frontend is None or frontend.service.spec.session_affinity != "ClientIP":
        return None
    config = frontend.service.spec.session_affinity_config
    return config.client_ip.timeout_seconds if config and config.client_ip else 10800


def counted(world: ClusterSnapshot, site: Site, packet: Packet) -> set[str]:
    """Return under which names a packet is counted: node ports asked at a loopback address, invalid packets dropped."""
    node = _Node(world, site)
    frontend = node.frontend(packet) if packet.state == "NEW" else None
    if frontend is not None:
        usable = endpoints_of(frontend.given, frontend.port, family_of(packet.destination), site.node)
        is_served = frontend.way is Way.NODE_PORT and bool(usable)
        asks_loopback = packet.destination in Family.IPV4.loopback and node.listens_on(packet.destination)
        return {"localhost_nps_accepted_pkts"} if is_served and asks_loopback else set()
    is_passing = packet.destination not in site.local and packet.interface != ""
    is_dropped = is_passing and packet.state == "INVALID" and site.drops_invalid
    return {"ct_state_invalid_dropped_pkts"} if is_dropped else set()


@dataclass(frozen=True, slots=True)
class _Node:
    world: ClusterSnapshot
    site: Site

    # -- which Service is meant ----------------------------------------------------------------------------------------

    def frontend(self, packet: Packet) -> Frontend | None:
        """Return the frontend that has this address and port; of several Services with it, the oldest one's.

        A Service's own addresses go before node ports; an external IP goes before a load balancer's, so the source
        ranges of the latter do not guard an address that is both.
        """
        for accepted in (Way.CLUSTER_IP, Way.EXTERNAL_IP, Way.LOAD_BALANCER), (Way.NODE_PORT,):
            for service in sorted(self.world.services.values(), key=_age):
                for frontend in self._frontends(service, packet.destination):
                    number = frontend.port.node_port if frontend.way is Way.NODE_PORT else frontend.port.port
                    asked = (packet.port, packet.protocol.upper())
                    if frontend.way in accepted and (number, frontend.port.protocol) == asked:
                        return frontend
        return None

    def _frontends(self, reported: ServiceInput, address: Address) -> Iterator[Frontend]:
        """Yield the frontends that a Service has on an address."""
        cluster_ip = _cluster_ip(reported.service, family_of(address))
        if cluster_ip is None:
            return
        externals = reported.service.spec.external_ips if self.site.external_ips else ()
        ways = (
            (Way.CLUSTER_IP, cluster_ip == address),
            (Way.EXTERNAL_IP, address in {_address(text) for text in externals}),
            (Way.LOAD_BALANCER, address in _load_balancer_ips(reported.service)),
            (Way.NODE_PORT, address in self.site.local),
        )
        for port in reported.service.spec.ports:
            for way, has_it in ways:
                if has_it and (way is not Way.NODE_PORT or port.node_port):
                    yield Frontend(reported, port, way)

    def listens_on(self, address: Address) -> bool:
        """Whether node ports answer on an address of this node."""
        networks = [n for n in self.site.node_port_networks if n.version == address.version]
        if networks and not any(address in network for network in networks):
            return False
        return not address.is_loopback or self._localhost_answers(family_of(address))

    def _localhost_answers(self, family: Family) -> bool:
        """Whether node ports answer on loopback addresses: never on ::1, which the kernel would not route."""
        networks = [n for n in self.site.node_port_networks if family_of(n) is family]
        covered = not networks or any(network.overlaps(family.loopback) for network in networks)
        return family is Family.IPV4 and self.site.localhost_node_ports and covered

    # -- who sends -----------------------------------------------------------------------------------------------------

    def is_pod(self, packet: Packet) -> bool | None:
        """Whether a pod of this node sends the packet; None where the node has no way to tell."""
        family = family_of(packet.destination)
        networks = [network for network in self.site.pod_networks if family_of(network) is family]
        if networks:
            return packet.source in networks[0]
        if self.site.pod_interface:
            pattern = self.site.pod_interface
            prefix = pattern.removesuffix("+")
            return packet.interface.startswith(prefix) if prefix != pattern else packet.interface == pattern
        return None

    def is_admitted(self, packet: Packet, frontend: Frontend) -> bool:
        """Whether the load balancer's source ranges let the sender in.

        The node's own packets to the load balancer may come with its address as their source: where the node is let in,
        they are.
        """
        family = family_of(packet.destination)
        ranges = _source_ranges(frontend, family)
        if not ranges or any(packet.source in network for network in ranges):
            return True
        owned = [ip for ip in _load_balancer_ips(frontend.service) if self._owns(frontend, ip)]
        return packet.source in owned and any(self._primary(family) in network for network in ranges)

    def _owns(self, frontend: Frontend, address: Address) -> bool:
        protocol = frontend.port.protocol.lower()
        asked = Packet(protocol=protocol, source=None, destination=address, port=frontend.port.port)
        owner = self.frontend(asked)
        return owner is not None and owner.given is frontend.given

    def _primary(self, family: Family) -> Address:
        reported = self.world.nodes[self.site.node].status.addresses if self.site.node in self.world.nodes else ()
        inside = [_address(address.address) for address in reported if address.type == "InternalIP"]
        return next((ip for ip in inside if family_of(ip) is family), next(iter(family.loopback)))

    # -- what the policies allow ---------------------------------------------------------------------------------------

    def policy(self, packet: Packet, frontend: Frontend, usable: list[Usable]) -> tuple[list[Usable], bool]:
        """Return the endpoints that the packet may reach, and whether its source is rewritten whichever it is.

        The external policy Local keeps the client's address; pods and the node itself are no such clients: what they
        send goes as if it were sent to the ClusterIP.
        """
        cluster = meant_for(usable, self.site.node, self._zone())
        is_pod = self.is_pod(packet)
        if frontend.way is Way.CLUSTER_IP:
            is_local = frontend.service.spec.internal_traffic_policy == "Local"
            return local(usable) if is_local else cluster, self.site.masquerade_all or is_pod is False
        if not _external_is_local(frontend.service):
            return cluster, True
        if is_pod:
            return cluster, False
        if packet.source in self.site.local:
            return cluster, True
        return local(usable), False

    def _zone(self) -> str:
        node = self.world.nodes.get(self.site.node)
        return node.metadata.labels.get("topology.kubernetes.io/zone", "") if node else ""

    # -- what becomes of the packet ------------------------------------------------------------------------------------

    def delivered(self, packet: Packet, pool: list[Usable], *, masquerades: bool) -> Outcome:
        """Return the same odds for each endpoint; one that sends to itself gets an answer only under another name."""
        odds: dict[Disposition, Fraction | int] = {}
        for endpoint in pool:
            rewritten = masquerades or packet.source == endpoint.address
            passes_through = packet.interface != "" and endpoint.address not in self.site.local
            leaves = packet.interface == "" or passes_through
            end = Disposition("DNAT", join_host_port(endpoint.address, endpoint.port), rewritten and leaves)
            if passes_through and not rewritten and not self.site.forwards:
                end = Disposition("DROP")
            odds[end] = odds.get(end, 0) + Fraction(1, len(pool))
        return odds

    def refused(self, packet: Packet, frontend: Frontend, verdict: Outcome) -> Outcome:
        """Return the refusal.

        What this node sends out to an external address is the load balancer's to refuse; unless its door is guarded,
        for then nothing passes that was not let in here.
        """
        if self._is_martian(packet):
            return DROP
        stays = packet.destination in self.site.local or frontend.way is Way.CLUSTER_IP
        ranges = _source_ranges(frontend, family_of(packet.destination))
        is_guarded = bool(ranges) and packet.destination in _load_balancer_ips(frontend.service)
        return verdict if packet.interface != "" or stays or (verdict is DROP and is_guarded) else NONE

    def to_nobody(self, packet: Packet) -> Outcome:
        """Return what becomes of a packet that no Service takes: mostly nothing of our doing."""
        if self._is_martian(packet):
            return DROP
        if packet.destination in self.site.local:
            return ACCEPT if self._asks_for_health(packet) else NONE
        if packet.interface == "":
            return NONE
        if packet.state == "INVALID" and self.site.drops_invalid:
            return DROP
        if packet.state in {"ESTABLISHED", "RELATED"}:
            return ACCEPT
        return NONE if self.site.forwards else DROP

    def _is_martian(self, packet: Packet) -> bool:
        """Whether it wants in at a loopback address from elsewhere, which is open for node ports (CVE-2020-8558)."""
        loopback = Family.IPV4.loopback
        wants_in = packet.destination in loopback and packet.source not in loopback
        return wants_in and packet.state not in {"ESTABLISHED", "RELATED"} and self._localhost_answers(Family.IPV4)

    def _asks_for_health(self, packet: Packet) -> bool:
        family = family_of(packet.destination)
        services = [service.service for service in self.world.services.values() if _cluster_ip(service.service, family)]
        asking = [s for s in services if s.spec.type == "LoadBalancer" and _external_is_local(s)]
        return packet.protocol == "tcp" and packet.port in {s.spec.health_check_node_port for s in asking}


def _age(reported: ServiceInput) -> tuple[bool, str, str, str]:
    metadata = reported.service.metadata
    created = metadata.creation_timestamp
    return created is None, created or "", metadata.namespace, metadata.name


def _cluster_ip(service: Service, family: Family) -> Address | None:
    """Return the ClusterIP of a family; without one, a proxy has nothing to do with the Service in that family."""
    spec = service.spec
    foreign = "service.kubernetes.io/service-proxy-name" in service.metadata.labels
    if foreign or spec.type == "ExternalName" or spec.cluster_ip in {"", "None"}:
        return None
    reported = [_address(text) for text in spec.cluster_ips or (spec.cluster_ip,)]
    return next((address for address in reported if family_of(address) is family), None)


def _load_balancer_ips(service: Service) -> list[Address]:
    """Return the load balancer's addresses whose packets come here with that address still on them."""
    ingress = service.status.load_balancer.ingress
    return [_address(entry.ip) for entry in ingress if entry.ip and entry.ip_mode != "Proxy"]


def _source_ranges(frontend: Frontend, family: Family) -> list[Network]:
    """Return who is let in to a load balancer's addresses; nothing means everybody, as does a range of everything."""
    reported = [_network(text.strip()) for text in frontend.service.spec.load_balancer_source_ranges]
    ranges = [network for network in reported if family_of(network) is family]
    return [] if any(network.prefixlen == 0 for network in ranges) else ranges


def _external_is_local(service: Service) -> bool:
    spec = service.spec
    is_external = spec.type in {"NodePort", "LoadBalancer"} or bool(spec.external_ips)
    return is_external and spec.external_traffic_policy == "Local"
