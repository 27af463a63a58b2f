"""The difference of two maps of objects: the same few lines for every language."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Mapping

K = TypeVar("K")
V = TypeVar("V")


class Change(NamedTuple, Generic[K, V]):
    """An object that becomes another. `before` is None for one to add, `after` for one to delete."""

    key: K
    before: V | None
    after: V | None


def diff(observed: Mapping[K, V], desired: Mapping[K, V]) -> tuple[Change[K, V], ...]:
    """Return what must happen for `observed` to become `desired`, in order of key; keys must have an order.

    >>> diff({"a": 1, "b": 2}, {"b": 3, "c": 4})
    (Change(key='a', before=1, after=None), Change(key='b', before=2, after=3), Change(key='c', before=None, after=4))
    """
    keys = [key for key, value in desired.items() if observed.get(key) != value]
    keys += (key for key in observed if key not in desired)
    return tuple(Change(key, observed.get(key), desired.get(key)) for key in sorted(keys))  # type: ignore[type-var]
