r"""The one place where a value becomes text for HAProxy: in a file, in a map, in a list of certificates, on the socket.

A file has two levels. The lexer splits a line into words; between single quotes nothing is special to it but the quote,
which is written as `'\''`. In a word that is a format, HAProxy reads `%` and `%[expression]`; it also writes several
spaces as one. A text that this would change is written as `%[bin(…)]`, in hexadecimal digits. Arguments of expressions
come from a small alphabet: other values stand in maps or in conditions. What no escape can make harmless is rejected:
control characters, and text that is no UTF-8.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from rulegen.errors import RulegenError
from rulegen.languages.haproxy.tree import LogFormat, MatchValue, SampleExpression

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rulegen.languages.haproxy.tree import ConfigLine, ConfigSection, Word

MAX_WORDS: Final = 60
"""Words of a line; HAProxy reads 64."""
MAX_LINE: Final = 15_000
"""Bytes of a line of a map; HAProxy's buffer has 16,384."""

_REMEMBERED: Final = 1 << 15
_BARE: Final = re.compile(r"[A-Za-z0-9_./:=@^~+,()|*!{}<>?&-]+\Z")
_SAFE_CALL: Final = re.compile(r"[a-z][a-z0-9_.]*\Z")
_SAFE_ARGUMENT: Final = re.compile(r"[A-Za-z0-9_./:;=|@+*-]*\Z")
_FORBIDDEN: Final = re.compile("[\x00-\x1f\x7f]")
_NAME: Final = re.compile(r"[A-Za-z0-9_.:-]+\Z")
_CERTIFICATE_PATH: Final = re.compile(r"[A-Za-z0-9_./-]+\Z")
_SERVER_NAME: Final = re.compile(r"!?(?:\*|(?:\*\.)?[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*)\Z")
_TLS_OPTIONS: Final = re.compile(r"\[[a-z]+(?:-[a-z]+)*(?: [A-Za-z0-9_./:+!@=-]+)+\]\Z")
_SOCKET_SPECIAL: Final = re.compile(r"[\\ ;]")


class UnwritableError(RulegenError):
    """A value that cannot be written for HAProxy without changing its meaning, or that of other values."""


def quote(text: str) -> str:
    """Return a text as one word of a configuration file.

    Raises:
        UnwritableError: It has control characters, or is no UTF-8.
    """
    _check(text)
    return text if _BARE.match(text) else "'" + text.replace("'", "'\\''") + "'"


def format_word(word: Word) -> str:
    """Return a word as it stands in a configuration file.

    Raises:
        UnwritableError: HAProxy cannot be given this value.
    """
    if isinstance(word, SampleExpression):
        return quote(format_expression(word))
    if isinstance(word, LogFormat):
        return quote("".join(_format_part(part) for part in word.parts))
    if isinstance(word, MatchValue):
        if word.text == "}":
            raise UnwritableError("a condition cannot compare with a closing brace alone")
        return quote(word.text)
    return quote(word)


def format_expression(expression: SampleExpression) -> str:
    """Return an expression as HAProxy reads it in a word.

    Raises:
        UnwritableError: An argument has characters that could end it.
    """
    calls = []
    for name, arguments in expression.calls:
        if not _SAFE_CALL.match(name):
            raise UnwritableError(f"{name!a} is no name of a sample fetch or converter")
        for argument in arguments:
            if not _SAFE_ARGUMENT.match(argument):
                raise UnwritableError(f"{argument[:80]!a} cannot be an argument of HAProxy's {name}")
        calls.append(f"{name}({','.join(arguments)})" if arguments else name)
    return ",".join(calls)


def _format_part(part: str | SampleExpression) -> str:
    if isinstance(part, SampleExpression):
        return f"%[{format_expression(part)}]"
    _check(part)
    if part.startswith(" ") or part.endswith(" ") or "  " in part:
        return f"%[bin({part.encode().hex()})]"
    return part.replace("%", "%%")


@lru_cache(_REMEMBERED)  # most backends have the same lines
def format_statement(statement: ConfigLine) -> str:
    """Return a statement as one line without its end.

    Raises:
        UnwritableError: See `format_word`; or it has more words than HAProxy reads.
    """
    if len(statement.words) > MAX_WORDS:
        raise UnwritableError(f"a line of {len(statement.words)} words is longer than HAProxy reads ({MAX_WORDS})")
    return " ".join(map(format_word, statement.words))


def format_sections(sections: Iterable[ConfigSection]) -> str:
    """Return the text of a configuration file.

    Raises:
        UnwritableError: See `format_statement`; or the name of a section is not of letters, digits and `_.:-`.
    """
    lines: list[str] = []
    for section in sections:
        if section.name and not _NAME.match(section.name):
            raise UnwritableError(f"{section.name[:80]!a} cannot be the name of a section")
        lines.append(f"{section.kind} {section.name}".rstrip())
        lines += (f"    {format_statement(line)}" for line in section.statements)
        lines.append("")
    return "\n".join(lines)


def map_line(key: str, value: str) -> str:
    """Return the line of a map; the key has no space, and the value none at its ends.

    Raises:
        UnwritableError: HAProxy would read another key or another value.
    """
    for text in (key, value):
        _check(text)
        if not text:
            raise UnwritableError("a map has no empty keys and values")
    if " " in key or key.startswith("#"):
        raise UnwritableError(f"{key[:80]!a} cannot be the key of a map: it has a space, or starts as a comment")
    if value != value.strip(" "):
        raise UnwritableError(f"{value[:80]!a} cannot be the value of a map: it has a space at an end")
    line = f"{key} {value}"
    if len(line.encode()) > MAX_LINE:
        raise UnwritableError(f"a line of {len(line)} characters is longer than HAProxy reads")
    return line


def format_map(entries: Iterable[tuple[str, str]]) -> str:
    """Return the text of a map file, in the order of the entries.

    Raises:
        UnwritableError: See `map_line`.
    """
    return "".join(f"{map_line(key, value)}\n" for key, value in entries)


def certificate_line(path: str, names: Iterable[str]) -> str:
    """Return the line of a list of certificates: the names of TLS for which a file is presented.

    Options of TLS stand in brackets before the names.

    Raises:
        UnwritableError: The path or a name has characters with a meaning in such a list.
    """
    names = tuple(names)
    options = names[0] if names and names[0].startswith("[") else ""
    if options and not _TLS_OPTIONS.match(options):
        raise UnwritableError(f"{options[:80]!a} cannot be options of a certificate")
    if not _CERTIFICATE_PATH.match(path):
        raise UnwritableError(f"{path[:80]!a} cannot be the path of a certificate")
    for name in names[1:] if options else names:
        if not _SERVER_NAME.match(name):
            raise UnwritableError(f"{name[:80]!a} cannot be a name of TLS")
    return " ".join((path, *names))


def socket_command(*words: str) -> str:
    r"""Return a command for the runtime socket, with its end of line.

    Raises:
        UnwritableError: A word is empty, has control characters, or would start a payload.
    """
    written = []
    for word in words:
        _check(word)
        if not word or word.startswith("<<"):
            raise UnwritableError(f"{word[:80]!a} cannot be a word of a command for HAProxy's socket")
        written.append(_SOCKET_SPECIAL.sub(r"\\\g<0>", word))
    return f"{' '.join(written)}\n"


def _check(text: str) -> None:
    if _FORBIDDEN.search(text):
        raise UnwritableError("a control character cannot be part of HAProxy's configuration")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UnwritableError("invalid UTF-8 cannot be part of HAProxy's configuration") from None
