"""The nftables table of kube-proxy: its name, its sets and maps, and the names of the chains of one Service.

Source: kube-proxy 1.36, compared with what it wrote. A table of this name belongs to kube-proxy or rulegen as a whole.
"""

from __future__ import annotations

from base64 import b32encode
from hashlib import sha256
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from rulegen.model.services.ir import Endpoint, ResolvedPort

TABLE: Final = "kube-proxy"
TABLES: Final = frozenset({TABLE})

CLUSTER_IPS: Final = "cluster-ips"
NODE_PORT_IPS: Final = "nodeport-ips"
HAIRPINS: Final = "hairpin-connections"
SERVICE_IPS: Final = "service-ips"
SERVICE_NODE_PORTS: Final = "service-nodeports"
NO_ENDPOINT_SERVICES: Final = "no-endpoint-services"
NO_ENDPOINT_NODE_PORTS: Final = "no-endpoint-nodeports"
FIREWALL_IPS: Final = "firewall-ips"

SERVICES: Final = "services"
MASQUERADING: Final = "masquerading"
REJECT: Final = "reject-chain"
CLUSTER_IPS_CHECK: Final = "cluster-ips-check"
SERVICE_CHECK: Final = "service-endpoints-check"
NODE_PORT_CHECK: Final = "nodeport-endpoints-check"
FIREWALL_CHECK: Final = "firewall-check"

_LONGEST: Final = 240
"""The longest name without its prefix."""
_DIGITS: Final = 8
_DOTS: Final = "..."


def port_base(port: ResolvedPort) -> str:
    """Return what the names of a port's chains have in common."""
    return _hashed(_port_text(port))


def endpoint_base(port: ResolvedPort, endpoint: Endpoint) -> str:
    """Return what the names of an endpoint's chain and set have in common; colons of IPv6 become dots."""
    return _hashed(f"{_port_text(port)}__{endpoint.host.replace(':', '.')}/{endpoint.port}")


def _port_text(port: ResolvedPort) -> str:
    return f"{port.service.namespace}/{port.service.name}/{port.protocol.lower()}/{port.name}"


def _hashed(text: str) -> str:
    name = f"{b32encode(sha256(text.encode()).digest()[:5]).decode()[:_DIGITS]}-{text}"
    return name if len(name) <= _LONGEST else name[: _LONGEST - len(_DOTS)] + _DOTS
