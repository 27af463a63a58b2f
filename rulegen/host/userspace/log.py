"""The log of the supervisor and the relay: lines on standard error, a file in their folder."""

from __future__ import annotations

import contextlib
import os
from typing import Final

_STDERR: Final = 2


def log(text: str) -> None:
    """Write a line. On a full disk it is lost: the process that writes it must go on."""
    with contextlib.suppress(OSError):
        os.write(_STDERR, f"{text}\n".encode("utf-8", "backslashreplace"))
