"""All Services of one node, decided one by one: what a change of one costs does not grow with their number."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rulegen.errors import Warnings
from rulegen.model.bound_endpoints import bound_endpoints
from rulegen.model.claims import Claims
from rulegen.model.services import resolve_service

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rulegen.kube.world import ObjectName, ServiceInput
    from rulegen.model.claims import Conflict
    from rulegen.model.ir import Service
    from rulegen.model.node_ground import NodeGround
    from rulegen.model.nodes import Site
    from rulegen.net import Family


class ServiceTable:
    """Services by name, each as this node serves it."""

    def __init__(
        self,
        site: Site,
        families: Sequence[Family],
        *,
        oldest_wins: bool = True,
        guards_node: bool = False,
        ground: NodeGround | None = None,
    ) -> None:
        """Begin with none.

        Args:
            site: Where and what the node is.
            families: The families to serve.
            oldest_wins: As for `Claims`.
            guards_node: As for `Claims`.
            ground: As for `Claims`.
        """
        self._site, self._families = site, families
        self._claims = Claims(oldest_wins=oldest_wins, guards_node=guards_node, ground=ground)
        self._told: dict[ObjectName, tuple[str, ...]] = {}
        self._inputs: dict[ObjectName, ServiceInput] = {}

    def move(self, site: Site, ground: NodeGround) -> set[ObjectName]:
        """Decide with another site and ground from now on.

        Returns:
            The Services that may be served otherwise for the ground; they, and whatever follows from the site for
            others, must be put again.
        """
        self._site = site
        return self._claims.move(ground)

    def put(self, name: ObjectName, told: ServiceInput | None) -> set[ObjectName]:
        """Take a Service, or that it is gone; return the names of all Services that may be served otherwise now."""
        warnings = Warnings()
        if told is None:
            self._told.pop(name, None)
            self._inputs.pop(name, None)
            return self._claims.put(name, None) | {name}
        service = resolve_service(name, told, self._site, self._families, warnings.add)
        self._told[name] = warnings.texts()
        if self._site.binds:
            self._inputs[name] = told
        return self._claims.put(name, service, told.service.metadata.creation_timestamp or "") | {name}

    def service(self, name: ObjectName) -> Service | None:
        """Return a Service as it is served now; None where it is not there."""
        return self._claims.settled(name, _ignore) if name in self._told else None

    def warnings(self) -> Iterator[str]:
        """Yield what a user must be told: of each Service, then of their conflicts."""
        for texts in self._told.values():
            yield from texts
        conflicts: list[Conflict] = []
        served = [self._claims.settled(name, conflicts.append) for name in sorted(self._told)]
        yield from dict.fromkeys(conflict.text for conflict in conflicts)
        if self._site.binds:
            yield from bound_endpoints(served, self._inputs, self._site)

    def conflicts(self) -> tuple[Conflict, ...]:
        """Return what two Services claim, or a Service and the node."""
        conflicts: list[Conflict] = []
        for name in sorted(self._told):
            self._claims.settled(name, conflicts.append)
        return tuple(conflicts)


def _ignore(_: object) -> None:
    """Pass over what `warnings` tells."""
