"""What the relay knows: which pool a destination belongs to, and which endpoint of the pool a client gets.

Endpoints are chosen in turn. With affinity, a client stays with its endpoint, until it has not sent anything for the
time of the affinity, or the endpoint refuses its datagrams.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from rulegen.languages.listeners.state import (
    ANY_ADDRESS,
    PoolServer,
    ProxyFrontend,
    ProxyObject,
    ServerPool,
    split_endpoint,
    with_changes,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rulegen.languages.listeners.state import ProxyKey, ProxyObjects, ProxyValue
    from rulegen.net import Family

MOST_CLIENTS: Final = 65_536
"""Clients of one pool whose endpoint is remembered; the one that was silent for longest is forgotten first."""


class Target(NamedTuple):
    """An address and port, as sockets have them."""

    host: str
    port: int


class RememberedClient(NamedTuple):
    """The endpoint of a client, and when the client has sent its last datagram."""

    endpoint: Target
    seen_at: float


@dataclass(slots=True)
class RelayPool:
    """The endpoints of one Service port, in turn."""

    affinity_s: int | None = None
    endpoints: list[Target] = field(default_factory=list)
    clients: OrderedDict[str, RememberedClient] = field(default_factory=OrderedDict)
    turn: int = 0

    def choose(self, client: str, now: float) -> Target | None:
        """Return the endpoint for a new flow of a client; None if there is none."""
        if not self.endpoints:
            return None
        known = self.clients.get(client)
        if known is not None and self.affinity_s is not None and now - known.seen_at <= self.affinity_s:
            chosen = known.endpoint
        else:
            chosen = self.endpoints[self.turn % len(self.endpoints)]
            self.turn += 1
        self.saw(client, chosen, now)
        return chosen

    def saw(self, client: str, endpoint: Target, now: float) -> None:
        """Remember that a client has sent to its endpoint."""
        if self.affinity_s is not None:
            self.clients[client] = RememberedClient(endpoint, now)
            self.clients.move_to_end(client)
            while len(self.clients) > MOST_CLIENTS:
                self.clients.popitem(last=False)

    def forget(self, client: str) -> None:
        """Let a client have the next endpoint: its own one has refused a datagram."""
        self.clients.pop(client, None)

    def replace(self, endpoints: list[Target]) -> None:
        """Set the endpoints; clients of those that are gone get another one."""
        self.endpoints = endpoints
        known = set(endpoints)
        for client in [client for client, each in self.clients.items() if each.endpoint not in known]:
            del self.clients[client]


class RelayTable:
    """The objects of UDP, and how they are found."""

    def __init__(self) -> None:
        """Know nothing yet."""
        self.objects: ProxyObjects = {}
        self._pools: dict[str, RelayPool] = {}
        self._endpoints: dict[str, dict[ProxyKey, Target]] = {}
        self._frontends: dict[tuple[Family, str, int], str] = {}

    def change(self, changes: Iterable[tuple[ProxyKey, ProxyValue | None]]) -> None:
        """Change objects; None as a value deletes one. A change whose result is there already changes nothing."""
        listed = list(changes)
        self.objects = with_changes(self.objects, listed)
        touched: set[str] = set()
        for key, value in listed:
            pool = key.name.partition("/")[0]
            match key.kind:
                case ProxyObject.FRONTEND:
                    self._change_frontend(key, value)
                case ProxyObject.SERVER:
                    touched.add(pool)
                    self._endpoints.setdefault(pool, {}).pop(key, None)
                    if isinstance(value, PoolServer):
                        self._endpoints[pool][key] = Target(str(value.address), value.port)
                case ProxyObject.POOL:
                    touched.add(pool)
                    self._change_pool(pool, value)
        for name in touched:
            endpoints = self._endpoints.get(name, {})
            if name in self._pools:
                self._pools[name].replace([endpoints[key] for key in sorted(endpoints)])
            if not endpoints:
                self._endpoints.pop(name, None)

    def _change_frontend(self, key: ProxyKey, value: ProxyValue | None) -> None:
        address, port = split_endpoint(key.name)
        self._frontends.pop((key.family, address, port), None)
        if isinstance(value, ProxyFrontend):
            self._frontends[key.family, address, port] = value.pool

    def _change_pool(self, name: str, value: ProxyValue | None) -> None:
        if not isinstance(value, ServerPool):
            self._pools.pop(name, None)
            return
        pool = self._pools.setdefault(name, RelayPool())
        if pool.affinity_s != value.affinity_s:
            pool.affinity_s = value.affinity_s
            pool.clients.clear()

    def pool_of(self, family: Family, destination: Target) -> RelayPool | None:
        """Return the pool of a destination that a client has chosen; None if it is none of a Service."""
        name = self._frontends.get((family, *destination))
        if name is None:
            name = self._frontends.get((family, ANY_ADDRESS, destination.port), "")
        return self._pools.get(name)
