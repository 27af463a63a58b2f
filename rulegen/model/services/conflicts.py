"""Decides which Service gets a frontend that several claim: the older one keeps it, and a warning names both.

kube-proxy does not check this; which Service gets the packets is then random.

An external address of a Service may also be one of the node's own addresses. It then conflicts with node ports, health
checks and listening programs, and kube-proxy gives their connections to the Service (CVE-2020-8554). rulegen does the
same, with a warning. With strict semantics of external addresses, an older Service keeps its node port or health check,
and a program always keeps its port.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from typing import TYPE_CHECKING, Final, NamedTuple

from msgspec.structs import replace

from rulegen.model.services.node.ports_in_use import KUBELET, PortsInUse
from rulegen.net import Protocol, address_text, parse_address

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

    from rulegen.kube.objects.names import ObjectName
    from rulegen.model.services.ir import ResolvedPort, ResolvedService
    from rulegen.net import Address, Family

NODE_PORT: Final = "node port"
HEALTH_PORT: Final = "healthCheckNodePort"
_ADDRESS_USE: Final = ("",)
"""The use of an address and port; messages name the address."""
_NODE_USE: Final = (NODE_PORT,)
_HEALTH_USE: Final = (HEALTH_PORT,)


class Claim(NamedTuple):
    """An address and port that only one Service can have.

    Attributes:
        address: As text; empty for a node port or a health check port, on all addresses of the node.
        port: The port number.
        protocol: The protocol; TCP for a health check.
        family: The family of the address, or the family in which the node's port is served.
    """

    address: str
    port: int
    protocol: Protocol
    family: Family

    @property
    def on_node(self) -> Claim:
        """The claim to the same port on all addresses of the node."""
        return self._replace(address="")


class _Rank(NamedTuple):
    """The priority of a Service: older first, then those without a creation time, then by name."""

    is_ageless: bool
    age: str
    name: ObjectName


class Conflict(NamedTuple):
    """A claim of a Service that something else has first.

    Attributes:
        service: The younger Service.
        owner: The older Service; None if the owner is the node itself.
        text: The warning; it names both.
    """

    service: ObjectName
    owner: ObjectName | None
    text: str


class Claims:
    """The claims of all Services; Services can be added, changed and removed."""

    def __init__(
        self, *, oldest_wins: bool = True, guards_node: bool = False, ports_in_use: PortsInUse | None = None
    ) -> None:
        """Start without Services.

        Args:
            oldest_wins: Whether only the oldest Service gets a claim. Otherwise all of them get it, as in kube-proxy,
                with the same warnings.
            guards_node: Whether an external address that is one of the node's own loses against node ports and health
                checks of older Services and against programs. Otherwise it wins, as in kube-proxy, with the same
                warnings.
            ports_in_use: The node's addresses and ports in use.
        """
        self._oldest_wins, self._guards_node = oldest_wins, guards_node
        self._services: dict[ObjectName, ResolvedService] = {}
        self._ranks: dict[ObjectName, _Rank] = {}
        self._claimants: dict[Claim, list[_Rank]] = {}
        self._by_node_port: dict[Claim, set[Claim]] = {}
        self._set_ports_in_use(ports_in_use or PortsInUse())

    def update_node(self, ports_in_use: PortsInUse) -> set[ObjectName]:
        """Replace the node's addresses and ports in use; return the Services whose result may have changed."""
        before = self._node_dependencies()
        self._set_ports_in_use(ports_in_use)
        self._by_node_port = {}
        for service in self._services.values():
            for claim in _externals_of(service):
                self._index(claim)
        after = self._node_dependencies()
        moved = {claim for claim in before.keys() | after.keys() if before.get(claim) != after.get(claim)}
        return {rank.name for claim in moved for rank in self._claimants.get(claim, ())} if self._guards_node else set()

    def put(self, name: ObjectName, service: ResolvedService | None, age: str = "") -> set[ObjectName]:
        """Add, replace or remove a Service; return the other Services whose result may have changed.

        Args:
            name: Its name.
            service: The resolved Service; None if it was deleted.
            age: creationTimestamp (RFC 3339, so text order is time order); a Service without one is the youngest.
        """
        left, taken = _claims_of(self._services.get(name)), _claims_of(service)
        claims = {**left, **taken}
        had = [self._first(claim) for claim in claims]
        touched = self._near(claims)
        self._drop(name, left)
        if service is not None:
            rank = _Rank(not age, age, name)
            self._services[name], self._ranks[name] = service, rank
            for claim in taken:
                insort(self._claimants.setdefault(claim, []), rank)
            for claim in _externals_of(service) if self._answering else ():
                self._index(claim)
        for before, claim in zip(had, claims, strict=True):
            has = self._first(claim)
            if before != has:
                touched.update([rank.name for rank in (before, has) if rank is not None])
        touched |= self._near(claims)
        touched.discard(name)
        return touched

    def _drop(self, name: ObjectName, claims: Iterable[Claim]) -> None:
        before, rank = self._services.pop(name, None), self._ranks.pop(name, None)
        if before is None or rank is None:
            return
        for claim in claims:
            claimants = self._claimants[claim]
            del claimants[bisect_left(claimants, rank)]
            if not claimants:
                del self._claimants[claim]
        for claim in _externals_of(before):
            self._unindex(claim)

    def settled(self, name: ObjectName, report: Callable[[Conflict], None]) -> ResolvedService:
        """Return a Service without the frontends and health check ports that belong to an older Service or the node.

        If the health check port of a Service is also one of its node ports, it keeps the node port.

        Args:
            name: The name of a Service that was added.
            report: Receives each conflict.
        """
        service = self._services[name]
        uses = _claims_of(service)
        if self._is_alone(uses):
            return service
        lost: set[Claim] = set()
        for claim, own in uses.items():
            owner = self._claimants[claim][0].name
            if owner != name:
                lost.add(claim)
                theirs = _claims_of(self._services[owner])[claim]
                for use in own:
                    report(Conflict(name, owner, _conflict(name, claim, use, owner, theirs[0])))
        doubled = {claim for claim, own in uses.items() if len(own) > 1} - lost
        for claim in sorted(doubled):
            kept = "the node port keeps it" if self._oldest_wins else "both are written"
            text = f"Service {name}: {HEALTH_PORT} {claim.port}/{claim.protocol} is also its own node port: {kept}"
            report(Conflict(name, None, text))
        given_up: set[Claim] = set()
        excepted: set[Claim] = set()
        # Few Services claim an address of the node; external addresses are collected only for them.
        externals = _externals_of(service) if any(claim.address in self._addresses for claim in uses) else set()
        for claim, own in uses.items():
            if self._oldest_wins and claim in lost:
                continue
            if claim in externals and self._belongs_to_node(name, claim, report):
                given_up.add(claim)
            elif not claim.address:
                excepted.update(self._taken_addresses(name, claim, own[0], report))
        if not self._oldest_wins:
            lost, doubled = set(), set()
        if not self._guards_node:
            given_up, excepted = set(), set()
        if not (lost or doubled or given_up or excepted):
            return service
        return _without(service, lost | given_up, lost | doubled, excepted)

    def _is_alone(self, uses: Mapping[Claim, tuple[str, ...]]) -> bool:
        """Whether nothing else has or may have one of these claims: no Service and not the node."""
        for claim, own in uses.items():
            if len(self._claimants[claim]) > 1 or len(own) > 1:
                return False
            if claim.address in self._addresses if claim.address else claim in self._by_node_port:
                return False
        return True

    def _belongs_to_node(self, name: ObjectName, claim: Claim, report: Callable[[Conflict], None]) -> bool:
        """Whether an external address and port is a node port or health check of an older Service, or of a program.

        If Services have a node port or health check with this number, only age decides: no program has the port then.
        """
        what = f"{claim.address} port {claim.port}/{claim.protocol}"
        if claim in self._by_node_port.get(claim.on_node, ()) and (holders := self._claimants.get(claim.on_node)):
            if holders[0] >= self._ranks[name]:
                return False
            owner = holders[0].name
            theirs = _claims_of(self._services[owner])[claim.on_node][0]
            then = "the older Service keeps it" if self._guards_node else f"{name} may get its connections"
            text = f"Service {name}: {what} is the {theirs} of the older Service {owner} on this node: {then}"
            report(Conflict(name, owner, text))
            return True
        if claim.address not in self._addresses or (claim.protocol, claim.port) not in self._programs:
            return False
        program = "the kubelet" if (claim.protocol, claim.port) == KUBELET else "a program"
        then = "it is not served" if self._guards_node else f"{name} gets its connections"
        report(Conflict(name, None, f"Service {name}: {what}: {program} of this node listens there: {then}"))
        return True

    def _taken_addresses(
        self, name: ObjectName, claim: Claim, use: str, report: Callable[[Conflict], None]
    ) -> Iterator[Claim]:
        """Yield the claims of older Services to this port on single addresses of the node."""
        for external in sorted(self._by_node_port.get(claim, ())):
            first = self._claimants[external][0]
            if first >= self._ranks[name]:
                continue
            owner = first.name
            what = f"{external.address} port {external.port}/{external.protocol}"
            text = f"Service {name}: its {use} does not answer at {what}, which the older Service {owner} has"
            report(Conflict(name, owner, text))
            yield external

    def _first(self, claim: Claim) -> _Rank | None:
        """Return the rank of the oldest Service with this claim; None if there is none."""
        claimants = self._claimants.get(claim)
        return claimants[0] if claimants else None

    def _set_ports_in_use(self, ports_in_use: PortsInUse) -> None:
        self._addresses = frozenset(map(str, ports_in_use.addresses))
        self._answering = frozenset(map(str, ports_in_use.answering))
        self._programs = ports_in_use.programs

    def _index(self, claim: Claim) -> None:
        """Index a claim by its port if node ports answer on its address."""
        if claim.address in self._answering:
            self._by_node_port.setdefault(claim.on_node, set()).add(claim)

    def _unindex(self, claim: Claim) -> None:
        """Remove a claim from the index by port, unless another Service has the same claim."""
        left = (self._services[rank.name] for rank in self._claimants.get(claim, ()))
        if (there := self._by_node_port.get(claim.on_node)) and not any(
            claim in _externals_of(other) for other in left
        ):
            there.discard(claim)
            if not there:
                del self._by_node_port[claim.on_node]

    def _near(self, claims: Collection[Claim]) -> set[ObjectName]:
        """Return the Services whose claims to the same port of the node may conflict with these claims.

        A claim to a port on all addresses of the node conflicts with claims to this port on single addresses. If the
        oldest Service wins, only the oldest one of each claim is returned: the others have already lost it.
        """
        near: set[Claim] = set()
        if not self._guards_node:
            return set()
        for claim in claims:
            if not claim.address:
                near |= self._by_node_port.get(claim, set())
            elif claim.address in self._answering:
                near.add(claim.on_node)
        most = 1 if self._oldest_wins else None
        return {rank.name for claim in near for rank in self._claimants.get(claim, ())[:most]}

    def _node_dependencies(self) -> dict[Claim, tuple[object, ...]]:
        """Return, for each claim that depends on the node's ports in use, the values that it depends on."""
        around: dict[Claim, tuple[object, ...]] = {
            claim: (claim.address in self._answering, (claim.protocol, claim.port) in self._programs)
            for claim in self._claimants
            if claim.address in self._addresses
        }
        for claim, externals in self._by_node_port.items():
            around[claim] = tuple(sorted(externals))
        return around


