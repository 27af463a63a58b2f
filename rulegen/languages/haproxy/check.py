"""Verifies files: what the parser reads must equal the typed values, word by word."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

from rulegen.errors import RulegenError
from rulegen.languages.haproxy.parser import (
    UnreadableError,
    read_certificates,
    read_expression,
    read_format,
    read_map,
    read_sections,
)
from rulegen.languages.haproxy.tree import LogFormat, MatchValue, SampleExpression

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rulegen.languages.haproxy.tree import ConfigLine, ConfigSection, Word


class DifferenceError(RulegenError):
    """A file differs from the values that it was written from."""


def check_sections(path: str, text: str, sections: Sequence[ConfigSection]) -> None:
    """Check that a configuration file has exactly these sections.

    Raises:
        DifferenceError: It has not.
    """
    try:
        read = read_sections(text)
    except UnreadableError as error:
        raise DifferenceError(f"{path}: {error.message}") from error
    if [(section.kind, section.name) for section in read] != [(section.kind, section.name) for section in sections]:
        raise DifferenceError(f"{path}: its sections differ from the intended ones")
    for seen, meant in zip(read, sections, strict=True):
        if len(seen.lines) != len(meant.statements):
            raise DifferenceError(
                f"{path}: the lines of section {meant.kind} {meant.name} differ from the intended ones"
            )
        for words, line in zip(seen.lines, meant.statements, strict=True):
            if not _says(words, line):
                raise DifferenceError(
                    f"{path}: a line of section {meant.kind} {meant.name} differs from the intended one: {words[:3]!a}"
                )


@lru_cache(1 << 15)  # most backends have the same lines
def _says(words: tuple[str, ...], line: ConfigLine) -> bool:
    """Return whether the words of a line have the meaning of a typed line."""
    return len(words) == len(line.words) and all(map(means, words, line.words))


def means(word: str, meant: Word) -> bool:
    """Whether a word that was read has the meaning of a typed word."""
    try:
        if isinstance(meant, SampleExpression):
            return _is(word, meant)
        if isinstance(meant, LogFormat):
            parts = read_format(word)
            return len(parts) == len(meant.parts) and all(
                _is(text, part) if isinstance(part, SampleExpression) else not is_expression and text == part
                for (is_expression, text), part in zip(parts, meant.parts, strict=True)
            )
    except UnreadableError:
        return False
    return word == (meant.text if isinstance(meant, MatchValue) else meant)


def _is(text: str, expression: SampleExpression) -> bool:
    return read_expression(text) == [(name, tuple(arguments)) for name, arguments in expression.calls]


def check_map(path: str, text: str, entries: Sequence[tuple[str, str]]) -> None:
    """Check that a map file has exactly these entries, in this order.

    Raises:
        DifferenceError: It has not.
    """
    try:
        if read_map(text) == list(entries):
            return
    except UnreadableError as error:
        raise DifferenceError(f"{path}: {error.message}") from error
    raise DifferenceError(f"{path}: its entries differ from the intended ones")


def check_certificates(path: str, text: str, lines: Sequence[tuple[str, tuple[str, ...]]]) -> None:
    """Check that a list of certificates has exactly these lines, in this order.

    Raises:
        DifferenceError: It has not.
    """
    try:
        if read_certificates(text) == list(lines):
            return
    except UnreadableError as error:
        raise DifferenceError(f"{path}: {error.message}") from error
    raise DifferenceError(f"{path}: its lines differ from the intended ones")
