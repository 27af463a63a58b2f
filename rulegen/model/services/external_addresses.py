"""Detects external addresses of Services that belong to the node, its network, the cluster or another Service.

A user who may create Services can put any address into spec.externalIPs and receives the connections of this node to it
(CVE-2020-8554). kube-proxy does not check this. With kube-proxy's semantics, the address is served with a warning that
names its owner. With strict semantics, it is not served.

The decision uses only information that tenants cannot write: facts of the host, Node objects, and addresses that the
API server assigns. It does not use endpoints: an EndpointSlice may contain any address, so its author could take an
address away from a Service.
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

_NONE: Final[frozenset[Address]] = frozenset()


class ExternalAddresses:
    """Decides about the external addresses of Services; Services can be added, changed and removed."""

    def __init__(self, site: NodeContext) -> None:
        """Start without Services.

        Args:
            site: The addresses of the node and of other Nodes, and whether Services may use them.
        """
        self._site = site
        self._forbidden = site.forbidden
        self._named: dict[ObjectName, frozenset[Address]] = {}
        self._namers: dict[Address, set[ObjectName]] = {}
        self._cluster_ips: dict[ObjectName, tuple[str, ...]] = {}
        self._holders: dict[Address, set[ObjectName]] | None = None  # None while no Service has an external address

    def update_node(self, site: NodeContext) -> set[ObjectName]:
        """Replace the node context; return the Services whose external addresses must be decided again."""
        before, servers = self._site, self._forbidden.api_servers
        self._site, self._forbidden = site, replace(site.forbidden, api_servers=servers)
        if (before.forbidden, before.others, before.external_ips) == (site.forbidden, site.others, site.external_ips):
            return set()
        return set(self._named)

    def put(self, name: ObjectName, service_input: ServiceInput | None) -> set[ObjectName]:
        """Add, replace or remove (None) a Service; return the other Services that must be decided again."""
        service = service_input.service if service_input is not None else None
        before, texts = self._named.pop(name, _NONE), tuple(_external_texts(service, self._site))
        if before or texts:
            named = _addresses(texts)
            if named:
                self._named[name] = named
            _index(self._namers, name, before, named)
        moved = self._hold(name, service)
        if name == KUBERNETES:
            servers = frozenset(_api_servers(service_input))
            moved |= {address for address, _ in servers ^ self._forbidden.api_servers}
            self._forbidden = replace(self._forbidden, api_servers=servers)
        return {namer for address in moved for namer in self._namers.get(address, ())} - {name}

    def _hold(self, name: ObjectName, service: structs.Service | None) -> set[Address]:
        """Record the ClusterIPs of a Service; return those that were added or removed.

        The index by address exists only while some Service has external addresses. Without it, the result is empty.
        """
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
        self, name: ObjectName, address: Address, use: AddressUse, port: int, report: Callable[[Conflict], None]
    ) -> bool:
        """Whether a Service is served at an external address.

        Args:
            name: The Service's name.
            address: The address.
            use: External IP or load balancer IP.
            port: The Service's port.
            report: Receives the conflict if the address belongs to something else, even if the Service is served.
        """
        whose, owner = self._whose(name, address, use, port)
        if not whose:
            return True
        where = f"Service {name}: {_PATHS[use]}: {whose}"
        if self._site.guards:
            report(Conflict(name, owner, f"{where}; the entry is ignored"))
            return False
        then = (
            "ipvs mode binds this address to the node, so the node can no longer reach the owner"
            if self._site.binds and address not in self._forbidden.own and owner is None
            else "connections to this address at the Service's ports reach the Service instead"
        )
        report(Conflict(name, owner, f"{where}: {then}; --external-ip-semantics strict ignores this address"))
        return True

    def _whose(self, name: ObjectName, address: Address, use: AddressUse, port: int) -> tuple[str, ObjectName | None]:
        """Return what an address belongs to, such as `192.0.2.1 is the gateway of this node`; empty if to nothing.

        The second value is the name of the Service that has the address as its ClusterIP; None otherwise. A load
        balancer that runs on the node of an API server publishes that node's address. For such an address, only the
        port of the API server is rejected, unless the address would be bound to this node.
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
        """Yield a warning that lists the unknown facts that strict semantics need, if a Service has external addresses.

        A missing Pod network is listed only for families of such addresses: a cluster of one family has no Pod network
        in the other, even if its nodes support both.
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
    """Update the index for the changed addresses of a Service; return those that were added or removed."""
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
    """Return the valid addresses; skip `None` (headless) and invalid texts, which are reported elsewhere."""
    addresses = set()
    for text in texts:
        with suppress(ValueError):
            addresses.add(parse_address(text))
    return frozenset(addresses)


def _api_servers(kubernetes: ServiceInput | None) -> Iterator[tuple[Address, int]]:
    """Yield address and port of each API server, from the EndpointSlice that the API servers write.

    Other slices are ignored: users may create slices with the label of this Service.
    """
    if kubernetes is None:
        return
    is_sliced = kubernetes.endpoints_from == "EndpointSlice"
    slices = (
        endpoint_slice
        for endpoint_slice in kubernetes.slices
        if not is_sliced or endpoint_slice.metadata.name == KUBERNETES.name
    )
    yield from api_servers(replace(kubernetes, slices=tuple(slices)))
