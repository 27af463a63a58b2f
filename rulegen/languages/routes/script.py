"""The commands for changes of rules and routes, in order."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from rulegen.languages.routes.state import Key, LocalRouteKey, Present, line

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rulegen.diff.changes import Change


class RouteCommand(NamedTuple):
    """One command: adds an object, or deletes it."""

    key: Key
    adds: bool

    def __str__(self) -> str:
        return line(self.key, "add" if self.adds else "del")


class RouteScript(NamedTuple):
    """Commands in order: `added` before packets are marked, `removed` after no packet is marked any more."""

    added: tuple[RouteCommand, ...] = ()
    removed: tuple[RouteCommand, ...] = ()


def script(changes: Iterable[Change[Key, Present]]) -> RouteScript:
    """Return the commands. A table has its route before a rule leads to it, and until after that rule is deleted."""
    listed = list(changes)
    added = [RouteCommand(change.key, adds=True) for change in listed if change.after is not None]
    removed = [RouteCommand(change.key, adds=False) for change in listed if change.after is None]
    added.sort(key=lambda command: not isinstance(command.key, LocalRouteKey))
    removed.sort(key=lambda command: isinstance(command.key, LocalRouteKey))
    return RouteScript(tuple(added), tuple(removed))
