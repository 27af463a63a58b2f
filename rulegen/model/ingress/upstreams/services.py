"""Targets of requests: the Services of Ingresses as upstreams, as names to resolve, or as fixed responses."""

from __future__ import annotations

import hashlib
from dataclasses import astuple, replace
from typing import TYPE_CHECKING, Final, NamedTuple

from msgspec import Struct, field

from rulegen.kube.objects.names import ObjectName
from rulegen.kube.snapshot.addresses import ServiceAddresses
from rulegen.kube.syntax import is_subdomain
from rulegen.model.forbidden import NOTHING, Forbidden
from rulegen.model.ingress.ir import Balance, FixedResponse, Target, ToName, ToUpstream, Upstream
from rulegen.model.ingress.limits import UPSTREAM_SERVERS
from rulegen.model.ingress.values.readers import is_private_address, is_private_to_node
from rulegen.model.ingress.values.texts import NO_TEXT, Text
from rulegen.model.services.endpoints import candidates, counts
from rulegen.model.services.limits import share_of_each
from rulegen.net import AddressUse, Family, Protocol, join_host_port, parse_address, parse_network
from rulegen.text import printable, quoted

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from rulegen.kube.objects.structs import ServiceBackendPort, ServicePort
    from rulegen.kube.snapshot.world import ServiceInput
    from rulegen.model.ingress.ir import LocationPolicy, Sticky
    from rulegen.model.ingress.proxying import Keepalive
    from rulegen.model.ingress.values.settings import Settings
    from rulegen.net import Address

UNAVAILABLE: Final = FixedResponse(503)
NOT_FOUND: Final = FixedResponse(404)

_BALANCES: Final = {
    "round_robin": Balance.ROUND_ROBIN,
    "least_conn": Balance.LEAST_CONNECTIONS,
    "ewma": Balance.BETTER_OF_TWO,
    "ip_hash": Balance.CLIENT_ADDRESS,
}


class UpstreamOptions(NamedTuple):
    """Options of an Ingress for the upstream of a Service.

    Attributes:
        service_upstream: Whether to use the Service's ClusterIP instead of endpoints; None for the setting.
        host: The host, if session affinity makes the upstream specific to it; None otherwise.
        transport: Result of `transport_of`. An engine reuses connections of an upstream by their address only. A
            connection without TLS, or to an unverified server, must not be used where these are required.
        kept: The idle connections that are kept; None for those of the settings.
    """

    balance: str = ""
    hash_key: Text = NO_TEXT
    sticky: Sticky | None = None
    service_upstream: bool | None = None
    host: str | None = None
    transport: str = ""
    kept: Keepalive | None = None


_SHOWN: Final = 3
_EVERYWHERE: Final = (parse_network("0.0.0.0/0"), parse_network("::/0"))
PLAIN: Final = UpstreamOptions()
_CLOSING: Final = "CLOSING"
_STAYING: Final = "STAYING"
"""Connections of HTTP/1.1, where the settings specify 1.0."""
_NEVER_IDLE: Final = ("AUTO_", "FCGI", _CLOSING)
"""Transports whose connections close after each request.

AUTO: a location that uses both HTTP and HTTPS must not mix up their connections. FCGI: a FastCGI application that keeps
idle connections would need a process for each. CLOSING: HTTP/1.0 or a header closes the connection; nginx might reuse
it just before it is closed, and would respond with 502 to requests that it must not repeat.
"""


def transport_of(policy: LocationPolicy, settings: Settings) -> str:
    """Return a key that two locations must share to reuse connections to a backend; empty for plain HTTP."""
    spoken = f"{policy.protocol} {policy.proxy_ssl}" if policy.proxy_ssl else policy.protocol
    is_http = policy.protocol in {"HTTP", "HTTPS", "AUTO_HTTP"}
    if is_http and (policy.connection_header == "close" or policy.proxying.http_version == "1.0"):
        return f"{_CLOSING} {spoken}"
    if is_http and policy.proxying.http_version is not None and settings.proxy_http_version == "1.0":
        return f"{_STAYING} {spoken}"
    return "" if policy.protocol == "HTTP" else spoken


