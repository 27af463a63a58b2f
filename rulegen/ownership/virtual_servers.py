"""Which virtual servers and addresses belong to rulegen, judged by the state of the kernel alone.

In ipvs mode, each frontend is also an entry of a set, which is deleted last. A virtual server therefore belongs to
rulegen in three cases: its address is bound to kube-ipvs0 (or is to be bound); its address and port are an entry of a
set; or it has an address of this node and a port in one of the node port sets. All others belong to other programs, and
so does everything in `excludeCIDRs` that is not desired.
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
"""The dummy device to which Service addresses are bound. It stays down."""

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
    """Return the virtual servers of rulegen in one family, with their real servers.

    Args:
        servers: All observed virtual servers.
        family: The family.
        entries: The observed sets of rulegen and their entries.
        bound: Addresses that are bound to kube-ipvs0, or will be.
        wanted: Keys of desired objects, which always belong to rulegen.
        node_addresses: Current and former addresses of this node, without those on kube-ipvs0.
        excluded: Prefixes in which only desired objects belong to rulegen.
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
