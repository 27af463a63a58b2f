"""Access to pages: which host names are this node's, and which header fields reveal a proxy."""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

LOCALHOST: Final = "localhost"
_OF_PROXIES: Final = (
    "forwarded",
    "via",
    "x-forwarded",
    "x-original-",
    "x-real-",
    "x-client-",
    "x-cluster-client-",
    "x-envoy-",
    "x-request-id",
    "x-scheme",
    "client-ip",
    "true-client-ip",
    "cf-",
    "proxy-",
)
"""Prefixes of header fields that proxies add: RFC 7239, RFC 9110, nginx, Envoy and others."""


def name_of(host: str) -> str | None:
    """Return the name or address of a Host field in lower case, without port and brackets; None if it is malformed."""
    name, colon, port = host.rpartition(":")
    if not colon or port.endswith("]") or _is_address(host):
        name = host
    elif port and not (port.isascii() and port.isdigit()):
        return None
    if name.startswith("[") != name.endswith("]"):
        return None
    if name.startswith("["):
        name = name[1:-1]
        return name.lower() if _is_address(name, of_ipv6=True) else None
    return name.lower().removesuffix(".") or None


def is_ours(host: str | None, names: Collection[str]) -> bool:
    """Whether a request names this node: by an address, as localhost, by one of its names, or not at all.

    With DNS rebinding, a page in a browser sends its own name, which resolves to this node.

    Args:
        host: The field Host.
        names: The node's names, in lower case.
    """
    if host is None:
        return True
    name = name_of(host)
    return name is not None and (name == LOCALHOST or name in names or _is_address(name))


def is_loopback_name(host: str | None) -> bool:
    """Whether a request names the loopback: by an address, as localhost, or nothing at all."""
    if host is None:
        return True
    name = name_of(host)
    return name is not None and (name == LOCALHOST or is_loopback(name))


def is_loopback(text: str) -> bool:
    """Whether a text is an address of the loopback."""
    return _is_address(text) and ip_address(text).is_loopback


def field_of_proxy(names: Iterable[str]) -> str | None:
    """Return the first header field that only proxies add, in lower case; None if there is none."""
    return next((name for name in names if name.startswith(_OF_PROXIES)), None)


def source_of(address: str) -> str:
    """Return the key by which a client is counted: its address; for IPv6 the /64, all of which one host may use."""
    client = ip_address(address.partition("%")[0])
    if client.is_loopback:
        return LOCALHOST
    if isinstance(client, IPv6Address):
        return f"{IPv6Address(int(client) >> 64 << 64)}/64"
    return str(client)


def _is_address(text: str, *, of_ipv6: bool = False) -> bool:
    try:
        parsed = ip_address(text)
    except ValueError:
        return False
    return parsed.version == 6 or not of_ipv6
