"""The servers of HAProxy for one endpoint: one that can be ejected, and one that is tried if all are ejected.

HAProxy ejects a server after one failed connection (`observe layer4`), and tests it from then on, until a connection
succeeds. A server that is not ejected is tested once a day, so the tests cause hardly any traffic. If a pool has only
ejected servers, its fallback servers are used: they are never tested, so all endpoints are tried.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from rulegen.net import join_host_port

if TYPE_CHECKING:
    from rulegen.languages.listeners.state import PoolServer

_SELDOM: Final = "1d"
_AGAIN: Final = "2s"
_FALLBACK: Final = "_fallback"
_EJECTED: Final = (
    *("check", "inter", _SELDOM, "fastinter", _AGAIN, "downinter", _AGAIN, "rise", "1", "fall", "1"),
    *("observe", "layer4", "error-limit", "1", "on-error", "mark-down"),
)


class ServerDefinition(NamedTuple):
    """A server as HAProxy gets it.

    Attributes:
        name: Its name in its backend.
        endpoint: Its address and port.
        options: The words after the endpoint.
        is_checked: Whether it can be ejected.
    """

    name: str
    endpoint: str
    options: tuple[str, ...]
    is_checked: bool


def server_name(server: PoolServer) -> str:
    """Return the name of the server that can be ejected.

    >>> from rulegen.languages.listeners.state import PoolServer
    >>> from rulegen.net import parse_address
    >>> server_name(PoolServer("demo.web.http.v6", parse_address("fd00::1"), 80))
    'fd00::1_80'
    """
    return f"{server.address}_{server.port}"


def fallback_name(server: PoolServer) -> str:
    """Return the name of the server that is used if all others are ejected."""
    return f"{server_name(server)}{_FALLBACK}"


def definitions(server: PoolServer) -> tuple[ServerDefinition, ServerDefinition]:
    """Return both servers of an endpoint."""
    endpoint = join_host_port(server.address, server.port)
    return (
        ServerDefinition(server_name(server), endpoint, _EJECTED, is_checked=True),
        ServerDefinition(fallback_name(server), endpoint, ("backup",), is_checked=False),
    )
