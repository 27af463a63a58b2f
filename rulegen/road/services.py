"""The road of one change: a Service is decided and compiled anew, and the difference is what must be written.

The same functions as for the whole, and the same fragments; only what a change touches is looked at.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rulegen.errors import Warnings
from rulegen.model.ir import Model
from rulegen.model.nodes import resolve_node, resolve_site, resolve_sysctls
from rulegen.model.table import ServiceTable
from rulegen.road import Compiled, backend_of, step

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from rulegen.diff import Change
    from rulegen.kube.cluster import Cluster
    from rulegen.kube.world import ObjectName
    from rulegen.languages.iptables.state import Fragment, Key, Value
    from rulegen.model.facts import HostFacts
    from rulegen.model.ir import Service
    from rulegen.model.options import Options
    from rulegen.net import Family

NODE = None
"""What the node's own fragment is kept under."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """What changes of some Services come to.

    Attributes:
        changes: By family; a family without changes is not in it.
        fragments: What the Services want now; None where they are gone.
        services: The Services as they are served now; None where they are gone.
    """

    changes: Mapping[Family, tuple[Change[Key, Value], ...]]
    fragments: Mapping[tuple[Family, ObjectName], Fragment | None]
    services: Mapping[ObjectName, Service | None]


class ServiceRules:
    """What all Services want of this node, as it was last compiled.

    Attributes:
        model: Every decision.
    """

    def __init__(self, cluster: Cluster, options: Options, facts: HostFacts, *, counts: bool) -> None:
        """Decide about all Services of a cluster.

        Raises:
            ConfigError: There is no backend for the mode.
        """
        self._cluster = cluster
        self._backend = backend_of(options.mode)
        self._counts = counts
        self._families: Sequence[Family] = tuple(facts.families)
        self._warnings = Warnings()
        name = options.node_name or facts.hostname
        told = cluster.node(name)
        site = resolve_site(told, name, options, facts)
        nodes = {f: resolve_node(f, site, told, options, facts, self._warnings.add) for f in self._families}
        self._table = ServiceTable(site, self._families, oldest_wins=options.oldest_claim_wins)
        names = cluster.names()
        for service in names:
            self._table.put(service, cluster.service(service))
        self._services = {service: found for service in names if (found := self._table.service(service)) is not None}
        self._name, self._nodes, self._sysctls = name, nodes, resolve_sysctls(nodes.values(), options, facts)
        self._unwritten: set[ObjectName] = set()
        self._fragments: dict[tuple[Family, ObjectName | None], Fragment] = {}
        for family, node in nodes.items():
            self._fragments[family, NODE] = self._backend.compile_node(node, counts=counts)
            for service, found in self._services.items():
                self._fragments[family, service] = self._backend.compile_service(found, node, counts=counts)

    @property
    def model(self) -> Model:
        """Every decision, as of now."""
        return Model(
            node_name=self._name,
            nodes=self._nodes,
            services=dict(sorted(self._services.items())),
            sysctls=self._sysctls,
            warnings=(*self._warnings.texts(), *self._table.warnings()),
        )

    def compiled(self) -> Compiled:
        """Return all of it, as a plan of the whole wants it."""
        names = sorted(self._services)
        fragments = {
            family: [self._fragments[family, NODE], *(self._fragments[family, name] for name in names)]
            for family in self._families
        }
        return Compiled(model=self.model, backend=self._backend, fragments=fragments, counts=self._counts)

    def update(self, names: Iterable[ObjectName]) -> Update:
        """Decide anew about Services that something happened to, and about those that they share a claim with.

        Nothing is kept of it but the decision: the fragments are those that are in the kernel until `commit`. An update
        that was not committed is part of the next one: who shared a claim then may share none any more.
        """
        for name in sorted(names):
            self._unwritten |= self._table.put(name, self._cluster.service(name))
        services = {name: self._table.service(name) for name in sorted(self._unwritten)}
        changes: dict[Family, tuple[Change[Key, Value], ...]] = {}
        fragments: dict[tuple[Family, ObjectName], Fragment | None] = {}
        for family, node in self._nodes.items():
            found: list[Change[Key, Value]] = []
            for name, service in services.items():
                after = self._backend.compile_service(service, node, counts=self._counts) if service else None
                fragments[family, name] = after
                found += step(self._fragments.get((family, name)), after)
            if found:
                changes[family] = tuple(found)
        return Update(changes=changes, fragments=fragments, services=services)

    def commit(self, update: Update) -> None:
        """Take an update for written."""
        for key, fragment in update.fragments.items():
            if fragment is None:
                self._fragments.pop(key, None)
            else:
                self._fragments[key] = fragment
        self._unwritten -= update.services.keys()
        for name, service in update.services.items():
            if service is None:
                self._services.pop(name, None)
            else:
                self._services[name] = service

    @property
    def node_name(self) -> str:
        """The node's name."""
        return self._name

    @property
    def sysctls(self) -> Mapping[str, str]:
        """Kernel parameters that must have these values."""
        return self._sysctls

    @property
    def services(self) -> Collection[Service]:
        """All Services as they are in the kernel."""
        return self._services.values()

    def before(self, name: ObjectName) -> Service | None:
        """Return a Service as it is in the kernel."""
        return self._services.get(name)
