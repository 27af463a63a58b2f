"""The pause before what failed is tried again."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class RetryPause:
    """A pause that doubles with each failure in a row.

    Attributes:
        first_s: The pause after the first one, in seconds.
        longest_s: The longest one.
        now_s: The pause after the last one; 0 where the last attempt went well.
    """

    first_s: float
    longest_s: float
    now_s: float = 0.0

    def failed(self) -> float:
        """Note a failure; return for how many seconds to wait."""
        self.now_s = min(max(2 * self.now_s, self.first_s), self.longest_s)
        return self.now_s

    def succeeded(self) -> None:
        """Note that it went well."""
        self.now_s = 0.0
