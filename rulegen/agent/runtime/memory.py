"""Memory of a process that runs for months: one arena, garbage collection, pages returned to the kernel."""

from __future__ import annotations

import ctypes
import gc
from typing import Final

_ARENA_MAX: Final = -8
"""M_ARENA_MAX of mallopt(3)."""
YOUNG: Final = 20_000
"""Number of new objects that starts a collection of the youngest generation; ten times as many for the next one."""


def limit_arenas() -> None:
    """Make all threads allocate from one arena, so that each can reuse memory that another has freed.

    Call this before any thread is started.
    """
    choose = getattr(ctypes.CDLL(None), "mallopt", None)  # only glibc has it
    if choose is not None:
        choose(_ARENA_MAX, 1)


def enable_gc() -> None:
    """Enable collection of young reference cycles: each request to an API server leaves some.

    Short commands run without collection. Old objects, which take long to check, are left to `trim`. Until it is called
    first, nearly all new objects are those of the cluster, which stay: they are checked less often.
    """
    gc.enable()
    gc.set_threshold(5 * YOUNG, 1000, 1_000_000)


def trim() -> None:
    """Collect all garbage, and return free pages to the kernel (malloc_trim(3))."""
    gc.collect()
    gc.set_threshold(YOUNG, 10, 1_000_000)
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # only glibc has it
    if trim is not None:
        trim(0)
