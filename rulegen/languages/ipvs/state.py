"""Virtual and real servers as objects with keys. Source: ipvsadm(8), linux/ip_vs.h."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from rulegen.net import Address, Family, Protocol, family_of, join_host_port

if TYPE_CHECKING:
    from collections.abc import Mapping

PERSISTENT = 0x1
ONE_PACKET = 0x4
SCHEDULER_FLAGS = 0x8 | 0x10 | 0x20
"""The three flags whose meaning depends on the scheduler."""
MH_PORT = 0x10
"""Flag of the scheduler mh: hash the client's port too."""

DRAINING = 0
"""The weight of a real server that drains: it gets no new connections."""


class Frontend(NamedTuple):
    """The protocol, address and port of a virtual server. Frontends sort by family first."""

    family: Family
    protocol: Protocol
    address: Address
    port: int

    @classmethod
    def of(cls, protocol: Protocol, address: Address, port: int) -> Frontend:
        """Return the frontend with the family of its address."""
        return cls(family_of(address), protocol, address, port)

    def __str__(self) -> str:
        return f"{self.protocol} {join_host_port(self.address, self.port)}"


class VirtualServerKey(NamedTuple):
    """The key of a virtual server."""

    frontend: Frontend


class RealServerKey(NamedTuple):
    """Key of a real server of a virtual server. It sorts behind that; in a tunnel it may be of another family."""

    frontend: Frontend
    address: Address
    port: int

    def __lt__(self, other: object) -> bool:
        return _rank(self) < _rank(other)

    def __str__(self) -> str:
        return f"{join_host_port(self.address, self.port)} of {self.frontend}"


def _rank(key: object) -> tuple[object, ...]:
    """Return the sort key: addresses of different families cannot be compared."""
    if isinstance(key, RealServerKey):
        return key.frontend, key.address.version, key.address, key.port
    return tuple(key) if isinstance(key, tuple) else ()


class Forwarding(enum.Enum):
    """How packets reach a real server; the value is the kernel's number (IP_VS_CONN_F_*). Ours is MASQUERADE."""

    MASQUERADE = 0
    LOCAL = 1
    TUNNEL = 2
    ROUTE = 3


class VirtualServer(msgspec.Struct, frozen=True):
    """How a virtual server chooses a real server.

    Attributes:
        scheduler: Its kernel module is `ip_vs_` and this.
        persistence_s: Seconds for which a client keeps its real server; None without persistence.
        scheduler_flags: Bits of SCHEDULER_FLAGS.
        one_packet: Whether each UDP packet is scheduled alone.
        netmask: Prefix length of the addresses that count as one client; None for all bits.
        engine: Persistence engine (`sip`); empty for none.
    """

    scheduler: str
    persistence_s: int | None = None
    scheduler_flags: int = 0
    one_packet: bool = False
    netmask: int | None = None
    engine: str = ""

    @property
    def flags(self) -> int:
        """The kernel's flags (IP_VS_SVC_F_*) without those that it sets itself."""
        persistent = 0 if self.persistence_s is None else PERSISTENT
        return persistent | self.scheduler_flags | (ONE_PACKET if self.one_packet else 0)

    @classmethod
    def of_flags(
        cls, scheduler: str, flags: int, timeout_s: int = 0, netmask: int | None = None, engine: str = ""
    ) -> VirtualServer:
        """Return the virtual server of the kernel's attributes; `netmask` is a length, None (or all bits) if unset."""
        return cls(
            scheduler=scheduler,
            persistence_s=timeout_s if flags & PERSISTENT else None,
            scheduler_flags=flags & SCHEDULER_FLAGS,
            one_packet=bool(flags & ONE_PACKET),
            netmask=None if netmask in {32, 128} else netmask,
            engine=engine,
        )


@dataclass(frozen=True, slots=True)
class RealServer:
    """A real server of a virtual server.

    Attributes:
        weight: Its share of new connections; 0 means none.
        forwarding: How packets reach it.
        upper, lower: Numbers of connections at which it gets no more, and again some; 0 for no bound.
        connections: Active and inactive ones now; None if they were not counted. An observation, so no part of
            equality.
        active: The active ones among them, which are established.
    """

    weight: int = 1
    forwarding: Forwarding = Forwarding.MASQUERADE
    upper: int = 0
    lower: int = 0
    connections: int | None = field(default=None, compare=False)
    active: int | None = field(default=None, compare=False)


Key = VirtualServerKey | RealServerKey
Value = VirtualServer | RealServer
Objects = dict[Key, Value]


class TimeoutsKey(NamedTuple):
    """The key of the timeouts; there is one such object, for both families."""

    name: str = "IPVS"


class Timeouts(NamedTuple):
    """The connection timeouts in seconds; 0 leaves a timeout as it is."""

    tcp: int = 0
    tcp_fin: int = 0
    udp: int = 0

    def over(self, other: Timeouts) -> Timeouts:
        """Return these timeouts, with those of `other` in place of 0."""
        return Timeouts(*(mine or theirs for mine, theirs in zip(self, other, strict=True)))


class IpvsState(msgspec.Struct, frozen=True):
    """The state of IPVS.

    Attributes:
        servers: Virtual and real servers, ours and foreign ones; None if they were not read.
        timeouts: The connection timeouts; None if they were not read.
    """

    servers: Mapping[Key, Value] | None = None
    timeouts: Timeouts | None = None
