"""Displays the plans of several nodes as text: a table of nodes, then the differences with their nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rulegen.plan.effects import effect_text
from rulegen.plan.fleet.nodes import Outcome, most_common
from rulegen.plan.show import display_text, item_lines, notes, painter
from rulegen.text import counted_noun, listed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from rulegen.plan.fleet.nodes import Fleet, NodeRow

HEADINGS: Final = ("NODE", "RESULT", "ADD", "CHANGE", "DELETE", "DRIFT", "FOREIGN", "MISSING")
MOST_DIFFERENCES: Final = 40
"""Maximum number of differences that are listed without -v."""
_UNKNOWN: Final = "-"
_SIGNS: Final = {Outcome.FAILED: "-", Outcome.CHANGED: "~", Outcome.UNKNOWN: "~", Outcome.SAME: " "}


def text(fleet: Fleet, *, colour: bool, verbose: bool = False) -> Iterator[str]:
    """Yield the lines of a report on several nodes. External text is printed as printable characters only.

    Args:
        fleet: The plans of the nodes.
        colour: Whether to use colours.
        verbose: Whether to list all differences, and each changed object.
    """
    paint = painter(colour=colour)
    report = fleet.report
    yield display_text(f"{counted_noun(len(fleet.rows), 'node')}: {report.mode} mode; compared with {report.observed}")
    if report.shown:
        yield display_text(f"Only {report.shown} is shown below the table; the table counts all changes.")
    yield ""
    yield from _table(fleet.rows, paint)
    yield from _failures(fleet)
    yield from _differences(fleet, paint, verbose=verbose)
    if verbose:
        yield from _objects(fleet, paint)
    yield from _warnings(fleet)
    yield from notes(report)
    yield ""
    yield paint("*", summary(fleet))


def summary(fleet: Fleet) -> str:
    """Return the last line: the number of nodes by result."""
    parts = [
        f"{len(rows)} with {words}" if outcome is not Outcome.FAILED else f"{len(rows)} not compared"
        for outcome, words in (
            (Outcome.CHANGED, "changes"),
            (Outcome.SAME, "no changes"),
            (Outcome.UNKNOWN, "no changes in what was observed"),
            (Outcome.FAILED, ""),
        )
        if (rows := fleet.of(outcome))
    ]
    return f"Nodes: {', '.join(parts)}."


def cells(row: NodeRow) -> tuple[str, ...]:
    """Return one row of the table. A node that could not be compared has no numbers."""
    numbers = (row.add, row.change, row.delete, row.drift, row.foreign, row.missing)
    shown = (_UNKNOWN for _ in numbers) if row.error else (f"{number:,}" for number in numbers)
    return (display_text(row.node), row.outcome.value, *shown)


def names(nodes: Sequence[str], total: int) -> str:
    """Return the nodes of a difference: the only one by name, several with their number."""
    if len(nodes) == 1:
        return nodes[0]
    all_of_them = "all " if len(nodes) == total else ""
    return f"{all_of_them}{counted_noun(len(nodes), 'node')} ({listed(nodes)})"


def _table(rows: Sequence[NodeRow], paint: Callable[[str, str], str]) -> Iterator[str]:
    lines = [HEADINGS, *(cells(row) for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADINGS))]
    signs = ["*", *(_SIGNS[row.outcome] for row in rows)]
    for sign, line in zip(signs, lines, strict=True):
        left = (cell.ljust(width) for cell, width in zip(line[:2], widths[:2], strict=True))
        right = (cell.rjust(width) for cell, width in zip(line[2:], widths[2:], strict=True))
        yield paint(sign, "  ".join((*left, *right)))


def _failures(fleet: Fleet) -> Iterator[str]:
    failed = fleet.of(Outcome.FAILED)
    if failed:
        yield ""
        yield "Not compared:"
    for row in failed:
        first, *rest = row.error.splitlines()
        yield display_text(f"  {row.node}: {first}")
        yield from (display_text(f"      {line}") for line in rest)
        if row.hint:
            yield display_text(f"      Next: {row.hint}")
    if fleet.unobserved:
        yield ""
        number = counted_noun(len(fleet.unobserved), "Node")
        yield display_text(f"Without a folder: {number} of the cluster ({listed(fleet.unobserved)})")


def _differences(fleet: Fleet, paint: Callable[[str, str], str], *, verbose: bool) -> Iterator[str]:
    shared = most_common(fleet.differences)
    if not shared:
        return
    total = len(fleet.rows)
    yield ""
    yield "Differences:"
    shown = shared if verbose else shared[:MOST_DIFFERENCES]
    for effect, nodes in shown:
        line = f"{effect.action.value} {effect_text(effect)}"
        yield f"  {display_text(names(nodes, total))}: " + paint(effect.action.value, display_text(line))
    if len(shared) > len(shown):
        yield f"  … and {len(shared) - len(shown):,} more. To see all: -v, or -o json."


def _objects(fleet: Fleet, paint: Callable[[str, str], str]) -> Iterator[str]:
    for item, nodes in most_common(fleet.objects):
        yield ""
        owner = f"Service {item.owner}" if item.owner else "no Service" if item.is_leftover else "the node"
        yield paint("*", display_text(f"{names(nodes, len(fleet.rows))}; {owner}"))
        yield from item_lines(item, paint)


def _warnings(fleet: Fleet) -> Iterator[str]:
    if fleet.warnings:
        yield ""
        yield "Warnings about nodes:"
    for warning, nodes in most_common(fleet.warnings):
        yield display_text(f"  {names(nodes, len(fleet.rows))}: {warning}")
