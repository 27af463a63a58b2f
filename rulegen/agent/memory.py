"""Memory that a look at all rules took, given back: an agent that runs for months is to be as small as it can."""

from __future__ import annotations

import ctypes
import gc


def give_back() -> None:
    """Collect what is left over, and have the allocator return free pages to the kernel (malloc_trim(3))."""
    gc.collect()
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc alone has it
    if trim is not None:
        trim(0)
