"""Turns of large Services: they are written after all others, and slow ones not too often."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rulegen.kube.objects.names import ObjectName

QUICK_S: Final = 0.5
"""A write of at most this time does not delay others noticeably: its Service need not wait."""
SHARE: Final = 4
"""After a slower write, its Service waits for this multiple of the excess, so that it uses a fifth of the time."""
LONGEST_S: Final = 20.0
"""Maximum wait: meanwhile, traffic still goes to removed endpoints."""
QUIET_S: Final = 30.0
"""If nothing else was written for this long before a write and since, the Service does not wait."""


@dataclass(slots=True)
class Turns:
    """When large Services may be written again, and since when they have been waiting."""

    _wrote: dict[ObjectName, tuple[float, float]] = field(default_factory=dict)
    _since: dict[ObjectName, float] = field(default_factory=dict)
    _others_at: float = -QUIET_S

    def chosen(self, large: Iterable[ObjectName], now: float) -> ObjectName | None:
        """Return the large Service to write now: of those that may be written, the one that has waited longest."""
        due = [name for name in large if self.next_at(name) <= now]
        return min(due, key=lambda name: (self._since.get(name, now), name), default=None)

    def next_at(self, name: ObjectName) -> float:
        """Return the time when a large Service may be written again."""
        ended, pause = self._wrote.get(name, (0.0, 0.0))
        others = max((at for other, (at, _) in self._wrote.items() if other != name), default=self._others_at)
        is_alone = max(others, self._others_at) < ended - QUIET_S
        return ended if is_alone else ended + pause

    def wait(self, names: Iterable[ObjectName], now: float) -> None:
        """Record which large Services wait."""
        self._since = {name: self._since.get(name, now) for name in names}

    def oldest(self, now: float) -> float:
        """Return the time since which a large Service has been due; the current time if none is."""
        return min((min(max(since, self.next_at(name)), now) for name, since in self._since.items()), default=now)

    def wrote(self, name: ObjectName, took: float, now: float) -> None:
        """Record that a large Service was written, and how long that took without writes in between."""
        self._since.pop(name, None)
        self._wrote = {
            other: (at, pause) for other, (at, pause) in self._wrote.items() if at > now - QUIET_S - LONGEST_S
        }
        self._wrote[name] = now, min(SHARE * max(took - QUICK_S, 0.0), LONGEST_S)

    def wrote_others(self, now: float) -> None:
        """Record that other Services were written."""
        self._others_at = now
