"""The listening sockets of the proxy. They exist before HAProxy starts, and HAProxy inherits them."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Final

from rulegen.languages.listeners.state import short
from rulegen.net import Family

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

_TRANSPARENT: Final = {Family.IPV4: (socket.IPPROTO_IP, 19), Family.IPV6: (socket.IPPROTO_IPV6, 75)}
"""IP_TRANSPARENT and IPV6_TRANSPARENT: accept connections to addresses that this host does not have, for TPROXY."""
_BACKLOG: Final = 4096
_KINDS: Final = {Family.IPV4: socket.AF_INET, Family.IPV6: socket.AF_INET6}
_ANY: Final = {Family.IPV4: "0.0.0.0", Family.IPV6: "::"}  # noqa: S104 - a rule lets only connections to Services in
_BY_SHORT: Final = {short(family): family for family in Family}


def listening(family: Family, port: int) -> socket.socket:
    """Return a new listening socket.

    Raises:
        OSError: The port is in use, or the family is missing; `filename` names the socket.
    """
    held = socket.socket(_KINDS[family], socket.SOCK_STREAM)
    try:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family is Family.IPV6:
            held.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        held.setsockopt(*_TRANSPARENT[family], 1)
        held.bind((_ANY[family], port))
        held.listen(_BACKLOG)
    except OSError as error:
        held.close()
        raise OSError(error.errno, error.strerror, f"port {port} ({family})") from None
    return held


def request(ports: Mapping[Family, int]) -> str:
    """Return the words of a request for these listeners.

    >>> request({Family.IPV4: 10261})
    'v4:10261'
    """
    return " ".join(f"{short(family)}:{port}" for family, port in sorted(ports.items()))


def read(words: Iterable[str]) -> Iterator[tuple[Family, int]]:
    """Yield the listeners of a request.

    Raises:
        OSError: A word is not that of `request`.
    """
    for word in words:
        name, _, port = word.partition(":")
        if name not in _BY_SHORT or not port.isdigit():
            raise OSError(22, "is not a listener", word)
        yield _BY_SHORT[name], int(port)


def by_family(descriptors: Iterable[int]) -> dict[Family, socket.socket]:
    """Return the listening TCP sockets among descriptors; others are closed."""
    sockets: dict[Family, socket.socket] = {}
    families = {number: family for family, number in _KINDS.items()}
    for descriptor in descriptors:
        held = socket.socket(fileno=descriptor)
        family = families.get(held.family)
        if family is None or family in sockets:
            held.close()
        else:
            held.set_inheritable(False)
            sockets[family] = held
    return sockets
