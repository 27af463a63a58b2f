"""The last reported state of each object that Ingresses refer to: its version, or that it does not exist."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rulegen.apiserver.watching.backoff import PATIENCE

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rulegen.apiserver.referred.order import Key
    from rulegen.apiserver.watching.backoff import Pace


@dataclass(slots=True)
class ObjectRecord:
    """One object that is referred to.

    Attributes:
        version: The reported resourceVersion; empty if it does not exist; None if it must be reported again.
        is_answered: Whether its state was reported at least once.
        weight: Its memory in bytes.
        refusals: How often in a row the server denied it, or reported that it cannot exist.
        is_refused: Whether the server repeatedly denies access to it.
        pace: Backoff for its own failures; None if it has none.
    """

    version: str | None = None
    is_answered: bool = False
    weight: int = 0
    refusals: int = 0
    is_refused: bool = False
    pace: Pace | None = None


class ObjectRecords:
    """All objects that Ingresses refer to. Not thread-safe.

    Attributes:
        weight: Memory of all objects in bytes.
    """

    def __init__(self) -> None:
        """Start with none."""
        self.weight = 0
        self._by_key: dict[Key, ObjectRecord] = {}
        self._unanswered: set[Key] = set()
        self._refused: set[Key] = set()

    def __contains__(self, key: Key) -> bool:
        return key in self._by_key

    def __len__(self) -> int:
        return len(self._by_key)

    def all(self) -> list[Key]:
        """Return all objects, in the order in which they came."""
        return list(self._by_key)

    def get(self, key: Key) -> ObjectRecord | None:
        """Return what is known of an object; None if nothing refers to it."""
        return self._by_key.get(key)

    def add(self, key: Key) -> None:
        """Add an object whose state is unknown."""
        self._by_key[key] = ObjectRecord()
        self._unanswered.add(key)

    def remove(self, key: Key) -> None:
        """Remove an object."""
        self.weight -= self._by_key.pop(key).weight
        self._unanswered.discard(key)
        self._refused.discard(key)

    def note_reported(self, key: Key, version: str, weight: int) -> None:
        """Record the state of an object that is about to be reported."""
        record = self._by_key[key]
        self.weight += weight - record.weight
        record.version, record.weight, record.is_answered = version, weight, True
        self._unanswered.discard(key)

    def note_answer(self, key: Key) -> bool:
        """Record that the server allows access to an object; return whether it was denied before."""
        record = self._by_key[key]
        was_refused, record.is_refused, record.refusals, record.pace = record.is_refused, False, 0, None
        self._refused.discard(key)
        return was_refused

    def note_refusal(self, key: Key, *, is_forbidden: bool) -> bool:
        """Record that the server denied an object, and return whether this counts."""
        record = self._by_key[key]
        record.refusals += 1
        is_believed = record.refusals >= PATIENCE
        if is_forbidden and is_believed:
            record.is_refused = True
            self._refused.add(key)
        return is_believed

    def unanswered(self) -> list[Key]:
        """Return the objects whose state was never reported, in order of kind and name."""
        return _sorted(self._unanswered)

    def refused(self) -> frozenset[Key]:
        """Return the objects that the server repeatedly denies."""
        return frozenset(self._refused)

    def forget_versions(self) -> None:
        """Report all again: the server went back to an older state."""
        for record in self._by_key.values():
            record.version = None


def _sorted(keys: Iterable[Key]) -> list[Key]:
    return sorted(keys, key=lambda key: (key.kind.__name__, key.name))
