"""The plans of several nodes as one HTML page. It contains no script and loads nothing; every text is escaped."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Final

from rulegen.plan.effects import effect_text
from rulegen.plan.fleet.nodes import Outcome, most_common
from rulegen.plan.fleet.table import HEADINGS, cells, names, summary
from rulegen.plan.show import display_text, item_lines, notes, painter

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rulegen.plan.fleet.nodes import Fleet

POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
"""Content-Security-Policy of the page: a browser runs no script in it, and loads nothing."""

_STYLE: Final = """\
body { font: 15px/1.5 system-ui, sans-serif; margin: 2em auto; max-width: 75em; padding: 0 1em; color: #1a1a1a; }
table { border-collapse: collapse; }
th, td { border-bottom: 1px solid #ccc; padding: .25em .75em; text-align: right; }
th:nth-child(-n+2), td:nth-child(-n+2) { text-align: left; }
pre { background: #f5f5f5; overflow-x: auto; padding: .5em; }
.error { color: #a40000; font-weight: bold; }
.changes, .partial { color: #8a4b00; }
"""
_CLASSES: Final = {
    Outcome.SAME: "same",
    Outcome.UNKNOWN: "partial",
    Outcome.CHANGED: "changes",
    Outcome.FAILED: "error",
}


def page(fleet: Fleet) -> Iterator[str]:
    """Yield the lines of the page."""
    report = fleet.report
    yield "<!doctype html>"
    yield '<html lang="en"><head><meta charset="utf-8">'
    yield f'<meta http-equiv="Content-Security-Policy" content="{escape(POLICY)}">'
    yield '<meta name="viewport" content="width=device-width, initial-scale=1">'
    yield f"<title>rulegen: {_text(summary(fleet))}</title>"
    yield f"<style>\n{_STYLE}</style></head><body>"
    yield "<h1>Nodes compared with the cluster</h1>"
    yield f"<p>{_text(f'{report.mode} mode; compared with {report.observed}')}</p>"
    if report.shown:
        yield f"<p>{_text(f'Only {report.shown} is shown below the table; the table counts all changes.')}</p>"
    yield f"<p><strong>{_text(summary(fleet))}</strong></p>"
    yield from _table(fleet)
    yield from _failures(fleet)
    yield from _differences(fleet)
    yield from _objects(fleet)
    yield from _warnings(fleet)
    yield "</body></html>"


def _table(fleet: Fleet) -> Iterator[str]:
    yield f"<table><thead><tr>{''.join(f'<th>{_text(heading)}</th>' for heading in HEADINGS)}</tr></thead><tbody>"
    for row in fleet.rows:
        columns = "".join(f"<td>{_text(cell)}</td>" for cell in cells(row))
        yield f'<tr class="{_CLASSES[row.outcome]}">{columns}</tr>'
    yield "</tbody></table>"


def _failures(fleet: Fleet) -> Iterator[str]:
    failed = fleet.of(Outcome.FAILED)
    if failed:
        yield "<h2>Not compared</h2>"
        yield from _list(
            f"{row.node}: {' / '.join(row.error.splitlines())}" + (f" — Next: {row.hint}" if row.hint else "")
            for row in failed
        )
    if fleet.unobserved:
        yield "<h2>Nodes of the cluster without a folder</h2>"
        yield from _list(fleet.unobserved)


def _differences(fleet: Fleet) -> Iterator[str]:
    if fleet.differences:
        yield "<h2>Differences</h2>"
        yield from _list(
            f"{names(nodes, len(fleet.rows))}: {effect.action.value} {effect_text(effect)}"
            for effect, nodes in most_common(fleet.differences)
        )


def _objects(fleet: Fleet) -> Iterator[str]:
    if fleet.objects:
        yield "<h2>Objects</h2>"
    paint = painter(colour=False)
    for item, nodes in most_common(fleet.objects):
        heading = f"{item.action.word} {item.kind} {item.name}: {names(nodes, len(fleet.rows))}"
        lines = "\n".join(escape(line) for line in item_lines(item, paint))
        yield f"<details><summary>{_text(heading)}</summary><pre>{lines}</pre></details>"


def _warnings(fleet: Fleet) -> Iterator[str]:
    if fleet.warnings:
        yield "<h2>Warnings about nodes</h2>"
        yield from _list(f"{names(nodes, len(fleet.rows))}: {text}" for text, nodes in most_common(fleet.warnings))
    others = "\n".join(escape(line) for line in notes(fleet.report)).strip()
    if others:
        yield f"<h2>Notes</h2><pre>{others}</pre>"


def _list(texts: Iterable[str]) -> Iterator[str]:
    yield "<ul>"
    yield from (f"<li>{_text(text)}</li>" for text in texts)
    yield "</ul>"


def _text(content: str) -> str:
    """Return a text with all characters escaped that do not print, or have a meaning in HTML."""
    return escape(display_text(content))
