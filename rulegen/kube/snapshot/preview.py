"""Addresses and node ports for Services that no API server has seen yet: a preview of what one would assign.

Each number comes from a hash of the Service's namespace and name, so it is the same on every run and on every machine,
and does not depend on the other Services unless two of them meet. Then the one whose name sorts first has its first
choice and the other one its next; numbers that a manifest requests are never given to anyone else.
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
    """A Service with all numbers filled in, and which of them were assigned: `clusterIP 10.96.12.7`."""

    service: Service
    assigned: tuple[str, ...] = ()
    faults: tuple[Fault, ...] = ()


class _ExhaustedError(Exception):
    """There is no free number left."""


def needs_preview(service: Service) -> bool:
    """Tell whether an API server would have to give this Service a ClusterIP: one that it knows has one."""
    spec = service.spec
    return spec.type != "ExternalName" and not spec.cluster_ip and not spec.cluster_ips


@dataclass(slots=True)
class Preview:
    """Assigns numbers; knows those that are taken.

    Attributes:
        cidrs: Where ClusterIPs come from. The family of the first is that of Services which name none.
        node_ports: First and last node port to assign.
    """

    cidrs: tuple[Network, ...] = DEFAULT_CIDRS
    node_ports: tuple[int, int] = NODE_PORTS
    _addresses: set[Address] = field(default_factory=set)
    _ports: set[tuple[str, int]] = field(default_factory=set)

    def assign(self, services: Iterable[Service]) -> Iterator[Assigned]:
        """Yield all Services in order of namespace and name, those that need it with numbers assigned."""
        ordered = sorted(services, key=lambda service: (service.metadata.namespace, service.metadata.name))
        for service in ordered:
            self._take(service)
        for service in ordered:
            yield self._assigned(service) if needs_preview(service) else Assigned(service)

    def _take(self, service: Service) -> None:
        """Note what a Service requests itself."""
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
        """Return the families that a Service would have, the first one first (KEP-563)."""
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
            # The first address of a service network is never given out; nor is the last of an IPv4 one.
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
        # One number for one port of the Service, whatever the protocol: as DNS has it over UDP and TCP.
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
    """Tell whether an API server gives each port of a Service a node port."""
    spec = service.spec
    return spec.type == "NodePort" or (spec.type == "LoadBalancer" and spec.allocate_load_balancer_node_ports)


def wants_health_check(service: Service) -> bool:
    """Tell whether an API server would have to give a Service a healthCheckNodePort: one that it knows has one."""
    spec = service.spec
    local = spec.type == "LoadBalancer" and spec.external_traffic_policy == "Local"
    return local and not spec.health_check_node_port


def _offsets(identity: str, size: int, taken: int) -> Iterator[int]:
    """Yield offsets below `size` in the order in which `identity` would have them.

    The first choices are scattered; then the row from the last one on, as long as it takes to pass what is taken.
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
    """Return where ClusterIPs come from: ServiceCIDR objects, else what the user gave, else the usual ones."""
    return tuple(map(parse_network, cidrs)) or tuple(given) or DEFAULT_CIDRS
