"""A JSON Schema for the part of SARIF 2.1.0 that rulegen writes.

Written from the text of the standard (OASIS Standard, 2.1.0): the names, types, required properties and enumerations of
the objects that occur. Properties that rulegen does not write are not allowed here, so a misspelled one is an error.
"""

from __future__ import annotations

from typing import Any

TEXT = {"type": "string"}
LEVEL = {"enum": ["none", "note", "warning", "error"]}


def listed(of: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": of}


def closed(required: dict[str, Any], optional: dict[str, Any] | None = None) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {**required, **(optional or {})},
        "required": list(required),
        "additionalProperties": False,
    }


MESSAGE = closed({"text": TEXT})
ARTIFACT = closed({"uri": {"type": "string", "format": "uri-reference"}}, {"uriBaseId": TEXT})
LOGICAL = closed({"name": TEXT, "kind": {"enum": ["object", "resource"]}, "fullyQualifiedName": TEXT})
LOCATION = closed({"logicalLocations": listed(LOGICAL)}, {"physicalLocation": closed({"artifactLocation": ARTIFACT})})
RULE = closed({"id": TEXT, "shortDescription": MESSAGE, "defaultConfiguration": closed({"level": LEVEL})})
RESULT = closed(
    {
        "ruleId": TEXT,
        "ruleIndex": {"type": "integer", "minimum": 0},
        "level": LEVEL,
        "message": MESSAGE,
        "locations": {**listed(LOCATION), "minItems": 1, "maxItems": 1},
        "partialFingerprints": {"type": "object", "additionalProperties": TEXT},
    }
)
NOTIFICATION = closed({"level": LEVEL, "message": MESSAGE}, {"locations": listed(LOCATION)})
INVOCATION = closed({"executionSuccessful": {"type": "boolean"}, "toolExecutionNotifications": listed(NOTIFICATION)})
RUN = closed(
    {
        "tool": closed({"driver": closed({"name": TEXT, "version": TEXT, "rules": listed(RULE)})}),
        "invocations": listed(INVOCATION),
        "originalUriBaseIds": {"type": "object", "additionalProperties": closed({"description": MESSAGE})},
        "columnKind": {"enum": ["utf16CodeUnits", "unicodeCodePoints"]},
        "results": listed(RESULT),
    }
)
SARIF = closed(
    {
        "$schema": {"type": "string", "format": "uri"},
        "version": {"const": "2.1.0"},
        "runs": {**listed(RUN), "minItems": 1},
    }
)
