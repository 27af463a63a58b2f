"""What dumps say in terms of Services, as one JSON document."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rulegen.plan.dumped.services import DumpedNode, DumpedPort

SCHEMA_VERSION = 1


def dump_document(node: DumpedNode) -> dict[str, Any]:
    """Return the document; its shape changes only with `schemaVersion`."""
    return {
        "schemaVersion": SCHEMA_VERSION,
        "kind": "DumpedServices",
        "sources": list(node.sources),
        "observed": list(node.seen),
        "unobserved": list(node.unseen),
        "ports": [_port_document(port) for ports in node.services.values() for port in ports],
        "healthChecks": list(node.health_ports),
        "foreign": [rule._asdict() for rule in node.foreign],
        "others": [{**other._asdict(), "family": other.family or None} for other in node.others],
        "warnings": list(node.warnings),
    }


def _port_document(port: DumpedPort) -> dict[str, Any]:
    return {
        "service": port.service or None,
        "port": port.name or None,
        "key": port.key,
        "language": port.language,
        "family": port.family,
        "frontends": [
            {"kind": frontend.kind, "address": frontend.address, "refusal": frontend.refusal or None}
            for frontend in port.frontends
        ],
        "endpoints": [
            {"address": endpoint.address, "share": endpoint.share, "pool": endpoint.pool or None}
            for endpoint in port.endpoints
        ],
        "policies": list(port.policies),
    }
