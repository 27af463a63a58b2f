"""How much the tests try, by one variable.

`RULEGEN_TEST_SIZE` is `quick` (a sample, for the loop of a developer), `usual` (the default, and CI's) or `full` (for a
night: more examples, longer loads, the waits that a node may really see).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from enum import Enum
from typing import TypeVar

Amount = TypeVar("Amount")


class Size(Enum):
    """How much is tried; the value is the factor of property tests' examples."""

    QUICK = 0.1
    USUAL = 1.0
    FULL = 10.0


def read_size(text: str) -> Size:
    """Return the size of this name.

    Raises:
        ValueError: there is none; the names are in the message.
    """
    try:
        return Size[text.upper()]
    except KeyError:
        names = ", ".join(size.name.lower() for size in Size)
        raise ValueError(f"RULEGEN_TEST_SIZE={text}: expected {names}") from None


SIZE = read_size(os.environ.get("RULEGEN_TEST_SIZE", "usual"))


def examples(usual: int, *, least: int = 3) -> int:
    """Return how many examples a property test tries where it usually tries so many; at least `least`."""
    return max(round(usual * SIZE.value), min(usual, least))


def sampled(values: Sequence[Amount]) -> Sequence[Amount]:
    """Return all of the values of a table, or every tenth for a quick look."""
    return values[::10] if SIZE is Size.QUICK else values


def sized(*, quick: Amount, usual: Amount, full: Amount) -> Amount:
    """Return the amount of this size: seconds of a load, a number of changes, a choice of worlds."""
    return {Size.QUICK: quick, Size.USUAL: usual, Size.FULL: full}[SIZE]
