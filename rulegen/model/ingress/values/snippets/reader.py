"""Parses a snippet as nginx does: directives with arguments, line and block. Nothing of it is ever written.

The grammar is that of ngx_conf_file.c. A word ends at white space, `;` or `{`. Quotes have a meaning only at the start
of a word, and after the closing quote must follow white space, `;`, `{` or `)`. A backslash escapes the next character.
`#` starts a comment only where a word may start. `${` does not open a block.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from rulegen.text import quoted

MAX_SNIPPET: Final = 64 << 10
"""Maximum length of a snippet; a longer one counts as unreadable."""
_DEEPEST: Final = 16
_BLANKS: Final = " \t\r\n"
_ESCAPED: Final = {'"': '"', "'": "'", "\\": "\\", "t": "\t", "r": "\r", "n": "\n"}


class SnippetDirective(NamedTuple):
    """One directive of a snippet.

    Attributes:
        words: Arguments, without quotes and escapes.
        line: Line number, from 1.
        block: Directives in its block; None if it has no block.
    """

    name: str
    words: tuple[str, ...]
    line: int
    block: tuple[SnippetDirective, ...] | None = None


def read_snippet(text: str) -> tuple[SnippetDirective, ...]:
    """Parse a snippet.

    Raises:
        ValueError: nginx would reject it, or it would close the block around it.
    """
    if len(text) > MAX_SNIPPET:
        raise ValueError(f"longer than {MAX_SNIPPET >> 10} KiB")
    return _SnippetReader(text).directives(0)


class _SnippetReader:
    """A parser with its position in the text."""

    def __init__(self, text: str) -> None:
        self._text, self._at, self._line = text, 0, 1

    def directives(self, depth: int) -> tuple[SnippetDirective, ...]:
        """Return the directives up to the end of the text or of the block."""
        if depth > _DEEPEST:
            raise self._fault("blocks are nested too deeply")
        read: list[SnippetDirective] = []
        while (mark := self._next()) and mark != "}":
            if mark in "{;":
                raise self._fault(f'unexpected "{mark}"')
            line, words = self._line, self._words()
            ending, self._at = self._text[self._at], self._at + 1
            block = None
            if ending == "{":
                block = self.directives(depth + 1)
                if self._next() != "}":
                    raise self._fault('a block has no closing "}"')
                self._at += 1
            read.append(SnippetDirective(words[0], tuple(words[1:]), line, block))
        if mark and not depth:
            raise self._fault('unexpected "}"')
        return tuple(read)

    def _words(self) -> list[str]:
        """Return the words of one directive, up to its `;` or `{`."""
        words: list[str] = []
        while (mark := self._next()) and mark not in ";{":
            if mark == "}":
                raise self._fault('unexpected "}", expected ";"')
            words.append(self._quoted(mark) if mark in "\"'" else self._bare())
        if not mark:
            raise self._fault(f'{quoted(words[0])} has no closing ";"')
        return words

    def _next(self) -> str:
        """Skip white space and comments; return the next character, or an empty text at the end."""
        text = self._text
        while self._at < len(text):
            mark = text[self._at]
            if mark == "#":
                end = text.find("\n", self._at)
                self._at = len(text) if end < 0 else end
            elif mark in _BLANKS:
                self._line += mark == "\n"
                self._at += 1
            else:
                return mark
        return ""

    def _quoted(self, quote: str) -> str:
        text = self._text
        parts: list[str] = []
        self._at += 1
        while self._at < len(text) and text[self._at] != quote:
            parts.append(self._character())
        self._at += 1
        if self._at > len(text):
            raise self._fault(f"a word has no closing {quote}")
        if self._at < len(text) and text[self._at] not in f"{_BLANKS};{{)":
            raise self._fault("a character follows a closing quote")
        return "".join(parts)

    def _bare(self) -> str:
        text = self._text
        parts: list[str] = []
        while self._at < len(text) and text[self._at] not in f"{_BLANKS};":
            mark = text[self._at]
            if mark == "{" and not (parts and parts[-1] == "$"):
                break
            parts.append(self._character())
        return "".join(parts)

    def _character(self) -> str:
        """Return the next character of a word; an escape sequence is replaced."""
        text, mark = self._text, self._text[self._at]
        self._line += mark == "\n"
        self._at += 1
        if mark != "\\" or self._at == len(text):
            return mark
        escaped = text[self._at]
        self._line += escaped == "\n"
        self._at += 1
        return _ESCAPED.get(escaped, mark + escaped)

    def _fault(self, message: str) -> ValueError:
        return ValueError(f"line {self._line}: {message}")
