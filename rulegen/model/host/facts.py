"""Facts of the host: what a node is, apart from Kubernetes objects. Plain data; `rulegen.host` gathers it."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

from rulegen.net import Address, Family, family_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


SERVICE_DEVICE = "kube-ipvs0"
"""The device that ipvs mode binds addresses of Services to; none of them is the node's own."""


@dataclass(frozen=True, slots=True)
class Interface:
    """A network interface and its addresses with their prefix length, as (10.0.0.1, 24)."""

    name: str
    addresses: tuple[tuple[Address, int], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class HostFacts:
    """What this host is.

    Attributes:
        hostname: The default name of the node, lower case.
        interfaces: All interfaces, loopback included.
        sysctls: Dotted name to value, only those that were read.
        fixed_sysctls: Names of settings that cannot be set here, as where /proc/sys is mounted read-only.
        random_fully: Whether iptables knows `--random-fully` (1.6.2 and newer).
        nfacct: Whether the kernel counts with nfacct; None if nobody could look.
        ipv6: Whether the kernel speaks IPv6.
        kernel: Its release, as `6.1.0-18-amd64`; empty if nobody looked.
        schedulers: Those that IPVS has or could load; None if nobody looked.
        gateways: Where packets go to that no other route is for, from the main table; of both families.
        root_ports: Protocol and number of each port that a program of root listens on, beyond the loopback; None if
            nobody looked.
        former: Addresses that the node has had since it is looked at, and may have no more: what stands there is ours
            as it was.
    """

    hostname: str = ""
    interfaces: tuple[Interface, ...] = ()
    sysctls: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    fixed_sysctls: frozenset[str] = frozenset()
    random_fully: bool = True
    nfacct: bool | None = None
    ipv6: bool = True
    kernel: str = ""
    schedulers: frozenset[str] | None = None
    gateways: frozenset[Address] = frozenset()
    root_ports: frozenset[tuple[str, int]] | None = None
    former: frozenset[Address] = frozenset()

    @property
    def families(self) -> tuple[Family, ...]:
        """The families that this host speaks."""
        return tuple(Family) if self.ipv6 else (Family.IPV4,)

    def addresses(self, family: Family) -> Iterator[Address]:
        """Yield the node's own addresses of one family in the order of the interfaces, each once."""
        seen: set[Address] = set()
        for interface in self.interfaces:
            if interface.name == SERVICE_DEVICE:
                continue
            for address, _ in interface.addresses:
                if family_of(address) is family and address not in seen:
                    seen.add(address)
                    yield address
