"""Which namespaces are watched: all with one watch if a role allows it, else each namespace that a role allows."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from rulegen.apiserver.referred.scope import Scope

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rulegen.apiserver.referred.order import Group, Key
    from rulegen.apiserver.referred.scope import ScopeOwner, ScopeTools

MAX_WATCHES: Final = 16
"""Maximum number of watches of namespaces, each with a connection; further namespaces are listed repeatedly."""


class Scopes:
    """The followed scopes. Not thread-safe."""

    def __init__(self, owner: ScopeOwner, tools: ScopeTools) -> None:
        self._owner = owner
        self._tools = tools
        self._by_place: dict[Group, Scope] = {}

    def arrange(self, groups: Iterable[Group]) -> list[Scope]:
        """Follow the scopes that these groups of objects need; return the scopes that are no longer needed."""
        wanted = set(groups)
        needed: set[Group] = set()
        for kind in {group.kind for group in wanted}:
            place = next(iter(wanted))._replace(kind=kind, namespace="")
            needed.add(place)
            all_of_them = self._by_place.get(place)
            if all_of_them is not None and all_of_them.is_refused:
                needed |= {group for group in wanted if group.kind is kind}
        dropped = [self._by_place.pop(place) for place in [*self._by_place] if place not in needed]
        for place in needed - self._by_place.keys():
            self._by_place[place] = Scope(place.kind, place.namespace, self._owner, self._tools)
        return dropped

    def all(self) -> list[Scope]:
        """Return all scopes."""
        return list(self._by_place.values())

    def covers(self, key: Key) -> bool:
        """Return whether a scope notices changes of an object."""
        return any(
            (scope := self._by_place.get(place)) is not None and scope.is_current
            for place in (key.group._replace(namespace=""), key.group)
        )

    def may_watch(self) -> bool:
        """Return whether the current scope may be watched; other scopes may then start a watch too."""
        return sum(scope.answer is not None or scope.is_busy for scope in self._by_place.values()) <= MAX_WATCHES

    def unwatched(self) -> int:
        """Return the number of scopes that can be followed but are not watched."""
        return sum(scope.is_current and scope.answer is None for scope in self._by_place.values())

    def next_due(self, now: float) -> tuple[Scope | None, float]:
        """Return the scope to advance now, if any, and the time of the next one."""
        idle = [scope for scope in self._by_place.values() if not scope.is_busy]
        scope = min(idle, key=lambda each: each.due, default=None)
        if scope is None:
            return None, math.inf
        return (scope if scope.due <= now else None), scope.due
