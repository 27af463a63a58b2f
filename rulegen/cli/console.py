"""What people see: colour on a terminal only, JSON for machines, progress on long work."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any, Self

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable


def has_colour() -> bool:
    """Whether standard output is a terminal that wants colour (https://no-color.org)."""
    return sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def count(number: int, noun: str) -> str:
    """Return a number with its noun, as `1 change` or `2 changes`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def print_lines(lines: Iterable[str]) -> None:
    """Print lines to standard output."""
    sys.stdout.writelines(f"{line}\n" for line in lines)
    sys.stdout.flush()


def print_json(document: Any) -> None:
    """Print a document to standard output."""
    encoded = msgspec.json.format(msgspec.json.encode(document), indent=2)
    sys.stdout.write(f"{encoded.decode()}\n")
    sys.stdout.flush()


def note(line: str) -> None:
    """Print one line to standard error."""
    sys.stderr.write(f"{line}\n")
    sys.stderr.flush()


class Progress:
    """A line on standard error that is written over as work goes on; nothing where that is no terminal.

    As a context, it takes the line away at the end.
    """

    def __init__(self) -> None:
        self._shows = sys.stderr.isatty()

    def __call__(self, line: str) -> None:
        """Show the line in place of the one before."""
        if self._shows:
            sys.stderr.write(f"\r\033[K{line[:200]}")
            sys.stderr.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._shows:
            sys.stderr.write("\r\033[K")
            sys.stderr.flush()
