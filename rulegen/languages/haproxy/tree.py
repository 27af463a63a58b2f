"""Words, statements and sections of HAProxy's configuration, before anything is written.

A text of an object is always a plain string. What HAProxy computes for each request is an expression, and
a text with expressions in it is a format. The serializer alone decides how each of them is written.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable


class SampleCall(NamedTuple):
    """A sample fetch or a converter, with its arguments."""

    name: str
    arguments: tuple[str, ...] = ()


class SampleExpression(NamedTuple):
    """A sample fetch, and the converters that its value passes through."""

    calls: tuple[SampleCall, ...]

    def then(self, name: str, *arguments: str) -> SampleExpression:
        """Return the expression with one more converter."""
        return SampleExpression((*self.calls, SampleCall(name, arguments)))


class LogFormat(NamedTuple):
    """A text that HAProxy makes for each request, in log format: literal parts and expressions."""

    parts: tuple[str | SampleExpression, ...]


class MatchValue(NamedTuple):
    """A value that a condition compares with; it stands behind `--`."""

    text: str


Word = str | SampleExpression | LogFormat | MatchValue


class ConfigLine(NamedTuple):
    """One line of a section."""

    words: tuple[Word, ...]


class ConfigSection(NamedTuple):
    """A section: `global`, `defaults`, or a `frontend` or `backend` with its name."""

    kind: str
    name: str
    statements: tuple[ConfigLine, ...]


def sample(name: str, *arguments: str) -> SampleExpression:
    """Return a sample fetch with its arguments."""
    return SampleExpression((SampleCall(name, arguments),))


def log_format(*parts: str | SampleExpression) -> LogFormat:
    """Return a format; empty literal parts are left out, and neighbouring ones are joined."""
    joined: list[str | SampleExpression] = []
    for part in parts:
        if isinstance(part, str) and joined and isinstance(joined[-1], str):
            joined[-1] += part
        elif part != "":
            joined.append(part)
    return LogFormat(tuple(joined))


def statement(*words: Word, when: Iterable[Word] = ()) -> ConfigLine:
    """Return a statement; `when` is the condition behind `if`, empty for none."""
    condition = tuple(when)
    return ConfigLine((*words, "if", *condition) if condition else words)


def matches(expression: SampleExpression, method: str, *values: str, ignores_case: bool = False) -> tuple[Word, ...]:
    """Return the condition that the value of an expression matches one of these by a method such as `str` or `reg`."""
    flags = ("-i",) if ignores_case else ()
    return "{", expression, "-m", method, *flags, "--", *map(MatchValue, values), "}"


def is_set(expression: SampleExpression) -> tuple[Word, ...]:
    """Return the condition that an expression has a value."""
    return "{", expression, "-m", "found", "}"


def negated(condition: tuple[Word, ...]) -> tuple[Word, ...]:
    """Return the opposite of a condition in braces."""
    return ("!{", *condition[1:])
