"""The words of the output of `nft list ruleset`, with their lines."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from rulegen.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

_TOKEN: Final = re.compile(r'[ \t\r]+|#[^\n]*|(\n|[{},;]|"[^"\n]*"|[^\s{},;"#]+)|(.)', re.DOTALL)

HINT: Final = "save it again with nft list ruleset"


class Word(NamedTuple):
    """A word, a bracket, a separator, or a line break."""

    text: str
    line: int


def words_of(text: str, source: str) -> Iterator[Word]:
    """Yield the words; comments such as `# handle 4` are left out.

    Raises:
        InputError: A quote has no end on its line.
    """
    line = 1
    for match in _TOKEN.finditer(text):
        word = match[1]
        if word is not None:
            yield Word(word, line)
            line += word == "\n"
        elif match[2] is not None:
            raise InputError(source, f"line {line}: a quote without an end", hint=HINT)


class Words:
    """The words of a dump, read one after the other."""

    def __init__(self, text: str, source: str) -> None:
        """Take the text of a dump."""
        self._source = source
        self._words = list(words_of(text, source))
        self._next = 0

    @property
    def text(self) -> str:
        """The next word; empty at the end."""
        return self._words[self._next].text if self._next < len(self._words) else ""

    @property
    def is_at_end(self) -> bool:
        """Whether no word is left."""
        return self._next >= len(self._words)

    def take(self, expected: str = "") -> str:
        """Return the next word and go on.

        Raises:
            InputError: It is not the expected one, or none is left.
        """
        if self.is_at_end:
            raise self.error("the dump ends within a table")
        text = self.text
        if expected and text != expected:
            raise self.error(f"{text[:40]!r} in place of {expected!r}")
        self._next += 1
        return text

    def skip_lines(self) -> None:
        """Go on to the next word that is no line break."""
        while self.text == "\n" and not self.is_at_end:
            self._next += 1

    def name(self) -> str:
        """Return the next word, which is a name; quotes are removed.

        Raises:
            InputError: It is none.
        """
        text = self.take()
        if text in "{},;\n":
            raise self.error(f"{text!r} in place of a name")
        return text.strip('"')

    def line(self) -> list[str]:
        """Return the words up to a line break or semicolon outside of braces, or before the brace that closes.

        Raises:
            InputError: The dump ends before.
        """
        words: list[str] = []
        depth = 0
        while depth or self.text not in {"\n", ";", "}"}:
            text = self.take()
            depth += (text == "{") - (text == "}")
            if text != "\n":
                words.append(text)
        if self.text != "}":
            self.take()
        return words

    def skip_block(self) -> list[str]:
        """Return the words of a block in braces, which the next word opens, without the outer braces.

        Raises:
            InputError: The dump ends before.
        """
        words = [self.take("{")]
        depth = 1
        while depth:
            text = self.take()
            depth += (text == "{") - (text == "}")
            words.append(text)
        return words[1:-1]

    def error(self, text: str) -> InputError:
        """Return an error with the line of the next word."""
        line = self._words[min(self._next, len(self._words) - 1)].line if self._words else 1
        return InputError(self._source, f"line {line}: {text}", hint=HINT)
