"""One change: a Service is decided and compiled again, and the difference is what must be written.

The same functions as for the whole, and the same fragments; only what a change touches is looked at.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from rulegen.compiler.services.compile import Compiled, merge, put
from rulegen.compiler.services.node_decisions import decide_node
from rulegen.compiler.services.update import Update, content_of, contents_of, meets
from rulegen.compiler.tables import TABLES, Tables
from rulegen.languages.language import NodeSteps
from rulegen.model.services.ir import Model
from rulegen.model.services.table import ServiceTable
from rulegen.plan.plan import PartKey, Plan

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from rulegen.compiler.services.compile import Unions
    from rulegen.kube.objects import structs
    from rulegen.kube.objects.names import ObjectName
    from rulegen.kube.snapshot.cluster import Cluster
    from rulegen.languages.language import KernelMemory
    from rulegen.model.host.facts import HostFacts
    from rulegen.model.services.conflicts import Conflict
    from rulegen.model.services.ir import ResolvedNode, ResolvedService
    from rulegen.model.services.options import Options
    from rulegen.net import Family
    from rulegen.plan.fragments import OwnedObjects
    from rulegen.plan.plan import Parts

NODE = None
"""What the node's own fragment is kept under."""


class ServiceRules:
    """What all Services want of this node, as it was last compiled.

    Attributes:
        model: Every decision.
    """

    def __init__(
        self,
        cluster: Cluster,
        options: Options,
        facts: HostFacts,
        *,
        counts: bool,
        known: structs.Node | None = None,
        tables: Tables = TABLES,
    ) -> None:
        """Decide about all Services of a cluster.

        Args:
            cluster: Has them, and the Node.
            options: What is wanted of the node.
            facts: What the host is.
            counts: Whether rules count with nfacct.
            known: The Node object that held until now; see `rulegen.model.services.node.known_node`.
            tables: The languages and backends that there are.

        Raises:
            ConfigError: There is no backend for the mode.
        """
        self._cluster = cluster
        self._options = options
        self._tables = tables
        self._backend = tables.backend(options.mode)
        self._counts = counts
        self._node = decide_node(cluster, options, facts, known)
        nodes = self._node.nodes
        self._families: Sequence[Family] = tuple(nodes)
        self._table = ServiceTable(
            self._node.site,
            self._families,
            oldest_wins=options.oldest_claim_wins,
            ground=self._node.ground,
        )
        for service in cluster.names():
            self._table.put(service, cluster.service(service))
        self._services = self._table.services()
        self._is_behind = False
        self._unwritten: set[ObjectName] = set()
        self._again: set[ObjectName] = set()
        self._left_out: set[ObjectName] = set()
        self._former: dict[tuple[Family, ObjectName | None], OwnedObjects | None] = {}
        self._fragments: dict[tuple[Family, ObjectName | None], OwnedObjects] = {}
        self._unions: dict[Family, Unions] = {}
        self._memories: dict[Family, dict[str, KernelMemory]] = {
            family: {name: language.memory() for name, language in tables.languages.items()} for family in nodes
        }
        for family in nodes:
            self._compile_family(family)

    def _compile_family(self, family: Family) -> None:
        """Compile what all Services and the node want in a family."""
        node, unions = self._node.nodes[family], merge((), self._tables)
        self._unions[family] = unions
        for service, resolved in self._services.items():
            self._replace(family, service, self._backend.compile_service(resolved, node, counts=self._counts))
        first = self._backend.compile_node(node, counts=self._counts, filled=self._backend.filled(unions, {}))
        self._replace(family, NODE, first)
        for memory in self._memories[family].values():
            memory.renew({})

    @property
    def has_outgrown(self) -> bool:
        """Whether a plan of the whole would now write the same objects otherwise, as with other comments."""
        return any(memory.is_outdated for memories in self._memories.values() for memory in memories.values())

    def settle_comments(self) -> None:
        """Write from now on as a plan of the whole would, and keep in mind what is there.

        Not while an update is being written: what it writes is as before.
        """
        for family, memories in self._memories.items():
            for name, memory in memories.items():
                self._adopt(family, name, memory.renew(self._contents(family, name)))

    def _contents(self, family: Family, language: str) -> dict[tuple[Family, ObjectName | None], Any]:
        """Return what each owner wants of one language in one family."""
        return {
            key: fragment.objects[language]
            for key, fragment in self._fragments.items()
            if key[0] is family and language in fragment.objects
        }

    def _adopt(self, family: Family, language: str, contents: Mapping[tuple[Family, ObjectName | None], Any]) -> None:
        """Have fragments hold objects as the kernel has them."""
        for key, content in contents.items():
            fragment = self._fragments[key]
            self._fragments[key] = replace(fragment, objects={**fragment.objects, language: content})
            self._unions[family][language].replace(fragment.owner, fragment.objects[language], content)

    def follow(self, facts: HostFacts) -> frozenset[ObjectName] | None:
        """Take the host and the Node as they are now; where only addresses differ, the next update writes what follows.

        Returns:
            The Services that must be part of that update; None if all must be decided again.
        """
        before, binds = self._node, self._options.needs.has_virtual_servers
        decided = decide_node(self._cluster, self._options, facts, before.known)
        if decided.decides_as(before, binds=binds):
            self._node = decided
            return frozenset(self._table.move(decided.site, decided.ground))
        if not decided.differs_in_addresses_only(before):
            return None
        self._node, self._is_behind = decided, True
        touched = self._table.move(decided.site, decided.ground)
        has_moved = decided.site.addresses != before.site.addresses
        return frozenset(touched) | frozenset(
            name
            for name, service in self._services.items()
            if any((has_moved and port.source_ranges) or (binds and port.is_external) for port in service.ports)
        )

    @property
    def is_behind(self) -> bool:
        """Whether the node's addresses have changed since the last update that was committed."""
        return self._is_behind

    @property
    def model(self) -> Model:
        """Every decision, as of now."""
        return Model(
            node_name=self._node.name,
            nodes=self._node.nodes,
            services=dict(sorted(self._services.items())),
            sysctls=self._node.sysctls,
            timeouts=self._options.ipvs_timeouts if self._options.needs.has_virtual_servers else (0, 0, 0),
            warnings=self.warnings,
        )

    def compiled(self) -> Compiled:
        """Return all of it, as a plan of the whole wants it."""
        names = sorted(self._services.keys() | self._left_out)
        fragments = {
            family: [
                self._fragments[family, NODE],
                *(self._fragments[family, name] for name in names if (family, name) in self._fragments),
            ]
            for family in self._families
        }
        return Compiled(
            model=self.model,
            backend=self._backend,
            fragments=fragments,
            unions={
                family: {name: union.copy() for name, union in unions.items()}
                for family, unions in self._unions.items()
            },
            counts=self._counts,
            tables=self._tables,
        )

    def update(self, names: Iterable[ObjectName]) -> Update:
        """Decide again about Services that something happened to, and about those that they share a claim with.

        Nothing is kept of it but the decision: the fragments are those that are in the kernel until `commit`. An update
        that was not committed is part of the next one: who shared a claim then may share none any more.
        """
        self._put(names)
        return self._updated(self._unwritten)

    def update_beside(self, names: Iterable[ObjectName], other: Update) -> Update | None:
        """Decide about Services while an update of others is being written; both may then be committed in any order.

        Returns:
            None where one needs the other to be written first: they share a claim, or an object of the kernel. It is
            part of the next update then.
        """
        touched = self._put(names) & other.services.keys()
        self._again |= touched
        mine = self._unwritten - other.services.keys()
        if touched or self._is_behind:
            return None
        update = self._updated(mine)
        shares = any((family, NODE) in each.fragments for each in (update, other) for family in self._families)
        return None if shares or meets(update, other) or meets(other, update) else update

    def _put(self, names: Iterable[ObjectName]) -> set[ObjectName]:
        """Take Services as the cluster has them now; return all that may be served otherwise then."""
        touched: set[ObjectName] = set()
        for name in sorted(names):
            self._left_out.discard(name)
            touched |= self._table.put(name, self._cluster.service(name))
        self._unwritten |= touched
        return touched

    def _updated(self, names: Collection[ObjectName]) -> Update:
        """Return what Services come to that may be served otherwise now."""
        services = {name: self._table.service(name) for name in sorted(set(names) - self._left_out)}
        fragments: dict[tuple[Family, ObjectName | None], OwnedObjects | None] = {}
        parts: Parts = {}
        for family, node in self._node.nodes.items():
            for name, service in services.items():
                before = self._fragments.get((family, name))
                after = self._backend.compile_service(service, node, counts=self._counts) if service else None
                fragments[family, name] = after and self._carried(before, after)
            pairs = [(self._fragments.get((family, name)), fragments[family, name]) for name in services]
            of_family, first = self._family_update(family, pairs)
            parts.update(of_family)
            if first is not None:
                fragments[family, NODE] = first
        return Update(plan=Plan(parts=parts), fragments=fragments, services=services, nodes=self._node.nodes)

    @property
    def left_out(self) -> frozenset[ObjectName]:
        """The Services that are left out: what the kernel has of them stays, until they are part of an update again."""
        return frozenset(self._left_out)

    @property
    def leaving(self) -> Collection[tuple[str, str, Any]]:
        """The real servers on their way out, as far as it is known: language, family and key of each."""
        return [
            (name, family.value, key)
            for family, memories in self._memories.items()
            for name, memory in memories.items()
            for key in memory.leaving
        ]

    @property
    def held(self) -> tuple[OwnedObjects, ...]:
        """What the kernel has of the Services that are left out, for anyone who decides all again."""
        keys = ((family, name) for name in sorted(self._left_out) for family in self._families)
        return tuple(self._fragments[key] for key in keys if key in self._fragments)

    def leave_out(self, names: Iterable[ObjectName], there: Iterable[OwnedObjects] | None = None) -> None:
        """Leave Services out. Their claims to addresses and ports go to those that share them: with the next update.

        Args:
            names: Which.
            there: What the kernel has of them, see `pinned`, where it is not known what was written last: of
                several for one Service and family the last counts. None for what was committed last.
        """
        left = sorted(names)
        for name in left:
            self._left_out.add(name)
            self._unwritten |= self._table.put(name, None)
            self._services.pop(name, None)
        self._unwritten -= self._left_out
        if there is None:
            return
        has = {(fragment.family, fragment.owner): fragment for fragment in there}
        for family in self._families:
            for name in left:
                self._replace(family, name, self._former.get((family, name), has.get((family, str(name)))))
            node = self._node.nodes[family]
            filled = self._backend.filled(self._unions[family], {})
            self._replace(family, NODE, self._backend.compile_node(node, counts=self._counts, filled=filled))

    def _replace(self, family: Family, name: ObjectName | None, after: OwnedObjects | None) -> None:
        """Have an owner want something else, as what the kernel has."""
        before = self._fragments.pop((family, name), None)
        put(self._unions[family], before, after)
        for language, memory in self._memories[family].items():
            memory.replaced(content_of(before, language), content_of(after, language))
        if after is not None:
            self._fragments[family, name] = after

    def _carried(self, before: OwnedObjects | None, after: OwnedObjects) -> OwnedObjects:
        """Return what an owner wants now, with what stays as its fragment of before has it."""
        if before is None:
            return after
        memories = self._memories[after.family]
        objects = {
            name: memories[name].carried(content_of(before, name), content) for name, content in after.objects.items()
        }
        return replace(after, objects=objects)

    def _family_update(
        self, family: Family, pairs: Sequence[tuple[OwnedObjects | None, OwnedObjects | None]]
    ) -> tuple[Parts, OwnedObjects | None]:
        """Return what fragments in place of others come to, and the node's own fragment where it changes with them."""
        unions, memories = self._unions[family], self._memories[family]
        wants = {name: list(contents_of(name, pairs)) for name in self._backend.languages}
        changes = {name: unions[name].changes(wants[name]) for name in self._backend.depends_on}
        had, has = self._backend.filled(unions, {}), self._backend.filled(unions, changes)
        steps: dict[str, NodeSteps] = {}
        first = None
        if had != has or self._is_behind:
            old = self._fragments[family, NODE]
            middle, first = (
                self._backend.compile_node(self._node.nodes[family], counts=self._counts, filled=filled)
                for filled in (had | has, has)
            )
            middle = self._carried(old, middle)
            first = self._carried(middle, first)
            steps = {
                name: NodeSteps(content_of(old, name), content_of(middle, name), content_of(first, name))
                for name in wants
            }
        parts: Parts = {}
        for name, wanted in wants.items():
            part = memories[name].part(unions[name], wanted, steps.get(name))
            if part.all_changes:
                parts[PartKey(family, name)] = part
        return parts, first

    def remember_kernel_state(self, plan: Plan) -> None:
        """Keep in mind what a plan of the whole shows of the kernel, and nothing that was kept before.

        Which real servers are on their way out; and which rules have other comments than ours, as those of kube-proxy
        do: a rule is deleted by its whole text.
        """
        self._former.clear()
        for family, memories in self._memories.items():
            for name, memory in memories.items():
                part = plan.parts.get(PartKey(family, name))
                self._adopt(family, name, memory.remember(part, self._contents(family, name)))
        self._note_written(plan)

    def _note_written(self, plan: Plan) -> None:
        """Keep in mind what a plan that was written leaves in the kernel."""
        for key, part in plan.parts.items():
            if key.family is not None and key.family in self._memories and not key.variant:
                self._memories[key.family][key.language].written(part, self._unions[key.family][key.language])

    def commit(self, update: Update, *, is_written: bool = True) -> None:
        """Take an update for written; one that is not keeps what was there before, until `remember_kernel_state`."""
        if not is_written:
            self._former = {**{key: self._fragments.get(key) for key in update.fragments}, **self._former}
        for (family, name), fragment in update.fragments.items():
            self._replace(family, name, fragment)
        self._is_behind = False
        self._unwritten -= update.services.keys() - self._again
        self._again -= update.services.keys()
        for name, service in update.services.items():
            if service is None:
                self._services.pop(name, None)
            else:
                self._services[name] = service
        self._note_written(update.plan)

    @property
    def node_name(self) -> str:
        """The node's name."""
        return self._node.name

    @property
    def known(self) -> structs.Node | None:
        """The Node object that all was decided with; None if there never was one."""
        return self._node.known

    @property
    def kept(self) -> tuple[str, ...]:
        """What is kept of an earlier Node object though the one that there is does not say it, for people."""
        return self._node.kept

    @property
    def nodes(self) -> Mapping[Family, ResolvedNode]:
        """What holds for all Services, by family."""
        return self._node.nodes

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a user must be told although work continues."""
        return (*self._node.warnings, *self._node.kept, *self._cluster.warnings, *self._table.warnings())

    @property
    def conflicts(self) -> tuple[Conflict, ...]:
        """What two Services have, or a Service and another program; `warnings` has it too."""
        return self._table.conflicts()

    @property
    def sysctls(self) -> Mapping[str, str]:
        """Kernel parameters that must have these values."""
        return self._node.sysctls

    @property
    def services(self) -> Collection[ResolvedService]:
        """All Services as they are in the kernel."""
        return self._services.values()

    def before(self, name: ObjectName) -> ResolvedService | None:
        """Return a Service as it is in the kernel."""
        return self._services.get(name)
