"""Values for which an empty text means the same as no value. It is reported and has no other effect."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class EmptyValueError(ValueError):
    """The text is empty, which means the same as an absent one."""


def unless_empty(read: Callable[[str], T]) -> Callable[[str], T]:
    """Return a reader that treats an empty text as absent."""
    return partial(_unless_empty, read)


def _unless_empty(read: Callable[[str], T], text: str) -> T:
    if not text:
        raise EmptyValueError("it is empty: it has no effect")
    return read(text)
