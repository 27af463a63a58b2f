"""The pause before a failed action is tried again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

LONGEST_PAUSE_S: Final = 20.0
"""The longest pause, in seconds: half a minute after the end of a fault, its effects have ended too."""


@dataclass(slots=True)
class RetryPause:
    """A pause that doubles with each failure in a row.

    Attributes:
        first_s: The first pause, in seconds.
        longest_s: The longest pause.
        now_s: The last pause; 0 if the last attempt succeeded.
    """

    first_s: float
    longest_s: float
    now_s: float = 0.0

    def failed(self) -> float:
        """Record a failure; return the pause in seconds."""
        self.now_s = min(max(2 * self.now_s, self.first_s), self.longest_s)
        return self.now_s

    def succeeded(self) -> None:
        """Record a success."""
        self.now_s = 0.0
