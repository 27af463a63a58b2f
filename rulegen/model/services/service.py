"""Resolves one Service: which of its frontends this node serves, and which endpoints get their connections."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final

from rulegen.kube.validation.findings import family_of_text
from rulegen.model.services.annotations.proxy_mode import PROXY_MODE
from rulegen.model.services.annotations.scheduler import scheduler_of, warn_of_ignored_weights
from rulegen.model.services.annotations.table import warn_of_unknown
from rulegen.model.services.annotations.weights import WEIGHTS
from rulegen.model.services.endpoints import Pools, candidates, counts, pools
from rulegen.model.services.ir import Delivery, LimitKind, OverLimit, ResolvedPort, ResolvedService, TrafficPolicy
from rulegen.model.services.limits import (
    PORTS_OF_LIMIT,
    REAL_SERVERS_PER_ENDPOINT,
    Frontends,
    limited_frontends,
    share_of_each,
)
from rulegen.net import Address, AddressUse, Family, Network, Protocol, family_of, parse_address, parse_network, refusal
from rulegen.text import printable, quoted

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Sequence

    from rulegen.kube.objects import structs
    from rulegen.kube.objects.names import ObjectName
    from rulegen.kube.snapshot.world import ServiceInput
    from rulegen.model.services.endpoints import Candidate, PortKey
    from rulegen.model.services.node.context import NodeContext

PROXY_NAME_LABEL = "service.kubernetes.io/service-proxy-name"
HEADLESS_LABEL = "service.kubernetes.io/headless"
DEFAULT_AFFINITY_S = 10800
_PROTOCOLS: Final = {protocol.value: protocol for protocol in Protocol}  # a lookup takes a tenth of a call of an Enum
LOAD_BALANCER_TYPES = ("NodePort", "LoadBalancer")


def is_served(service: structs.Service) -> bool:
    """Whether a proxy serves the Service.

    It does not serve headless Services, ExternalName Services, Services without a ClusterIP, and Services with the
    label of another proxy (KEP-2447).
    """
    spec = service.spec
    return (
        spec.type != "ExternalName"
        and spec.cluster_ip not in ("", "None")
        and PROXY_NAME_LABEL not in service.metadata.labels
    )


def resolve_service(
    name: ObjectName,
    service_input: ServiceInput,
    site: NodeContext,
    families: Iterable[Family],
    warn: Callable[[str], None],
    allows: Callable[[Address, AddressUse, int], bool],
) -> ResolvedService:
    """Return the Service with all decisions for this node; it has no ports if it is not served.

    Args:
        name: Its name.
        service_input: The Service and its EndpointSlices.
        site: The node.
        families: The families to serve.
        warn: Receives warnings.
        allows: Returns whether the Service is served at an external address, for its use and the Service's port.
    """
    ports: list[ResolvedPort] = []
    over: list[OverLimit] = []
    service, where = service_input.service, f"Service {name}"
    warn_of_unknown(service, where, warn)
    if is_served(service):
        slices = [s for s in service_input.slices if HEADLESS_LABEL not in s.metadata.labels]
        weights = WEIGHTS.of(service, where, warn)
        weigh = weights.of if weights is not None else None
        _warn_of_port_names(service.spec, slices, service_input.endpoints_from, where, warn)
        is_proxied = _is_proxied(service, site, where, warn)
        served: list[_Shared] = []
        for family in families:
            cluster_ip = _cluster_ip(service.spec, family)
            if cluster_ip is None:
                continue
            if fault := refusal(cluster_ip, AddressUse.CLUSTER_IP):
                warn(f"{where}: spec.clusterIPs: {fault}; the Service is not served in {family}")
                continue
            served.append(_Shared(name, service, family, cluster_ip, site, where, warn, allows, is_proxied=is_proxied))
        most, over = _limited_endpoints(served, slices, site)
        known = candidates(
            slices, site.place.node, warn, weigh, site.broadcasts, service_input.endpoints_from, most, site.place.zone
        )
        ports += (shared.port(port, known) for shared in served for port in shared.ports)
        over = [*(limit for shared in served for limit in shared.over), *over]
        for limit in over:
            warn(f"{where}: {limit.text} ({limit.kind.option})")
        if service.spec.external_ips or service.status.load_balancer.ingress:
            own = {family for family in Family if _cluster_ip(service.spec, family) is not None}
            _warn_of_other_family(service, site, own, where, warn)
    return ResolvedService(
        name=name,
        type=service.spec.type,
        ports=tuple(ports),
        endpoints_from=service_input.endpoints_from,
        assigned=service_input.assigned,
        over=tuple(over),
    )


def _limited_endpoints(
    served: Sequence[_Shared], slices: Sequence[structs.EndpointSlice], site: NodeContext
) -> tuple[dict[PortKey, int | None], list[OverLimit]]:
    """Return how many endpoints of each port are served (None for all), and the exceeded limits.

    In iptables mode, a port has its endpoints once. In ipvs mode, each of its frontends has them.
    """
    copies = max([shared.frontends_of(port) for shared in served for port in shared.ports], default=1)
    all_ = sum([len(endpoint_slice.ports) * len(endpoint_slice.endpoints) for endpoint_slice in slices])
    if all_ * PORTS_OF_LIMIT <= site.limits.endpoints and all_ * copies <= site.limits.endpoints:
        return {shared.key(port): None for shared in served for port in shared.ports}, []  # nearly all Services
    known = counts(slices)
    most: dict[PortKey, int | None] = {}
    over = []
    for shared in served:
        counted = {shared.key(port): (known[shared.key(port)], shared.frontends_of(port)) for port in shared.ports}
        had, limit = sum(count for count, _ in counted.values()), site.limits.endpoints
        of_port = max(1, limit // PORTS_OF_LIMIT)
        each = share_of_each([(count, 1) for count, _ in counted.values()], limit)
        text = f"{had} endpoints of {len(counted)} ports in {shared.family}"
        if any(count > of_port for count, _ in counted.values()) and (each is None or of_port < each):
            each, limit = of_port, of_port
            had = max(count for count, _ in counted.values())
            text = f"{had} endpoints of one port in {shared.family}"
        real_servers = site.limits.endpoints * REAL_SERVERS_PER_ENDPOINT
        of_each = share_of_each(tuple(counted.values()), real_servers) if site.binds else None
        if of_each is not None and (each is None or of_each < each):
            each, limit = of_each, real_servers
            had = sum(count * copies for count, copies in counted.values())
            text = f"{had} real servers of all frontends in {shared.family}"
        most |= {key: each if each is not None and count > each else None for key, (count, _) in counted.items()}
        if each is not None:
            text += f" are more than {limit}: of each port at most {each} endpoints are served"
            over.append(OverLimit(LimitKind.ENDPOINTS, shared.family, text))
    return most, over


class _Shared:
    """The values that all ports of a Service share in one family."""

    def __init__(
        self,
        name: ObjectName,
        service: structs.Service,
        family: Family,
        cluster_ip: Address,
        site: NodeContext,
        where: str,
        warn: Callable[[str], None],
        allows: Callable[[Address, AddressUse, int], bool],
        *,
        is_proxied: bool,
    ) -> None:
        spec = service.spec
        self._allows, self._is_proxied = allows, is_proxied
        self._name, self._spec, self.family, self._cluster_ip, self._site = name, spec, family, cluster_ip, site
        self._external_ips: tuple[Address, ...] = ()
        self._vips: tuple[Address, ...] = ()
        if spec.external_ips or service.status.load_balancer.ingress:
            self._take_external(service, where, warn)
        self._ranges = _source_ranges(spec.load_balancer_source_ranges, family, where, warn)
        self._limit()
        if self._vips:
            _warn_of_open(spec.load_balancer_source_ranges, family, where, warn)
        is_reachable = spec.type in LOAD_BALANCER_TYPES or bool(spec.external_ips)
        self._external_local = is_reachable and spec.external_traffic_policy == "Local"
        self._internal_local = spec.internal_traffic_policy == "Local"
        self._affinity_s = _affinity(spec)
        self._scheduler = scheduler_of(service, site.schedulers, where, warn)
        if site.scheduler:
            warn_of_ignored_weights(service, self._scheduler or site.scheduler, where, warn)
        needs_health_check = spec.type == "LoadBalancer" and self._external_local
        self._health_check_node_port = spec.health_check_node_port if needs_health_check else 0

    def _take_external(self, service: structs.Service, where: str, warn: Callable[[str], None]) -> None:
        """Take the valid external IPs and load balancer IPs of the family."""
        site, family = self._site, self.family
        externals = service.spec.external_ips if site.external_ips else ()
        self._external_ips = _addresses(externals, family, AddressUse.EXTERNAL_IP, f"{where}: spec.externalIPs", warn)
        self._vips = _addresses(
            _vips(service), family, AddressUse.LOAD_BALANCER_IP, f"{where}: status.loadBalancer.ingress", warn
        )
        if site.others and site.binds:
            if not site.guards:  # else `allows` rejects addresses of other Nodes
                self._external_ips = self._without_others(self._external_ips, f"{where}: spec.externalIPs", warn)
            self._vips = self._without_others(self._vips, f"{where}: status.loadBalancer.ingress", warn)

    def _limit(self) -> None:
        """Keep only the ports and addresses that are within the limits."""
        all_ = Frontends(self._spec.ports, self._vips, self._external_ips, self._ranges)
        kept = limited_frontends(all_, self.family, self._site.limits)
        self.ports, self._vips, self._external_ips = kept.ports, kept.vips, kept.external_ips
        self._ranges, self.over = kept.ranges, kept.over

    def key(self, port: structs.ServicePort) -> PortKey:
        """Return the key that identifies this port in EndpointSlices."""
        return self.family, port.name, port.protocol

    def frontends_of(self, port: structs.ServicePort) -> int:
        """Return the number of frontends of a port; a node port counts once."""
        return 1 + len(self._vips) + len(self._external_ips) + bool(port.node_port)

    def _without_others(
        self, addresses: tuple[Address, ...], where: str, warn: Callable[[str], None]
    ) -> tuple[Address, ...]:
        """Return the addresses to bind to this node; warn about addresses of other Nodes.

        The kernel delivers packets to a bound address locally, so this node can no longer reach the other Node at it
        (kubernetes/kubernetes#127410).
        """
        kept = []
        for address in addresses:
            owner = self._site.others.get(address)
            if owner is None:
                kept.append(address)
            elif self._site.binds_others:
                kept.append(address)
                warn(
                    f"{where}: {address} is an address of Node {owner}: ipvs mode binds it to this node, so the node"
                    f" cannot reach {owner} at it any more; --ipvs-semantics strict ignores this address"
                )
            else:
                warn(f"{where}: {address} is an address of Node {owner}; the entry is ignored")
        return tuple(kept)

    def _allowed(self, addresses: tuple[Address, ...], use: AddressUse, port: int) -> tuple[Address, ...]:
        return tuple([address for address in addresses if self._allows(address, use, port)])

    def port(self, port: structs.ServicePort, known: dict[tuple[Family, str, str], list[Candidate]]) -> ResolvedPort:
        """Return one port with its pools and deliveries."""
        external_ips = self._allowed(self._external_ips, AddressUse.EXTERNAL_IP, port.port)
        vips = self._allowed(self._vips, AddressUse.LOAD_BALANCER_IP, port.port)
        is_external = bool(port.node_port or vips or external_ips)
        usable = known.get(self.key(port), ())
        chosen = pools(
            usable,
            self._site.place,
            uses_cluster=not self._internal_local or is_external,
            uses_local=self._internal_local or (self._external_local and is_external),
        )
        node_address = self._site.addresses[self.family]
        return ResolvedPort(
            service=self._name,
            name=port.name,
            protocol=_PROTOCOLS[port.protocol],
            family=self.family,
            port=port.port,
            cluster_ip=self._cluster_ip,
            internal=_delivery(chosen, is_local=self._internal_local),
            external=_delivery(chosen, is_local=self._external_local),
            external_policy=TrafficPolicy.LOCAL if self._external_local else TrafficPolicy.CLUSTER,
            has_endpoints=chosen.has_endpoints,
            cluster=chosen.cluster,
            local=chosen.local,
            endpoints=chosen.endpoints,
            here=tuple([c.endpoint for c in usable if c.is_local]),
            serving=frozenset(c.endpoint.text for c in usable if c.serving) if port.protocol == "UDP" else frozenset(),
            external_ips=external_ips,
            load_balancer_ips=vips,
            node_port=port.node_port,
            source_ranges=self._ranges,
            node_in_source_ranges=bool(self._ranges) and any(node_address in network for network in self._ranges),
            affinity_s=self._affinity_s,
            health_check_node_port=self._health_check_node_port,
            scheduler=self._scheduler,
            ready_here=frozenset(c.endpoint.address for c in usable if c.is_local and c.ready)
            if self._health_check_node_port
            else frozenset(),
            is_proxied=self._is_proxied,
        )


def _delivery(chosen: Pools, *, is_local: bool) -> Delivery:
    if not chosen.has_endpoints:
        return Delivery.REJECT
    if is_local:
        return Delivery.LOCAL if chosen.local else Delivery.DROP
    return Delivery.CLUSTER


def _cluster_ip(spec: structs.ServiceSpec, family: Family) -> Address | None:
    """Return the ClusterIP of one family; None if the Service does not have the family."""
    texts = spec.cluster_ips or (spec.cluster_ip,)
    if not spec.ip_families:
        address = parse_address(spec.cluster_ip)
        return address if family_of(address) is family else None
    for name, text in zip(spec.ip_families, texts, strict=False):
        if name == family:
            return parse_address(text)
    return None


def _affinity(spec: structs.ServiceSpec) -> int | None:
    if spec.session_affinity != "ClientIP":
        return None
    config = spec.session_affinity_config
    timeout_s = config.client_ip.timeout_seconds if config and config.client_ip else None
    return DEFAULT_AFFINITY_S if timeout_s is None else timeout_s


def _addresses(
    texts: Iterable[str], family: Family, use: AddressUse, where: str, warn: Callable[[str], None]
) -> tuple[Address, ...]:
    """Return the addresses of one family; warn about invalid entries and ignore them."""
    addresses = []
    for text in texts:
        try:
            address = parse_address(text)
        except ValueError as error:
            warn(f"{where}: {error}; the entry is ignored")
            continue
        if fault := refusal(address, use):
            warn(f"{where}: {fault}; the entry is ignored")
        elif family_of(address) is family:
            addresses.append(address)
    return tuple(addresses)


def _warn_of_open(texts: Sequence[str], family: Family, where: str, warn: Callable[[str], None]) -> None:
    """Warn if all source ranges are of the other family, so that load balancer IPs of this family are open."""
    networks = []
    for text in texts:
        with suppress(ValueError):  # `_source_ranges` has already reported the invalid text
            networks.append(parse_network(text.strip()))
    if networks and all(family_of(network) is not family for network in networks):
        warn(
            f"{where}: spec.loadBalancerSourceRanges has no {family} range:"
            f" the load balancer is open to everyone in {family}"
        )


def _warn_of_other_family(
    service: structs.Service, site: NodeContext, families: Collection[Family], where: str, warn: Callable[[str], None]
) -> None:
    """Warn about external addresses of a family that the Service does not have; they are not served."""
    externals = service.spec.external_ips if site.external_ips else ()
    for path, texts, use in (
        ("spec.externalIPs", externals, AddressUse.EXTERNAL_IP),
        ("status.loadBalancer.ingress", _vips(service), AddressUse.LOAD_BALANCER_IP),
    ):
        for text in texts:
            family = family_of_text(text)
            if family is None or refusal(parse_address(text), use):
                continue  # already reported
            if family not in families:
                warn(f"{where}: {path}: {printable(text)} is {family}, and the Service is not; the entry is ignored")


def _is_proxied(service: structs.Service, site: NodeContext, where: str, warn: Callable[[str], None]) -> bool:
    """Return whether the proxy of this node serves a Service; warn if it cannot, also about single ports."""
    asks = PROXY_MODE.of(service, where, warn)
    if asks and not (site.proxies or site.has_proxy):
        warn(f"{where}: {PROXY_MODE.path}: haproxy or iptables is not installed; {PROXY_MODE.otherwise}")
        return False
    if asks or site.proxies:
        _warn_of_kernel_ports(service.spec, where, warn)
    return asks or site.proxies


def _warn_of_kernel_ports(spec: structs.ServiceSpec, where: str, warn: Callable[[str], None]) -> None:
    """Warn about each port that the proxy of this node cannot serve and kube-proxy's userspace mode did not serve."""
    for port in spec.ports:
        if port.protocol == Protocol.SCTP:
            warn(f"{where}: port {port.port}/SCTP is served by the rules of the kernel: the proxy supports no SCTP")


def _warn_of_port_names(
    spec: structs.ServiceSpec,
    slices: Sequence[structs.EndpointSlice],
    origin: str,
    where: str,
    warn: Callable[[str], None],
) -> None:
    """Warn about each port that has no endpoints because no EndpointSlice has a port of its name and protocol."""
    offered = {
        (port.name or "", port.protocol)
        for endpoint_slice in slices
        if endpoint_slice.endpoints
        for port in endpoint_slice.ports
        if port.port
    }
    kind = "Endpoints" if origin == "Endpoints" else "EndpointSlices"
    if not offered:
        if origin != "Pods" and spec.ports and any(endpoint_slice.endpoints for endpoint_slice in slices):
            warn(f"{where}: has no endpoints: its {kind} have addresses, but no port with a number")
        return
    for port in spec.ports:
        if (port.name, port.protocol) in offered:
            continue
        if origin == "Pods":
            reason = f"none of its Pods has a container port {quoted(str(port.target_port))}/{port.protocol}"
        else:
            others = ", ".join(f"{quoted(name)}/{protocol}" for name, protocol in sorted(offered))
            reason = f"its {kind} have {others}; name and protocol must be the same"
        warn(f"{where}: port {quoted(port.name)}/{port.protocol} has no endpoints: {reason}")


def _vips(service: structs.Service) -> list[str]:
    """Return the load balancer IPs that this node serves, without those of ipMode Proxy (KEP-1860)."""
    ingresses = service.status.load_balancer.ingress
    return [ingress.ip for ingress in ingresses if ingress.ip and ingress.ip_mode in {None, "", "VIP"}]


def _source_ranges(
    texts: Collection[str], family: Family, where: str, warn: Callable[[str], None]
) -> tuple[Network, ...]:
    """Return the source ranges of one family; empty if one of them contains all addresses."""
    ranges: list[Network] = []
    if not texts:
        return ()
    for text in texts:
        try:
            network = parse_network(text.strip())
        except ValueError as error:
            warn(f"{where}: spec.loadBalancerSourceRanges: {error}; the entry is skipped")
            continue
        if family_of(network) is family:
            ranges.append(network)
    return () if any(network.prefixlen == 0 for network in ranges) else tuple(ranges)
