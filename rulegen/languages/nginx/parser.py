r"""Reads the text of a configuration the way nginx's own lexer does (ngx_conf_file.c): directives, as a plain tree.

What it knows, and the serializer need not: a token ends at a blank, `;` or `{`; quotes are quotes only where a token
starts, and what follows the closing one must be a blank, `;`, `{` or `)`; a backslash takes the next character along,
and `\"`, `\'`, `\\`, `\t`, `\r`, `\n` stand for one; `{` after a dollar sign opens no block; `#` starts a comment only
where a token may start. Shared with nothing: it is what the serializer is judged by.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from rulegen.errors import RulegenError

BUFFER: Final = 4096
"""Bytes that nginx reads at a time: no token, quoted or not, and no comment may fill them."""

_DEEPEST: Final = 32
_BARE: Final = r"""(?:[^ \t\r\n;{}\#"'\\$]|\\.|\$\{*+)(?:[^ \t\r\n;{\\$]++|\\.|\$\{*+)*+"""
_TOKEN: Final = re.compile(
    rf"""(?P<gap>[ \t\r\n]*+(?:\#[^\n]*+(?:\n[ \t\r\n]*+|\Z))*+)
    (?:(?P<punctuation>[;{{}}])
    |(?P<bare>{_BARE}(?=[ \t\r\n;{{]))
    |"(?P<double>(?:[^"\\]++|\\.)*+)"(?=[ \t\r\n;{{)])
    |'(?P<single>(?:[^'\\]++|\\.)*+)'(?=[ \t\r\n;{{)])
    |(?P<end>\Z)
    |(?P<fault>.))""",
    re.VERBOSE | re.DOTALL,
)
_PUNCTUATION, _END, _FAULT = (_TOKEN.groupindex[name] for name in ("punctuation", "end", "fault"))
_ESCAPE: Final = re.compile(r"""\\(["'\\trn])""")
_ESCAPED: Final = {"t": "\t", "r": "\r", "n": "\n"}


class SyntaxFault(RulegenError):  # noqa: N818 (a fault of a text, not of the program)
    """A text that nginx's lexer would reject.

    Attributes:
        line: Where, counted from 1.
    """

    def __init__(self, line: int, message: str) -> None:
        super().__init__(f"line {line}: {message}")
        self.line = line


class Statement(NamedTuple):
    """A directive as nginx reads it: words without their quotes and escapes, variables as they are written."""

    name: str
    args: tuple[str, ...]
    line: int
    block: tuple[Statement, ...] | None = None


def parse(text: str) -> tuple[Statement, ...]:
    """Return the directives of a whole file, in order.

    A name may be any word, also an empty or quoted one, as in the lines of a `map`.

    Raises:
        SyntaxFault: nginx would not read this text to its end.
    """
    stack: list[tuple[list[Statement], list[str], int]] = []
    block: list[Statement] = []
    words: list[str] = []
    line = begun = 1
    for match in _TOKEN.finditer(text):
        kind = match.lastindex or 0
        gap, word = match.group(1, kind)
        if gap and gap != " ":
            line += gap.count("\n")
            if len(gap) > BUFFER // 8:
                _check_comments(gap, line)
        if kind == _PUNCTUATION:
            if word == "}":
                if words or not stack:
                    raise SyntaxFault(line, 'unexpected "}"')
                inner = tuple(block)
                block, words, begun = stack.pop()
                block.append(Statement(words[0], tuple(words[1:]), begun, inner))
            elif not words:
                raise SyntaxFault(line, f'unexpected "{word}"')
            elif word == ";":
                block.append(Statement(words[0], tuple(words[1:]), begun))
            elif len(stack) == _DEEPEST:
                raise SyntaxFault(line, "blocks are nested too deeply")
            else:
                stack.append((block, words, begun))
                block = []
            words = []
        elif kind == _END:
            break
        elif kind == _FAULT:
            raise _fault(text, match.start(_FAULT), line)
        else:
            if not words:
                begun = line
            words.append(_ESCAPE.sub(_meaning, word) if "\\" in word else word)
            if len(word) > BUFFER // 8:
                _check_length(word, line)
            if "\n" in word:
                line += word.count("\n")
    if words or stack:
        raise SyntaxFault(line, 'unexpected end of file, expecting ";" or "}"')
    return tuple(block)


def _meaning(escape: re.Match[str]) -> str:
    return _ESCAPED.get(escape[1], escape[1])


def _check_length(word: str, line: int) -> None:
    # With the closing quote, or the blank at its end, a token must leave a byte of the buffer free. (nginx takes one
    # byte more of an unquoted one before `;` or `{`: nothing that we write comes near.)
    if len(word.encode(errors="surrogatepass")) > BUFFER - 2:
        raise SyntaxFault(line, f'too long parameter "{word[:10]}..."')


def _check_comments(gap: str, line: int) -> None:
    for comment in gap.split("\n"):
        if len(comment.lstrip(" \t\r").encode(errors="surrogatepass")) > BUFFER - 2:
            raise SyntaxFault(line, "too long comment")


def _fault(text: str, start: int, line: int) -> SyntaxFault:
    """Say what is wrong with the token that starts at `start` and matches nothing."""
    quote = text[start] if text[start] in "\"'" else ""
    if not quote:
        return SyntaxFault(line, 'unexpected end of file, expecting ";" or "}"')
    closed = re.compile(rf"{quote}(?:[^{quote}\\]|\\.)*+{quote}", re.DOTALL).match(text, start)
    if not closed:
        return SyntaxFault(line, f"a token has no closing {quote}")
    if closed.end() == len(text):
        return SyntaxFault(line, 'unexpected end of file, expecting ";" or "}"')
    return SyntaxFault(line, f"unexpected {text[closed.end()]!r} after a quoted token")
