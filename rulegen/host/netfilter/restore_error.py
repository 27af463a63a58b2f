"""Errors of `iptables-restore`: the message, and the line of the script that it refers to.

The two variants have many forms of messages. Some errors are found while a line is read, and the message has its
number. Others are found at `COMMIT`: legacy then reports the `COMMIT` line without a reason, because the kernel gives
none.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from rulegen.errors import HostError
from rulegen.text import printable

if TYPE_CHECKING:
    from rulegen.host.netfilter.variant import Variant
    from rulegen.net import Family

CONTEXT_LINES = 5
_LONGEST = 500
_LINE = re.compile(r"\bline:? (?P<line>[0-9]+)\b")
_TOOL = re.compile(r"^ip6?tables(-nft|-legacy)?(-restore)?( v[0-9.]+)?( \((nf_tables|legacy)\))?: ?")
_WHERE = re.compile(r"^line [0-9]+( failed$|( failed)?: )")
_NOISE = re.compile(r"^(Error occurred at line: [0-9]+|Try `.*|# Warning: .*)$")
_MISSING_CHAIN = re.compile(r"(?:Chain '|Couldn't load target `)(?P<chain>[^']+)'")


_EXTENSION = re.compile(
    r"Extension (?P<name>\S+) revision \d+ not supported|Couldn't load (?:match|target) `(?P<other>\S+)'"
)
_MOMENTARY = re.compile(
    r"Cannot allocate memory|[Mm]emory allocation|out of memory|No buffer space|Resource temporarily unavailable"
    r"|Interrupted system call|Device or resource busy|Permission denied|Operation not permitted"
)


class NamedLine(NamedTuple):
    """A line of a script that a message refers to."""

    number: int
    table: str
    text: str
    complaint: str


class RestoreError(HostError):
    """`iptables-restore` rejected a script. The tables whose `COMMIT` came before the line were written.

    Attributes:
        line: The number of the rejected line, from 1; None if the tool reported none.
        text: The line; empty if unknown.
        excerpt: The rejected line, marked, with numbered lines around it; may be empty.
        complaint: The message of the tool in one line.
        committed: The tables that were written before the error.
        family: The address family of the tool.
        named: Each line that the messages refer to, with its number, message and table.
        extension: The match or target that the kernel does not have, if the tool reported one.
        is_momentary: Whether no rule is wrong: the cause is temporary (no memory, a lock, a chain in use, a signal),
            or the tool fails without a message.
    """

    def __init__(
        self, variant: Variant, family: Family, script: str, *, code: int, stderr: str, command: str = ""
    ) -> None:
        lines = script.splitlines()
        self.family = family
        self.named = _named(lines, stderr)
        lacking = _EXTENSION.search(stderr)
        self.extension = (lacking["name"] or lacking["other"]) if lacking else ""
        is_silent = not stderr.strip()
        self.is_momentary = code < 0 or is_silent or _MOMENTARY.search(stderr) is not None
        self.line = _offending_line(lines, stderr)
        self.text = lines[self.line - 1] if self.line else ""
        self.complaint = _complaint(stderr, self.text, code)
        self.excerpt = _excerpt(lines, self.line)
        self.committed = _committed(lines, self.line)
        tool = f"{'iptables' if family.bits == 32 else 'ip6tables'}-{variant}-restore"
        where = f" line {self.line}, `{_shown(self.text)}`" if self.line else " the rules"
        message = f"{tool} rejected{where}: {self.complaint}"
        if is_silent:  # a tool names the line that it rejects: this is a fault of the tool, not of a rule
            how = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code} and without a message"
            message = f"`{command or tool}` {how}: the {family} rules were not written"
        super().__init__(message)


def _offending_line(lines: list[str], stderr: str) -> int | None:
    """Return the number of the line that most probably caused the error."""
    numbers = [int(match["line"]) for match in _LINE.finditer(stderr)]
    number = next((line for line in numbers if 0 < line <= len(lines)), None)
    missing = _MISSING_CHAIN.search(stderr)
    if number is None or missing is None or lines[number - 1] != "COMMIT":
        return number
    # a jump to a missing chain is reported at COMMIT: show the jump
    jump = re.compile(rf" (-j|--jump|-g|--goto) {re.escape(missing['chain'])}( |$)")
    for candidate in range(number - 1, 0, -1):
        if lines[candidate - 1].startswith("*"):
            break
        if jump.search(lines[candidate - 1]):
            number = candidate
    return number


def _named(lines: list[str], stderr: str) -> tuple[NamedLine, ...]:
    """Return the reported lines except `COMMIT`: nft reports each rejected line, legacy only the first."""
    named: dict[int, NamedLine] = {}
    first = _offending_line(lines, stderr)
    whole = _complaint(stderr, lines[first - 1] if first else "", 0)
    for said in stderr.splitlines():
        match = _LINE.search(said)
        number = int(match["line"]) if match else 0
        if 0 < number <= len(lines) and lines[number - 1] != "COMMIT":
            complaint = _shown(_WHERE.sub("", _TOOL.sub("", said.strip())))
            is_bare = not complaint or _NOISE.match(complaint) is not None
            named.setdefault(number, NamedLine(number, "", lines[number - 1], whole if is_bare else complaint))
    if not named and first is not None and lines[first - 1] != "COMMIT":
        named[first] = NamedLine(first, "", lines[first - 1], whole)
    return tuple(entry._replace(table=_table_of(lines, entry.number)) for entry in named.values())


def _table_of(lines: list[str], number: int) -> str:
    return next((text[1:].strip() for text in reversed(lines[:number]) if text.startswith("*")), "")


def _complaint(stderr: str, text: str, code: int) -> str:
    said = [_WHERE.sub("", _TOOL.sub("", line.strip())) for line in stderr.splitlines()]
    kept = [line for line in said if line and not _NOISE.match(line)]
    if kept:
        return _shown("; ".join(kept))
    if text == "COMMIT":
        return "the kernel rejected the table without naming a line"
    if text.startswith(("-D", "-X", "-A", "-I", "-F")):
        return "no such chain or rule, or the chain is in use"
    return f"exit code {code} without a message"


def _excerpt(lines: list[str], line: int | None) -> str:
    if line is None:
        return ""
    numbers = range(max(1, line - CONTEXT_LINES), min(len(lines), line + CONTEXT_LINES) + 1)
    return "\n".join(f"{'>' if n == line else ' '} {n:>6}  {_shown(lines[n - 1])}" for n in numbers)


def _committed(lines: list[str], line: int | None) -> tuple[str, ...]:
    tables: list[str] = []
    table = ""
    for text in lines[: (line or 1) - 1]:
        if text.startswith("*"):
            table = text[1:].strip()
        elif text == "COMMIT":
            tables.append(table)
    return tuple(tables)


def _shown(text: str) -> str:
    """Return a line that is safe to print on a terminal."""
    return printable(text, _LONGEST)
