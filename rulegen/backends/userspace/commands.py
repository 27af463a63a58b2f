"""Changes of the proxy as commands for HAProxy's socket, which need no reload."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from rulegen.backends.userspace.configuration import destination, map_file
from rulegen.backends.userspace.servers import definitions
from rulegen.backends.userspace.spares import BACKEND, NO_POOL, POOLS_FILE, Placement, backend_name, is_spare
from rulegen.languages.haproxy.text import socket_command
from rulegen.languages.listeners.state import PoolServer, ProxyFrontend, ProxyListener, ServerPool, pool_key

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rulegen.languages.listeners.state import ProxyKey, ProxyValue

_ADDED: Final = ("New server registered.", "Already exists a server with the same name in backend.")
"""A removed server whose connections have not ended is still there; it is enabled again."""
_DELETED: Final = ("Server deleted.", "Server still has connections attached to it, cannot remove it.")
"""A server with connections stays in maintenance until the next reload; new connections do not reach it."""
_DONE: Final = ("",)


class SocketCommand(NamedTuple):
    """One command.

    Attributes:
        expected: The answers of HAProxy if it was executed.
    """

    text: str
    expected: tuple[str, ...]


def commands(
    before: Mapping[ProxyKey, ProxyValue], after: Mapping[ProxyKey, ProxyValue], placement: Placement | None = None
) -> tuple[SocketCommand, ...] | None:
    """Return the commands, additions first; None if some change needs a reload.

    If HAProxy gives another answer than expected, the changes need a reload, too.

    Args:
        before: What HAProxy serves.
        after: What it shall serve.
        placement: Which backends serve which pools; it is brought up to date.
    """
    placement = placement or Placement()
    keys = [key for key in sorted({*before, *after}) if before.get(key) != after.get(key)]
    values = [value for key in keys for value in (before.get(key), after.get(key)) if value is not None]
    if not keys or any(isinstance(value, ProxyListener) for value in values):
        return None
    old = Placement(backends=dict(placement.backends))
    added: list[SocketCommand] = []
    for key in keys:
        value = after.get(key)
        if not isinstance(value, ServerPool):
            continue
        spare = placement.take(key.family, key.name, value) if key not in before else ""
        if not spare:
            return None
        added.append(SocketCommand(socket_command("add", "map", POOLS_FILE, spare, key.name), _DONE))
    added += (each for key in keys for each in _additions(key, before.get(key), after.get(key), after, placement))
    gone = sorted((key for key in keys if key not in after), key=lambda key: isinstance(before[key], ServerPool))
    return (*added, *(each for key in gone for each in _removals(key, before[key], before, old)))


def _additions(
    key: ProxyKey,
    had: ProxyValue | None,
    value: ProxyValue | None,
    after: Mapping[ProxyKey, ProxyValue],
    placement: Placement,
) -> Iterator[SocketCommand]:
    if isinstance(value, PoolServer):
        for each in definitions(value):
            name = f"{_backend(key, value.pool, after, placement)}/{each.name}"
            yield SocketCommand(socket_command("add", "server", name, each.endpoint, *each.options), _ADDED)
            if each.is_checked:
                yield SocketCommand(socket_command("enable", "health", name), _DONE)
            yield SocketCommand(socket_command("enable", "server", name), _DONE)
    elif isinstance(value, ProxyFrontend):
        verb = "add" if had is None else "set"
        words = (verb, "map", map_file(key.family), destination(key), _backend(key, value.pool, after, placement))
        yield SocketCommand(socket_command(*words), _DONE)


def _removals(
    key: ProxyKey, value: ProxyValue, before: Mapping[ProxyKey, ProxyValue], placement: Placement
) -> Iterator[SocketCommand]:
    if isinstance(value, PoolServer):
        for each in definitions(value):
            name = f"{_backend(key, value.pool, before, placement)}/{each.name}"
            yield SocketCommand(socket_command("set", "server", name, "state", "maint"), _DONE)
            yield SocketCommand(socket_command("del", "server", name), _DELETED)
    elif isinstance(value, ProxyFrontend):
        yield SocketCommand(socket_command("del", "map", map_file(key.family), destination(key)), _DONE)
    elif isinstance(value, ServerPool):
        backend = _backend(key, key.name, before, placement)
        match = BACKEND.fullmatch(backend)
        verb = "set" if match is not None and is_spare(match["pool"]) else "add"
        yield SocketCommand(socket_command(verb, "map", POOLS_FILE, backend, NO_POOL), _DONE)


def _backend(key: ProxyKey, pool: str, objects: Mapping[ProxyKey, ProxyValue], placement: Placement) -> str:
    """Return the backend of a pool; of a pool that is missing, HAProxy rejects the name."""
    if (placed := placement.backends.get(pool)) is not None:
        return placed
    value = objects.get(pool_key(key.family, pool))
    return backend_name(pool, value) if isinstance(value, ServerPool) else pool
