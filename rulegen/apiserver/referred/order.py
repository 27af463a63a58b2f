"""Which objects are to be read next: those that changed, those whose pause is over, many of a namespace at once.

Pure: time is given, nothing is read here. An object is never read twice at the same time, so that what is read last is
never older than what was read before.
"""

from __future__ import annotations

import heapq
import math
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from rulegen.kube.objects.kinds import KubeObject
    from rulegen.kube.objects.names import ObjectName

BULK: Final = 10
"""So many objects of a namespace, or more, are read by a list of it, where the API server allows that."""
MOST_AT_ONCE: Final = 500


class Group(NamedTuple):
    """The objects of one kind in one namespace."""

    kind: type[KubeObject]
    namespace: str


class Key(NamedTuple):
    """Kind and name of an object that is referred to."""

    kind: type[KubeObject]
    name: ObjectName

    def __str__(self) -> str:
        return f"{self.kind.__name__} {self.name}"

    @property
    def group(self) -> Group:
        """Return the group that it belongs to."""
        return Group(self.kind, self.name.namespace)


class Batch(NamedTuple):
    """Objects of one group that are read by one request.

    Attributes:
        is_bulk: Whether by a list of the namespace, else by the name of the only one.
    """

    group: Group
    names: frozenset[ObjectName]
    is_bulk: bool

    def all(self) -> list[Key]:
        """Return the objects, in order of name."""
        return [Key(self.group.kind, name) for name in sorted(self.names)]


class ReadingOrder:
    """Objects that are to be read, in the order in which they came; groups take turns."""

    def __init__(self) -> None:
        """Start with none."""
        self._due: dict[Group, dict[ObjectName, None]] = {}
        self._reading: set[Key] = set()
        self._again: set[Key] = set()
        self._pauses: dict[Key, float] = {}
        self._heap: list[tuple[float, str, Key]] = []
        self._alone_until: dict[Group, float] = {}

    def add(self, key: Key) -> None:
        """Read an object as soon as possible; if it is being read now, read it once more."""
        self._pauses.pop(key, None)
        if key in self._reading:
            self._again.add(key)
        else:
            self._due.setdefault(key.group, {})[key.name] = None

    def put_off(self, key: Key, until: float) -> None:
        """Read an object at that time, unless it is added before."""
        self._pauses[key] = until
        heapq.heappush(self._heap, (until, str(key), key))

    def discard(self, key: Key) -> None:
        """Do not read an object any more."""
        self._pauses.pop(key, None)
        self._again.discard(key)
        group = key.group
        names = self._due.get(group, {})
        names.pop(key.name, None)
        if not names:
            self._due.pop(group, None)

    def paused(self) -> list[Key]:
        """Return the objects that wait for their time."""
        return list(self._pauses)

    def read_singly(self, group: Group, until: float) -> None:
        """Do not read a list of this namespace before that time."""
        self._alone_until[group] = until

    def take(self, now: float) -> Batch | None:
        """Return what to read now; None for nothing."""
        self._end_pauses(now)
        if not self._due:
            return None
        group = next(iter(self._due))
        names = self._due.pop(group)
        is_bulk = len(names) >= BULK and self._alone_until.get(group, -math.inf) <= now
        taken = frozenset(list(names)[: MOST_AT_ONCE if is_bulk else 1])
        for name in taken:
            del names[name]
        if names:
            self._due[group] = names  # behind all others
        self._reading.update(Key(group.kind, name) for name in taken)
        return Batch(group, taken, is_bulk)

    def done(self, batch: Batch) -> None:
        """Record that a batch was read, or that reading failed."""
        for key in batch.all():
            self._reading.discard(key)
            if key in self._again:
                self._again.discard(key)
                self.add(key)

    def next_at(self) -> float:
        """Return when the next pause ends; infinity if there is none."""
        while self._heap and self._pauses.get(self._heap[0][2]) != self._heap[0][0]:
            heapq.heappop(self._heap)
        return self._heap[0][0] if self._heap else math.inf

    def _end_pauses(self, now: float) -> None:
        while self.next_at() <= now:
            self.add(heapq.heappop(self._heap)[2])
