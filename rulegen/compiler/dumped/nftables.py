"""Reads the tables of nftables mode as Services.

In layout `kube-proxy`, the names of chains contain the names of the Services. In layout `flat`, only ports with chains
of their own have such names. Of other frontends, which are elements of shared maps, the Service is unknown.
"""

from __future__ import annotations

import re
from collections import Counter
from functools import cached_property
from typing import TYPE_CHECKING, Final

from rulegen.languages.nftables.expressions import AnonymousMap, Concat, Literal, MapLookup, VerdictCode
from rulegen.languages.nftables.language import NAME
from rulegen.languages.nftables.state import ElementValue, NamedSet, NftChain, chain_key, set_key
from rulegen.languages.nftables.statements import Compare, Dnat, VerdictLookup
from rulegen.net import join_host_port, parse_address
from rulegen.ownership import nftables as names
from rulegen.plan.dumped.services import DumpedEndpoint, DumpedFrontend, DumpedNode, DumpedPort, ForeignRule

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from rulegen.languages.nftables.expressions import Expression
    from rulegen.languages.nftables.state import NftKey, NftValue
    from rulegen.languages.nftables.statements import NftRule
    from rulegen.net import Family
    from rulegen.ownership.nftables import TableLayout

_NAME: Final = r"[a-z0-9][-a-z0-9.]{0,252}"
_PORT_CHAIN: Final = re.compile(
    rf"(service|local|external|firewall)-(([A-Z2-7]{{8}})-({_NAME}/{_NAME})/(tcp|udp|sctp)/([-a-z0-9]{{0,63}}))\Z"
)
_SERVICE_CHAIN: Final = re.compile(rf"(?:service|local|external|firewall|endpoint)-[A-Z2-7]{{8}}-{_NAME}/")
_OWN: Final = frozenset(
    {
        names.SERVICES,
        names.MASQUERADING,
        names.REJECT,
        names.CLUSTER_IPS_CHECK,
        names.SERVICE_CHECK,
        names.NODE_PORT_CHECK,
        names.FIREWALL_CHECK,
        "filter-prerouting-pre-dnat",
        "filter-output-pre-dnat",
        "filter-input",
        "filter-forward",
        "filter-output",
        "nat-prerouting",
        "nat-output",
        "nat-postrouting",
    }
)
_SHAPE_CHAIN: Final = re.compile(r"(nodeport-)?(cluster|local|external|external-local)/[0-9.]+-([0-9]{1,3})\Z")
"""A chain of layout `flat` that all ports of one shape use."""
_ENDPOINTS_MAP: Final = re.compile(rf"({names.ENDPOINTS}|{names.NODE_PORT_ENDPOINTS})-[0-9]{{1,3}}\Z")
_NODE_PORTS: Final = (names.SERVICE_NODE_PORTS, names.NO_ENDPOINT_NODE_PORTS)


def table_as_services(objects: Mapping[NftKey, NftValue], family: Family) -> DumpedNode:
    """Return what the tables of both layouts say in terms of Services."""
    node = DumpedNode(seen=[f"{NAME} {family.value}"])
    for layout in names.LAYOUTS.values():
        node.take(_TableReader(objects, family, layout).read())
    return node


