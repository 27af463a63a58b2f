"""The difference of two maps of objects; all languages use it."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

K = TypeVar("K")
V = TypeVar("V")


class Change(NamedTuple, Generic[K, V]):
    """A change of one object. `before` is None for a new object, `after` is None for a deleted one."""

    key: K
    before: V | None
    after: V | None


_change: Callable[[tuple[Any, Any, Any]], Change[Any, Any]] = partial(tuple.__new__, Change)
"""Makes a change in a third of the time of the class: a first load has hundreds of thousands."""


def diff(
    observed: Mapping[K, V],
    desired: Mapping[K, V],
    in_order: Callable[[Iterable[K]], Iterable[K]] = sorted,  # type: ignore[assignment]
) -> tuple[Change[K, V], ...]:
    """Return the changes from `observed` to `desired`, in order of keys.

    Args:
        observed: The objects that are there.
        desired: The objects that must be there.
        in_order: Sorts keys.

    >>> diff({"a": 1, "b": 2}, {"b": 3, "c": 4})
    (Change(key='a', before=1, after=None), Change(key='b', before=2, after=3), Change(key='c', before=None, after=4))
    """
    keys = [key for key, value in desired.items() if observed.get(key) != value] if observed else list(desired)
    keys += (key for key in observed if key not in desired)
    keys = list(in_order(keys))
    return tuple(map(_change, zip(keys, map(observed.get, keys), map(desired.get, keys), strict=True)))
