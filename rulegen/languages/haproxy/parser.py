"""Reads HAProxy's files back. It shares no code with the serializer, so that each can check the other.

It knows the whole lexer of HAProxy 2.6, not only what the serializer writes: comments, both kinds of quotes, escapes
outside of quotes. A reference to an environment variable is an error here, since no value of ours may have one.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final, NamedTuple

from rulegen.errors import RulegenError

_REMEMBERED: Final = 1 << 15
_KINDS: Final = frozenset(
    {"global", "defaults", "frontend", "backend", "fcgi-app", "listen", "userlist", "resolvers", "peers"}
)
_ESCAPES: Final = {"n": "\n", "r": "\r", "t": "\t"}


class UnreadableError(RulegenError):
    """A text that HAProxy would reject, or that rulegen never writes."""


class ReadSection(NamedTuple):
    """A section as it was read: the words of its lines."""

    kind: str
    name: str
    lines: tuple[tuple[str, ...], ...]


def read_sections(text: str) -> list[ReadSection]:
    """Return the sections of a configuration file.

    Raises:
        UnreadableError: See the class; or a line stands before the first section.
    """
    sections: list[tuple[str, str, list[tuple[str, ...]]]] = []
    for number, line in enumerate(text.split("\n"), 1):
        words = tuple(read_words(line, number))
        if not words:
            continue
        if words[0] in _KINDS:
            sections.append((words[0], " ".join(words[1:]), []))
        elif not sections:
            raise UnreadableError(f"line {number}: this line is before the first section")
        else:
            sections[-1][2].append(words)
    return [ReadSection(kind, name, tuple(lines)) for kind, name, lines in sections]


def read_words(line: str, number: int = 0) -> list[str]:
    """Return the words of a line, without quotes and escapes.

    Raises:
        UnreadableError: A quote is open at the end, or the line refers to an environment variable.
    """
    try:
        return list(_words(line))
    except UnreadableError as error:
        raise UnreadableError(f"line {number}: {error.message}") from None


@lru_cache(_REMEMBERED)  # most backends have the same lines
def _words(line: str) -> tuple[str, ...]:
    words: list[str] = []
    current: list[str] | None = None
    quoted = ""
    at = 0
    while at < len(line):
        character = line[at]
        at += 1
        if quoted == "'":
            if character == "'":
                quoted = ""
            elif current is not None:
                current.append(character)
            continue
        if quoted != '"' and character in " \t":
            if current is not None:
                words.append("".join(current))
                current = None
            continue
        if quoted != '"' and character in "#\r":
            break
        current = [] if current is None else current
        if character == '"' or (character == "'" and not quoted):
            quoted = "" if quoted else character
        elif character == "\\":
            text, at = _escape(line, at)
            current.append(text)
        elif character == "$" and quoted == '"':
            raise UnreadableError("it refers to an environment variable")
        else:
            current.append(character)
    if quoted:
        raise UnreadableError("a quote is not closed")
    return (*words, *(() if current is None else ("".join(current),)))


def _escape(line: str, at: int) -> tuple[str, int]:
    """Return what an escape means, and where the line continues."""
    following = line[at : at + 1]
    if following == "x" and re.match(r"[0-9A-Fa-f]{2}", line[at + 1 : at + 3]):
        return chr(int(line[at + 1 : at + 3], 16)), at + 3
    if following in _ESCAPES:
        return _ESCAPES[following], at + 1
    if following and following in " \\\"'#$":
        return following, at + 1
    return "\\", at


def read_format(word: str) -> list[tuple[bool, str]]:
    """Return the parts of a format: whether each is an expression, and its text; literal parts are joined.

    Raises:
        UnreadableError: A `%` starts neither `%%` nor an expression, or HAProxy would drop spaces.
    """
    parts: list[tuple[bool, str]] = []

    def add(text: str, *, is_expression: bool = False) -> None:
        if parts and not is_expression and not parts[-1][0]:
            text = parts.pop()[1] + text
        parts.append((is_expression, text))

    if "  " in word:
        raise UnreadableError(f"{word[:80]!a}: HAProxy writes several spaces as one")
    at = 0
    while at < len(word):
        percent = word.find("%", at)
        if percent != at:
            end = len(word) if percent < 0 else percent
            add(word[at:end])
            at = end
        elif word.startswith("%%", at):
            add("%")
            at += 2
        elif word.startswith("%[", at) and "]" in word[at:]:
            end = word.index("]", at)
            inner = word[at + 2 : end]
            if digits := re.fullmatch(r"bin\(([0-9a-f]*)\)", inner):
                add(bytes.fromhex(digits[1]).decode())
            else:
                add(inner, is_expression=True)
            at = end + 1
        else:
            raise UnreadableError(f"{word[:80]!a}: a percent sign starts no expression")
    return parts


def read_expression(text: str) -> list[tuple[str, tuple[str, ...]]]:
    """Return the calls of an expression: names and arguments.

    Raises:
        UnreadableError: It is not a list of calls.
    """
    calls: list[tuple[str, tuple[str, ...]]] = []
    at = 0
    while True:
        match = re.compile(r"([a-z][a-z0-9_.]*)(?:\(([^()'\"\\]*)\))?").match(text, at)
        if match is None:
            raise UnreadableError(f"{text[:80]!a} is not an expression")
        calls.append((match[1], tuple(match[2].split(",")) if match[2] is not None else ()))
        at = match.end()
        if at == len(text):
            return calls
        if text[at] != ",":
            raise UnreadableError(f"{text[:80]!a} is not an expression")
        at += 1


def read_map(text: str) -> list[tuple[str, str]]:
    """Return the entries of a map file, in order.

    Raises:
        UnreadableError: A line has no value.
    """
    entries = []
    for line in re.split(r"[\n]", text):
        content = line.rstrip("\r")
        if content.startswith("#") or not content.strip(" \t"):
            continue
        match = re.fullmatch(r"[ \t]*([^ \t\r]+)[ \t]+(.+)", content)
        if match is None:
            raise UnreadableError(f"{content[:80]!a} is no entry of a map")
        entries.append((match[1], match[2]))
    return entries


def read_certificates(text: str) -> list[tuple[str, tuple[str, ...]]]:
    """Return the lines of a list of certificates: the path and the names of TLS, after options in brackets.

    Raises:
        UnreadableError: A line has another form.
    """
    lines = []
    for line in text.splitlines():
        match = re.fullmatch(r"([^\[\]#\\ ]+)(?: (\[[^\[\]#\\]*\]))?((?: [^\[\]#\\ ]+)*)", line)
        if match is not None:
            lines.append((match[1], (*([match[2]] if match[2] else []), *match[3].split())))
        elif line.strip():
            raise UnreadableError(f"{line[:80]!a} is not a line of a path, options and names")
    return lines


def read_command(line: str) -> list[str]:
    """Return the words of one command for the runtime socket.

    Raises:
        UnreadableError: It is not exactly one command without payload.
    """
    if not line.endswith("\n") or line.count("\n") != 1:
        raise UnreadableError("it is not one line")
    words = [""]
    at = 0
    content = line[:-1]
    while at < len(content):
        character = content[at]
        if character == "\\" and at + 1 < len(content):
            words[-1] += content[at + 1]
            at += 1
        elif character == ";":
            raise UnreadableError("it is more than one command")
        elif character == " ":
            words.append("")
        else:
            words[-1] += character
        at += 1
    if words[-1].startswith("<<"):
        raise UnreadableError("it has a payload")
    return words
