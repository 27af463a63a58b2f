"""The order of changes of the proxy: before or after the rules that lead connections to it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from rulegen.languages.listeners.state import PoolServer, pool_key

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rulegen.diff.changes import Change


class ProxyScript(NamedTuple):
    """Changes in order: `early` before the rules change, `late` after no rule leads to the removed objects."""

    early: list[Change[Any, Any]]
    late: list[Change[Any, Any]]


def script(changes: Sequence[Change[Any, Any]]) -> ProxyScript:
    """Return the changes in order. A server leaves a pool that stays at once: its endpoint may have ended already."""
    gone = {change.key for change in changes if change.after is None}
    late = [change for change in changes if change.after is None and not _leaves_alone(change, gone)]
    of_late = {change.key for change in late}
    return ProxyScript([change for change in changes if change.key not in of_late], late)


def _leaves_alone(change: Change[Any, Any], gone: set[Any]) -> bool:
    """Whether a change removes a server from a pool that stays."""
    server = change.before
    return isinstance(server, PoolServer) and pool_key(change.key.family, server.pool, change.key.protocol) not in gone