class Targets(Struct):
    """Creates the upstreams of Services, each once.

    Attributes:
        upstreams: The created upstreams by name.
        refuses_names: Whether Services of type ExternalName are rejected.
        resolves: Whether there is a name server.
        forbidden: Addresses that the engine never connects to for an Ingress.
        refused: Fields of Services with unusable addresses, each with the reason.
        addresses: The Services of each address; derived from `services` if None.
        endpoints: Endpoints of the Services that were used; may be shared with other instances for the same `services`.
    """

    services: Mapping[ObjectName, ServiceInput]
    settings: Settings
    families: Sequence[Family]
    refuses_names: bool = False
    resolves: bool = True
    forbidden: Forbidden = NOTHING
    upstreams: dict[str, Upstream] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    addresses: ServiceAddresses | None = None
    endpoints: dict[ObjectName, UsableEndpoints] = field(default_factory=dict)
    _known: dict[tuple[ObjectName, str, int, UpstreamOptions], tuple[Target, str]] = field(default_factory=dict)

    def of_service(
        self, name: ObjectName, port: ServiceBackendPort, options: UpstreamOptions = PLAIN
    ) -> tuple[Target, str]:
        """Return the target for a Service's port, and the reason if it is not usable; empty if it is."""
        key = (name, port.name, port.number, options)
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = self._resolve(name, port, options)
        return known

    def of_host(self, host: str, port: int, options: UpstreamOptions = PLAIN) -> tuple[Target, str] | None:
        """Return the same as `of_service` for the DNS name of a Service in the cluster; None for any other name."""
        labels = host.rstrip(".").split(".")
        if len(labels) < 3 or labels[2] != "svc":
            return None
        name = ObjectName(labels[1], labels[0])
        entry = self.services.get(name)
        if entry is None or entry.service.spec.type == "ExternalName":
            return None
        ports = [known for known in entry.service.spec.ports if known.port == port]
        return self._upstream(name, entry, ports[0], options) if ports else None

    def refusal_of_host(self, host: str, port: int) -> str:
        """Return why the engine must not connect to a host; empty for a name, or for an allowed address."""
        try:
            address = parse_address(host.strip("[]"))
        except ValueError:
            return ""
        return self.forbidden.refusal(address, AddressUse.UPSTREAM, port)

    def refused_endpoints(self, name: ObjectName, port: ServiceBackendPort) -> str:
        """Return which endpoints of a Service's port are not used, and why; empty if all are used."""
        known = self.endpoints.get(name)
        if known is not None and not known.refused and not known.notes:
            return ""  # the usual case, for each path
        entry = self.services.get(name)
        service_port = _port(entry, port) if entry is not None else None
        if entry is None or service_port is None or entry.service.spec.type == "ExternalName":
            return ""
        return _not_used(self._endpoints(name, entry).refused_of(service_port))

    def unusual_port(self, name: ObjectName, port: ServiceBackendPort) -> tuple[str, bool]:
        """Return which port a backend means that names a `targetPort`, and whether the Service has both.

        The text is empty for a port by its own name or number.
        """
        entry = self.services.get(name)
        if entry is None or entry.service.spec.type == "ExternalName":
            return "", False
        if entry.service.spec.ports and _is_own(entry.service.spec.ports[0], port):
            return "", False  # the usual case, for each path
        meant = _port(entry, port)
        if meant is None or _is_own(meant, port):
            return "", False
        which = f"port {_written(port)} of Service {name} is the targetPort of its port {meant.name or meant.port}"
        return which, any(_is_own(known, port) for known in entry.service.spec.ports)

    def _resolve(self, name: ObjectName, port: ServiceBackendPort, options: UpstreamOptions) -> tuple[Target, str]:
        entry = self.services.get(name)
        if entry is None:
            return UNAVAILABLE, f"Service {name} does not exist"
        wanted = _written(port)
        spec = entry.service.spec
        if spec.type == "ExternalName":
            own = next((known for known in spec.ports if _is_own(known, port)), None)
            return self._external(name, spec.external_name, _external_port(own) if own else port.number, options)
        service_port = _port(entry, port)
        if service_port is None:
            return UNAVAILABLE, f"Service {name} has no port {wanted}"
        if service_port.protocol != Protocol.TCP:
            return UNAVAILABLE, f"port {wanted} of Service {name} is {service_port.protocol}, not TCP"
        return self._upstream(name, entry, service_port, options)

    def _external(self, name: ObjectName, host: str, port: int, options: UpstreamOptions) -> tuple[Target, str]:
        lowered = host.rstrip(".").lower()
        if self.refuses_names:
            return UNAVAILABLE, f"Service {name} is an ExternalName, and --disable-svc-external-name is set"
        if not port:
            return UNAVAILABLE, f"Service {name} is an ExternalName without that port: use a port number"
        if not is_subdomain(lowered) or is_private_to_node(lowered):
            return UNAVAILABLE, f"Service {name}: {quoted(host)} is not a name that requests may be forwarded to"
        if why := self.refusal_of_host(lowered, port):
            return UNAVAILABLE, f"Service {name}: {why}: no requests are forwarded to it"
        # The cluster's DNS completes a name without dots with search domains, first with that of the namespace.
        full = lowered if "." in lowered else f"{lowered}.{name.namespace}.svc"
        inside = self.of_host(full, port, options)
        if inside is not None:
            return inside
        if not self.resolves:
            return UNAVAILABLE, f"Service {name}: no DNS server is configured to resolve {printable(lowered)}"
        return ToName(lowered, port, f"{name.namespace}.{name.name}.{port}"), ""

    def _upstream(
        self, name: ObjectName, entry: ServiceInput, port: ServicePort, options: UpstreamOptions
    ) -> tuple[Target, str]:
        spec = entry.service.spec
        known = self._endpoints(name, entry)
        endpoints, refused = known.ready_of(port), known.refused_of(port)
        if refused:
            self.refused[f"Service {name}: port {port.name or port.port}"] = _not_used(refused)
        if not endpoints:
            where = f"Service {name} has no endpoints that are ready on port {port.name or port.port}"
            return UNAVAILABLE, f"{where} ({_not_used(refused)})" if refused else where
        # The ClusterIP would also lead to the endpoints that are not used here.
        own = "" if refused else self._own(name, spec.cluster_ip, port.port)
        base = f"{name.namespace}.{name.name}.{port.port}"
        if options.transport:
            base = f"{base}.{_mark(options.transport)}"
        if options.kept is not None:
            base = f"{base}.{_mark(*map(str, options.kept))}"
        by_own = self.settings.service_upstream if options.service_upstream is None else options.service_upstream
        if by_own and own:
            return self._keep(Upstream(name=f"{base}.vip", service=name, servers=(own,), keepalive=0)), ""
        is_closed = self.settings.proxy_http_version == "1.0" and not options.transport.startswith(_STAYING)
        is_never_idle = options.transport.startswith(_NEVER_IDLE) or is_closed
        kept = self.settings.upstream_keepalive_connections if options.kept is None else options.kept.connections
        upstream = Upstream(
            name=base,
            service=name,
            servers=endpoints,
            backup=own,
            keepalive=0 if is_never_idle else kept,
            kept=options.kept,
        )
        return self._keep(self._balanced(upstream, options)), ""

    def _own(self, name: ObjectName, cluster_ip: str, port: int) -> str:
        """Return the Service's ClusterIP and port; empty if it has none, or a loopback or link-local address."""
        if cluster_ip in ("", "None"):
            return ""
        address = parse_address(cluster_ip)
        if is_private_address(address):
            self.refused[f"Service {name}: spec.clusterIP"] = (
                f"{address} is the node itself or link-local: no requests are forwarded to it"
            )
            return ""
        return join_host_port(address, port)

    def _balanced(self, upstream: Upstream, options: UpstreamOptions) -> Upstream:
        """Return the upstream with the requested balancing; nginx supports no backup with `hash` and `random`."""
        if options.sticky is not None:
            name = f"{upstream.name}.{_mark(str(options.host), *map(str, astuple(options.sticky)))}"
            if options.sticky.is_persistent:
                return replace(upstream, name=name, sticky=options.sticky, host=options.host)
            return replace(
                upstream, name=name, balance=Balance.HASH, sticky=options.sticky, backup="", host=options.host
            )
        if options.hash_key:
            return replace(
                upstream,
                name=f"{upstream.name}.{_mark(repr(options.hash_key))}",
                balance=Balance.HASH,
                hash_key=options.hash_key,
                backup="",
            )
        balance = _BALANCES[options.balance or self.settings.load_balance]
        if balance is Balance.ROUND_ROBIN:
            return upstream
        suffix = {Balance.LEAST_CONNECTIONS: "least", Balance.BETTER_OF_TWO: "two", Balance.CLIENT_ADDRESS: "ip"}[
            balance
        ]
        has_backup = balance is Balance.LEAST_CONNECTIONS
        return replace(
            upstream,
            name=f"{upstream.name}.{suffix}",
            balance=balance,
            backup=upstream.backup if has_backup else "",
        )

    def _keep(self, upstream: Upstream) -> Target:
        self.upstreams.setdefault(upstream.name, upstream)
        return ToUpstream(upstream.name)

    def _endpoints(self, name: ObjectName, entry: ServiceInput) -> UsableEndpoints:
        """Return the endpoints of a Service by name of the port, without loopback and link-local addresses."""
        known = self.endpoints.get(name)
        if known is None:
            known = self.endpoints[name] = self._usable(name, entry)
        self.refused.update(known.notes)
        return known

    def checked(self, name: ObjectName, entry: ServiceInput) -> UsableEndpoints:
        """Return the endpoints of a Service, checked now."""
        return self._usable(name, entry)

    def _usable(self, name: ObjectName, entry: ServiceInput) -> UsableEndpoints:
        ignored: list[str] = []
        notes: dict[str, str] = {}
        by_port = counts(entry.slices)
        each = share_of_each([(count, 1) for count in by_port.values()], UPSTREAM_SERVERS)
        if each is not None:
            notes[f"Service {name}"] = (
                f"{by_port.total()} endpoints of all its ports are more than {UPSTREAM_SERVERS}: {each} of each port"
                " get requests"
            )
        most = dict.fromkeys(by_port, each)
        endpoints = candidates(entry.slices, "", ignored.append, origin=entry.endpoints_from, most=most)
        if ignored:  # Services on the node ignore these addresses too; the report is for the user of the Ingress
            notes.update(_private(entry))
        ready: dict[str, list[str]] = {}
        refused: dict[str, dict[str, str]] = {}
        judged: set[str] = set()
        for (family, port, protocol), candidates_ in endpoints.items():
            for candidate in candidates_ if protocol == Protocol.TCP else ():
                endpoint = candidate.endpoint
                text = endpoint.host
                judged.add(text)
                if why := self._refusal(name, endpoint.address, text, endpoint.port):
                    refused.setdefault(port, {})[endpoint.text] = why
                elif family in self.families and candidate.ready and not candidate.terminating:
                    ready.setdefault(port, []).append(endpoint.text)
        by_name = {port: tuple(sorted(texts)) for port, texts in ready.items()}
        return UsableEndpoints(entry, by_name, refused, notes, tuple(sorted(judged)))

    def _refusal(self, name: ObjectName, address: Address, text: str, port: int) -> str:
        """Return why an endpoint of a Service is not used.

        An address of another Service leads to endpoints that were not checked here, and the API does not allow it
        (endpoints must not be the cluster IPs of other Services). The API server assigns ClusterIPs. But anybody can
        write any external IP, also an address of another Pod or node. External IPs are therefore considered only in
        their own namespace and at the Service's ports.
        """
        if self.addresses is None:
            self.addresses = ServiceAddresses.of_services(
                (name, known.service) for name, known in self.services.items()
            )
        owner = self.addresses.owner(name.namespace, text, port)
        if owner is not None:
            return f"{address} is an address of Service {owner}"
        why = self.forbidden.refusal(address, AddressUse.UPSTREAM, port)
        may_be_allowed = why and not replace(self.forbidden, allowed=_EVERYWHERE).refusal(
            address, AddressUse.UPSTREAM, port
        )
        return f"{why} (see --ingress-allow-endpoint)" if may_be_allowed else why


