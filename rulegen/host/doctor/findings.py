"""Findings about a host, and their text and JSON form."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any, Final

import msgspec

from rulegen.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

SCHEMA_VERSION: Final = 1


class Level(enum.StrEnum):
    """The severity of a finding."""

    OK = "ok"
    INFO = "info"
    WARN = "warn"
    FAIL = "fail"


class Finding(msgspec.Struct, frozen=True):
    """One finding.

    Attributes:
        level: `fail` means that Services cannot work here.
        topic: The subject, such as `tools`, `variant` or `sysctls`.
        message: The fact, in one line.
        hint: The next step; empty if none is needed.
    """

    level: Level
    topic: str
    message: str
    hint: str = ""

    @property
    def is_failure(self) -> bool:
        """Whether this keeps Services from working."""
        return self.level is Level.FAIL


_MARKS: Final = {Level.OK: "✓", Level.INFO: "·", Level.WARN: "!", Level.FAIL: "✗"}
_COLOURS: Final = {Level.OK: "32", Level.INFO: "2", Level.WARN: "33", Level.FAIL: "31"}


def as_text(findings: Sequence[Finding], *, colour: bool = False) -> str:
    """Return findings for people, grouped by topic in order of appearance, with a count as the last line."""
    lines: list[str] = []
    for topic in dict.fromkeys(finding.topic for finding in findings):
        lines.append(_line(topic))
        for finding in findings:
            if finding.topic == topic:
                mark = _MARKS[finding.level]
                lines.append(
                    f"  {_coloured(mark, _COLOURS[finding.level]) if colour else mark} {_line(finding.message)}"
                )
                if finding.hint:
                    lines.append(f"      → {_line(finding.hint)}")
    return "\n".join([*lines, "", _summary(findings)]) + "\n"


def as_document(findings: Sequence[Finding]) -> dict[str, Any]:
    """Return findings as a document for machines; its shape changes only with `schemaVersion`."""
    return {
        "schemaVersion": SCHEMA_VERSION,
        "kind": "Findings",
        "summary": {level.value: _count(findings, level) for level in Level},
        "findings": [
            {
                "level": finding.level.value,
                "topic": finding.topic,
                "message": finding.message,
                "hint": finding.hint or None,
            }
            for finding in findings
        ],
    }


def _summary(findings: Sequence[Finding]) -> str:
    failed, warned = _count(findings, Level.FAIL), _count(findings, Level.WARN)
    if not failed and not warned:
        return "Everything is fine."
    return f"{failed} to fix, {warned} to check."


def _count(findings: Iterable[Finding], level: Level) -> int:
    return sum(finding.level is level for finding in findings)


def _line(text: str) -> str:
    """Return a text on one line in printable characters; it may contain names that other programs choose."""
    return printable(text, len(text))


def _coloured(text: str, code: str) -> str:
    return f"\x1b[{code}m{text}\x1b[0m"
