"""The difference of two maps of objects; all languages use it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Mapping

K = TypeVar("K")
V = TypeVar("V")


class Change(NamedTuple, Generic[K, V]):
    """A change of one object. `before` is None for a new object, `after` is None for a deleted one."""

    key: K
    before: V | None
    after: V | None


def diff(observed: Mapping[K, V], desired: Mapping[K, V]) -> tuple[Change[K, V], ...]:
    """Return the changes from `observed` to `desired`, in order of keys; keys must be sortable.

    >>> diff({"a": 1, "b": 2}, {"b": 3, "c": 4})
    (Change(key='a', before=1, after=None), Change(key='b', before=2, after=3), Change(key='c', before=None, after=4))
    """
    keys = [key for key, value in desired.items() if observed.get(key) != value]
    keys += (key for key in observed if key not in desired)
    return tuple(Change(key, observed.get(key), desired.get(key)) for key in sorted(keys))  # type: ignore[type-var]
