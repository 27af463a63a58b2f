"""The resolved Services of one node. The cost of a change to one Service does not depend on their number."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, NamedTuple

from rulegen.errors import Warnings
from rulegen.model.services.bound_endpoints import bound_endpoints
from rulegen.model.services.conflicts import Claims, Conflict
from rulegen.model.services.external_addresses import ExternalAddresses
from rulegen.model.services.node.ports_in_use import PortsInUse
from rulegen.model.services.service import resolve_service

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

    from rulegen.kube.objects.names import ObjectName
    from rulegen.kube.snapshot.world import ServiceInput
    from rulegen.model.services.ir import ResolvedService
    from rulegen.model.services.node.context import NodeContext
    from rulegen.net import Family


class _Settled(NamedTuple):
    """All Services as they are served, sorted by name, and their conflicts."""

    services: dict[ObjectName, ResolvedService]
    conflicts: tuple[Conflict, ...]


class ServiceTable:
    """The Services by name, as this node serves them."""

    def __init__(
        self,
        site: NodeContext,
        families: Sequence[Family],
        *,
        oldest_wins: bool = True,
        ports_in_use: PortsInUse | None = None,
    ) -> None:
        """Start without Services.

        Args:
            site: The node.
            families: The families to serve.
            oldest_wins: See `Claims`.
            ports_in_use: See `Claims`.
        """
        self._site, self._families, self._ports_in_use = site, families, ports_in_use or PortsInUse()
        self._claims = Claims(oldest_wins=oldest_wins, guards_node=site.guards, ports_in_use=self._ports_in_use)
        self._externals = ExternalAddresses(site)
        self._warnings: dict[ObjectName, tuple[str, ...]] = {}
        self._external_conflicts: dict[ObjectName, tuple[Conflict, ...]] = {}
        self._inputs: dict[ObjectName, ServiceInput] = {}
        self._settled: _Settled | None = None  # until something changes

    def update_node(self, site: NodeContext, ports_in_use: PortsInUse) -> set[ObjectName]:
        """Replace the node context, and the node's ports in use.

        Returns:
            The Services whose external addresses may be served differently. The caller must put these again, and also
            Services that depend on other changed values of the node context.
        """
        if (site, ports_in_use) == (self._site, self._ports_in_use):
            return set()
        self._site, self._ports_in_use, self._settled = site, ports_in_use, None
        touched = self._externals.update_node(site)
        return self._decide_again(touched) | self._claims.update_node(ports_in_use)

    def put(self, name: ObjectName, service_input: ServiceInput | None) -> set[ObjectName]:
        """Add, replace or remove (None) a Service; return the names of all Services whose result may have changed."""
        self._settled = None
        touched = self._externals.put(name, service_input)
        if service_input is None:
            self._warnings.pop(name, None)
            self._external_conflicts.pop(name, None)
            self._inputs.pop(name, None)
            return self._claims.put(name, None) | {name} | self._decide_again(touched)
        self._inputs[name] = service_input
        return self._decide(name, service_input) | self._decide_again(touched)

    def _decide_again(self, names: Collection[ObjectName]) -> set[ObjectName]:
        """Decide again about unchanged Services, because what they depend on has changed; return the affected Services.

        Without strict semantics, only warnings can change, and the result is empty.
        """
        touched: set[ObjectName] = set()
        if not names:
            return touched
        for name in sorted(names):
            touched |= self._decide(name, self._inputs[name])
        return touched if self._site.guards else set()

    def _decide(self, name: ObjectName, service_input: ServiceInput) -> set[ObjectName]:
        warnings = Warnings()
        conflicts: dict[Conflict, None] = {}
        allows = partial(self._externals.allows, name, report=conflicts.setdefault)
        service = resolve_service(name, service_input, self._site, self._families, warnings.add, allows)
        self._warnings[name], self._external_conflicts[name] = warnings.texts(), tuple(conflicts)
        return self._claims.put(name, service, service_input.service.metadata.creation_timestamp or "") | {name}

    def service(self, name: ObjectName) -> ResolvedService | None:
        """Return a Service as it is served; None if it does not exist."""
        return self._claims.settled(name, _ignore) if name in self._warnings else None

    def services(self) -> dict[ObjectName, ResolvedService]:
        """Return all Services as they are served, sorted by name."""
        return dict(self._all().services)

    def warnings(self) -> Iterator[str]:
        """Yield all warnings: those of each Service, then those about conflicts."""
        for texts in self._warnings.values():
            yield from texts
        yield from self._ignored()
        yield from dict.fromkeys(conflict.text for conflict in self.conflicts())
        yield from bound_endpoints(self._all().services.values(), self._inputs, self._site)
        yield from self._externals.unknown(self._families, knows_programs=self._ports_in_use.knows_programs)

    def conflicts(self) -> tuple[Conflict, ...]:
        """Return the conflicts between two Services, and between a Service and the node or its programs."""
        return self._all().conflicts

    def _all(self) -> _Settled:
        if self._settled is None:
            conflicts = [conflict for known in self._external_conflicts.values() for conflict in known]
            services = {name: self._claims.settled(name, conflicts.append) for name in sorted(self._warnings)}
            self._settled = _Settled(services, tuple(conflicts))
        return self._settled

    def _ignored(self) -> Iterator[str]:
        """Yield a warning with the number of Services whose external IPs are ignored by configuration."""
        if not self._site.external_ips:
            count = sum(1 for service_input in self._inputs.values() if service_input.service.spec.external_ips)
            if count:
                of = "1 Service" if count == 1 else f"{count:,} Services"
                yield f"spec.externalIPs of {of} are ignored, because of --ignore-external-ips"


def _ignore(_: object) -> None:
    """Ignore a conflict; `warnings` yields it."""
