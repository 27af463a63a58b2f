"""Facts of the host, without Kubernetes objects. `rulegen.host` collects them."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

from rulegen.net import Address, Family, family_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


SERVICE_DEVICE = "kube-ipvs0"
"""The device to which ipvs mode binds addresses of Services. They do not count as the node's own addresses."""


@dataclass(frozen=True, slots=True)
class Interface:
    """A network interface and its addresses with their prefix lengths, such as (10.0.0.1, 24)."""

    name: str
    addresses: tuple[tuple[Address, int], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """The facts of the host.

    Attributes:
        hostname: The default name of the node, in lower case.
        interfaces: All interfaces, including loopback.
        sysctls: Values by dotted name; only parameters that were read.
        fixed_sysctls: Names of parameters that cannot be set, for example because /proc/sys is mounted read-only.
        random_fully: Whether iptables supports `--random-fully` (1.6.2 and newer).
        has_proxy: Whether the programs are installed that the proxy of Services needs.
        nfacct: Whether the kernel supports nfacct; None if unknown.
        ipv6: Whether the kernel supports IPv6.
        kernel: The kernel release, such as `6.1.0-18-amd64`; empty if unknown.
        schedulers: IPVS schedulers that the kernel has or can load; None if unknown.
        gateways: Next hops of the default routes in the main table, of both families.
        root_ports: Protocol and port on which programs of root listen, except on loopback addresses; None if unknown.
        former: Addresses that the node has had since observation started, and may have lost. Virtual servers on them
            still count as ours.
    """

    hostname: str = ""
    interfaces: tuple[Interface, ...] = ()
    sysctls: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    fixed_sysctls: frozenset[str] = frozenset()
    random_fully: bool = True
    has_proxy: bool = True
    nfacct: bool | None = None
    ipv6: bool = True
    kernel: str = ""
    schedulers: frozenset[str] | None = None
    gateways: frozenset[Address] = frozenset()
    root_ports: frozenset[tuple[str, int]] | None = None
    former: frozenset[Address] = frozenset()

    @property
    def families(self) -> tuple[Family, ...]:
        """The families that this host supports."""
        return tuple(Family) if self.ipv6 else (Family.IPV4,)

    def addresses(self, family: Family) -> Iterator[Address]:
        """Yield the node's own addresses of one family, in the order of the interfaces, without duplicates."""
        seen: set[Address] = set()
        for interface in self.interfaces:
            if interface.name == SERVICE_DEVICE:
                continue
            for address, _ in interface.addresses:
                if family_of(address) is family and address not in seen:
                    seen.add(address)
                    yield address
