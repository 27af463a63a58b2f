"""Regular expressions of objects: a subset of PCRE that is safe to run.

Accepted expressions compile in PCRE2 and need limited time: literals, classes, groups, alternatives, quantifiers,
anchors, a leading `(?i)`, and lookahead. A repeated group whose content can match a text in several ways, such as
`(a+)+` or `(aa?)+`, is rejected, because its time grows exponentially with the length of the request. Rarely used
syntax is rejected too: lookbehind, back references, verbs, recursion, named and atomic groups, callouts, unusual
escapes.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Final, NamedTuple, NoReturn

from rulegen.text import quoted

MAX_LENGTH: Final = 1000
MAX_DEPTH: Final = 20
MAX_REPEAT: Final = 1000
MAX_UNBOUNDED: Final = 4
MAX_HEADS: Final = 64
"""Maximum number of literal prefixes that an outline distinguishes."""
MAX_WAYS: Final = 1_000_000
"""Maximum number of ways in which bounded repetitions may match; more would take too long."""
MAX_SIZE: Final = 30_000
"""Upper estimate of an expression's compiled size in bytes. PCRE2 copies repeated groups, up to 64 KiB in total."""

_SPECIAL: Final = re.compile(r"[\\.^$|?*+()\[\]{}]")
_SETS: Final = frozenset("dDwWsS")
_ANCHORS: Final = frozenset("bBAzZ")
_LITERAL_ESCAPES: Final = frozenset("\\.^$|?*+()[]{}/-_~!@#%&=:;,'\"<> `")
_QUANTIFIER: Final = re.compile(r"(?:[*+?]|\{([0-9]{1,4})(?:(,)([0-9]{0,4}))?\})([?+]?)")
_LOOKS_REPEATED: Final = re.compile(r"\{[\s0-9,]*[0-9][\s0-9,]*\}")
"""Texts that some versions of PCRE2 read as a quantifier and others as literal text."""
_EMPTY: Final = frozenset({"^", "$", "(?i)", *(f"\\{letter}" for letter in _ANCHORS)})
_POSIX: Final = re.compile(r"\[:\^?(?:alnum|alpha|digit|lower|upper|punct|space|xdigit|word):\]")


def escape(text: str) -> str:
    """Return an expression that matches exactly this text."""
    return _SPECIAL.sub(r"\\\g<0>", text)


def check(pattern: str) -> str:
    """Return the expression if it belongs to the accepted subset.

    Raises:
        ValueError: It does not; the message contains the position and the reason.
    """
    if len(pattern.encode(errors="replace")) > MAX_LENGTH:
        raise ValueError(f"{quoted(pattern)} is longer than {MAX_LENGTH} bytes")
    if not pattern.isprintable():
        raise ValueError(f"{quoted(pattern)} has non-printable characters")
    reader = _Reader(pattern)
    reader.alternatives(0)
    if reader.at < len(pattern):
        reader.fail("a ) without its (")
    return pattern


def begins_with(pattern: str, text: str) -> bool:
    """Whether an expression begins with a text and has no other branch, so that all it matches begins with it too."""
    if not pattern.startswith(text) or pattern[len(text) : len(text) + 1] in {"?", "*", "{"}:
        return False
    depth = 0
    for sign in re.sub(r"\\.|\[\^?\]?[^\]]*\]", "", pattern, flags=re.DOTALL):
        depth += (sign == "(") - (sign == ")")
        if sign == "|" and depth <= 0:
            return False
    return True


class Outline(NamedTuple):
    """Properties of all texts that an expression can match.

    Attributes:
        heads: Each matching text starts with one of these prefixes; lower case, compared without case.
        least: Minimum length of a matching text in bytes.
    """

    heads: tuple[str, ...]
    least: int

    def may_match(self, text: str) -> bool:
        """Whether the expression may match a text or its beginning; False only if that is certain."""
        return len(text.encode()) >= self.least and text.lower().startswith(self.heads)


def outline(pattern: str) -> Outline:
    """Return the outline of a checked expression with a `^` before it, which applies to the first alternative only."""
    reader = _Reader(pattern)
    part = reader.alternatives(0)
    first = _Reader(pattern)
    first._sequence(0)  # noqa: SLF001 - of this module
    is_anchored = first.at == len(pattern)
    return Outline(tuple(head.lower() for head in part.heads) if is_anchored else ("",), part.least)


