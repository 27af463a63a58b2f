"""Whose turn it is: changes of large Services are written behind those of all others, and each not too often."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rulegen.kube.world import ObjectName

PAUSE_S: Final = 10.0
"""A large Service that changes again is written so long after it was written last."""
SHARE: Final = 4
"""And so many times as long as that write took, so that one Service takes a fifth of the time at most."""


@dataclass(slots=True)
class Turns:
    """When large Services may be written again, and since when they wait, by the clock of the loop."""

    _next_at: dict[ObjectName, float] = field(default_factory=dict)
    _since: dict[ObjectName, float] = field(default_factory=dict)

    def chosen(self, large: Iterable[ObjectName], now: float) -> ObjectName | None:
        """Return the large Service that is to be written now: of those that may be, the one that waits longest."""
        due = [name for name in large if self.next_at(name) <= now]
        return min(due, key=lambda name: (self._since.get(name, now), name), default=None)

    def next_at(self, name: ObjectName) -> float:
        """Return when a large Service may be written again."""
        return self._next_at.get(name, 0.0)

    def wait(self, names: Iterable[ObjectName], now: float) -> None:
        """Note which large Services wait."""
        self._since = {name: self._since.get(name, now) for name in names}

    def oldest(self, now: float) -> float:
        """Return since when the large Service waits that waits longest; now where none does."""
        return min(self._since.values(), default=now)

    def wrote(self, name: ObjectName, began: float, now: float) -> None:
        """Note that a large Service was written."""
        self._since.pop(name, None)
        self._next_at = {one: at for one, at in self._next_at.items() if at > now}
        self._next_at[name] = now + max(PAUSE_S, SHARE * (now - began))
