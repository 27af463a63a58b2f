"""Untrusted text in messages: each message stays one short line of printable characters, whatever a document holds."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

SHOWN_CHARACTERS: Final = 80
SHOWN_NAMES: Final = 5

_CONTROLS: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u0600-\u0605\u061c\u06dd\u070f\u0890\u0891\u08e2\u180e\u200b-\u200f\u2028-\u202e"
    "\u2060-\u206f\ud800-\udfff\ufeff\ufff9-\ufffb\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3"
    "\U0001d173-\U0001d17a\U000e0000-\U000e007f]"
)
"""Controls (Cc) but tab and line feed, format characters (Cf), separators of lines and paragraphs, and surrogates."""


def printable(text: str, limit: int = SHOWN_CHARACTERS) -> str:
    r"""Return `text` with everything that does not print escaped (controls, newlines, direction marks), and cut.

    >>> printable("web\n-j ACCEPT\u202e")
    'web\\n-j ACCEPT\\u202e'
    """
    cut = text[:limit]
    if not cut.isprintable():
        cut = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in cut)
    return f"{cut}…" if len(text) > limit else cut


def harmless(text: str) -> str:
    r"""Return a text of any number of lines with its control and format characters escaped; lines and tabs stay.

    Whatever is printed or logged goes through this. Escaped are what commands a terminal (ESC, C1), what makes a line
    look like another (marks of direction, characters without width), and halves of characters, which no encoding has.

    >>> harmless("a\x1b[2Jb\u202e\udcff\n")
    'a\\x1b[2Jb\\u202e\\udcff\n'
    """
    if text.isascii() and text.replace("\n", "").isprintable():
        return text
    return _CONTROLS.sub(_escape, text)


def harmless_json(text: str) -> str:
    r"""Return JSON text with each control and format character in it as JSON writes it: `\uXXXX`, or two of them.

    It says the same. JSON has to escape only what is below U+0020, which leaves C1 and marks of direction as they are.
    """
    if text.isascii() and "\x7f" not in text:
        return text  # below U+0020, JSON escapes by itself
    return _CONTROLS.sub(_escape_in_json, text)


def _escape(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode("ascii")


def _escape_in_json(match: re.Match[str]) -> str:
    code = ord(match[0])
    if code <= 0xFFFF:
        return f"\\u{code:04x}"
    high, low = divmod(code - 0x10000, 0x400)
    return f"\\u{0xD800 + high:04x}\\u{0xDC00 + low:04x}"


def quoted(text: str) -> str:
    """Return `text` as it stands in a message: printable, in double quotes."""
    return f'"{printable(text)}"'


def number(value: float) -> str:
    """Spell a number in a few characters; an integer may have more digits than Python is willing to print."""
    if isinstance(value, int):
        return str(value) if value.bit_length() <= 64 else "a number of more than 64 bits"
    return str(value) if math.isfinite(value) else "a number without bounds"


def counted_noun(number: int, noun: str) -> str:
    """Return a number with its noun, as `1 change` or `2 changes`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def described_type(value: Any) -> str:
    """Return what sort of value this is, for documents whose values must not be shown: `a text`, `a number`."""
    match value:
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case str():
            return "a text"
        case _:
            return described(value)


def described(value: Any) -> str:
    """Return what a value of a document is, in words: `the text "http"`, `the number 80`, `a list`."""
    match value:
        case None:
            return "nothing (null)"
        case bool():
            return "true" if value else "false"
        case int() | float():
            shown = number(value)
            return shown if shown.startswith("a ") else f"the number {shown}"
        case str():
            return f"the text {quoted(value)}"
        case list() | tuple():
            return "a list"
        case _:
            return "an object"


def listed(texts: Sequence[str], separator: str = ", ") -> str:
    """Return the first few texts in one line, and how many more there are.

    >>> listed(list("abcdefg"))
    'a, b, c, d, e, and 2 more'
    """
    shown = separator.join(texts[:SHOWN_NAMES])
    return shown if len(texts) <= SHOWN_NAMES else f"{shown}{separator}and {len(texts) - SHOWN_NAMES} more"
