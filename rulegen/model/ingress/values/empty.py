"""Values for which an empty text means the same as none: it is reported, and it neither opens nor closes anything."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class EmptyValueError(ValueError):
    """An empty text, which means the same as an absent one."""


def unless_empty(read: Callable[[str], T]) -> Callable[[str], T]:
    """Return a reader that takes an empty text for an absent one."""
    return partial(_unless_empty, read)


def _unless_empty(read: Callable[[str], T], text: str) -> T:
    if not text:
        raise EmptyValueError("it is empty: it has no effect")
    return read(text)
