"""The properties of each mode that the model needs. Each row of `backends/table.py` refers to one."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    from collections.abc import Mapping


class ModeNeeds(msgspec.Struct, frozen=True, kw_only=True):
    """The properties of a mode that decisions about Services depend on.

    Attributes:
        has_virtual_servers: Whether Services are IPVS virtual servers. These need addresses bound to this node,
            schedulers, timeouts and kernel parameters.
        opens_loopback: Whether node ports answer on 127.0.0.1, which needs route_localnet.
        has_proxy: Whether a proxy of this node accepts connections and chooses their endpoints.
        drops_unused_cluster_ips: Whether connections to addresses in the range of ClusterIPs that no Service has are
            dropped.
        uses_nft: Whether the tables of this mode are written and read with nft.
    """

    has_virtual_servers: bool = False
    opens_loopback: bool = False
    has_proxy: bool = False
    drops_unused_cluster_ips: bool = False
    uses_nft: bool = False


NEEDS: Final[Mapping[str, ModeNeeds]] = MappingProxyType(
    {
        "iptables": ModeNeeds(opens_loopback=True),
        "ipvs": ModeNeeds(has_virtual_servers=True),
        "nftables": ModeNeeds(drops_unused_cluster_ips=True, uses_nft=True),
        "userspace": ModeNeeds(opens_loopback=True, has_proxy=True),
    }
)
"""Keyed by `mode` of the configuration."""
