"""The plans of several nodes as one JSON document."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rulegen.plan.fleet.nodes import SCHEMA_VERSION, Outcome, most_common
from rulegen.plan.show import item_document, rejected_documents

if TYPE_CHECKING:
    from rulegen.plan.fleet.nodes import Fleet, NodeRow

RESULTS = {
    Outcome.SAME: "same",
    Outcome.UNKNOWN: "partly-observed",
    Outcome.CHANGED: "changes",
    Outcome.FAILED: "error",
}
"""The results of nodes, as in the document."""


def fleet_document(fleet: Fleet) -> dict[str, Any]:
    """Return the document; its shape changes only with `schemaVersion`."""
    report = fleet.report
    return {
        "schemaVersion": SCHEMA_VERSION,
        "kind": "FleetPlan",
        "mode": report.mode,
        "observed": report.observed,
        "shown": report.shown or None,
        "summary": {"nodes": len(fleet.rows)} | {RESULTS[outcome]: len(fleet.of(outcome)) for outcome in Outcome},
        "nodes": [_node_document(row) for row in fleet.rows],
        "unobserved": list(fleet.unobserved),
        "differences": [
            {
                "action": effect.action.word,
                "subject": effect.subject or None,
                "name": effect.name or None,
                "text": effect.text,
                "nodes": nodes,
            }
            for effect, nodes in most_common(fleet.differences)
        ],
        "changes": [{**item_document(item), "nodes": nodes} for item, nodes in most_common(fleet.objects)],
        "nodeWarnings": [{"message": text, "nodes": nodes} for text, nodes in most_common(fleet.warnings)],
        "rejected": rejected_documents(report),
        "warnings": list(report.warnings),
        "unknownKinds": dict(sorted(report.unknown_kinds.items())),
        **({"made": dict(report.made)} if report.made else {}),
    }


def _node_document(row: NodeRow) -> dict[str, Any]:
    """Return one node; the numbers of a node that could not be compared are null."""
    numbers = {
        "add": row.add,
        "change": row.change,
        "delete": row.delete,
        "drift": row.drift,
        "foreign": row.foreign,
        "missing": row.missing,
    }
    return {
        "node": row.node,
        "source": row.source,
        "result": RESULTS[row.outcome],
        **(dict.fromkeys(numbers) if row.error else numbers),
        "error": row.error or None,
        "hint": row.hint or None,
    }
