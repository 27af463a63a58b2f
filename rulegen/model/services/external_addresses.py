"""External addresses that are not a Service's to take: the node's, its network's, the cluster's, other Services'.

Whoever may write a Service may name any address in spec.externalIPs, and gets what this node sends there
(CVE-2020-8554). kube-proxy asks nothing. With its semantics the address is served, and a warning says whose it is; with
strict ones it is not served.

Only what tenants cannot write decides: the host, Node objects, what the API server assigns. Endpoints decide nothing:
an EndpointSlice may hold anybody's address, and would take a Service its own.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from rulegen.model.forbidden import KUBERNETES, api_servers
from rulegen.model.services.conflicts import Conflict
from rulegen.net import AddressUse, Family, family_of, parse_address

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

    from rulegen.kube.objects import structs
    from rulegen.kube.objects.names import ObjectName
    from rulegen.kube.snapshot.world import ServiceInput
    from rulegen.model.services.node.context import NodeContext
    from rulegen.net import Address

_PATHS: Final = {
    AddressUse.EXTERNAL_IP: "spec.externalIPs",
    AddressUse.LOAD_BALANCER_IP: "status.loadBalancer.ingress",
}


class ExternalAddresses:
    """Judges the external addresses of Services, as Services come, change and go."""

    def __init__(self, site: NodeContext) -> None:
        """Know no Service yet.

        Args:
            site: What belongs to the node and to other Nodes, and whether it is served all the same.
        """
        self._site = site
        self._forbidden = site.forbidden
        self._named: dict[ObjectName, frozenset[Address]] = {}
        self._namers: dict[Address, set[ObjectName]] = {}
        self._cluster_ips: dict[ObjectName, tuple[str, ...]] = {}
        self._holders: dict[Address, set[ObjectName]] | None = None  # made when a Service names an external address

    def move(self, site: NodeContext) -> set[ObjectName]:
        """Judge by another site from now on; return the Services of which an address is judged otherwise."""
        before, servers = self._site, self._forbidden.api_servers
        self._site, self._forbidden = site, replace(site.forbidden, api_servers=servers)
        if (before.forbidden, before.others, before.external_ips) == (site.forbidden, site.others, site.external_ips):
            return set()
        return set(self._named)

    def put(self, name: ObjectName, given: ServiceInput | None) -> set[ObjectName]:
        """Take a Service, or that it is gone; return the others of which an address may be judged otherwise now."""
        service = given.service if given is not None else None
        before, named = self._named.pop(name, frozenset()), _addresses(_external_texts(service, self._site))
        if named:
            self._named[name] = named
        _index(self._namers, name, before, named)
        moved = self._hold(name, service)
        if name == KUBERNETES:
            servers = frozenset(_api_servers(given))
            moved |= {address for address, _ in servers ^ self._forbidden.api_servers}
            self._forbidden = replace(self._forbidden, api_servers=servers)
        return {namer for address in moved for namer in self._namers.get(address, ())} - {name}

    def _hold(self, name: ObjectName, service: structs.Service | None) -> set[Address]:
        """Have a Service hold its ClusterIPs; return those that it has gained or lost, where any Service may ask."""
        texts = (service.spec.cluster_ip, *service.spec.cluster_ips) if service is not None else ()
        before: tuple[str, ...] = self._cluster_ips.pop(name, ())
        moved: set[Address] = set()
        if texts:
            self._cluster_ips[name] = texts
        if not self._named:
            self._holders = None
        elif self._holders is None:
            self._holders = {}
            for holder, ips in self._cluster_ips.items():
                _index(self._holders, holder, frozenset(), _addresses(ips))
        elif texts != before:
            moved = _index(self._holders, name, _addresses(before), _addresses(texts))
        return moved

    def allows(
        self, name: ObjectName, address: Address, use: AddressUse, port: int, tell: Callable[[Conflict], None]
    ) -> bool:
        """Whether a Service is served at an external address; `tell` receives whose it is, also where it is served.

        Args:
            name: The Service's name.
            address: The address.
            use: For what the Service names it: as an external IP, or a load balancer's.
            port: The Service's port.
            tell: Receives the conflict, if there is one.
        """
        whose, owner = self._whose(name, address, use, port)
        if not whose:
            return True
        where = f"Service {name}: {_PATHS[use]}: {whose}"
        if self._site.guards:
            tell(Conflict(name, owner, f"{where}; the entry is ignored"))
            return False
        then = (
            "ipvs mode binds it to this node, so the node cannot reach its owner at it any more"
            if self._site.binds and address not in self._forbidden.own and owner is None
            else "connections to it at the Service's ports reach the Service"
        )
        tell(Conflict(name, owner, f"{where}: {then}; --external-ip-semantics strict leaves it out"))
        return True

    def _whose(self, name: ObjectName, address: Address, use: AddressUse, port: int) -> tuple[str, ObjectName | None]:
        """Return whose an address is, as `192.0.2.1 is the gateway of this node`, and which other Service's.

        The port counts where a load balancer that runs on the API server's node publishes that node's address: only
        the API server's own port is not free then, unless the address would be bound here.
        """
        is_bound = self._site.binds and address not in self._forbidden.own
        is_shared = use is AddressUse.LOAD_BALANCER_IP and not is_bound
        fault = self._forbidden.refusal(address, use, port if is_shared else 0)
        if fault:
            return fault, None
        is_looked_up = use is AddressUse.EXTERNAL_IP and (self._site.guards or not self._site.binds)
        if is_looked_up and (other := self._site.others.get(address)) is not None:
            return f"{address} is an address of Node {other}", None
        holders = (self._holders or {}).get(address, ())
        holder = min((holder for holder in holders if holder != name), default=None)
        return (f"{address} is the ClusterIP of Service {holder}", holder) if holder is not None else ("", None)

    def unknown(self, families: Collection[Family], *, knows_programs: bool) -> Iterator[str]:
        """Yield what strict semantics reject by, and what nobody knows here, if a Service names external addresses.

        A cluster of one family has no Pod network in the other, which its nodes may speak all the same.
        """
        if not (self._site.guards and self._named):
            return
        known = self._forbidden
        named = {family_of(address) for address in self._namers}
        missing = [
            what
            for what, is_known in (
                ("this node's addresses", any(not address.is_loopback for address in known.own)),
                ("the gateway of this node", bool(known.gateways)),
                ("the API servers", bool(known.api_servers)),
                ("the ports that programs of this node listen on, except the kubelet's", knows_programs),
                *(
                    (
                        f"the Pod network in {family}",
                        any(family_of(network) is family for network in known.pod_networks),
                    )
                    for family in families
                    if family in named
                ),
            )
            if not is_known
        ]
        if missing:
            unknown = "; ".join(missing)
            yield f"external addresses: these are unknown, so no address is rejected because of them: {unknown}"


def _index(
    by_address: dict[Address, set[ObjectName]], name: ObjectName, before: frozenset[Address], after: frozenset[Address]
) -> set[Address]:
    """Have an index by address know of a Service's addresses; return those that it has gained or lost."""
    moved = set(before ^ after)
    for address in moved:
        holders = by_address.setdefault(address, set())
        (holders.add if address in after else holders.discard)(name)
        if not holders:
            del by_address[address]
    return moved


def _external_texts(service: structs.Service | None, site: NodeContext) -> Iterator[str]:
    if service is not None:
        yield from service.spec.external_ips if site.external_ips else ()
        yield from (ingress.ip for ingress in service.status.load_balancer.ingress)


def _addresses(texts: Iterable[str]) -> frozenset[Address]:
    """Return the addresses among texts: None stands for no ClusterIP, and of others there is a warning elsewhere."""
    addresses = set()
    for text in texts:
        with suppress(ValueError):
            addresses.add(parse_address(text))
    return frozenset(addresses)


def _api_servers(kubernetes: ServiceInput | None) -> Iterator[tuple[Address, int]]:
    """Yield the API servers as the slice has them that they write themselves; anybody may label another one so."""
    if kubernetes is None:
        return
    is_sliced = kubernetes.endpoints_from == "EndpointSlice"
    slices = (
        endpoint_slice
        for endpoint_slice in kubernetes.slices
        if not is_sliced or endpoint_slice.metadata.name == KUBERNETES.name
    )
    yield from api_servers(replace(kubernetes, slices=tuple(slices)))
