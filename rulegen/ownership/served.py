"""Finds the Service of an object in the kernel, by the frontends and endpoints of the Services that this node serves.

A desired object has an owner. An object that is to be deleted has none: for example a rule that a changed policy makes
unnecessary, an entry of a set, or a virtual server. Its addresses and ports still show the Service, and so does the
comment of a rule, if it has one.
"""

from __future__ import annotations

import re
from collections import defaultdict
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from rulegen.languages.addresses.state import AddressKey
from rulegen.languages.ipset.state import EntryKey
from rulegen.languages.ipvs.state import RealServerKey, VirtualServerKey
from rulegen.languages.nftables.state import NftKey
from rulegen.model.services.stale_flows import frontends_of
from rulegen.net import Family, Protocol, join_host_port, parse_address
from rulegen.ownership import chains, ipsets

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rulegen.languages.iptables.rules import Rule
    from rulegen.languages.iptables.ruleset import ChainName
    from rulegen.model.services.ir import ResolvedService
    from rulegen.net import Address

_OWNER: Final = re.compile(r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?)(:|\s|\Z)")
_PORT: Final = re.compile(r"(?:^|[^!] )-p (tcp|udp|sctp) .*?--dport ([0-9]{1,5})\b")
_TO: Final = re.compile(r"(?:^| )-d ([0-9a-f:.]+)/(?:32|128) ")
_VIRTUAL: Final = re.compile(r"--vproto ([0-9]+) --vaddr (\S+) --vport ([0-9]{1,5})\b")
_DNAT: Final = re.compile(r"(?:^|[^!] )-p (tcp|udp|sctp) .*-j DNAT --to-destination (\S+)")
_ENTRY: Final = re.compile(r"([0-9a-f:.]+),(tcp|udp|sctp):([0-9]{1,5})(?:,\S+)?\Z")
_NFT_NAME: Final = re.compile(r"[a-z]+-[A-Z2-7]{8}-([a-z0-9][-a-z0-9.]{0,252}/[a-z0-9][-a-z0-9.]{0,252})/")
_PORT_ENTRY: Final = re.compile(r"[0-9]{1,5}\Z")
_HEALTH_CHAINS: Final = (chains.filter_(chains.NODE_PORTS), chains.filter_(chains.NODE_PORT))
_NUMBERS: Final = {"6": Protocol.TCP, "17": Protocol.UDP, "132": Protocol.SCTP}
_NAMES: Final = {protocol.lower(): protocol for protocol in Protocol}
_PORT_SETS: Final = {
    ipsets.name_of(kind, family): (family, protocol)
    for family in Family
    for kind, protocol in (
        (ipsets.NODE_PORT_TCP, Protocol.TCP),
        (ipsets.NODE_PORT_LOCAL_TCP, Protocol.TCP),
        (ipsets.NODE_PORT_UDP, Protocol.UDP),
        (ipsets.NODE_PORT_LOCAL_UDP, Protocol.UDP),
    )
}
_HEALTH_SETS: Final = {ipsets.name_of(ipsets.HEALTH_CHECK_NODE_PORT, family) for family in Family}
_ENDPOINT_SETS: Final = {ipsets.name_of(ipsets.LOOP_BACK, family) for family in Family}


