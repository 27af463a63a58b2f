"""The proxy's objects as a configuration of HAProxy, and back from what HAProxy reports at run time.

There is one frontend of HAProxy for each family. It takes a socket that the supervisor holds, looks up the pool by the
destination that the client chose, and closes connections to other destinations. A pool is a backend. Its affinity is
part of the backend's name, since HAProxy does not report it otherwise.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Final, NamedTuple

from rulegen.backends.userspace.servers import definitions, fallback_name, server_name
from rulegen.backends.userspace.spares import (
    BACKEND,
    POOLS_FILE,
    UnexpectedReportError,
    backend_name,
    placement_of,
    read_pools,
    spares_of,
)
from rulegen.languages.haproxy.check import check_map, check_sections
from rulegen.languages.haproxy.text import format_map, format_sections
from rulegen.languages.haproxy.tree import ConfigLine, ConfigSection, is_set, log_format, negated, sample, statement
from rulegen.languages.listeners.state import (
    ANY_ADDRESS,
    PoolServer,
    ProxyFrontend,
    ProxyKey,
    ProxyListener,
    ProxyObjects,
    ProxyValue,
    ServerPool,
    family_of_pool,
    frontend_key,
    listener_key,
    pool_key,
    server_key,
    short,
    split_endpoint,
)
from rulegen.net import Family, parse_address

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

CONFIGURATION_FILE: Final = "haproxy.cfg"
CONTROL_DESCRIPTOR: Final = 5
LOG_DESCRIPTOR: Final = 6
"""HAProxy writes there that it ejects a server, or uses it again."""
DESCRIPTORS: Final = {Family.IPV4: 3, Family.IPV6: 4}
"""The numbers of the listening sockets that HAProxy inherits."""

_THREADS: Final = "2"
"""Each thread costs 0.9 KB for each server."""
_TRIES: Final = "40"
"""Attempts to reach an endpoint, each at another one if there is one, for each connection."""
_CONNECT: Final = "250ms"
_IDLE: Final = "1d"
"""After this time without data, a connection ends; its conntrack entry is deleted then, too."""
_CLIENTS: Final = "100k"
"""Clients of a pool with affinity that are remembered."""

_FRONTEND_NAME: Final = re.compile(r"services\.(?P<family>v[46])\.(?P<port>[0-9]{1,5})")
_POOL, _KEY, _PORT = "sess.pool", "sess.key", "sess.port"
_IN_MAINTENANCE: Final = 0x2F
"""Bits of an administrative state in which a server takes no new connection: maintenance and drain."""


class ProxyFiles(NamedTuple):
    """The files of a configuration, by name."""

    texts: dict[str, str]


def map_file(family: Family) -> str:
    """Return the name of the map of frontends of a family."""
    return f"{short(family)}.map"


def files(objects: Mapping[ProxyKey, ProxyValue]) -> ProxyFiles:
    """Return the configuration for these objects, verified by a separate parser.

    Raises:
        UnwritableError: HAProxy cannot be given a value.
        DifferenceError: A text does not say what it was written from.
    """
    texts = {CONFIGURATION_FILE: "\n".join(_section_texts(objects))}
    for family in Family:
        name, entries = map_file(family), tuple(map_entries(objects, family))
        texts[name] = format_map(entries)
        check_map(name, texts[name], entries)
    texts[POOLS_FILE] = ""
    return ProxyFiles(texts)


def map_entries(objects: Mapping[ProxyKey, ProxyValue], family: Family) -> Iterator[tuple[str, str]]:
    """Yield the entries of the map of a family: the destination and the backend; a frontend without a pool has none."""
    for key, value in sorted(objects.items(), key=lambda item: item[0]):
        if key.family is family and isinstance(value, ProxyFrontend):
            pool = objects.get(pool_key(family, value.pool))
            if isinstance(pool, ServerPool):
                yield destination(key), backend_name(value.pool, pool)


def destination(key: ProxyKey) -> str:
    """Return the key of a frontend in the map, as HAProxy composes it from a destination.

    >>> destination(frontend_key(Family.IPV6, parse_address("fd00::1"), 80))
    'fd00::1:80'
    """
    address, port = split_endpoint(key.name)
    return f"{address}:{port}"


def _section_texts(objects: Mapping[ProxyKey, ProxyValue]) -> Iterator[str]:
    """Yield the text of each section, verified."""
    yield from map(_verified, _first_sections(objects))
    ordered = sorted(objects.items(), key=lambda item: item[0])
    servers: dict[tuple[Family, str], list[PoolServer]] = {}
    for key, value in ordered:
        if isinstance(value, PoolServer):
            servers.setdefault((key.family, value.pool), []).append(value)
    for key, value in ordered:
        if isinstance(value, ServerPool):
            yield _backend_text(key.family, key.name, value, tuple(servers.get((key.family, key.name), ())))
    for family, value, name in spares_of(objects):
        yield _verified(ConfigSection("backend", name, tuple(_pool_lines(family, value))))


@lru_cache(1 << 14)  # a change concerns few Services, and the text of all others stays
def _backend_text(family: Family, name: str, value: ServerPool, servers: tuple[PoolServer, ...]) -> str:
    lines = (*_pool_lines(family, value), *(line for server in servers for line in _server_lines(server)))
    return _verified(ConfigSection("backend", backend_name(name, value), lines))


def _verified(section: ConfigSection) -> str:
    text = format_sections((section,))
    check_sections(CONFIGURATION_FILE, text, (section,))
    return text


def _first_sections(objects: Mapping[ProxyKey, ProxyValue]) -> Iterator[ConfigSection]:
    yield ConfigSection(
        "global",
        "",
        (
            statement("stats", "socket", f"fd@{CONTROL_DESCRIPTOR}", "level", "admin"),
            statement("nbthread", _THREADS),
            statement("log", f"fd@{LOG_DESCRIPTOR}", "format", "raw", "local0", "notice"),
            statement("hard-stop-after", "1d"),
        ),
    )
    yield ConfigSection(
        "defaults",
        "",
        (
            statement("mode", "tcp"),
            statement("log", "global"),
            statement("timeout", "connect", _CONNECT),
            statement("timeout", "client", _IDLE),
            statement("timeout", "server", _IDLE),
            statement("retries", _TRIES),
            statement("option", "redispatch", "1"),
            statement("option", "clitcpka"),
            statement("option", "srvtcpka"),
        ),
    )
    for family in Family:
        listener = objects.get(listener_key(family))
        if isinstance(listener, ProxyListener):
            yield ConfigSection("frontend", f"services.{short(family)}.{listener.port}", tuple(_frontend_lines(family)))


def _frontend_lines(family: Family) -> Iterator[ConfigLine]:
    """Yield the lines that find the pool: by address and port, else by the port of the node."""
    pool, key = sample("var", _POOL), sample("var", _KEY)
    unknown = negated(is_set(pool))
    look_up = ("tcp-request", "content", f"set-var({_POOL})", key.then("map_str", map_file(family)))
    yield statement("bind", f"fd@{DESCRIPTORS[family]}")
    yield statement("no", "log")
    yield statement("tcp-request", "content", f"set-var({_PORT})", sample("dst_port"))
    yield statement("tcp-request", "content", f"set-var({_KEY})", sample("dst").then("concat", ":", _PORT))
    yield statement(*look_up)
    of_node = sample("str", ANY_ADDRESS).then("concat", ":", _PORT)
    is_local = ("{", sample("dst_is_local"), "}")
    yield statement("tcp-request", "content", f"set-var({_KEY})", of_node, when=(*unknown, *is_local))
    yield statement(*look_up, when=unknown)
    yield statement("tcp-request", "content", "reject", when=unknown)
    # HAProxy holds the map of spare backends for rulegen, and only if a rule names it; this one is never used.
    yield statement(
        "tcp-request", "content", f"set-var({_POOL})", sample("str", "-").then("map_str", POOLS_FILE), when=("FALSE",)
    )
    yield statement("use_backend", log_format(pool))


def _pool_lines(family: Family, pool: ServerPool) -> Iterator[ConfigLine]:
    """Yield the lines for the choice of a server.

    With affinity, the server is derived from the client's address, so that a reload changes it for few clients.
    """
    yield statement("option", "allbackups")
    if pool.affinity_s is None:
        yield statement("balance", "roundrobin")
        return
    kind = "ip" if family is Family.IPV4 else "ipv6"
    yield statement("balance", "source")
    yield statement("hash-type", "consistent")
    yield statement("stick-table", "type", kind, "size", _CLIENTS, "expire", f"{pool.affinity_s}s")
    yield statement("stick", "on", sample("src"))


def _server_lines(server: PoolServer) -> Iterator[ConfigLine]:
    for each in definitions(server):
        yield statement("server", each.name, each.endpoint, *each.options)


def backends_of(report: str) -> Iterator[str]:
    """Yield the names of the backends of `show stat`."""
    rows = (row.partition(",") for row in _rows(report))
    return (name for name, _, rest in rows if rest.startswith("BACKEND,"))


def read_proxies(
    report: str, *, supervised: Mapping[Family, int], placed: Mapping[str, str]
) -> Iterator[tuple[ProxyKey, ProxyValue]]:
    """Yield the listeners and pools of `show stat`.

    Args:
        report: The text.
        placed: The pool of each backend that serves one.
        supervised: The ports of the listening sockets that a supervisor holds.

    Raises:
        UnexpectedReportError: A line is none of ours.
    """
    for row in _rows(report):
        name, _, rest = row.partition(",")
        if rest.startswith("FRONTEND,") and (match := _FRONTEND_NAME.fullmatch(name)):
            family = family_of_pool(f".{match['family']}")
            yield listener_key(family), ProxyListener(port := int(match["port"]), supervised.get(family) == port)
        elif rest.startswith("BACKEND,") and (match := BACKEND.fullmatch(name)):
            affinity = int(match["affinity"]) if match["affinity"] else None
            if (pool := placed.get(name)) is not None:
                yield pool_key(family_of_pool(pool), pool), ServerPool(affinity)
        else:
            raise UnexpectedReportError(f"HAProxy reports a proxy in an unknown format: {row[:80]!a}")


class ReportedServer(NamedTuple):
    """A server as HAProxy reports it.

    Attributes:
        takes_connections: Whether it takes new connections; a server that was removed stays until its last one ends.
        is_fallback: Whether it is used only if all others are ejected.
    """

    server: PoolServer
    takes_connections: bool
    is_fallback: bool


def read_servers(report: str, placed: Mapping[str, str] | None = None) -> Iterator[ReportedServer]:
    """Yield the servers of `show servers state`.

    Args:
        report: The text.
        placed: The pool of each backend that serves one; other backends have the pool of their name.

    Raises:
        UnexpectedReportError: A line is none of ours.
    """
    rows = _rows(report)
    if next(rows, "") != "1":
        raise UnexpectedReportError("HAProxy reports servers in an unknown format")
    for row in rows:
        words = row.split(" ")
        match = BACKEND.fullmatch(words[1]) if len(words) > 18 else None
        if match is None:
            raise UnexpectedReportError(f"HAProxy reports a server in an unknown format: {row[:80]!a}")
        try:
            pool = (placed or {}).get(words[1], match["pool"])
            server = PoolServer(pool, parse_address(words[4]), int(words[18]))
            admin = int(words[6])
        except ValueError:
            raise UnexpectedReportError(f"HAProxy reports a server in an unknown format: {row[:80]!a}") from None
        if words[3] not in {server_name(server), fallback_name(server)}:
            raise UnexpectedReportError(f"HAProxy reports a server with another address: {row[:80]!a}")
        yield ReportedServer(server, not admin & _IN_MAINTENANCE, words[3] == fallback_name(server))


def read_frontends(report: str, family: Family, placed: Mapping[str, str]) -> Iterator[tuple[ProxyKey, ProxyFrontend]]:
    """Yield the frontends of `show map`; an entry that leads to another family or nowhere is unexpected.

    Args:
        report: The text.
        family: The family of the map.
        placed: See `read_servers`.

    Raises:
        UnexpectedReportError: A line is none of ours.
    """
    for row in _rows(report):
        words = row.split(" ")
        match = BACKEND.fullmatch(words[2]) if len(words) == 3 else None
        try:
            if match is None:
                raise ValueError  # noqa: TRY301 - one message for all
            address, port = split_endpoint(words[1])
            key = frontend_key(family, None if address == ANY_ADDRESS else parse_address(address), port)
        except ValueError:
            raise UnexpectedReportError(f"HAProxy reports a map entry in an unknown format: {row[:80]!a}") from None
        yield key, ProxyFrontend(placed.get(words[2], match["pool"]))


def _rows(report: str) -> Iterator[str]:
    return (row for row in report.split("\n") if row and not row.startswith("#"))


def objects_of_reports(
    proxies: str, servers: str, maps: Mapping[Family, str], *, supervised: Mapping[Family, int], pools: str = ""
) -> ProxyObjects:
    """Return the objects that HAProxy reports; servers that take no new connections, or are not complete, are missing.

    Raises:
        UnexpectedReportError: A report has a line that is none of ours.
    """
    placement = placement_of(backends_of(proxies), read_pools(pools))
    placed = {backend: pool for pool, backend in placement.backends.items()}
    objects: ProxyObjects = dict(read_proxies(proxies, supervised=supervised, placed=placed))
    used = [each for each in read_servers(servers, placed) if each.takes_connections]
    fallbacks = {each.server for each in used if each.is_fallback}
    for server in (each.server for each in used if not each.is_fallback):
        if server in fallbacks:
            objects[server_key(family_of_pool(server.pool), server)] = server
    for family, text in maps.items():
        objects.update(read_frontends(text, family, placed))
    return objects
