"""Which virtual servers and addresses are ours, judged by nothing but what the kernel has.

Everything that ipvs mode serves stands in one of its sets as well, and leaves it last. So a virtual server is ours
where its address is bound to kube-ipvs0 or was to be, where its address and port is in one of our sets, and where it
stands on an address of this node, on a port that our sets of node ports hold. All others are somebody else's, and so is
what lies in `excludeCIDRs` and is not wanted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rulegen.languages.ipset.state import EntryKey, ip_port
from rulegen.languages.ipvs.state import VirtualServerKey
from rulegen.net import Family, Protocol
from rulegen.ownership import ipsets

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from rulegen.languages.addresses.state import AddressKey
    from rulegen.languages.ipset import state as ipset
    from rulegen.languages.ipvs import state as ipvs
    from rulegen.languages.ipvs.state import Frontend
    from rulegen.net import Address, Network

DEVICE = "kube-ipvs0"
"""The dummy device that addresses of Services are bound to. It stays down."""

_PORT_SETS = {Protocol.TCP: ipsets.NODE_PORT_TCP, Protocol.UDP: ipsets.NODE_PORT_UDP}


def owned_servers(
    servers: Mapping[ipvs.Key, ipvs.Value],
    family: Family,
    *,
    entries: Mapping[ipset.Key, ipset.Value],
    bound: Collection[AddressKey],
    wanted: Collection[ipvs.Key],
    node_addresses: Collection[Address],
    excluded: Collection[Network],
) -> ipvs.Objects:
    """Return our virtual servers of one family, with their real servers.

    Args:
        servers: All that the kernel has.
        family: Which family.
        entries: Our sets and their entries, as the kernel has them.
        bound: What is bound to kube-ipvs0, and what is to be.
        wanted: Keys of what we want: that is ours wherever it stands.
        node_addresses: Addresses that this node has or has had, those on kube-ipvs0 apart.
        excluded: Where nothing is ours that is not wanted.
    """
    addresses = {key.address for key in bound}

    def is_ours(frontend: Frontend) -> bool:
        if VirtualServerKey(frontend) in wanted:
            return True
        address, port = frontend.address, frontend.port
        if any(address in network for network in excluded):
            return False
        if address in addresses or EntryKey(ipsets.name_of(ipsets.IPVS_IPS, family), str(address)) in entries:
            return True
        entry = ip_port(address, frontend.protocol, port)
        if any(EntryKey(ipsets.name_of(kind, family), entry) in entries for kind in ipsets.FRONTENDS):
            return True
        ports = _PORT_SETS.get(frontend.protocol)
        return (
            ports is not None
            and address in node_addresses
            and EntryKey(ipsets.name_of(ports, family), str(port)) in entries
        )

    judged: dict[Frontend, bool] = {}
    objects: ipvs.Objects = {}
    for key, value in servers.items():
        frontend = key.frontend
        if frontend.family is not family:
            continue
        if frontend not in judged:
            judged[frontend] = is_ours(frontend)
        if judged[frontend]:
            objects[key] = value
    return objects
