"""Resolves YAML scalars.

The rules are those of YAML 1.1 as in kubectl: `yes` and `on` are booleans, `0x50` and `0120` are integers, but
timestamps and sexagesimals (`1:30`) are text. `y`, `n` and `1e3` are text too, although kubectl reads booleans and a
number: many programs write such text without quotes (a Service may be named n, a version may be 12e4).
"""

from __future__ import annotations

import re
from typing import Any, Final

from rulegen.text import quoted

CORE_TAG: Final = "tag:yaml.org,2002:"
_TAGGED: Final[dict[str, set[type]]] = {"int": {int}, "bool": {bool}, "null": {type(None)}, "float": {int, float}}
_SCALAR_TAGS: Final = {f"{CORE_TAG}{name}" for name in ("str", "int", "bool", "null", "float", "timestamp")}

_WORDS: Final[dict[str, bool | None]] = {
    **dict.fromkeys(["yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"], True),
    **dict.fromkeys(["no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"], False),
    **dict.fromkeys(["", "~", "null", "Null", "NULL"], None),
}
_NOT_NUMBERS: Final = {
    **dict.fromkeys([".nan", ".NaN", ".NAN"], float("nan")),
    **dict.fromkeys([".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"], float("inf")),
    **dict.fromkeys(["-.inf", "-.Inf", "-.INF"], float("-inf")),
}
_INTEGER: Final = re.compile(
    r"(?P<sign>[-+]?)(?:0[xX](?P<hex>[0-9a-fA-F]+)|0[bB](?P<binary>[01]+)|0(?P<octal>[0-7]+)"
    r"|(?P<decimal>0|[1-9][0-9]*))\Z"
)
_FLOAT: Final = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+][0-9]+)?\Z")
_BASES: Final = {"hex": 16, "binary": 2, "octal": 8, "decimal": 10}


def resolve(text: str) -> Any:
    """Return the value of a plain scalar.

    >>> [resolve(t) for t in ("80", "0x50", "0120", "1_000", "yes", "~", "1:30", "2026-11-23", "1e3", "n")]
    [80, 80, 80, 1000, True, None, '1:30', '2026-11-23', '1e3', 'n']
    """
    first = text[:1]
    if not first or first not in "0123456789+-.":
        return _WORDS.get(text, text)
    if text in _NOT_NUMBERS:
        return _NOT_NUMBERS[text]
    plain = text.replace("_", "") if first != "." else text
    if (integer := _INTEGER.match(plain)) and (base := integer.lastgroup):
        digits = integer[base]
        if len(digits) > 64:  # exceeds 64 bits in any base, and Python does not parse thousands of digits
            return float("-inf" if integer["sign"] == "-" else "inf")
        return int(integer["sign"] + digits, _BASES[base])
    return float(plain) if _FLOAT.match(plain) else text


def tagged(text: str, tag: str) -> Any:
    """Return the value of a scalar with a tag, such as `!!str 80`.

    Raises:
        ValueError: The tag is not a core tag of YAML, or the text does not have its type.
    """
    if tag not in _SCALAR_TAGS:
        raise ValueError(f"the tag {quoted(tag)} is not allowed in a manifest")
    name = tag.removeprefix(CORE_TAG)
    if name in {"str", "timestamp"}:
        return text
    resolved = resolve(text)
    if type(resolved) not in _TAGGED[name]:
        raise ValueError(f"{quoted(text)} is no {name}, as its tag says")
    return resolved
