"""The plans of several nodes as data: a row for each node, and each difference with the nodes that have it."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, TypeVar

import msgspec
from msgspec.structs import replace

from rulegen.diff.items import Action, Drift
from rulegen.plan import effects
from rulegen.plan.plan import Plan

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from rulegen.diff.items import Item
    from rulegen.plan.effects import Effect
    from rulegen.plan.filters import PlanFilter
    from rulegen.plan.show import Report

SCHEMA_VERSION = 1

T = TypeVar("T")


class Outcome(enum.StrEnum):
    """The result for one node."""

    SAME = "no changes"
    UNKNOWN = "no changes seen"
    """What was observed needs no change, but a part of the node's state is unknown."""
    CHANGED = "changes"
    FAILED = "error"
    """The node could not be compared."""


class NodeRow(msgspec.Struct, frozen=True, kw_only=True):
    """The result for one node.

    Attributes:
        node: Its name.
        source: Where its state was read from, such as a folder.
        error: Why it could not be compared; empty if it was. All counts are then 0 and mean nothing.
        hint: The next step after an error; empty for none.
    """

    node: str
    source: str
    add: int = 0
    change: int = 0
    delete: int = 0
    foreign: int = 0
    missing: int = 0
    is_partial: bool = False
    error: str = ""
    hint: str = ""

    @property
    def changes(self) -> int:
        """The number of objects that change."""
        return self.add + self.change + self.delete

    @property
    def drift(self) -> int:
        """The number of objects that something else has changed on the node."""
        return self.foreign + self.missing

    @property
    def outcome(self) -> Outcome:
        """The result in words."""
        if self.error:
            return Outcome.FAILED
        if self.changes:
            return Outcome.CHANGED
        return Outcome.UNKNOWN if self.is_partial else Outcome.SAME


class Fleet(msgspec.Struct, frozen=True):
    """The plans of several nodes.

    Attributes:
        report: The report for all nodes: mode, skipped objects, warnings that no node has alone.
        rows: One row for each node, in the order in which they were added.
        differences: What changes for users, each with the nodes where it does.
        objects: The objects that change, each with their nodes.
        warnings: The warnings about nodes, each with their nodes.
        unobserved: Nodes of the cluster whose state was not given.
    """

    report: Report
    rows: list[NodeRow] = msgspec.field(default_factory=list)
    differences: dict[Effect, list[str]] = msgspec.field(default_factory=dict)
    objects: dict[Item, list[str]] = msgspec.field(default_factory=dict)
    warnings: dict[str, list[str]] = msgspec.field(default_factory=dict)
    unobserved: tuple[str, ...] = ()

    def add(self, node: str, source: str, plan: Plan, report: Report) -> None:
        """Add the plan of a node. Warnings that the common report has are left out."""
        drifts = [item.drift for item in plan.items]
        self.rows.append(
            NodeRow(
                node=node,
                source=source,
                add=plan.count(Action.ADD),
                change=plan.count(Action.CHANGE),
                delete=plan.count(Action.DELETE),
                foreign=drifts.count(Drift.FOREIGN),
                missing=drifts.count(Drift.MISSING),
                is_partial=report.is_partial,
            )
        )
        _note(self.differences, effects.effects(plan, report.services), node)
        _note(self.objects, plan.items, node)
        common = frozenset(self.report.warnings)
        _note(self.warnings, (text for text in report.warnings if text not in common), node)

    def fail(self, node: str, source: str, error: str, hint: str = "") -> None:
        """Add a node that could not be compared."""
        self.rows.append(NodeRow(node=node, source=source, error=error or "unknown error", hint=hint))

    def of(self, outcome: Outcome) -> tuple[NodeRow, ...]:
        """Return the rows with a result."""
        return tuple(row for row in self.rows if row.outcome is outcome)

    @property
    def plan(self) -> Plan:
        """All objects that change on any node, for filters. It must not be written."""
        return Plan(items=tuple(self.objects))

    def narrowed(self, shown: PlanFilter) -> Fleet:
        """Return the fleet with the displayed differences alone; the rows stay those of the whole plans."""
        if not shown.text:
            return self
        kept = frozenset(shown.narrowed(self.plan).items)
        names = shown.services or (lambda _: False)
        return replace(
            self,
            report=replace(self.report, shown=shown.text),
            objects={item: nodes for item, nodes in self.objects.items() if item in kept},
            differences={
                effect: nodes
                for effect, nodes in self.differences.items()
                if effect.subject == "Service" and effect.name and names(effect.name)
            },
        )


def most_common(shared: Mapping[T, list[str]]) -> list[tuple[T, list[str]]]:
    """Return differences with their nodes: those of most nodes first, then in the order of the first plan."""
    return sorted(shared.items(), key=lambda pair: -len(pair[1]))


def _note(shared: dict[T, list[str]], of_node: Iterable[T], node: str) -> None:
    """Add a node to each of its differences; two equal ones of one node count once."""
    for each in of_node:
        nodes = shared.setdefault(each, [])
        if not nodes or nodes[-1] != node:
            nodes.append(node)
