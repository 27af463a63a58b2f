"""Durations in Go's syntax, as in a KubeProxyConfiguration: `1m30s`, `250ms`, `-1s`.

Source: https://pkg.go.dev/time#ParseDuration
"""

from __future__ import annotations

import re
from typing import Final

from rulegen.text import quoted

_UNITS: Final = {"h": 3600.0, "m": 60.0, "s": 1.0, "ms": 1e-3, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ns": 1e-9}
_PART: Final = re.compile(r"([0-9]+\.?[0-9]*|\.[0-9]+)(h|ms|m|s|us|µs|μs|ns)")
_WHOLE: Final = re.compile(rf"[-+]?(0|({_PART.pattern})+)\Z")
MAX_CHARACTERS: Final = 256
"""Maximum length of a duration: the time of the regular expressions above grows with its square."""
LONGEST_S: Final = 2**63 / 1e9
"""Maximum of a duration in seconds: Go stores nanoseconds as a signed 64-bit integer."""


def parse_duration(text: str) -> float:
    """Return a duration in seconds; it may be less than 0.

    Raises:
        ValueError: The text is not a duration; the message contains it.

    >>> parse_duration("1m30s"), parse_duration("-250ms"), parse_duration("0")
    (90.0, -0.25, 0.0)
    """
    is_whole = len(text) <= MAX_CHARACTERS and _WHOLE.match(text) is not None
    seconds = sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text)) if is_whole else LONGEST_S
    if not seconds < LONGEST_S:
        raise ValueError(f"{quoted(text)} is not a duration such as 30s or 1m30s")
    return -seconds if text.startswith("-") else seconds


def seconds_of(text: str, default: float) -> float:
    """Return a validated duration in seconds; the default for an empty text.

    >>> seconds_of("1m30s", 5), seconds_of("", 5), seconds_of("250ms", 5)
    (90.0, 5, 0.25)
    """
    return parse_duration(text) if text else default