def _conflict(name: ObjectName, claim: Claim, use: str, owner: ObjectName, theirs: str) -> str:
    what = f"{use or f'{claim.address} port'} {claim.port}/{claim.protocol}"
    as_what = "" if use == theirs else f", as its {theirs}"
    return f"Service {name}: {what} is already claimed by the older Service {owner}{as_what}"


def _claims_of(service: ResolvedService | None) -> Mapping[Claim, tuple[str, ...]]:
    """Return the claims of a Service, each with its uses for messages; a node port precedes a health check."""
    claims: dict[Claim, tuple[str, ...]] = {}
    for port in service.ports if service else ():
        for claim, uses in _claims(port):
            known = claims.setdefault(claim, uses)
            if known is not uses and uses[0] not in known:
                claims[claim] = (*known, *uses) if uses == _HEALTH_USE else (*uses, *known)
    return claims


def _externals_of(service: ResolvedService | None) -> set[Claim]:
    """Return the claims of a Service to its external IPs and load balancer IPs."""
    return {
        Claim(str(address), port.port, port.protocol, port.family)
        for port in (service.ports if service else ())
        for address in port.external_ips + port.load_balancer_ips
    }


def _claims(port: ResolvedPort) -> Iterator[tuple[Claim, tuple[str]]]:
    for address in (port.cluster_ip, *port.external_ips, *port.load_balancer_ips):
        if address is not None:
            yield Claim(address_text(address), port.port, port.protocol, port.family), _ADDRESS_USE
    if port.node_port:
        yield Claim("", port.node_port, port.protocol, port.family), _NODE_USE
    if port.health_check_node_port:
        yield Claim("", port.health_check_node_port, Protocol.TCP, port.family), _HEALTH_USE


