"""The state of the proxy that serves Services: its listeners, pools, servers and frontends, as objects with keys.

A frontend is what clients connect to: an address and a port, or a port of the node. It leads to a pool. A pool has one
server for each endpoint. One listener for each family accepts the connections to all frontends.

An object is printed as one line. The lines of an export are read back; a line that rulegen has not printed is an error.
"""

from __future__ import annotations

import enum
import re
from typing import TYPE_CHECKING, Final, NamedTuple

from rulegen.errors import InputError
from rulegen.net import Family, Protocol, join_host_port, parse_address

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from rulegen.net import Address


class ProxyObject(enum.IntEnum):
    """The kind of an object, in the order in which objects are written."""

    LISTENER = 1
    POOL = 2
    SERVER = 3
    FRONTEND = 4


class ProxyKey(NamedTuple):
    """The key of an object.

    Attributes:
        name: Empty for a listener; for a pool, see `pool_name`; for a server, its pool and its address and port; for a
            frontend, its address and port, with `*` for all addresses of the node.
        protocol: TCP objects are those of HAProxy, UDP objects those of the relay.
    """

    family: Family
    kind: ProxyObject
    name: str = ""
    protocol: Protocol = Protocol.TCP


class ProxyListener(NamedTuple):
    """The socket that accepts connections.

    Attributes:
        port: Its port.
        is_supervised: Whether a supervisor holds it, so that new connections wait if the proxy ends.
    """

    port: int
    is_supervised: bool = True


class ServerPool(NamedTuple):
    """The servers of one port of a Service.

    Attributes:
        affinity_s: For how long a client stays with its server, in seconds; None for no affinity.
    """

    affinity_s: int | None = None


class PoolServer(NamedTuple):
    """One endpoint of a pool."""

    pool: str
    address: Address
    port: int


class ProxyFrontend(NamedTuple):
    """What clients connect to.

    Attributes:
        pool: The pool that serves it.
    """

    pool: str


ProxyValue = ProxyListener | ServerPool | PoolServer | ProxyFrontend
ProxyObjects = dict[ProxyKey, ProxyValue]

ANY_ADDRESS: Final = "*"
"""In the name of a frontend: a port of the node."""

_SHORT: Final = {Family.IPV4: "v4", Family.IPV6: "v6"}
_FAMILIES: Final = {short: family for family, short in _SHORT.items()}
POOL_NAME: Final = r"[a-z0-9.-]{1,200}\.v[46]"
_OF_UDP: Final = "udp "
"""Begins the line of an object of UDP."""
_LINE: Final = re.compile(
    rf"(?P<udp>{_OF_UDP})?(?:listener (?P<listener>v[46]) port (?P<port>[0-9]{{1,5}})(?P<alone> without supervisor)?"
    rf"|pool (?P<pool>{POOL_NAME})(?: affinity (?P<affinity>[0-9]{{1,6}})s)?"
    rf"|server (?P<server>{POOL_NAME}) (?P<endpoint>[0-9a-f.:\[\]]{{3,50}})"
    rf"|frontend (?P<frontend>[0-9a-f.:\[\]*]{{3,50}}) pool (?P<of>{POOL_NAME}))"
)


def short(family: Family) -> str:
    """Return the name of a family in names of pools.

    >>> short(Family.IPV6)
    'v6'
    """
    return _SHORT[family]


def pool_name(namespace: str, name: str, port: str | int, family: Family) -> str:
    """Return the name of a pool; labels of Kubernetes have no dots, so two ports never have the same name.

    >>> pool_name("demo", "web", "http", Family.IPV4)
    'demo.web.http.v4'
    """
    return f"{namespace}.{name}.{port}.{_SHORT[family]}"


def owner_of_pool(name: str) -> str:
    """Return `namespace/name` of the Service of a pool.

    >>> owner_of_pool("demo.web.http.v4")
    'demo/web'
    """
    return "/".join(name.split(".")[:2])


def pool_of(key: ProxyKey, value: ProxyValue | None) -> str:
    """Return the name of the pool of an object; empty for a listener, or without a value for a frontend."""
    if key.kind is ProxyObject.FRONTEND:
        return value.pool if isinstance(value, ProxyFrontend) else ""
    return key.name.partition("/")[0]


def listener_key(family: Family, protocol: Protocol = Protocol.TCP) -> ProxyKey:
    """Return the key of the listener of a family."""
    return ProxyKey(family, ProxyObject.LISTENER, protocol=protocol)


def pool_key(family: Family, name: str, protocol: Protocol = Protocol.TCP) -> ProxyKey:
    """Return the key of a pool."""
    return ProxyKey(family, ProxyObject.POOL, name, protocol)


