"""JSON text to plain values, where a struct will not do."""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

MAX_JSON_DEPTH: Final = 100
MAX_JSON_COMMAS: Final = 20_000_000
MAX_PLAIN_VALUES: Final = 1_000_000
"""The most values of one JSON document that become Python objects: some 200 MB at most."""
_ESCAPE: Final = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)", re.DOTALL
)
"""An escape: both halves of a character, one half alone, any other."""


def value_count(raw: bytes | bytearray | memoryview) -> int:
    """Return how many values JSON text has at most: what it takes as objects goes with them, not with its size.

    >>> value_count(b'[{}, {"a": [1, 2]}]')
    6
    """
    text = bytes(raw) if isinstance(raw, memoryview) else raw
    return text.count(b",") + text.count(b"[") + text.count(b"{")


def plain_json(raw: bytes | msgspec.Raw) -> Any:
    """Return what JSON text says, nulls in objects dropped (a null is an absent field).

    Raises:
        ValueError: It is not JSON, nested deeper than `MAX_JSON_DEPTH`, or holds more than `MAX_PLAIN_VALUES`; the
            message says so in a few words.
    """
    if value_count(memoryview(raw)) > MAX_PLAIN_VALUES:
        raise ValueError(f"more than {MAX_PLAIN_VALUES} values in one document: not read")
    try:
        value = msgspec.json.decode(raw)
    except RecursionError:
        raise ValueError("JSON nested too deep") from None
    except msgspec.DecodeError as error:
        raise ValueError(f"not JSON: {json_problem(str(error))}") from None
    return without_nulls(value)


def without_nulls(value: Any, depth: int = 0) -> Any:
    """Return `value` without the null fields of its mappings.

    Raises:
        ValueError: It is nested deeper than `MAX_JSON_DEPTH`.
    """
    if depth > MAX_JSON_DEPTH:
        raise ValueError(f"more than {MAX_JSON_DEPTH} levels deep")
    if isinstance(value, dict):
        return {key: without_nulls(inner, depth + 1) for key, inner in value.items() if inner is not None}
    if isinstance(value, list):
        return [without_nulls(inner, depth + 1) for inner in value]
    return value


def with_whole_characters(content: bytes) -> bytes:
    """Return JSON text with U+FFFD for each escape that is half of a character, as Go's decoder reads it.

    One such escape would else make a whole file unreadable, and harm all the objects in it.
    """
    mended = bytearray()
    copied = 0
    for match in _ESCAPE.finditer(content):  # a substitution would hold a piece for each escape at the same time
        if match[1]:
            mended += content[copied : match.start()]
            mended += rb"\ufffd"
            copied = match.end()
    return bytes(mended + content[copied:]) if copied else content


def json_problem(problem: str) -> str:
    """Return what msgspec says about broken JSON, in the tone of our messages."""
    return problem.removeprefix("JSON is malformed: ").partition(" - at ")[0].lower()


def json_line(content: bytes, problem: str) -> int:
    """Return the line that `… (byte 123)` is on, or the last one where the text ends too soon."""
    return content.count(b"\n", 0, json_position(content, problem)) + 1


def json_position(content: bytes, problem: str) -> int:
    """Return where msgspec found a problem: `… (byte 123)`, or the end of the text."""
    digits = problem.rpartition("(byte ")[2].rstrip(")")
    return int(digits) if digits.isdigit() else len(content)
