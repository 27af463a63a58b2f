"""Names of kube-proxy's chains, and which of a node's chains are ours."""

from __future__ import annotations

from base64 import b32encode
from hashlib import sha256
from typing import TYPE_CHECKING

from rulegen.languages.iptables.ruleset import ChainName

if TYPE_CHECKING:
    from rulegen.model.ir import Endpoint, ServicePort

SERVICES = "KUBE-SERVICES"
NODE_PORTS = "KUBE-NODEPORTS"
EXTERNAL_SERVICES = "KUBE-EXTERNAL-SERVICES"
POSTROUTING = "KUBE-POSTROUTING"
MARK_MASQ = "KUBE-MARK-MASQ"
FORWARD = "KUBE-FORWARD"
FIREWALL = "KUBE-FIREWALL"
PROXY_FIREWALL = "KUBE-PROXY-FIREWALL"
CANARY = "KUBE-PROXY-CANARY"

PREFIXES = ("KUBE-SVC-", "KUBE-SVL-", "KUBE-EXT-", "KUBE-FW-", "KUBE-SEP-")
"""How the names of chains of one Service start: cluster pool, local pool, external, source ranges, endpoint."""

KUBELET_CANARY = "KUBE-KUBELET-CANARY"
"""The kubelet's own mark of its presence; never ours."""


def nat(chain: str) -> ChainName:
    """Return a chain of the nat table."""
    return ChainName("nat", chain)


def filter_(chain: str) -> ChainName:
    """Return a chain of the filter table."""
    return ChainName("filter", chain)


def service_hash(port: ServicePort) -> str:
    """Return what the names of a port's chains end with: 16 characters of base32 of a SHA-256."""
    return _hash(port.label + port.protocol.lower())


def endpoint_hash(port: ServicePort, endpoint: Endpoint) -> str:
    """Return what the name of an endpoint's chain ends with."""
    return _hash(port.label + port.protocol.lower() + endpoint.text)


def _hash(text: str) -> str:
    return b32encode(sha256(text.encode()).digest()[:10]).decode()