class _TableReader:
    """Reads the table of one layout in one family."""

    def __init__(self, objects: Mapping[NftKey, NftValue], family: Family, layout: TableLayout) -> None:
        own = {key: value for key, value in objects.items() if key.table == layout.table}
        self._objects, self._family, self._table = own, family.value, layout.table
        self._ports: dict[str, DumpedPort] = {}
        self._by_address: dict[str, DumpedPort] = {}
        self._cluster_ips = {key.element for key in own if key.name in layout.cluster_ips}
        self._frontends = {*layout.service_ips, names.FIREWALL_IPS, names.NO_ENDPOINT_SERVICES}
        self._node = DumpedNode()

    def read(self) -> DumpedNode:
        """Return all that the table says."""
        elements = [
            (key, value) for key, value in self._objects.items() if key.is_element and isinstance(value, ElementValue)
        ]
        elements.sort(key=lambda each: each[0].name.startswith("no-"))  # served frontends first
        for key, element in elements:
            self._element(key, element)
        for key, value in self._objects.items():
            if isinstance(value, NftChain):
                self._chain(key.name, value)
        self._node.ports = list(self._ports.values())
        return self._node

    def _port(self, match: re.Match[str]) -> DumpedPort:
        """Return the port that the name of a chain names."""
        return self._ports.setdefault(
            match[2],
            DumpedPort(language=NAME, family=self._family, service=match[4], name=match[6], key=match[2]),
        )

    def _element(self, key: NftKey, value: ElementValue) -> None:
        """Read an element that leads a frontend to a chain, or refuses it."""
        if not isinstance(value.data, VerdictCode):
            return
        match key.element:
            case (address, protocol, number) if key.name in self._frontends and number.isdecimal():
                shown = f"{protocol.upper()} {_host_port(address, number)}"
                kind = "cluster IP" if (address,) in self._cluster_ips else "external IP or load balancer IP"
            case (protocol, number) if key.name in _NODE_PORTS:
                kind, shown = "node port", f"{protocol.upper()} {number}"
            case _:
                return
        chain = _PORT_CHAIN.match(value.data.target)
        if chain:
            port = self._by_address[shown] = self._port(chain)
            if key.name != names.FIREWALL_IPS:
                port.add(DumpedFrontend(kind, shown))
            return
        if shape := _SHAPE_CHAIN.match(value.data.target):
            port = self._by_address[shown] = self._port_of_frontend(key.element, shape)
            port.add(DumpedFrontend(kind, shown))
            return
        refusal = "rejected" if value.data.target == names.REJECT else "dropped" if value.data.code == "drop" else ""
        if refusal:
            self._of_frontend(shown).add(DumpedFrontend(kind, shown, refusal))
        else:
            self._node.foreign.append(ForeignRule(NAME, self._family, key.name, f"{' . '.join(key.element)} : {value}"))

    def _port_of_frontend(self, frontend: tuple[str, ...], shape: re.Match[str]) -> DumpedPort:
        """Return a port of layout `flat`: it is known by this frontend alone, whose endpoints are in a map."""
        key = " . ".join(frontend)
        port = self._ports.setdefault(key, DumpedPort(language=NAME, family=self._family, key=key))
        pools = self._pools_of.get((names.NODE_PORT_ENDPOINTS if shape[1] else names.ENDPOINTS, *frontend), {})
        for pool in ("", "local"):
            addresses = Counter(pools.get(pool, ()))
            known = {endpoint.address for endpoint in port.endpoints}
            for address, number in addresses.items():
                if address not in known:
                    port.endpoints.append(DumpedEndpoint(address, round(100 * number / addresses.total(), 1), pool))
            if pool and shape[2].endswith("local"):
                port.limit(f"local pool: {', '.join(addresses) or 'empty'}")
        if shape[2].startswith("external"):
            port.limit(f"external traffic policy {'Local' if shape[2] == 'external-local' else 'Cluster'}")
        return port

    @cached_property
    def _pools_of(self) -> Mapping[tuple[str, ...], Mapping[str, Sequence[str]]]:
        """The endpoints of each number by pool, by the kind of map and the frontend."""
        pools: dict[tuple[str, ...], dict[str, list[str]]] = {}
        for key, value in self._objects.items():
            match = _ENDPOINTS_MAP.match(key.name)
            if match is None or not key.is_element or not isinstance(value, ElementValue):
                continue
            *frontend, number = key.element
            match value.data:
                case (host, port) if isinstance(host, str) and isinstance(port, str):
                    pool = "local" if int(number, 0) >= names.FIRST_LOCAL else ""
                    pools.setdefault((match[1], *frontend), {}).setdefault(pool, []).append(_host_port(host, port))
                case _:
                    continue
        return pools

    def _of_frontend(self, address: str) -> DumpedPort:
        """Return the port with a frontend; else one that only this address identifies."""
        known = self._by_address.get(address)
        if known is not None:
            return known
        return self._ports.setdefault(address, DumpedPort(language=NAME, family=self._family, key=address))

    def _chain(self, name: str, chain: NftChain) -> None:
        """Read a chain of one port: its endpoints or its policies."""
        match = _PORT_CHAIN.match(name)
        if match is None:
            if name not in _OWN and not _SERVICE_CHAIN.match(name) and not _SHAPE_CHAIN.match(name):
                self._node.foreign += (ForeignRule(NAME, self._family, name, str(rule)) for rule in chain.rules)
            return
        port = self._port(match)
        if match[1] in {"service", "local"}:
            self._pool(port, chain, pool="local" if match[1] == "local" else "")
        elif match[1] == "external":
            masquerades_all = bool(chain.rules) and not any(
                isinstance(each, Compare) for each in chain.rules[0].statements
            )
            port.limit(f"external traffic policy {'Cluster' if masquerades_all else 'Local'}")
        else:
            allowed = (str(each.right) for rule in chain.rules for each in rule.statements if isinstance(each, Compare))
            port.limit(f"load balancer IPs only from {' and '.join(allowed) or 'no source'}")

    def _pool(self, port: DumpedPort, chain: NftChain, *, pool: str) -> None:
        """Read the rules that choose an endpoint by a random number."""
        known = {endpoint.address for endpoint in port.endpoints}
        chosen: list[str] = []
        for rule in chain.rules:
            for address, share in self._choices(port, rule):
                chosen.append(address)
                if address not in known:
                    port.endpoints.append(DumpedEndpoint(address, share, pool))
        if pool:
            port.limit(f"local pool: {', '.join(chosen) or 'empty'}")

    def _choices(self, port: DumpedPort, rule: NftRule) -> Iterator[tuple[str, float | None]]:
        """Yield the endpoints of a rule, each with its part in percent."""
        for statement in rule.statements:
            match statement:
                case Dnat(MapLookup(_, AnonymousMap(items))):
                    total = sum(_numbers(key) for key, _ in items)
                    for key, value in items:
                        yield _endpoint_text(value), round(100 * _numbers(key) / total, 1)
                case VerdictLookup(_, AnonymousMap(items)):
                    total = sum(_numbers(key) for key, _ in items)
                    for key, verdict in items:
                        if isinstance(verdict, VerdictCode):
                            yield self._endpoint(port, verdict.target), round(100 * _numbers(key) / total, 1)
                case _:
                    continue

    def _endpoint(self, port: DumpedPort, chain: str) -> str:
        """Return the endpoint that a chain translates to; note its session affinity."""
        remembered = self._objects.get(set_key(self._table, chain.replace("endpoint-", "affinity-", 1)))
        if isinstance(remembered, NamedSet) and remembered.timeout_s is not None:
            port.limit(f"session affinity by client address, {remembered.timeout_s} s")
        value = self._objects.get(chain_key(self._table, chain))
        for rule in value.rules if isinstance(value, NftChain) else ():
            for statement in rule.statements:
                if isinstance(statement, Dnat) and statement.port is not None:
                    return _host_port(str(statement.to), str(statement.port))
        return f"unknown ({chain} has no DNAT rule)"


def _numbers(key: Expression) -> int:
    """Return how many random numbers a key of a map stands for."""
    first, dash, last = str(key).partition("-")
    return int(last) - int(first) + 1 if dash and first.isdecimal() and last.isdecimal() else 1


def _endpoint_text(value: Expression) -> str:
    match value:
        case Concat((Literal() as host, Literal() as port)):
            return _host_port(str(host), str(port))
        case _:
            return str(value)


def _host_port(host: str, port: str) -> str:
    try:
        return join_host_port(parse_address(host), int(port))
    except ValueError:
        return f"{host}:{port}"
