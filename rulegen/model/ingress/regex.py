"""Regular expressions of objects: a small language, a part of PCRE, in which nothing can go wrong.

What is accepted compiles in PCRE2 and cannot run away: literals, classes, groups, alternatives, quantifiers, anchors,
a leading `(?i)`, and lookahead. A quantified group whose inside can be repeated in two ways (`(a+)+`) is refused, as
the time it takes grows exponentially with the request; so is all that few need (lookbehind, back references, verbs,
recursion, named groups, atomic groups, callouts, escapes beyond the common ones).
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, NoReturn

from rulegen.kube.wording import quoted

MAX_LENGTH: Final = 1000
MAX_DEPTH: Final = 20
MAX_REPEAT: Final = 1000
MAX_UNBOUNDED: Final = 6

_SPECIAL: Final = re.compile(r"[\\.^$|?*+()\[\]{}]")
_ESCAPES: Final = frozenset("dDwWsSbBAzZ")
_LITERAL_ESCAPES: Final = frozenset("\\.^$|?*+()[]{}/-_~!@#%&=:;,'\"<> `")
_QUANTIFIER: Final = re.compile(r"(?:[*+?]|\{([0-9]{1,4})(?:(,)([0-9]{0,4}))?\})([?+]?)")
_POSIX: Final = re.compile(r"\[:\^?(?:alnum|alpha|digit|lower|upper|punct|space|xdigit|word):\]")


def escape(text: str) -> str:
    """Return the expression that matches this text and no other."""
    return _SPECIAL.sub(r"\\\g<0>", text)


def check(pattern: str) -> str:
    """Return the expression, which is one of the small language.

    Raises:
        ValueError: It is not; says where and why.
    """
    if len(pattern) > MAX_LENGTH:
        raise ValueError(f"{quoted(pattern)} is longer than {MAX_LENGTH} characters")
    if not pattern.isprintable():
        raise ValueError(f"{quoted(pattern)} has characters that do not print")
    reader = _Reader(pattern)
    reader.alternatives(0)
    if reader.at < len(pattern):
        reader.fail("a ) without its (")
    return pattern


def groups(pattern: str) -> int:
    """Return how many groups of a checked expression capture."""
    plain = re.sub(r"\\.|\[(?:\\.|[^\]\\])*\]", "", pattern)
    return len(re.findall(r"\((?!\?)", plain))


@dataclass(slots=True)
class _Reader:
    """Reads an expression from left to right; every method returns whether what it read repeats without bound."""

    pattern: str
    at: int = 0
    unbounded: int = 0

    def fail(self, what: str) -> NoReturn:
        """Refuse the expression."""
        raise ValueError(f"{quoted(self.pattern)} cannot be used: {what}, at character {self.at + 1}")

    def alternatives(self, depth: int) -> bool:
        if depth > MAX_DEPTH:
            self.fail("groups too deep in each other")
        begins = [self.at]
        repeats = self._sequence(depth)
        while self._takes("|"):
            begins.append(self.at)
            repeats |= self._sequence(depth)
        firsts = [self.pattern[at : at + 1] for at in begins]
        is_clear = len(set(firsts)) == len(firsts) and not any(_SPECIAL.match(first) for first in firsts)
        return repeats or (len(firsts) > 1 and not is_clear)

    def _sequence(self, depth: int) -> bool:
        repeats = False
        while self.at < len(self.pattern) and self.pattern[self.at] not in "|)":
            is_group = self.pattern[self.at] == "("
            inner = self._atom(depth)
            found = _QUANTIFIER.match(self.pattern, self.at)
            if found is None:
                repeats |= inner
                continue
            unbounded = self._quantifier(found)
            self.unbounded += unbounded
            if self.unbounded > MAX_UNBOUNDED:
                self.fail(f"more than {MAX_UNBOUNDED} repetitions without bound")
            if unbounded and is_group and inner:
                self.fail("a repeated group that repeats inside takes time without bound")
            repeats |= unbounded or inner
        return repeats

    def _quantifier(self, found: re.Match[str]) -> bool:
        least, comma, most, _ = found.groups()
        if least is not None and (int(least) > MAX_REPEAT or int(most or 0) > MAX_REPEAT):
            self.fail(f"more than {MAX_REPEAT} repetitions")
        if most and int(most) < int(least or 0):
            self.fail("a repetition whose bounds are turned round")
        self.at = found.end()
        if _QUANTIFIER.match(self.pattern, self.at):
            self.fail("a quantifier that repeats nothing")
        return self.pattern[found.start()] in "*+" or (comma is not None and (not most or int(most) > 10))

    def _atom(self, depth: int) -> bool:
        character = self.pattern[self.at]
        if character == "(":
            return self._group(depth)
        if character == "[":
            self._class()
        elif character == "\\":
            self._escape()
        elif character in "*+?" or _QUANTIFIER.match(self.pattern, self.at):
            self.fail("a quantifier that repeats nothing")
        else:
            self.at += 1
        return False

    def _group(self, depth: int) -> bool:
        start = self.at
        self.at += 1
        if self._takes("?"):
            if start == 0 and self._takes("i)"):
                return False
            if not (self._takes(":") or self._takes("=") or self._takes("!")):
                self.fail("a sort of group that is not allowed")
        repeats = self.alternatives(depth + 1)
        if not self._takes(")"):
            self.fail("a ( without its )")
        return repeats

    def _class(self) -> None:
        start = self.at
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
        """Read one member of a class; `last` is the character that a range could begin with."""
        if found := _POSIX.match(self.pattern, self.at):
            self.at = found.end()
            return ""
        if self.pattern.startswith(("[:", "[.", "[="), self.at):
            self.fail("a class that is not known")
        character = self.pattern[self.at]
        if character == "\\":
            return self._escape()
        self.at += 1
        if character == "-" and last and self.at < len(self.pattern) and self.pattern[self.at] != "]":
            upper = self.pattern[self.at]
            if upper == "[" or (upper == "\\" and self.pattern[self.at + 1 : self.at + 2] in _ESCAPES):
                self.fail("a range without an end")
            if upper == "\\":
                upper = self._escape()
            else:
                self.at += 1
            if upper < last:
                self.fail("a range that is turned round")
            return ""
        return character

    def _escape(self) -> str:
        """Read an escape; return the character that it stands for, empty for a class or an anchor."""
        escaped = self.pattern[self.at + 1 : self.at + 2]
        if not escaped or (escaped not in _ESCAPES and escaped not in _LITERAL_ESCAPES):
            self.fail("an escape that is not allowed")
        self.at += 2
        return "" if escaped in _ESCAPES else escaped

    def _takes(self, text: str) -> bool:
        if self.pattern.startswith(text, self.at):
            self.at += len(text)
            return True
        return False
