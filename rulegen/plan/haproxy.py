"""Changes of HAProxy's configuration, file by file, as lines. The content of a secret is never included."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rulegen.diff.items import Action, Item, Line
from rulegen.plan.ingress import IngressPlan

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

LANGUAGE: Final = "haproxy"
SHOWN: Final = 120
"""Maximum number of lines of a file that are shown."""


def plan_new(files: Mapping[str, str], secrets: Iterable[str]) -> IngressPlan:
    """Return the plan for a host on which HAProxy serves nothing."""
    items = [_item("file", path, _lines(text)) for path, text in sorted(files.items())]
    items += [_item("secret", path, (Line("+", f"{path} (its content is not shown)"),)) for path in sorted(secrets)]
    return IngressPlan(LANGUAGE, tuple(items), reload=True, runs=False)


def _item(kind: str, name: str, lines: tuple[Line, ...]) -> Item:
    return Item(action=Action.ADD, language=LANGUAGE, family="", kind=kind, name=name, lines=lines)


def _lines(text: str) -> tuple[Line, ...]:
    lines = [line for line in text.splitlines() if line]
    return tuple(Line("+", line) for line in lines) if len(lines) <= SHOWN else (Line("+", f"({len(lines)} lines)"),)