class Served:
    """The Services that this node serves, indexed by their names, frontends and endpoints."""

    def __init__(self, services: Iterable[ResolvedService] = ()) -> None:
        """Take the Services; the indexes are built when they are first used."""
        self._services = tuple(services)

    @cached_property
    def names(self) -> frozenset[str]:
        """`namespace/name` of each Service."""
        return frozenset(str(service.name) for service in self._services)

    def rule_owner(self, chain: ChainName, rule: Rule, family: Family) -> str:
        """Return the Service of a rule: from its comment, else from its addresses and ports; empty if unknown."""
        match = _OWNER.match(rule.comment)
        if match:
            return match[1]
        spec = rule.spec
        if match := _VIRTUAL.search(spec):
            return self._frontend(family, _NUMBERS.get(match[1]), _address(match[2]), int(match[3]))
        if match := _DNAT.search(spec):
            return self._endpoints.get((_NAMES[match[1]], match[2]), "")
        if not (match := _PORT.search(spec)):
            return ""
        to = _TO.search(spec)
        if chain in _HEALTH_CHAINS and to is None:
            return self._health_ports.get(int(match[2]), "")
        return self._frontend(family, _NAMES[match[1]], _address(to[1]) if to else None, int(match[2]))

    def key_owner(self, key: Any, family: Family) -> str:
        """Return the Service of a set entry, virtual server, real server or address; empty if unknown."""
        match key:
            case VirtualServerKey() | RealServerKey():
                frontend = key.frontend
                return self._frontend(family, frontend.protocol, frontend.address, frontend.port)
            case AddressKey():
                return self._addresses.get(key.address, "")
            case EntryKey():
                return self._entry_owner(key, family)
            case NftKey():
                return self._nft_owner(key, family)
            case _:
                return ""

    def _nft_owner(self, key: NftKey, family: Family) -> str:
        """Return the Service in the name of a chain or set, or that of an element's frontend or endpoint."""
        match key.element:
            case ():
                match = _NFT_NAME.match(key.name)
                return match[1] if match else ""
            case (address,):
                owned = _address(address)
                return self._addresses.get(owned, "") if owned is not None else ""
            case (protocol, port) if protocol in _NAMES and _PORT_ENTRY.match(port):
                return self._frontend(family, _NAMES[protocol], None, int(port))
            case (address, protocol, port) if protocol in _NAMES and _PORT_ENTRY.match(port):
                return self._frontend(family, _NAMES[protocol], _address(address), int(port))
            case (protocol, port, _) if protocol in _NAMES and _PORT_ENTRY.match(port):  # an endpoint of a node port
                return self._frontend(family, _NAMES[protocol], None, int(port))
            case (address, protocol, port, _) if protocol in _NAMES and _PORT_ENTRY.match(port):  # of another frontend
                return self._frontend(family, _NAMES[protocol], _address(address), int(port))
            case (_, address, protocol, port) if protocol in _NAMES:
                host = f"[{address}]" if family is Family.IPV6 else address
                return self._endpoints.get((_NAMES[protocol], f"{host}:{port}"), "")
            case _:
                return ""

    def server_owner(self, key: RealServerKey) -> str:
        """Return the Service that has the endpoint of a real server; empty if none or several have it."""
        return self._endpoints.get((key.frontend.protocol, join_host_port(key.address, key.port)), "")

    def _entry_owner(self, key: EntryKey, family: Family) -> str:
        if _PORT_ENTRY.match(key.entry):
            if key.name in _HEALTH_SETS:
                return self._health_ports.get(int(key.entry), "")
            protocol = _PORT_SETS.get(key.name, (family, None))[1]
            return self._frontend(family, protocol, None, int(key.entry))
        match = _ENTRY.match(key.entry)
        if match is None:
            address = _address(key.entry)
            return self._addresses.get(address, "") if address is not None else ""
        protocol = _NAMES[match[2]]
        if key.name in _ENDPOINT_SETS:
            host = f"[{match[1]}]" if family is Family.IPV6 else match[1]
            return self._endpoints.get((protocol, f"{host}:{match[3]}"), "")
        return self._frontend(family, protocol, _address(match[1]), int(match[3]))

    def _frontend(self, family: Family, protocol: Protocol | None, address: Address | None, port: int) -> str:
        """Return the Service of a frontend; a frontend on an address of no Service is a node port."""
        owner = self._frontends.get((family, protocol, address, port))
        if owner is None and address not in self._addresses:
            owner = self._frontends.get((family, protocol, None, port))
        return owner or ""

    @cached_property
    def _frontends(self) -> dict[tuple[Family, Protocol | None, Address | None, int], str]:
        owners: dict[tuple[Family, Protocol | None, Address | None, int], str] = {}
        for service in self._services:
            for port in service.ports:
                for frontend in frontends_of(port):
                    owners.setdefault((port.family, port.protocol, frontend.address, frontend.port), str(service.name))
        return owners

    @cached_property
    def _addresses(self) -> dict[Address, str]:
        owners: dict[Address, str] = {}
        for (_, _, address, _), owner in self._frontends.items():
            if address is not None:
                owners.setdefault(address, owner)
        return owners

    @cached_property
    def _endpoints(self) -> dict[tuple[Protocol, str], str]:
        """Endpoints that exactly one Service has."""
        owners: dict[tuple[Protocol, str], set[str]] = defaultdict(set)
        for service in self._services:
            for port in service.ports:
                for endpoint in (*port.endpoints, *port.here):
                    owners[port.protocol, endpoint.text].add(str(service.name))
        return {endpoint: next(iter(names)) for endpoint, names in owners.items() if len(names) == 1}

    @cached_property
    def _health_ports(self) -> dict[int, str]:
        return {
            port.health_check_node_port: str(service.name)
            for service in reversed(self._services)
            for port in service.ports
            if port.health_check_node_port
        }


def _address(text: str) -> Address | None:
    try:
        return parse_address(text)
    except ValueError:
        return None