def _without(
    service: ResolvedService, lost: set[Claim], lost_health: set[Claim], excepted: set[Claim]
) -> ResolvedService:
    """Return a Service without the frontends in `lost` and the health check ports in `lost_health`.

    A node port with the number, protocol and family of a claim in `excepted` is not served on the claim's address.
    """

    def keeps(port: ResolvedPort, address: Address | None, number: int) -> bool:
        return Claim("" if address is None else str(address), number, port.protocol, port.family) not in lost

    def checks_health(port: ResolvedPort) -> bool:
        return Claim("", port.health_check_node_port, Protocol.TCP, port.family) not in lost_health

    ports = (
        replace(
            port,
            cluster_ip=port.cluster_ip if port.cluster_ip and keeps(port, port.cluster_ip, port.port) else None,
            external_ips=tuple(a for a in port.external_ips if keeps(port, a, port.port)),
            load_balancer_ips=tuple(a for a in port.load_balancer_ips if keeps(port, a, port.port)),
            node_port=port.node_port if port.node_port and keeps(port, None, port.node_port) else 0,
            node_port_except=frozenset(
                parse_address(claim.address)
                for claim in excepted
                if keeps(port, None, port.node_port)
                and (claim.port, claim.protocol, claim.family) == (port.node_port, port.protocol, port.family)
            ),
            health_check_node_port=port.health_check_node_port if checks_health(port) else 0,
        )
        for port in service.ports
    )
    return replace(service, ports=tuple(ports))
