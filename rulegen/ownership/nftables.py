"""The nftables table of kube-proxy: its name, its sets and maps, and the names of the chains of one Service.

Source: kube-proxy 1.36, compared with what it wrote. A table of this name belongs to kube-proxy or rulegen as a whole.
"""

from __future__ import annotations

from base64 import b32encode
from hashlib import sha256
from typing import TYPE_CHECKING, Final

from rulegen.languages.nftables.expressions import AnonymousSet, Literal, Payload, VerdictCode
from rulegen.languages.nftables.state import NftChain, chain_key
from rulegen.languages.nftables.statements import Compare

if TYPE_CHECKING:
    from rulegen.languages.nftables.state import NftObjects
    from rulegen.languages.nftables.statements import NftRule
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


def without_ranges(objects: NftObjects) -> NftObjects:
    """Return objects without the rule that drops connections to unused addresses in the ranges of ClusterIPs.

    If the ranges are unknown, whether this rule is right is unknown too: it stays, and is not compared.
    """
    key = chain_key(TABLE, CLUSTER_IPS_CHECK)
    chain = objects.get(key)
    if not isinstance(chain, NftChain):
        return objects
    rules = tuple(rule for rule in chain.rules if not _drops_ranges(rule))
    return {**objects, key: NftChain(rules, chain.base)}


def _drops_ranges(rule: NftRule) -> bool:
    match rule.statements:
        case (Compare(Payload(field="daddr"), Literal() | AnonymousSet(), "=="), VerdictCode("drop")):
            return True
        case _:
            return False