def outline_of_text(text: str) -> Outline:
    """Return the outline of an expression that matches this text and longer ones that begin with it."""
    return Outline((text.lower(),), len(text))


def groups(pattern: str) -> int:
    """Return the number of capturing groups in a checked expression."""
    plain = re.sub(r"\\.|\[(?:\\.|[^\]\\])*\]", "", pattern)
    return len(re.findall(r"\((?!\?)", plain))


class _Part(NamedTuple):
    """Properties of a part of an expression.

    Attributes:
        ways: Maximum number of ways to match one text; infinite for an unbounded repetition.
        size: Estimated compiled size in bytes.
        least: Minimum length of a match in characters.
        heads: Prefixes, compared without case; each match starts with one of them.
        is_whole: Whether the prefixes are the only possible matches.
    """

    ways: float = 1.0
    size: int = 8
    least: int = 1
    heads: tuple[str, ...] = ("",)
    is_whole: bool = False


@dataclass(slots=True)
class _Reader:
    """A parser that reads an expression from left to right."""

    pattern: str
    at: int = 0
    unbounded: int = 0

    def fail(self, what: str) -> NoReturn:
        """Reject the expression at the current position."""
        raise ValueError(f"{quoted(self.pattern)} cannot be used: {what}, at character {self.at + 1}")

    def alternatives(self, depth: int) -> _Part:
        if depth > MAX_DEPTH:
            self.fail("groups that are nested too deeply")
        begins = [self.at]
        parts = [self._sequence(depth)]
        while self._takes("|"):
            begins.append(self.at)
            parts.append(self._sequence(depth))
        # nginx compares the expression of a path without case.
        firsts = [self.pattern[at : at + 1].lower() for at in begins]
        is_clear = len(set(firsts)) == len(firsts) and not any(_SPECIAL.match(first) for first in firsts)
        ways = max(part.ways for part in parts) if is_clear else sum(part.ways for part in parts)
        return _Part(
            ways=ways,
            size=sum(part.size for part in parts) + 16,
            least=min(part.least for part in parts),
            heads=tuple(dict.fromkeys(head for part in parts for head in part.heads)),
            is_whole=all(part.is_whole for part in parts),
        )

    def _sequence(self, depth: int) -> _Part:
        ways, size, least = 1.0, 0, 0
        heads, is_whole = [""], True
        while self.at < len(self.pattern) and self.pattern[self.at] not in "|)":
            start = self.at
            part = self._atom(depth)
            quantifier = _QUANTIFIER.match(self.pattern, self.at)
            if quantifier is not None:
                if self.pattern[start : self.at] in _EMPTY:
                    self.fail("a quantifier that repeats nothing")
                part = self._repeated(part, quantifier, is_group=self.pattern[start] == "(")
            ways, size = ways * part.ways, size + part.size
            if size > MAX_SIZE or MAX_WAYS < ways < math.inf:
                self.fail("too many repetitions in total")
            least += part.least
            if is_whole and len(heads) * len(part.heads) <= MAX_HEADS:
                heads = [head + more for head in heads for more in part.heads]
                is_whole = part.is_whole
            else:
                is_whole = False
        return _Part(ways, size, least, tuple(heads), is_whole)

    def _repeated(self, part: _Part, quantifier: re.Match[str], *, is_group: bool) -> _Part:
        least, most = self._quantifier(quantifier)
        if most == math.inf:
            self.unbounded += 1
            if self.unbounded > MAX_UNBOUNDED:
                self.fail(f"more than {MAX_UNBOUNDED} unlimited repetitions")
        if most > 1 and part.ways > 1 and math.inf in (most, part.ways):
            self.fail("a repetition inside a repeated group can take unlimited time")
        copies = int(max(least, 1 if most == math.inf else most)) if is_group else 1
        log = most * math.log(part.ways) if part.ways > 1 and most < math.inf else 0
        if log > math.log(MAX_WAYS) and part.ways < math.inf:
            self.fail("too many repetitions in total")
        ways = part.ways if math.inf in {part.ways, most} else part.ways**most
        heads = part.heads if least else ("",)
        return _Part(ways * (most - least + 1), part.size * copies + 16, part.least * least, heads)

    def _quantifier(self, quantifier: re.Match[str]) -> tuple[int, float]:
        """Return the minimum and the maximum of a quantifier."""
        lower, comma, limit, _ = quantifier.groups()
        sign = self.pattern[quantifier.start()]
        least = int(lower) if lower is not None else int(sign == "+")
        most = math.inf
        if sign == "?":
            most = 1
        elif lower is not None and not (comma and not limit):
            most = int(limit) if limit else least
        if least > MAX_REPEAT or MAX_REPEAT < most < math.inf:
            self.fail(f"more than {MAX_REPEAT} repetitions")
        if most < least:
            self.fail("a repetition with its bounds in the wrong order")
        if not most:
            self.fail("something that is repeated zero times")  # otherwise the outline's prefixes would be wrong
        self.at = quantifier.end()
        if _QUANTIFIER.match(self.pattern, self.at):
            self.fail("a quantifier that repeats nothing")
        return least, most

    def _atom(self, depth: int) -> _Part:
        character = self.pattern[self.at]
        if character == "(":
            return self._group(depth)
        if character == "[":
            self._class()
            return _Part(size=48)
        if character == "\\":
            literal = self._escape(_SETS | _ANCHORS)
            is_set = self.pattern[self.at - 1] in _SETS
            return _Part(least=int(bool(literal) or is_set), heads=(literal,), is_whole=not is_set)
        if character in "^$.":
            self.at += 1
            return _Part(least=int(character == "."), is_whole=character != ".")
        if character in "*+?" or _QUANTIFIER.match(self.pattern, self.at):
            self.fail("a quantifier that repeats nothing")
        elif _LOOKS_REPEATED.match(self.pattern, self.at):
            self.fail("a repetition that PCRE2 versions read differently")
        self.at += 1
        return _Part(heads=(character,), is_whole=True)

    def _group(self, depth: int) -> _Part:
        start = self.at
        self.at += 1
        if self._takes("?"):
            if start == 0 and self._takes("i)"):
                return _Part(least=0, is_whole=True)
            if not (self._takes(":") or self._takes("=") or self._takes("!")):
                self.fail("a kind of group that is not allowed")
        looks_ahead = self.pattern[self.at - 1] in "=!" and self.pattern[self.at - 2] == "?"
        part = self.alternatives(depth + 1)
        if not self._takes(")"):
            self.fail("a ( without its )")
        return part._replace(least=0, heads=("",), is_whole=True) if looks_ahead else part

    def _class(self) -> None:
        start = self.at
        if self.pattern.startswith(("[:", "[.", "[="), start):
            self.fail("a class that is not known")
        self.at += 1
        self._takes("^")
        first, last = True, ""
        while first or not self._takes("]"):
            if self.at >= len(self.pattern):
                self.at = start
                self.fail("a [ without its ]")
            first = False
            last = self._member(last)

    def _member(self, last: str) -> str:
        """Read one member of a class; `last` is the previous character, with which a range may start."""
        if match := _POSIX.match(self.pattern, self.at):
            self.at = match.end()
            self._no_range()
            return ""
        if self.pattern.startswith(("[:", "[.", "[="), self.at):
            self.fail("a class that is not known")
        character = self.pattern[self.at]
        if character == "\\":
            literal = self._escape(_SETS)
            if not literal:
                self._no_range()
            return literal
        self.at += 1
        if character == "-" and last and self.at < len(self.pattern) and self.pattern[self.at] != "]":
            upper = self.pattern[self.at]
            if upper == "[" or (upper == "\\" and self.pattern[self.at + 1 : self.at + 2] in _SETS):
                self.fail("a range without an end")
            if upper == "\\":
                upper = self._escape(_SETS)
            else:
                self.at += 1
            if upper < last:
                self.fail("a range in the wrong order")
            return ""
        return character

    def _no_range(self) -> None:
        r"""Reject a range that starts with a class, such as `[\d-z]`."""
        if self.pattern.startswith("-", self.at) and self.pattern[self.at + 1 : self.at + 2] != "]":
            self.fail("a range without a start")

    def _escape(self, letters: frozenset[str]) -> str:
        """Read an escape sequence; return its character, or an empty text for one of `letters`."""
        escaped = self.pattern[self.at + 1 : self.at + 2]
        if not escaped or (escaped not in letters and escaped not in _LITERAL_ESCAPES):
            self.fail("an escape that is not allowed")
        self.at += 2
        return "" if escaped in letters else escaped

    def _takes(self, text: str) -> bool:
        if self.pattern.startswith(text, self.at):
            self.at += len(text)
            return True
        return False
