"""The model as a document (`model.json`)."""

from __future__ import annotations

from enum import Enum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from rulegen.model.services.ir import Model, ResolvedNode

SCHEMA_VERSION = 1
_OF_SOME_MODES = frozenset({"is_proxied", "nft_extras", "proxy", "service_networks"})


def model_document(model: Model) -> dict[str, Any]:
    """Return the model as mappings, lists and text, in deterministic order."""
    proxied = any(port.is_proxied for service in model.services.values() for port in service.ports)
    return {
        "schemaVersion": SCHEMA_VERSION,
        "kind": "Model",
        "node": model.node_name,
        "families": {family.value: _plain_node(node, proxied=proxied) for family, node in model.nodes.items()},
        "sysctls": dict(model.sysctls),
        "services": [
            {
                "name": str(service.name),
                "type": service.type,
                "endpointsFrom": service.endpoints_from or None,
                "assignedForPreview": list(service.assigned),
                "ports": [
                    {
                        **_of_use(_plain(port)),
                        "service": str(port.service),
                        "serving": sorted(port.serving),
                        "node_port_except": sorted(map(str, port.node_port_except)),
                        "ready_here": sorted(map(str, port.ready_here)),
                    }
                    for port in service.ports
                ],
            }
            for service in model.services.values()
        ],
    }


def _plain_node(node: ResolvedNode, *, proxied: bool) -> dict[str, Any]:
    """Return the decisions of a node; some only in modes that need them, the proxy only if a Service uses it."""
    return _of_use({name: value for name, value in _plain(node).items() if proxied or name != "proxy"})


def _of_use(document: dict[str, Any]) -> dict[str, Any]:
    """Return a document without the values of other modes."""
    return {name: value for name, value in document.items() if name not in _OF_SOME_MODES or value}


def _plain(value: object) -> Any:
    return msgspec.to_builtins(value, enc_hook=_text, order="deterministic")


def _text(value: object) -> Any:
    if isinstance(value, IPv4Address | IPv6Address | IPv4Network | IPv6Network):
        return str(value)
    if isinstance(value, Enum):
        return value.value
    raise NotImplementedError(f"{type(value).__name__} has no place in a document")
