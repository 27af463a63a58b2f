"""Reads JSON into plain values, for cases that a struct does not cover."""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

MAX_JSON_DEPTH: Final = 100
MAX_JSON_COMMAS: Final = 20_000_000
MAX_PLAIN_VALUES: Final = 1_000_000
"""Maximum number of values in a JSON document that is read into Python objects: about 200 MB at most."""
_ESCAPE: Final = re.compile(
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|(u[dD][89a-fA-F][0-9a-fA-F]{2})|.)", re.DOTALL
)
"""An escape: a surrogate pair, half of a surrogate pair, or any other."""


def value_count(raw: bytes | bytearray | memoryview) -> int:
    """Return an upper limit of the number of values in JSON text: memory depends on it, not on the size of the text.

    >>> value_count(b'[{}, {"a": [1, 2]}]')
    6
    """
    text = bytes(raw) if isinstance(raw, memoryview) else raw
    return text.count(b",") + text.count(b"[") + text.count(b"{")


def plain_json(raw: bytes | msgspec.Raw) -> Any:
    """Return the value in JSON text, without null fields of objects (they count as missing).

    Raises:
        ValueError: The text is not JSON, is nested deeper than `MAX_JSON_DEPTH`, or has more than `MAX_PLAIN_VALUES`
            values; the message names the reason.
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
        ValueError: The value is nested deeper than `MAX_JSON_DEPTH`.
    """
    if depth > MAX_JSON_DEPTH:
        raise ValueError(f"more than {MAX_JSON_DEPTH} levels deep")
    if isinstance(value, dict):
        return {key: without_nulls(inner, depth + 1) for key, inner in value.items() if inner is not None}
    if isinstance(value, list):
        return [without_nulls(inner, depth + 1) for inner in value]
    return value


def with_whole_characters(content: bytes) -> bytes:
    """Return JSON text with U+FFFD in place of each escape of half a surrogate pair, as in Go's decoder.

    Otherwise, one such escape would make a whole file with all its objects unreadable.
    """
    mended = bytearray()
    copied = 0
    for match in _ESCAPE.finditer(content):  # re.sub would keep a piece for each escape in memory
        if match[1]:
            mended += content[copied : match.start()]
            mended += rb"\ufffd"
            copied = match.end()
    return bytes(mended + content[copied:]) if copied else content


def json_problem(problem: str) -> str:
    """Return msgspec's message about invalid JSON in the style of rulegen's messages."""
    return problem.removeprefix("JSON is malformed: ").partition(" - at ")[0].lower()


def json_line(content: bytes, problem: str) -> int:
    """Return the line of the position in `… (byte 123)`; without a position, the last line."""
    return content.count(b"\n", 0, json_position(content, problem)) + 1


def json_position(content: bytes, problem: str) -> int:
    """Return the position in a message of msgspec such as `… (byte 123)`; without one, the end of the text."""
    digits = problem.rpartition("(byte ")[2].rstrip(")")
    return int(digits) if digits.isdigit() else len(content)
