"""Memory of a process that runs for months: one arena, collected garbage, pages returned to the kernel."""

from __future__ import annotations

import ctypes
import gc
from typing import Final

_ARENA_MAX: Final = -8
"""M_ARENA_MAX of mallopt(3)."""
YOUNG: Final = 20_000
"""New objects after which young cycles are collected; after ten times as many, middle-aged ones too."""


def limit_arenas() -> None:
    """Have all threads allocate from one arena, so that each can use what another one has freed.

    Call it before there are any threads.
    """
    choose = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc alone has it
    if choose is not None:
        choose(_ARENA_MAX, 1)


def enable_gc() -> None:
    """Collect young reference cycles: each request to an API server leaves some.

    Commands that end soon run without. Old objects, which take long, are left to `trim`.
    """
    gc.enable()
    gc.set_threshold(YOUNG, 10, 1_000_000)


def trim() -> None:
    """Collect all garbage, and return free pages to the kernel (malloc_trim(3))."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc alone has it
    if trim is not None:
        trim(0)
