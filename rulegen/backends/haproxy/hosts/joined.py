"""What all hosts add to a configuration of HAProxy, joined in blocks of hosts.

Most blocks are those of the last configuration. Only the blocks with changed hosts are joined again, host by host.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from operator import is_
from typing import TYPE_CHECKING

from rulegen.backends.haproxy.hosts.host import compiled_host
from rulegen.backends.haproxy.location import ConfigParts
from rulegen.backends.haproxy.names import EXACT, PREFIX, server_id

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from rulegen.backends.haproxy.hosts.host import HostParts
    from rulegen.model.ingress.ir import IngressModel, Server, Upstream
    from rulegen.model.ingress.reasons import Reason

BLOCK = 64
"""Hosts of a block, on average."""


@dataclass(slots=True)
class JoinedHosts:
    """What several hosts add.

    Attributes:
        parts: Their backends, and what these need.
        hosts: What each of them adds.
        names: The names of hosts that are requested, each with the name of the host in maps.
        tables: The paths that are compared as they are, by map.
        expressions: The maps of expressions, by the name of the host in maps.
        reasons: The values that HAProxy does not apply.
    """

    parts: ConfigParts = field(default_factory=ConfigParts)
    hosts: dict[str, HostParts] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    tables: dict[str, dict[str, str]] = field(default_factory=lambda: {EXACT: {}, PREFIX: {}})
    expressions: dict[str, tuple[tuple[str, str], ...]] = field(default_factory=dict)
    reasons: set[Reason] = field(default_factory=set)

    def add(self, own: HostParts) -> None:
        """Add a host; unless the parts have it already, as of one with canaries."""
        server, mark = own.server, server_id(own.server.host)
        if own.parts is not self.parts:
            self.parts.include(own.parts)
        self.hosts[server.host] = own
        self.names.update(dict.fromkeys((server.host, *server.aliases), mark))
        if server.redirects_from:
            self.names[server.redirects_from] = server_id(server.redirects_from)
        for path, keys in own.tables.items():
            self.tables[path].update(keys)
        if own.expressions:
            self.expressions[mark] = own.expressions
        self.reasons.update(own.reasons)

    def include(self, other: JoinedHosts) -> None:
        """Add all of other hosts."""
        self.parts.include(other.parts)
        self.hosts.update(other.hosts)
        self.names.update(other.names)
        for path, keys in other.tables.items():
            self.tables[path].update(keys)
        self.expressions.update(other.expressions)
        self.reasons.update(other.reasons)


@dataclass(slots=True)
class HostBlock:
    """Hosts that follow each other, and what they add to an HAProxy with the same backends.

    Attributes:
        servers: The hosts.
        looked_up: The names of the upstreams that were looked up for them.
        upstreams: The answers.
        taken: The spare backends that they use, by the name that their own ones would have.
    """

    servers: tuple[Server, ...]
    looked_up: tuple[str, ...]
    upstreams: tuple[Upstream | None, ...]
    taken: Mapping[str, str]
    joined: JoinedHosts

    @classmethod
    def of(cls, servers: tuple[Server, ...], joined: JoinedHosts) -> HostBlock:
        """Return a block of hosts."""
        looked_up = dict(each for own in joined.hosts.values() for each in own.upstreams)
        choices = (choice for own in joined.hosts.values() for choice in own.choices)
        taken = {choice.own: choice.name for choice in choices if choice.name != choice.own}
        return cls(servers, tuple(looked_up), tuple(looked_up.values()), taken, joined)

    def is_valid(self, servers: Sequence[Server], model: IngressModel) -> bool:
        """Return whether these hosts add the same again, with the same defaults, to the same HAProxy."""
        return (
            len(servers) == len(self.servers)
            and all(map(is_, servers, self.servers))
            and all(map(is_, map(model.upstreams.get, self.looked_up), self.upstreams))
        )


def blocks_of(model: IngressModel) -> Iterator[tuple[Server, ...]]:
    """Yield the hosts of a model in blocks; another host changes the block that it is in, and no other."""
    block: list[Server] = []
    for host, server in model.servers.items():
        block.append(server)
        if not zlib.crc32(host.encode("utf-8", "surrogatepass")) % BLOCK:
            yield tuple(block)
            block = []
    if block:
        yield tuple(block)


def joined_hosts(
    model: IngressModel,
    parts: ConfigParts,
    known: Mapping[str, HostParts],
    blocks: Mapping[str, HostBlock],
) -> tuple[JoinedHosts, dict[str, HostBlock]]:
    """Return what all hosts add, and the blocks of hosts by their first host.

    Args:
        model: The model.
        parts: The parts that they are added to.
        known: What each host has added to the last configuration, with the same defaults; some may differ now.
        blocks: The blocks of the last configuration, if HAProxy has the same backends as then; otherwise none.
    """
    joined = JoinedHosts(parts)
    made: dict[str, HostBlock] = {}
    for servers in blocks_of(model):
        first = servers[0].host
        block = blocks.get(first)
        if block is None or not block.is_valid(servers, model):
            own = [_host(server, model, parts, known) for server in servers]
            if any(each.parts is parts for each in own):  # hosts with canaries: they may share backends with others
                for each in own:
                    joined.add(each)
                continue
            block = HostBlock.of(servers, JoinedHosts())
            for each in own:
                block.joined.add(each)
            block = HostBlock.of(servers, block.joined)
        made[first] = block
        parts.names.taken.update(block.taken)
        joined.include(block.joined)
    return joined, made


def _host(server: Server, model: IngressModel, parts: ConfigParts, known: Mapping[str, HostParts]) -> HostParts:
    own = known.get(server.host)
    return own if own is not None and own.is_valid(server, model, parts.names) else compiled_host(server, model, parts)
