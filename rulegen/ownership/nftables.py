"""The tables of nftables mode, one for each layout: their sets and maps, and the names of the chains of one Service.

Source of the table `kube-proxy`: kube-proxy 1.36, compared with what it wrote. A table of this name belongs to
kube-proxy or rulegen as a whole. The table `rulegen`, of layout `flat`, belongs to rulegen alone.
"""

from __future__ import annotations

from base64 import b32encode
from hashlib import sha256
from typing import TYPE_CHECKING, Final, NamedTuple
from zlib import crc32

from rulegen.languages.nftables.expressions import AnonymousSet, Literal, Meta, Payload, VerdictCode, addresses_in
from rulegen.languages.nftables.state import BaseChain, NftChain, NftLoopbackGuard, chain_key
from rulegen.languages.nftables.statements import Compare, nft_rule
from rulegen.net import Family

if TYPE_CHECKING:
    from collections.abc import Collection

    from rulegen.languages.nftables.state import NftObjects
    from rulegen.languages.nftables.statements import NftRule
    from rulegen.model.services.ir import Endpoint, ResolvedPort

TABLE: Final = "kube-proxy"
FLAT_TABLE: Final = "rulegen"
TABLES: Final = frozenset({TABLE, FLAT_TABLE})

CLUSTER_IPS: Final = "cluster-ips"
NODE_PORT_IPS: Final = "nodeport-ips"
HAIRPINS: Final = "hairpin-connections"
SERVICE_IPS: Final = "service-ips"
SERVICE_NODE_PORTS: Final = "service-nodeports"
NO_ENDPOINT_SERVICES: Final = "no-endpoint-services"
NO_ENDPOINT_NODE_PORTS: Final = "no-endpoint-nodeports"
FIREWALL_IPS: Final = "firewall-ips"
HEALTH_PORTS: Final = "health-check-ports"
"""In layout `flat`, if wanted: ports of health checks."""
ENDPOINTS: Final = "endpoints"
NODE_PORT_ENDPOINTS: Final = "nodeport-endpoints"
"""In layout `flat`, the endpoints of frontends: of those with an address, and of node ports."""
FIRST_LOCAL: Final = 1 << 16
"""In these maps, what is added to the numbers of the local pool."""
FIRST_OF_MANY: Final = 1 << 15
"""The first number of a large pool, which has a chain for its size alone; that of others is their size times 256."""

SERVICES: Final = "services"
MASQUERADING: Final = "masquerading"
REJECT: Final = "reject-chain"
CLUSTER_IPS_CHECK: Final = "cluster-ips-check"
SERVICE_CHECK: Final = "service-endpoints-check"
NODE_PORT_CHECK: Final = "nodeport-endpoints-check"
FIREWALL_CHECK: Final = "firewall-check"

PASSING: Final = frozenset({SERVICES, CLUSTER_IPS_CHECK})
"""Chains that translate or refuse packets. Packets for a proxy keep their destination, so they must pass these."""
LOOPBACK_GUARD: Final = NftLoopbackGuard(
    chain_key(FLAT_TABLE, "loopback-guard"),
    NftChain(
        (
            nft_rule(
                Compare(Meta("iifname"), Literal('"lo"'), "!="),
                Compare(Payload("ip", "daddr"), addresses_in([Family.IPV4.loopback])),
                VerdictCode("drop"),
            ),
        ),
        BaseChain("filter", "prerouting", -110),
    ),
)
"""The chain that drops packets from the network to 127.0.0.0/8, before any translation. Replies to connections of this
node have another destination here."""


class TableLayout(NamedTuple):
    """The sets and maps of a table that hold entries of all Services.

    Attributes:
        table: The name of the table.
        service_ips: The maps of frontends with endpoints. Each frontend is in one of them.
        cluster_ips: The sets of ClusterIPs. Each ClusterIP is in one of them.
    """

    table: str
    service_ips: tuple[str, ...] = (SERVICE_IPS,)
    cluster_ips: tuple[str, ...] = (CLUSTER_IPS,)

    def service_ips_of(self, frontend: str) -> str:
        """Return the map of a frontend."""
        return self.service_ips[_share(frontend, len(self.service_ips))]

    def cluster_ips_of(self, address: str) -> str:
        """Return the set of a ClusterIP."""
        return self.cluster_ips[_share(address, len(self.cluster_ips))]


FRONTEND_SHARDS: Final = 8
ENDPOINT_SHARDS: Final = 16
"""How many maps the frontends and the endpoints of layout `flat` are spread over. The kernel's time to list a map grows
with the square of its elements: with 100,000 Services, a map has some 20,000."""

KUBE_PROXY: Final = TableLayout(TABLE)
FLAT: Final = TableLayout(
    FLAT_TABLE,
    service_ips=tuple(f"{SERVICE_IPS}-{number}" for number in range(FRONTEND_SHARDS)),
    cluster_ips=tuple(f"{CLUSTER_IPS}-{number}" for number in range(FRONTEND_SHARDS)),
)

LAYOUTS: Final = {"kube-proxy": KUBE_PROXY, "flat": FLAT}
"""By the value of the option."""

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


def endpoint_shard(port: ResolvedPort) -> int:
    """Return the number of the maps that have the endpoints of a port."""
    return _share(_port_text(port), ENDPOINT_SHARDS)


def shape_chain(kind: str, numbers: tuple[int, ...], shard: int) -> str:
    """Return the name of a chain that all ports of one shape use, such as `cluster/8-12`: it has a single slash.

    Args:
        kind: What it does.
        numbers: The most numbers that it chooses from.
        shard: The number of the map that has the endpoints.
    """
    return f"{kind}/{'.'.join(map(str, numbers))}-{shard}"


def layout_of(tables: Collection[str]) -> str:
    """Return the layout to use on a node that has these tables: that of kube-proxy if only its table is there.

    A node that has rulegen's own table keeps it, even if another program creates kube-proxy's table meanwhile.
    """
    return "kube-proxy" if TABLE in tables and FLAT_TABLE not in tables else "flat"


def _share(text: str, shares: int) -> int:
    return crc32(text.encode()) % shares


def _port_text(port: ResolvedPort) -> str:
    return f"{port.service.namespace}/{port.service.name}/{port.protocol.lower()}/{port.name}"


def _hashed(text: str) -> str:
    name = f"{b32encode(sha256(text.encode()).digest()[:5]).decode()[:_DIGITS]}-{text}"
    return name if len(name) <= _LONGEST else name[: _LONGEST - len(_DOTS)] + _DOTS


def without_ranges(objects: NftObjects) -> NftObjects:
    """Return objects without the rule that drops connections to unused addresses in the ranges of ClusterIPs.

    If the ranges are unknown, whether this rule is right is unknown too: it stays, and is not compared.
    """
    changed = {}
    for table in TABLES:
        key = chain_key(table, CLUSTER_IPS_CHECK)
        chain = objects.get(key)
        if isinstance(chain, NftChain):
            rules = tuple(rule for rule in chain.rules if not _drops_ranges(rule))
            changed[key] = NftChain(rules, chain.base)
    return {**objects, **changed} if changed else objects


def _drops_ranges(rule: NftRule) -> bool:
    match rule.statements:
        case (Compare(Payload(field="daddr"), Literal() | AnonymousSet(), "=="), VerdictCode("drop")):
            return True
        case _:
            return False
