"""Memory that a look at all rules took, given back: an agent that runs for months is to be as small as it can."""

from __future__ import annotations

import ctypes
import gc
from typing import Final

_ARENA_MAX: Final = -8
"""M_ARENA_MAX of mallopt(3)."""
YOUNG: Final = 20_000
"""After so many new objects those are collected that only refer to one another; after ten times, older ones too."""


def limit_arenas() -> None:
    """Have all threads share one pool of memory: what one gives back is there for all. Call it before there are any."""
    choose = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc alone has it
    if choose is not None:
        choose(_ARENA_MAX, 1)


def enable_gc() -> None:
    """Have young cycles collected: each request to an API server leaves some, and this runs for months.

    A command that ends soon has that turned off. All the old objects, which take long, are left to `trim`.
    """
    gc.enable()
    gc.set_threshold(YOUNG, 10, 1_000_000)


def trim() -> None:
    """Collect what is left over, and have the allocator return free pages to the kernel (malloc_trim(3))."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc alone has it
    if trim is not None:
        trim(0)
