"""Assigns ClusterIPs and node ports for a preview to Services that no API server has processed.

Each value is derived from a hash of the Service's namespace and name. It is the same on every run and every machine,
and does not depend on other Services unless two hashes collide. Then the Service whose name sorts first gets the value,
and the other one gets its next choice. Values that a manifest requests are never assigned to another Service.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from msgspec.structs import replace

from rulegen.errors import Fault
from rulegen.kube.validation.service import HEADLESS
from rulegen.net import Address, Family, Network, family_of, parse_address, parse_network

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from rulegen.kube.objects.structs import Service, ServicePort

NODE_PORTS: Final = (30000, 32767)
DEFAULT_CIDRS: Final = (parse_network("10.96.0.0/12"), parse_network("fd00:10:96::/112"))
CHOICES: Final = 16


class Assigned(NamedTuple):
    """A Service with all addresses and ports, and the assigned ones as text, such as `clusterIP 10.96.12.7`."""

    service: Service
    assigned: tuple[str, ...] = ()
    faults: tuple[Fault, ...] = ()


class _ExhaustedError(Exception):
    """No address or port is free."""


def needs_preview(service: Service) -> bool:
    """Return whether the Service has no ClusterIP yet, so that an API server would assign one."""
    spec = service.spec
    return spec.type != "ExternalName" and not spec.cluster_ip and not spec.cluster_ips


@dataclass(slots=True)
class Preview:
    """Assigns addresses and ports that are not in use.

    Attributes:
        cidrs: Prefixes of ClusterIPs. The family of the first is the default family of Services.
        node_ports: First and last node port to assign.
    """

    cidrs: tuple[Network, ...] = DEFAULT_CIDRS
    node_ports: tuple[int, int] = NODE_PORTS
    _addresses: set[Address] = field(default_factory=set)
    _ports: set[tuple[str, int]] = field(default_factory=set)

    def assign(self, services: Iterable[Service]) -> Iterator[Assigned]:
        """Yield all Services, sorted by namespace and name, with assigned values where they are missing."""
        ordered = sorted(services, key=lambda service: (service.metadata.namespace, service.metadata.name))
        for service in ordered:
            self._take(service)
        for service in ordered:
            yield self._assigned(service) if needs_preview(service) else Assigned(service)

    def _take(self, service: Service) -> None:
        """Reserve the addresses and ports that a Service requests."""
        spec = service.spec
        for text in {*spec.cluster_ips, spec.cluster_ip} - {"", HEADLESS}:
            self._addresses.add(parse_address(text))
        self._ports.update((port.protocol, port.node_port) for port in spec.ports if port.node_port)
        if spec.health_check_node_port:
            self._ports.add(("TCP", spec.health_check_node_port))

    def _assigned(self, service: Service) -> Assigned:
        notes: list[str] = []
        try:
            spec = service.spec
            families = self._families(service)
            addresses = tuple(str(self._address(service, family)) for family in families)
            notes += [f"clusterIP {address}" for address in addresses]
            names = tuple(family.value for family in families)
            spec = replace(spec, cluster_ip=addresses[0], cluster_ips=addresses, ip_families=names)
            if wants_node_ports(service):
                spec = replace(spec, ports=tuple(self._with_node_port(service, port, notes) for port in spec.ports))
            if wants_health_check(service):
                number = self._node_port(f"{_identity(service)}/health-check", "TCP")
                notes.append(f"healthCheckNodePort {number}")
                spec = replace(spec, health_check_node_port=number)
        except _ExhaustedError as exhausted:
            return Assigned(service, faults=(Fault(*exhausted.args),))
        return Assigned(replace(service, spec=spec), tuple(notes))

    def _families(self, service: Service) -> tuple[Family, ...]:
        """Return the families that an API server would give a Service, the primary one first (KEP-563)."""
        offered = list(dict.fromkeys(family_of(cidr) for cidr in self.cidrs))
        spec = service.spec
        named = [Family(family) for family in spec.ip_families] or offered[:1]
        policy = spec.ip_family_policy or ("RequireDualStack" if len(named) > 1 else "SingleStack")
        if policy == "SingleStack":
            named = named[:1]
        elif len(named) == 1:
            named += [family for family in Family if family not in named]
        kept = [family for family in named if family in offered]
        if len(kept) < len(named) and (policy != "PreferDualStack" or not kept):
            missing = next(family for family in named if family not in offered)
            raise _ExhaustedError("spec.ipFamilies", f"contains {missing}, but no service CIDR of that family is known")
        return tuple(kept)

    def _address(self, service: Service, family: Family) -> Address:
        cidrs = [cidr for cidr in self.cidrs if family_of(cidr) is family]
        for cidr in cidrs:
            # The first address of a service CIDR is never assigned, nor the last one of an IPv4 service CIDR.
            size = cidr.num_addresses - (2 if family is Family.IPV4 else 1)
            for offset in _offsets(f"{_identity(service)}/{family}", size, len(self._addresses)):
                address = cidr[1 + offset]
                if address not in self._addresses:
                    self._addresses.add(address)
                    return address
        networks = ", ".join(map(str, cidrs))
        raise _ExhaustedError("spec.clusterIP", f"no free address of {networks} is left for a preview")

    def _with_node_port(self, service: Service, port: ServicePort, notes: list[str]) -> ServicePort:
        if port.node_port:
            return port
        # Ports with the same number get the same node port, such as DNS over UDP and TCP.
        number = self._node_port(f"{_identity(service)}/{port.port}", port.protocol)
        notes.append(f"nodePort {number}" + (f" for {port.name}" if port.name else ""))
        return replace(port, node_port=number)

    def _node_port(self, identity: str, protocol: str) -> int:
        first, last = self.node_ports
        for offset in _offsets(identity, last - first + 1, len(self._ports)):
            if (protocol, first + offset) not in self._ports:
                self._ports.add((protocol, first + offset))
                return first + offset
        raise _ExhaustedError("spec.ports", f"no node port from {first} to {last} is left for a preview")


def _identity(service: Service) -> str:
    return f"{service.metadata.namespace}/{service.metadata.name}"


def wants_node_ports(service: Service) -> bool:
    """Return whether an API server assigns a node port to each port of a Service."""
    spec = service.spec
    return spec.type == "NodePort" or (spec.type == "LoadBalancer" and spec.allocate_load_balancer_node_ports)


def wants_health_check(service: Service) -> bool:
    """Return whether the Service lacks a healthCheckNodePort that an API server would assign."""
    spec = service.spec
    local = spec.type == "LoadBalancer" and spec.external_traffic_policy == "Local"
    return local and not spec.health_check_node_port


def _offsets(identity: str, size: int, taken: int) -> Iterator[int]:
    """Yield offsets below `size` in the order in which to try them for `identity`.

    The first `CHOICES` offsets are hashes. Then the offsets after the last hash follow, enough to find a free one.
    """
    offset = 0
    if size <= 0:
        return
    for choice in range(CHOICES):
        digest = hashlib.sha256(f"{identity}/{choice}".encode()).digest()
        offset = int.from_bytes(digest, "big") % size
        yield offset
    for step in range(1, min(size, taken + 1) + 1):
        yield (offset + step) % size


def service_networks(cidrs: Sequence[str], given: Sequence[Network]) -> tuple[Network, ...]:
    """Return the prefixes of ClusterIPs: from ServiceCIDR objects, else from the user, else the defaults."""
    return tuple(map(parse_network, cidrs)) or tuple(given) or DEFAULT_CIDRS
