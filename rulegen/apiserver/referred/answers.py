"""What was told of each object that Ingresses refer to: that it is there, in which version, or that it is not."""

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
        version: The resourceVersion that was told; empty where it is not there; None where that must be told anew.
        is_answered: Whether it was told at least once.
        weight: Bytes of memory that it takes.
        refusals: How often the server refused it in a row, or said that it cannot be there.
        is_refused: Whether it keeps saying that we may not read it.
        pace: Of its own failures; None if it has none.
    """

    version: str | None = None
    is_answered: bool = False
    weight: int = 0
    refusals: int = 0
    is_refused: bool = False
    pace: Pace | None = None


class ObjectRecords:
    """All objects that are referred to. Not for several threads at once.

    Attributes:
        weight: Bytes of memory that all of them take.
    """

    def __init__(self) -> None:
        """Know of none."""
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
        """Return what is known of an object; None where nobody refers to it."""
        return self._by_key.get(key)

    def add(self, key: Key) -> None:
        """Add an object of which nothing was told yet."""
        self._by_key[key] = ObjectRecord()
        self._unanswered.add(key)

    def remove(self, key: Key) -> None:
        """Forget an object."""
        self.weight -= self._by_key.pop(key).weight
        self._unanswered.discard(key)
        self._refused.discard(key)

    def note_told(self, key: Key, version: str, weight: int) -> None:
        """Note what is being told of an object."""
        record = self._by_key[key]
        self.weight += weight - record.weight
        record.version, record.weight, record.is_answered = version, weight, True
        self._unanswered.discard(key)

    def note_answer(self, key: Key) -> bool:
        """Note that the server lets us read an object; return whether it was refused before."""
        record = self._by_key[key]
        was_refused, record.is_refused, record.refusals, record.pace = record.is_refused, False, 0, None
        self._refused.discard(key)
        return was_refused

    def note_refusal(self, key: Key, *, is_forbidden: bool) -> bool:
        """Note that the server refused an object, and return whether that is believed."""
        record = self._by_key[key]
        record.refusals += 1
        is_believed = record.refusals >= PATIENCE
        if is_forbidden and is_believed:
            record.is_refused = True
            self._refused.add(key)
        return is_believed

    def unanswered(self) -> list[Key]:
        """Return the objects of which nothing was told yet, in order of kind and name."""
        return _sorted(self._unanswered)

    def refused(self) -> frozenset[Key]:
        """Return the objects that the server keeps refusing."""
        return frozenset(self._refused)

    def forget_versions(self) -> None:
        """Have all told anew: the server was set back."""
        for record in self._by_key.values():
            record.version = None


def _sorted(keys: Iterable[Key]) -> list[Key]:
    return sorted(keys, key=lambda key: (key.kind.__name__, key.name))