class UsableEndpoints(NamedTuple):
    """The endpoints of a Service, checked.

    Attributes:
        source: The Service with its EndpointSlices.
        ready: `address:port` of ready endpoints, by name of the port.
        refused: Reason for each unusable endpoint, by name of the port and `address:port`.
        notes: Reports about fields of the Service.
        addresses: All addresses that were checked. The result also depends on other Services with these addresses.
    """

    source: ServiceInput
    ready: dict[str, tuple[str, ...]]
    refused: dict[str, dict[str, str]]
    notes: dict[str, str]
    addresses: tuple[str, ...]

    def ready_of(self, port: ServicePort) -> tuple[str, ...]:
        """Return `address:port` of the ready endpoints of a port; one without a name means all ports of the slices."""
        if port.name or port.name in self.ready:
            return self.ready.get(port.name, ())
        return tuple(sorted({text for texts in self.ready.values() for text in texts}))

    def refused_of(self, port: ServicePort) -> dict[str, str]:
        """Return the reason for each unusable endpoint of a port."""
        if port.name or port.name in self.ready or port.name in self.refused:
            return self.refused.get(port.name, {})
        return {text: why for refused in self.refused.values() for text, why in refused.items()}


def _is_own(known: ServicePort, port: ServiceBackendPort) -> bool:
    """Whether a backend names a Service's port as the API defines it: by its name or its number."""
    return known.name == port.name if port.name else known.port == port.number


