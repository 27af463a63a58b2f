"""Untrusted text in messages: whatever a document says, a message stays one short, harmless line."""

from __future__ import annotations

from typing import Any, Final

SHOWN_CHARACTERS: Final = 80


def printable(text: str, limit: int = SHOWN_CHARACTERS) -> str:
    r"""Return `text` with everything that does not print escaped (controls, newlines, direction marks), and cut.

    >>> printable("web\n-j ACCEPT\u202e")
    'web\\n-j ACCEPT\\u202e'
    """
    cut = text[:limit]
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in cut)
    return f"{shown}…" if len(text) > limit else shown


def quoted(text: str) -> str:
    """Return `text` as it stands in a message: printable, in double quotes."""
    return f'"{printable(text)}"'


def described(value: Any) -> str:
    """Return what a value of a document is, in words: `the text "http"`, `the number 80`, `a list`."""
    match value:
        case None:
            return "nothing (null)"
        case bool():
            return "true" if value else "false"
        case int() | float():
            return f"the number {_number(value)}"
        case str():
            return f"the text {quoted(value)}"
        case list() | tuple():
            return "a list"
        case _:
            return "an object"


def _number(value: float) -> str:
    """Spell a number in a few characters; an integer may have more digits than Python is willing to print."""
    if isinstance(value, int) and value.bit_length() > 64:
        return "of more than 64 bits"
    return str(value)
