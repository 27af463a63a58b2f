"""The next hops of this host's default routes, over rtnetlink (rtnetlink(7))."""

from __future__ import annotations

import socket
import struct
from contextlib import suppress
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

from rulegen.errors import HostError
from rulegen.host.netlink import messages

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rulegen.net import Address

_GET_ROUTE: Final = 26
_ROUTE: Final = struct.Struct("=BBBBBBBBI")
"""struct rtmsg: family, lengths of destination and source, TOS, table, protocol, scope, type, flags."""
_HOP: Final = struct.Struct("=HBBi")
"""struct rtnexthop: length, flags, hops, index of the interface; attributes follow."""
_MAIN: Final = 254
_RTA_GATEWAY, _RTA_MULTIPATH, _RTA_VIA = 5, 9, 18
_SOL_NETLINK, _STRICT_CHECK = 270, 12
_TRIES: Final = 10


def gateways() -> frozenset[Address]:
    """Return the gateways of all default routes of the main table, of both families; link-local ones are left out.

    Only the main table is requested, because the local table has a route for each address that IPVS binds.

    Raises:
        HostError: The routes cannot be read.
    """
    error: OSError | None = None
    for _ in range(_TRIES):
        try:
            return frozenset(gateway for family in (socket.AF_INET, socket.AF_INET6) for gateway in _gateways(family))
        except InterruptedError as interrupted:  # a route changed meanwhile: another may be missing
            error = interrupted
        except OSError as refused:
            error = refused
            break
    raise HostError(f"reading the routes: {(error and error.strerror) or error}") from error


def _gateways(family: int) -> list[Address]:
    with messages.connect(messages.ROUTE) as link:
        with suppress(OSError):  # Linux before 4.20 returns all tables
            link.setsockopt(_SOL_NETLINK, _STRICT_CHECK, 1)
        wanted = _ROUTE.pack(family, 0, 0, 0, _MAIN, 0, 0, 0, 0)
        request = messages.message(_GET_ROUTE, messages.DUMP, 1, wanted)
        return [
            gateway
            for body in messages.dump(link, request, is_whole=True)
            for gateway in gateways_of_route(body)
            if not gateway.is_link_local
        ]


def gateways_of_route(body: bytes) -> Iterator[Address]:
    """Yield the gateways of a route in a message, if it is a default route of the main table."""
    _, destination_length, _, _, table, *_ = _ROUTE.unpack_from(body)
    if destination_length or table != _MAIN:
        return
    attributes = messages.attributes_of(body[_ROUTE.size :])
    yield from _hop(attributes)
    hops, at = attributes.get(_RTA_MULTIPATH, b""), 0
    while at + _HOP.size <= len(hops):
        length = _HOP.unpack_from(hops, at)[0]
        yield from _hop(messages.attributes_of(hops[at + _HOP.size : at + length]))
        at += max((length + 3) & ~3, _HOP.size)


def _hop(attributes: dict[int, bytes]) -> Iterator[Address]:
    """Yield the gateway of one hop; RTA_VIA has one of the other family, after the number of the family."""
    content = attributes.get(_RTA_GATEWAY) or attributes.get(_RTA_VIA, b"")[2:]
    if len(content) in {4, 16}:
        yield ip_address(content)