def _port(entry: ServiceInput, port: ServiceBackendPort) -> ServicePort | None:
    """Return the port of a Service that a backend names.

    As in ingress-nginx, it may also name a `targetPort`, and the first port that fits is used. Of ports for several
    protocols, it is the first one for TCP.
    """
    text = port.name or str(port.number)
    fitting = [
        known
        for known in entry.service.spec.ports
        if text in {known.name, str(known.port), str(known.target_port or known.port)}
    ]
    return next((known for known in fitting if known.protocol == Protocol.TCP), fitting[0] if fitting else None)


def _written(port: ServiceBackendPort) -> str:
    """Return a port as the backend names it, for messages."""
    return quoted(port.name) if port.name else str(port.number)


def _external_port(port: ServicePort) -> int:
    """Return the port of an ExternalName: targetPort if it is a number, else the port itself."""
    return port.target_port if isinstance(port.target_port, int) and port.target_port else port.port


def _private(entry: ServiceInput) -> Iterator[tuple[str, str]]:
    """Yield loopback and link-local addresses. They are not used: endpoints must not reach what listens on the node."""
    for known in entry.slices:
        where = f"{entry.endpoints_from or 'EndpointSlice'} {known.metadata.namespace}/{known.metadata.name}"
        for index, endpoint in enumerate(known.endpoints):
            if endpoint.addresses and is_private_to_node(endpoint.addresses[0]):
                address = printable(endpoint.addresses[0])
                path = f"{where}: endpoints[{index}].addresses[0]"
                yield path, f"{address} is the node itself or link-local: no requests are forwarded to it"


def _not_used(refused: Mapping[str, str]) -> str:
    """Return unusable endpoints with their reasons as a text, at most the first few; empty if there are none."""
    if not refused:
        return ""
    shown = [f"{endpoint} is not used: {why}" for endpoint, why in sorted(refused.items())[:_SHOWN]]
    return "; ".join([*shown, *[f"and {len(refused) - _SHOWN} more"] * (len(refused) > _SHOWN)])


def _mark(*texts: str) -> str:
    """Return the suffix that distinguishes upstreams of one port; an attacker cannot find an equal one."""
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]
