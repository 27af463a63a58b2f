"""The table of backends: one row for each mode. No other code of rulegen compares the name of a mode."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING

from msgspec.structs import replace

from rulegen.backends.backend import Backend
from rulegen.backends.iptables import node as iptables_node
from rulegen.backends.iptables import service as iptables_service
from rulegen.backends.ipvs import node as ipvs_node
from rulegen.backends.ipvs import service as ipvs_service
from rulegen.backends.nftables import flat as nftables_flat
from rulegen.backends.nftables import node as nftables_node
from rulegen.backends.nftables import service as nftables_service
from rulegen.backends.userspace import node as userspace_node
from rulegen.backends.userspace import service as userspace_service
from rulegen.backends.userspace.beside import with_proxy
from rulegen.kube.proxyconfig.modes import MODES
from rulegen.model.services.modes import NEEDS
from rulegen.ownership.table import OWNERSHIP

if TYPE_CHECKING:
    from collections.abc import Mapping

_ROWS: Mapping[str, Backend] = MappingProxyType(
    {
        row.mode: row
        for row in (
            Backend(
                mode="iptables",
                languages=("iptables",),
                needs=NEEDS["iptables"],
                sections=MODES["iptables"],
                compile_node=iptables_node.compile_node,
                compile_service=iptables_service.compile_service,
                ownership={**OWNERSHIP, "iptables": iptables_node.ownership},
                counters=iptables_node.COUNTERS,
            ),
            Backend(
                mode="ipvs",
                languages=("iptables", "links", "ipset", "ipvs"),
                needs=NEEDS["ipvs"],
                sections=MODES["ipvs"],
                compile_node=ipvs_node.compile_node,
                compile_service=ipvs_service.compile_service,
                ownership={**OWNERSHIP, "iptables": ipvs_node.ownership},
                compile_host=ipvs_node.compile_host,
                depends_on=("ipset",),
                filled=ipvs_node.filled_sets,
                compile_between=ipvs_node.compile_between,
            ),
            Backend(
                mode="nftables",
                languages=("nftables",),
                needs=NEEDS["nftables"],
                sections=MODES["nftables"],
                compile_node=nftables_node.compile_node,
                compile_service=nftables_service.compile_service,
                ownership={**OWNERSHIP, "iptables": iptables_node.ownership},
            ),
            Backend(
                mode="userspace",
                languages=("iptables", "routes", "listeners"),
                needs=NEEDS["userspace"],
                sections=MODES["userspace"],
                compile_node=userspace_node.compile_node,
                compile_service=userspace_service.compile_service,
                ownership={**OWNERSHIP, "iptables": userspace_node.ownership},
                counters=userspace_node.COUNTERS,
            ),
        )
    }
)
BACKENDS: Mapping[str, Backend] = MappingProxyType({mode: with_proxy(row) for mode, row in _ROWS.items()})
"""By the `mode` field of the configuration."""

LAYOUTS: Mapping[str, Backend] = MappingProxyType(
    {
        "kube-proxy": BACKENDS["nftables"],
        "flat": with_proxy(
            replace(
                _ROWS["nftables"],
                compile_node=nftables_flat.compile_node,
                compile_service=nftables_flat.compile_service,
            )
        ),
    }
)
"""The rows of nftables mode by the layout of its tables. The first one is in `BACKENDS`."""
