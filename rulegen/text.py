"""Untrusted text in messages: each message is one short line of printable characters, whatever a document contains."""

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
"""Control characters (Cc) except tab and line feed, format characters (Cf), separators (Zl, Zp), and surrogates."""


def printable(text: str, limit: int = SHOWN_CHARACTERS) -> str:
    r"""Return `text` with all characters escaped that do not print (controls, newlines, direction marks), and cut.

    >>> printable("web\n-j ACCEPT\u202e")
    'web\\n-j ACCEPT\\u202e'
    """
    cut = text[:limit]
    if not cut.isprintable():
        cut = "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in cut)
    return f"{cut}…" if len(text) > limit else cut


def harmless(text: str) -> str:
    r"""Return a text of any number of lines with its control and format characters escaped; lines and tabs stay.

    All printed and logged text passes through this function. It escapes characters that control a terminal (ESC, C1),
    make one line look like another (direction marks, characters without width), or have no encoding (surrogates).

    >>> harmless("a\x1b[2Jb\u202e\udcff\n")
    'a\\x1b[2Jb\\u202e\\udcff\n'
    """
    if text.isascii() and text.replace("\n", "").isprintable():
        return text
    return _CONTROLS.sub(_escape, text)


def harmless_json(text: str) -> str:
    r"""Return JSON text with each control and format character escaped as in JSON: `\uXXXX`, or two of them.

    The value stays the same. JSON requires escapes only below U+0020, so C1 and direction marks would stay otherwise.
    """
    if text.isascii() and "\x7f" not in text:
        return text  # JSON already escapes characters below U+0020
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
    """Return `text` as it appears in a message: printable, in double quotes."""
    return f'"{printable(text)}"'


def number(value: float) -> str:
    """Format a number in a few characters; an integer may have more digits than Python prints."""
    if isinstance(value, int):
        return str(value) if value.bit_length() <= 64 else "a number of more than 64 bits"
    return str(value) if math.isfinite(value) else "a number without bounds"


def counted_noun(number: int, noun: str) -> str:
    """Return a number with its noun, such as `1 change` or `2 changes`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def described_type(value: Any) -> str:
    """Return the type of a value in words, for documents whose values must not be shown: `a text`, `a number`."""
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
    """Return a value of a document in words: `the text "http"`, `the number 80`, `a list`."""
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
    """Return the first few texts in one line, and the number of the others.

    >>> listed(list("abcdefg"))
    'a, b, c, d, e, and 2 more'
    """
    shown = separator.join(texts[:SHOWN_NAMES])
    return shown if len(texts) <= SHOWN_NAMES else f"{shown}{separator}and {len(texts) - SHOWN_NAMES} more"