def server_key(family: Family, server: PoolServer, protocol: Protocol = Protocol.TCP) -> ProxyKey:
    """Return the key of a server."""
    name = f"{server.pool}/{join_host_port(server.address, server.port)}"
    return ProxyKey(family, ProxyObject.SERVER, name, protocol)


def frontend_key(family: Family, address: Address | None, port: int, protocol: Protocol = Protocol.TCP) -> ProxyKey:
    """Return the key of a frontend; address None stands for all addresses of the node."""
    name = f"{ANY_ADDRESS}:{port}" if address is None else join_host_port(address, port)
    return ProxyKey(family, ProxyObject.FRONTEND, name, protocol)


def of_protocol(objects: Mapping[ProxyKey, ProxyValue], protocol: Protocol) -> ProxyObjects:
    """Return the objects of a protocol."""
    return {key: value for key, value in objects.items() if key.protocol is protocol}


def family_of_pool(name: str) -> Family:
    """Return the family of a pool.

    >>> family_of_pool("demo.web.http.v6")
    <Family.IPV6: 'IPv6'>
    """
    return _FAMILIES[name.rpartition(".")[2]]


def line(key: ProxyKey, value: ProxyValue) -> str:
    """Return an object on one line, without the line break.

    >>> line(frontend_key(Family.IPV4, parse_address("10.96.0.9"), 80), ProxyFrontend("demo.web.http.v4"))
    'frontend 10.96.0.9:80 pool demo.web.http.v4'
    """
    return (_OF_UDP if key.protocol is Protocol.UDP else "") + _line(key, value)


def _line(key: ProxyKey, value: ProxyValue) -> str:
    match value:
        case ProxyListener():
            return f"listener {_SHORT[key.family]} port {value.port}{'' if value.is_supervised else _ALONE}"
        case ServerPool():
            return f"pool {key.name}" + ("" if value.affinity_s is None else f" affinity {value.affinity_s}s")
        case PoolServer():
            return f"server {value.pool} {join_host_port(value.address, value.port)}"
        case ProxyFrontend():
            return f"frontend {key.name} pool {value.pool}"


_ALONE: Final = " without supervisor"


def format_proxy(objects: Mapping[ProxyKey, ProxyValue]) -> str:
    """Return all objects, one on each line."""
    return "".join(f"{line(key, value)}\n" for key, value in sorted(objects.items(), key=lambda item: item[0]))


def is_proxy_dump(text: str) -> bool:
    """Whether a text is that of `format_proxy`."""
    return _LINE.fullmatch(text.partition("\n")[0]) is not None


def read_proxy(text: str, source: str) -> ProxyObjects:
    """Return the objects that `format_proxy` has written.

    Raises:
        InputError: A line has another format; the message has its number.
    """
    objects: ProxyObjects = {}
    for number, each in enumerate(text.split("\n"), start=1):
        if not each:
            continue
        match = _LINE.fullmatch(each)
        try:
            if match is None:
                raise ValueError(each)  # noqa: TRY301 - one message for all
            objects.update(_read(match))
        except ValueError:
            message = f"line {number}: not an object of rulegen's proxy: {each[:80]!r}"
            raise InputError(source, message) from None
    return objects


def _read(match: re.Match[str]) -> Iterable[tuple[ProxyKey, ProxyValue]]:
    protocol = Protocol.UDP if match["udp"] else Protocol.TCP
    if match["listener"]:
        key = listener_key(_FAMILIES[match["listener"]], protocol)
        yield key, ProxyListener(int(match["port"]), not match["alone"])
    elif match["pool"]:
        affinity = int(match["affinity"]) if match["affinity"] else None
        yield pool_key(family_of_pool(match["pool"]), match["pool"], protocol), ServerPool(affinity)
    elif match["server"]:
        address, port = split_endpoint(match["endpoint"])
        server = PoolServer(match["server"], parse_address(address), port)
        yield server_key(family_of_pool(server.pool), server, protocol), server
    else:
        address, port = split_endpoint(match["frontend"])
        at = None if address == ANY_ADDRESS else parse_address(address)
        yield frontend_key(family_of_pool(match["of"]), at, port, protocol), ProxyFrontend(match["of"])


def split_endpoint(text: str) -> tuple[str, int]:
    """Return the address and port in a text; brackets around an address are removed.

    Raises:
        ValueError: The text has no port between 1 and 65,535.
    """
    address, _, port = text.rpartition(":")
    number = int(port)
    if not 0 < number < 65_536 or str(number) != port:
        raise ValueError(text)
    return address.removeprefix("[").removesuffix("]"), number


def with_changes(
    objects: Mapping[ProxyKey, ProxyValue], changes: Iterable[tuple[ProxyKey, ProxyValue | None]]
) -> ProxyObjects:
    """Return the objects after changes; None as a value deletes the object."""
    after = dict(objects)
    for key, value in changes:
        if value is None:
            after.pop(key, None)
        else:
            after[key] = value
    return after
