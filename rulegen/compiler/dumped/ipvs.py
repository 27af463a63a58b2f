"""Reads virtual servers and ipsets as Services. IPVS has no comments, so the names of the Services are unknown."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rulegen.languages.ipset.state import EntryKey, ip_port
from rulegen.languages.ipvs.language import NAME
from rulegen.languages.ipvs.state import DRAINING, RealServer, RealServerKey, VirtualServer, VirtualServerKey
from rulegen.net import Family, Protocol, join_host_port
from rulegen.ownership import ipsets
from rulegen.plan.dumped.services import DumpedEndpoint, DumpedFrontend, DumpedNode, DumpedPort, OtherRules

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from rulegen.languages.ipset import state as ipset
    from rulegen.languages.ipvs import state as ipvs
    from rulegen.languages.ipvs.state import Frontend
    from rulegen.net import Address

_BY_ADDRESS: Final = (
    (ipsets.LOAD_BALANCER, "load balancer IP"),
    (ipsets.EXTERNAL_IP_LOCAL, "external IP"),
    (ipsets.EXTERNAL_IP, "external IP"),
    (ipsets.CLUSTER_IP, "cluster IP"),
)
_BY_PORT: Final = {
    Protocol.TCP: (ipsets.NODE_PORT_TCP, ipsets.NODE_PORT_LOCAL_TCP),
    Protocol.UDP: (ipsets.NODE_PORT_UDP, ipsets.NODE_PORT_LOCAL_UDP),
}
_LOCAL: Final = (ipsets.EXTERNAL_IP_LOCAL, ipsets.LOAD_BALANCER_LOCAL)
_UNKNOWN: Final = "address"


def servers_as_services(
    servers: Mapping[ipvs.Key, ipvs.Value], sets: ipset.Objects | None, bound: Collection[Address] | None
) -> DumpedNode:
    """Return what virtual servers say in terms of Services.

    Args:
        servers: The virtual and real servers.
        sets: The ipsets; None if they were not observed. They show the kind of an address.
        bound: The addresses on kube-ipvs0; None if they were not observed.
    """
    node = DumpedNode(seen=[NAME])
    node.unseen += ["ipsets: the kinds of addresses are unknown"] if sets is None else []
    real: dict[Frontend, list[tuple[RealServerKey, RealServer]]] = {}
    for key, value in servers.items():
        if isinstance(key, RealServerKey) and isinstance(value, RealServer):
            real.setdefault(key.frontend, []).append((key, value))
    foreign = 0
    ranges = _ranges(sets or {})
    for key, value in servers.items():
        if not isinstance(key, VirtualServerKey) or not isinstance(value, VirtualServer):
            continue
        frontend = key.frontend
        kind = _kind(frontend, sets or {})
        is_bound = bound is not None and frontend.address in bound
        if kind == _UNKNOWN and sets is not None and bound is not None and not is_bound:
            foreign += 1  # it is in no set, and its address is not on the device of Services
            continue
        node.ports.append(_port(frontend, value, kind, real.get(frontend, []), sets or {}, ranges))
    if foreign:
        node.others.append(OtherRules(NAME, "", "virtual servers", foreign))
    for family in Family:
        name = ipsets.name_of(ipsets.HEALTH_CHECK_NODE_PORT, family)
        entries = (key.entry for key in sets or () if isinstance(key, EntryKey) and key.name == name)
        node.health_ports += (f"TCP {entry} (unknown Service)" for entry in entries)
    return node


def _port(
    frontend: Frontend,
    server: VirtualServer,
    kind: str,
    real: list[tuple[RealServerKey, RealServer]],
    sets: ipset.Objects,
    ranges: Mapping[tuple[str, str], list[str]],
) -> DumpedPort:
    """Return the port that a virtual server serves."""
    port = DumpedPort(language=NAME, family=frontend.family.value, key=str(frontend))
    refusal = "" if any(value.weight != DRAINING for _, value in real) else "rejected"
    port.add(DumpedFrontend(kind, str(frontend), refusal))
    total = sum(value.weight for _, value in real)
    for key, value in real:
        share = round(100 * value.weight / total, 1) if total else 0.0
        port.endpoints.append(DumpedEndpoint(join_host_port(key.address, key.port), share))
        if value.weight == DRAINING:
            port.limit(f"{join_host_port(key.address, key.port)} drains: it gets no new connections")
    port.limit(f"scheduler {server.scheduler}")
    if server.persistence_s is not None:
        port.limit(f"session affinity by client address, {server.persistence_s} s")
    entry = ip_port(frontend.address, frontend.protocol, frontend.port)
    if any(EntryKey(ipsets.name_of(name, frontend.family), entry) in sets for name in _LOCAL):
        port.limit("external traffic policy Local")
    if EntryKey(ipsets.name_of(ipsets.LOAD_BALANCER_FW, frontend.family), entry) in sets:
        allowed = ranges.get((ipsets.name_of(ipsets.SOURCE_CIDR, frontend.family), entry), [])
        port.limit(f"load balancer IPs only from {', '.join(allowed) or 'no source'}")
    return port


def _ranges(sets: ipset.Objects) -> dict[tuple[str, str], list[str]]:
    """Return the sources that may connect to each load balancer IP, by set and frontend."""
    names = {ipsets.name_of(ipsets.SOURCE_CIDR, family) for family in Family}
    ranges: dict[tuple[str, str], list[str]] = {}
    for key in sets:
        if isinstance(key, EntryKey) and key.name in names:
            address, _, rest = key.entry.partition(",")
            port, _, network = rest.partition(",")
            ranges.setdefault((key.name, f"{address},{port}"), []).append(network)
    return ranges


def _kind(frontend: Frontend, sets: ipset.Objects) -> str:
    """Return the kind of a frontend, by the sets that have it."""
    entry = ip_port(frontend.address, frontend.protocol, frontend.port)
    for name, kind in _BY_ADDRESS:
        if EntryKey(ipsets.name_of(name, frontend.family), entry) in sets:
            return kind
    names = _BY_PORT.get(frontend.protocol, ())
    if any(EntryKey(ipsets.name_of(name, frontend.family), str(frontend.port)) in sets for name in names):
        return "node port"
    sctp = EntryKey(ipsets.name_of(ipsets.NODE_PORT_SCTP, frontend.family), entry)
    return "node port" if sctp in sets else _UNKNOWN
