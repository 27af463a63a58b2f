"""A configuration of nginx as a tree of directives; values in it are texts or texts with variables, never syntax.

A `str` argument is always literal: whatever it holds, nginx sees these characters and no others. Variables stand only
in an `Interpolated`, whose literal parts are literal in the same way. Source: nginx's own lexer (ngx_conf_file.c).
"""

from __future__ import annotations

import enum
import re
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

_VARIABLE: Final = re.compile(r"\$(?:\{([1-9]|[a-z_][a-z0-9_]*)\}|([1-9]|[a-z_][a-z0-9_]*))")
_NAME: Final = re.compile(r"(?:[1-9]|[a-z_][a-z0-9_]{0,99})\Z")


class Variable(NamedTuple):
    """A variable of nginx, by its name without the dollar sign; `1` to `9` are what a regular expression captured."""

    name: str


class Interpolated(NamedTuple):
    """A value that nginx puts together for each request: literal texts and variables in order."""

    parts: tuple[str | Variable, ...]


Word = str | Interpolated
"""One argument of a directive."""


class KeyKind(enum.Enum):
    """How nginx reads the key of an entry in a `map`, `geo` or `split_clients` block."""

    LITERAL = "literal"
    """Compared as text, ignoring case; made safe against the words that mean something to nginx."""
    REGEX = "regex"
    """A regular expression, case-sensitive."""
    REGEX_ANY_CASE = "regex, any case"
    """A regular expression, ignoring case."""
    FIXED = "fixed"
    """A word of nginx (`default`, `*`), a network or a percentage, written by us and never by an object."""


class Entry(NamedTuple):
    """One line of a `map`, `geo` or `split_clients` block."""

    key: str
    value: Word
    kind: KeyKind = KeyKind.LITERAL


class Directive(NamedTuple):
    """A directive: its name is one of nginx's and ours to choose; a block makes it a block directive."""

    name: str
    args: tuple[Word, ...] = ()
    block: tuple[Node, ...] | None = None


Node = Directive | Entry


def variable(name: str) -> Interpolated:
    """Return the value of one variable.

    Raises:
        ValueError: Not a name that a variable can have.
    """
    if not _NAME.match(name):
        raise ValueError(f"{name!r} is not a variable")
    return Interpolated((Variable(name),))


def template(text: str, *values: Word) -> Interpolated:
    """Return a value written as in nginx (`https://$host$1`), with `%s` for values that are put in as they are.

    The text is the program's own, never an object's: its dollar signs are variables.

    Raises:
        ValueError: A dollar sign that starts no variable, or another number of values than of `%s`.
    """
    pieces = text.split("%s")
    if len(pieces) != len(values) + 1:
        raise ValueError(f"{text!r} takes {len(pieces) - 1} values, not {len(values)}")
    parts = list(_parts(pieces[0]))
    for value, piece in zip(values, pieces[1:], strict=True):
        parts += (value,) if isinstance(value, str) else value.parts
        parts += _parts(piece)
    return Interpolated(tuple(part for part in parts if part))


def _parts(text: str) -> Iterable[str | Variable]:
    end = 0
    for match in _VARIABLE.finditer(text):
        yield _literal(text[end : match.start()])
        yield Variable(match[1] or match[2])
        end = match.end()
    yield _literal(text[end:])


def _literal(text: str) -> str:
    if "$" in text:
        raise ValueError(f"a dollar sign in {text!r} is not followed by the name of a variable")
    return text
