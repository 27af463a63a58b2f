"""JSON Schemas (draft 2020-12) of what the commands print or answer as JSON; `rulegen schema NAME` prints them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from rulegen.agent.telemetry.log import LEVELS
from rulegen.cli.terminal import failures
from rulegen.diff.items import Action, Drift
from rulegen.host.doctor import findings
from rulegen.model.ingress.reasons import Verdict
from rulegen.model.services import document as model_of_services
from rulegen.model.services.ir import Delivery, Masquerade, NftExtra, Semantics, TrafficPolicy
from rulegen.net import Family, Protocol
from rulegen.plan import show
from rulegen.plan.dumped import document
from rulegen.plan.fleet import nodes
from rulegen.plan.fleet.document import RESULTS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_DRAFT: Final = "https://json-schema.org/draft/2020-12/schema"
_TEXT: Final = {"type": "string"}
_FLAG: Final = {"type": "boolean"}
_COUNT: Final = {"type": "integer", "minimum": 0}
_PORT: Final = {"type": "integer", "minimum": 0, "maximum": 65535}
_COUNT_OR_NULL: Final = {"type": ["integer", "null"], "minimum": 0}
_TEXT_OR_NULL: Final = {"type": ["string", "null"]}
_DIGEST: Final = {"type": "string", "pattern": "^[0-9a-f]{64}$"}


def _list(of: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": of}


def _map(of: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "object", "additionalProperties": of}


def _among(values: Iterable[str], *, or_null: bool = False) -> dict[str, Any]:
    return {"enum": [*values, *([None] if or_null else [])]}


def _object(required: Mapping[str, Any], optional: Mapping[str, Any] | None = None) -> dict[str, Any]:
    return {
        "type": "object",
        "properties": {**required, **(optional or {})},
        "required": list(required),
        "additionalProperties": False,
    }


def _document(
    title: str, kind: str, version: int, required: Mapping[str, Any], optional: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    head = {"schemaVersion": {"const": version}, "kind": {"const": kind}}
    return {"$schema": _DRAFT, "title": title, **_object({**head, **required}, optional)}


_CHANGE: Final = _object(
    {
        "action": _among(action.word for action in Action),
        "language": _TEXT,
        "family": _among(("IPv4", "IPv6"), or_null=True),
        "kind": _TEXT,
        "name": _TEXT,
        "service": _TEXT_OR_NULL,
        "leftover": _FLAG,
        "variant": _TEXT_OR_NULL,
        "drift": _among((drift.value for drift in Drift), or_null=True),
        "lines": _list(_object({"sign": _among("+- "), "text": _TEXT, "why": _TEXT_OR_NULL})),
    }
)
_REASON: Final = _object(
    {
        "ingress": _TEXT_OR_NULL,
        "verdict": _among(verdict.value for verdict in Verdict),
        "path": _TEXT_OR_NULL,
        "message": _TEXT,
    }
)
_INGRESS: Final = _object(
    {"observed": _TEXT, "reload": {"type": ["boolean", "null"]}, "reasons": _list(_REASON)},
)
_MADE: Final = _object(
    {
        "version": _TEXT,
        "kubeProxy": _TEXT,
        "time": {"type": "string", "format": "date-time"},
        "inputs": {"anyOf": [_DIGEST, {"type": "null"}]},
    }
)

PLAN: Final = _document(
    "What would change on a node, and with apply and cleanup, what was applied",
    "Plan",
    show.SCHEMA_VERSION,
    {
        "node": _TEXT,
        "mode": _TEXT,
        "observed": _TEXT,
        "shown": _TEXT_OR_NULL,
        "summary": _object({action.word: _COUNT for action in Action}),
        "changes": _list(_CHANGE),
        "draining": _list(_TEXT),
        "services": _map(_object({"type": _TEXT, "endpointsFrom": _TEXT_OR_NULL, "assignedForPreview": _list(_TEXT)})),
        "rejected": _list(
            _object({"object": _TEXT, "source": _TEXT, "faults": _list(_object({"path": _TEXT, "message": _TEXT}))})
        ),
        "ingress": {"anyOf": [{"type": "null"}, _INGRESS]},
        "warnings": _list(_TEXT),
        "unknownKinds": _map(_COUNT),
    },
    {"made": _MADE, "applied": _list(_TEXT), "leftOut": _map(_TEXT)},
)

FINDINGS: Final = _document(
    "What doctor finds on a host",
    "Findings",
    findings.SCHEMA_VERSION,
    {
        "summary": _object({level.value: _COUNT for level in findings.Level}),
        "findings": _list(
            _object(
                {
                    "level": _among(level.value for level in findings.Level),
                    "topic": _TEXT,
                    "message": _TEXT,
                    "hint": _TEXT_OR_NULL,
                }
            )
        ),
    },
)

ERROR: Final = _document(
    "An error of a command with -o json, on standard error",
    "Error",
    failures.SCHEMA_VERSION,
    {
        "message": _TEXT,
        "hint": _TEXT_OR_NULL,
        "exitCode": {"enum": [1, 3, 130]},
        "written": _list(_TEXT),
        "notWritten": _list(_TEXT),
    },
)

SAVED_PLAN: Final = _document(
    "A plan saved by plan --out",
    "SavedPlan",
    1,
    {
        "version": _TEXT,
        "created": {"type": "string", "format": "date-time"},
        "node": _TEXT,
        "directory": _TEXT,
        "arguments": _list(_TEXT),
        "environment": _map(_TEXT),
        "configuration": _DIGEST,
        "facts": _map(_DIGEST),
        "services": _map(_DIGEST),
        "decisions": _TEXT,
        "ingress": _TEXT,
        "changes": _map(_DIGEST),
        "plan": {key: value for key, value in PLAN.items() if key not in {"$schema", "title"}},
    },
)

FLEET_PLAN: Final = _document(
    "What would change on many nodes",
    "FleetPlan",
    nodes.SCHEMA_VERSION,
    {
        "mode": _TEXT,
        "observed": _TEXT,
        "shown": _TEXT_OR_NULL,
        "summary": _object({"nodes": _COUNT, **dict.fromkeys(RESULTS.values(), _COUNT)}),
        "nodes": _list(
            _object(
                {
                    "node": _TEXT,
                    "source": _TEXT,
                    "result": _among(RESULTS.values()),
                    **dict.fromkeys(("add", "change", "delete", "drift", "foreign", "missing"), _COUNT_OR_NULL),
                    "error": _TEXT_OR_NULL,
                    "hint": _TEXT_OR_NULL,
                }
            )
        ),
        "unobserved": _list(_TEXT),
        "differences": _list(
            _object(
                {
                    "action": _among(action.word for action in Action),
                    "subject": _among(("Service",), or_null=True),
                    "name": _TEXT_OR_NULL,
                    "text": _TEXT,
                    "nodes": _list(_TEXT),
                }
            )
        ),
        "changes": _list(_object({**_CHANGE["properties"], "nodes": _list(_TEXT)})),
        "nodeWarnings": _list(_object({"message": _TEXT, "nodes": _list(_TEXT)})),
        "rejected": PLAN["properties"]["rejected"],
        "warnings": _list(_TEXT),
        "unknownKinds": _map(_COUNT),
        "made": _MADE,
    },
)

DUMPED_SERVICES: Final = _document(
    "Which Services the dumps of a node serve",
    "DumpedServices",
    document.SCHEMA_VERSION,
    {
        "sources": _list(_TEXT),
        "observed": _list(_TEXT),
        "unobserved": _list(_TEXT),
        "ports": _list(
            _object(
                {
                    "service": _TEXT_OR_NULL,
                    "port": _TEXT_OR_NULL,
                    "key": _TEXT,
                    "language": _TEXT,
                    "family": _among(("IPv4", "IPv6")),
                    "frontends": _list(
                        _object(
                            {"kind": _TEXT, "address": _TEXT, "refusal": _among(("rejected", "dropped"), or_null=True)}
                        )
                    ),
                    "endpoints": _list(
                        _object(
                            {
                                "address": _TEXT,
                                "share": {"type": ["number", "null"], "minimum": 0, "maximum": 100},
                                "pool": _among(("local",), or_null=True),
                            }
                        )
                    ),
                    "policies": _list(_TEXT),
                }
            )
        ),
        "healthChecks": _list(_TEXT),
        "foreign": _list(_object({"language": _TEXT, "family": _TEXT, "place": _TEXT, "text": _TEXT})),
        "others": _list(_object({"language": _TEXT, "family": _TEXT_OR_NULL, "place": _TEXT, "number": _COUNT})),
        "warnings": _list(_TEXT),
    },
)

_FAMILY: Final = _among(family.value for family in Family)
_ENDPOINTS: Final = _list(_object({"address": _TEXT, "port": _PORT, "text": _TEXT, "weight": _COUNT}))
_MODEL_PORT: Final = _object(
    {
        "service": _TEXT,
        "name": _TEXT,
        "protocol": _among(Protocol),
        "family": _FAMILY,
        "port": _PORT,
        "cluster_ip": _TEXT_OR_NULL,
        "internal": _among(delivery.value for delivery in Delivery),
        "external": _among(delivery.value for delivery in Delivery),
        "external_policy": _among(policy.value for policy in TrafficPolicy),
        "has_endpoints": _FLAG,
        **dict.fromkeys(("cluster", "local", "endpoints", "here"), _ENDPOINTS),
        "serving": _list(_TEXT),
        "external_ips": _list(_TEXT),
        "load_balancer_ips": _list(_TEXT),
        "node_port": _PORT,
        "node_port_except": _list(_TEXT),
        "source_ranges": _list(_TEXT),
        "node_in_source_ranges": _FLAG,
        "affinity_s": _COUNT_OR_NULL,
        "health_check_node_port": _PORT,
        "scheduler": _TEXT,
        "ready_here": _list(_TEXT),
    },
    {"is_proxied": _FLAG},
)
_MODEL_NODE: Final = _object(
    {
        "family": _FAMILY,
        "masquerade_mark": _COUNT,
        "masquerade_cluster_ip": _among(masquerade.value for masquerade in Masquerade),
        "pods": {
            "anyOf": [{"type": "null"}, _object({"network": _TEXT}), _object({"name": _TEXT, "prefix": _FLAG})],
        },
        "node_port_addresses": {"anyOf": [{"type": "null"}, _list(_TEXT)]},
        "localhost_node_ports": _FLAG,
        "drop_invalid": _FLAG,
        "random_fully": _FLAG,
        "addresses": _list(_TEXT),
        "listening": _list(_TEXT),
        "link_local_node_ports": _FLAG,
        "ipvs": _object({"scheduler": _TEXT, "excluded": _list(_TEXT), "semantics": _among(Semantics)}),
    },
    {
        "proxy": _object(
            {"port": _PORT, "mark": _COUNT, "table": _COUNT, "address": _TEXT_OR_NULL, "translates": _FLAG}
        ),
        "service_networks": _list(_TEXT),
        "nft_extras": _list(_among(NftExtra)),
    },
)
MODEL: Final = _document(
    "The decisions behind the rules of a node: model.json of export",
    "Model",
    model_of_services.SCHEMA_VERSION,
    {
        "node": _TEXT,
        "families": _map(_MODEL_NODE),
        "sysctls": _map(_TEXT),
        "services": _list(
            _object(
                {
                    "name": _TEXT,
                    "type": _TEXT,
                    "endpointsFrom": _TEXT_OR_NULL,
                    "assignedForPreview": _list(_TEXT),
                    "ports": _list(_MODEL_PORT),
                }
            )
        ),
    },
)

_LOCATION: Final = {
    "server": _TEXT,
    "location": _TEXT,
    **dict.fromkeys(("ingress", "rule", "path"), _TEXT_OR_NULL),
    "canaries": _list(_TEXT),
}
PROVENANCE: Final = _document(
    "The Ingress and rule of each location: provenance.json of export",
    "Provenance",
    1,
    {
        "locations": _list({"anyOf": [_object({place: _TEXT, **_LOCATION}) for place in ("file", "backend")]}),
        "reasons": _list(_TEXT),
    },
)

RULES: Final = _document(
    "The iptables rules that a node needs: /rules?output=json of run",
    "Rules",
    show.SCHEMA_VERSION,
    {"node": _TEXT, "rules": _map(_map(_map(_list(_TEXT))))},
)

_TIME: Final = {"type": "string", "format": "date-time"}
_TITLED: Final = {"$schema": _DRAFT}
HEALTH: Final = {
    **_TITLED,
    "title": "The health of an agent: /healthz and /livez of run",
    **_object(
        {
            "lastUpdated": {"anyOf": [_TIME, {"type": "null"}]},
            "currentTime": _TIME,
            "healthy": _FLAG,
            "desiredGeneration": _COUNT,
            "appliedGeneration": _COUNT,
            "oldestUnappliedSeconds": {"type": "number", "minimum": 0},
        },
        {"nodeEligible": _FLAG, "ingressesNotServed": _TEXT, "lastError": _TEXT},
    ),
}
SERVICE_HEALTH: Final = {
    **_TITLED,
    "title": "The health of a Service on a node: the answer of a healthCheckNodePort",
    **_object(
        {
            "service": _object({"namespace": _TEXT, "name": _TEXT}),
            "localEndpoints": _COUNT,
            "serviceProxyHealthy": _FLAG,
        }
    ),
}
LOG: Final = {
    **_TITLED,
    "title": "One line of the log: run --log-format json",
    **_object({"time": _TIME, "level": _among(LEVELS), "message": _TEXT}),
    "additionalProperties": {"type": ["string", "number", "boolean", "array", "object"]},
}

SCHEMAS: Final[Mapping[str, dict[str, Any]]] = {
    "plan": PLAN,
    "fleet-plan": FLEET_PLAN,
    "dumped-services": DUMPED_SERVICES,
    "findings": FINDINGS,
    "saved-plan": SAVED_PLAN,
    "error": ERROR,
    "model": MODEL,
    "provenance": PROVENANCE,
    "rules": RULES,
    "health": HEALTH,
    "service-health": SERVICE_HEALTH,
    "log": LOG,
}
"""The schemas by name."""
