"""The plans of several nodes as SARIF 2.1.0, which viewers of audit results read.

Source: Static Analysis Results Interchange Format (SARIF) Version 2.1.0, OASIS Standard. A result is an object on a
node: the standard permits several locations of a result only if all of them must be changed together.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from rulegen.diff.items import Action, Drift
from rulegen.plan.fleet.nodes import Outcome
from rulegen.plan.show import display_text

if TYPE_CHECKING:
    from rulegen.diff.items import Item
    from rulegen.plan.fleet.nodes import Fleet, NodeRow

SCHEMA_URI: Final = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
VERSION: Final = "2.1.0"
ROOT: Final = "DUMPS"
"""Base of the URIs of folders: the current folder of the command."""
_FINGERPRINT: Final = "rulegenChange/v1"
_MOST_LINES: Final = 20

_NOT_COMPARED: Final = "node-not-compared"
_PARTLY: Final = "node-partly-observed"
_RULES: Final = (
    (
        "object-foreign",
        "warning",
        "An object in the part of rulegen and kube-proxy that neither has written",
    ),
    ("object-changed", "warning", "An object that something else has changed on the node"),
    ("object-missing", "warning", "An object that something else has deleted from the node"),
    ("object-to-add", "note", "An object that the cluster needs and the node does not have"),
    ("object-to-change", "note", "An object that differs from what the cluster needs"),
    ("object-to-delete", "note", "An object that the cluster does not need any more"),
    (_PARTLY, "note", "Part of the node's state is unknown"),
    (_NOT_COMPARED, "error", "A node that could not be compared"),
)
_LEVELS: Final = {name: (number, level) for number, (name, level, _) in enumerate(_RULES)}
_BY_ACTION: Final = {Action.ADD: "object-to-add", Action.CHANGE: "object-to-change", Action.DELETE: "object-to-delete"}


def sarif_log(fleet: Fleet, version: str) -> dict[str, Any]:
    """Return a SARIF log with one run.

    Args:
        fleet: The plans of the nodes.
        version: The version of rulegen.
    """
    sources = {row.node: row.source for row in fleet.rows}
    results = [_of_row(row) for row in fleet.rows if row.error or row.is_partial]
    for item, nodes in fleet.objects.items():
        results += (_of_item(item, node, sources[node]) for node in nodes)
    failed = fleet.of(Outcome.FAILED)
    invocation = {
        "executionSuccessful": not failed,
        "toolExecutionNotifications": [
            {
                "level": "error",
                "message": _message(f"{row.node} was not compared: {row.error}"),
                "locations": [_location(row.node, row.source)],
            }
            for row in failed
        ]
        + [
            {"level": "warning", "message": _message(text)}
            for text in (*fleet.report.warnings, *(f"Node {node} has no dumps" for node in fleet.unobserved))
        ],
    }
    return {
        "$schema": SCHEMA_URI,
        "version": VERSION,
        "runs": [
            {
                "tool": {
                    "driver": {
                        "name": "rulegen",
                        "version": version,
                        "rules": [
                            {
                                "id": name,
                                "shortDescription": {"text": f"{text}."},
                                "defaultConfiguration": {"level": level},
                            }
                            for name, level, text in _RULES
                        ],
                    }
                },
                "invocations": [invocation],
                "originalUriBaseIds": {ROOT: {"description": {"text": "The current folder of the command."}}},
                "columnKind": "unicodeCodePoints",
                "results": results,
            }
        ],
    }


def _of_row(row: NodeRow) -> dict[str, Any]:
    """Return the result for a node that could not be compared, or only in part."""
    rule = _NOT_COMPARED if row.error else _PARTLY
    text = f"{row.node} was not compared: {row.error}" if row.error else f"part of the state of {row.node} is unknown"
    return _result(rule, text, row.node, row.source, identity=rule)


def _of_item(item: Item, node: str, source: str) -> dict[str, Any]:
    """Return the result for an object on a node."""
    identity = "\0".join((item.language, item.family, item.kind, item.name, *(line.text for line in item.lines)))
    lines = [f"{line.sign} {line.text}" for line in item.lines[:_MOST_LINES]]
    if len(item.lines) > _MOST_LINES:
        lines.append(f"… and {len(item.lines) - _MOST_LINES} more lines")
    owner = f" of Service {item.owner}" if item.owner else ""
    family = f" [{item.family}]" if item.family else ""
    text = "\n".join((f"{item.action.word} {item.kind} {item.name}{family}{owner}", *lines))
    name = _rule_of(item)
    logical = {"name": item.name, "kind": "object", "fullyQualifiedName": f"{node}/{item.language}/{item.name}"}
    return _result(name, text, node, source, identity=identity, logical=logical)


def _rule_of(item: Item) -> str:
    if item.drift is Drift.MISSING:
        return "object-missing"
    if item.drift is Drift.FOREIGN:
        return "object-foreign" if item.action is Action.DELETE else "object-changed"
    return _BY_ACTION[item.action]


def _result(
    rule: str, text: str, node: str, source: str, *, identity: str, logical: dict[str, str] | None = None
) -> dict[str, Any]:
    number, level = _LEVELS[rule]
    digest = sha256(f"{node}\0{rule}\0{identity}".encode("utf-8", "backslashreplace")).hexdigest()
    return {
        "ruleId": rule,
        "ruleIndex": number,
        "level": level,
        "message": _message(text),
        "locations": [_location(node, source, logical)],
        "partialFingerprints": {_FINGERPRINT: digest},
    }


def _message(text: str) -> dict[str, str]:
    """Return a text as a message. Characters that do not print are escaped, and no part of it becomes a link.

    A viewer makes a link of `[text](target)`, and the text may come from a dump or an object.
    """
    lines = (display_text(line) for line in text.split("\n"))
    return {"text": "\n".join(lines).replace("](", "] (")}


def _location(node: str, source: str, logical: dict[str, str] | None = None) -> dict[str, Any]:
    """Return the folder of a node as a URI relative to the current folder, and the node or object by name."""
    named = {"logicalLocations": [logical or {"name": node, "kind": "resource", "fullyQualifiedName": node}]}
    if not source:
        return named
    uri = quote(source.encode("utf-8", "surrogateescape"), safe="/")
    absolute = source.startswith("/")
    artifact = {"uri": f"file://{uri}"} if absolute else {"uri": uri, "uriBaseId": ROOT}
    return {"physicalLocation": {"artifactLocation": artifact}, **named}
