"""Incremental changes: a Service is resolved and compiled again, and the difference is written.

It uses the same functions and fragments as a complete plan, but only for what a change affects.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

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
"""Key of the node's own fragment."""


class ServiceRules:
    """The rules of all Services of this node, as last compiled.

    Attributes:
        model: All decisions.
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
        serves: bool = True,
    ) -> None:
        """Decide about all Services of a cluster.

        Args:
            cluster: Contains them, and the Node.
            options: Options for the node.
            facts: Facts of the host.
            counts: Whether rules have nfacct counters.
            known: The Node object used before; see `rulegen.model.services.node.known_node`.
            tables: The known languages and backends.
            serves: Whether there are rules for Services; otherwise there are only those of the node.

        Raises:
            ConfigError: The mode has no backend.
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
            ports_in_use=self._node.ports_in_use,
        )
        self._serves = serves
        for service in cluster.names() if serves else ():
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
        """Compile all Services and the node in a family."""
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
        """Whether a complete plan would now write the same objects in another form, for example with other comments."""
        return any(memory.is_outdated for memories in self._memories.values() for memory in memories.values())

    def settle_comments(self) -> None:
        """Use the form of a complete plan from now on, and store the state of the kernel.

        This must not be called while an update is being written.
        """
        for family, memories in self._memories.items():
            contents = self._contents(family)
            for name, memory in memories.items():
                self._adopt(family, name, memory.renew(contents[name]))

    def _contents(self, family: Family) -> dict[str, dict[tuple[Family, ObjectName | None], Any]]:
        """Return, by language, the objects of each owner in one family."""
        contents: dict[str, dict[tuple[Family, ObjectName | None], Any]] = defaultdict(dict)
        for key, fragment in self._fragments.items():
            if key[0] is family:
                for language, objects in fragment.objects.items():
                    contents[language][key] = objects
        return contents

    def _adopt(self, family: Family, language: str, contents: Mapping[tuple[Family, ObjectName | None], Any]) -> None:
        """Make fragments contain objects as they are in the kernel."""
        for key, content in contents.items():
            fragment = self._fragments[key]
            self._fragments[key] = replace(fragment, objects={**fragment.objects, language: content})
            self._unions[family][language].replace(fragment.owner, fragment.objects[language], content)

    def follow(self, facts: HostFacts) -> frozenset[ObjectName] | None:
        """Apply new facts of the host and the Node; if only addresses differ, the next update writes the changes.

        Returns:
            The Services that this update must contain; None if all must be decided again.
        """
        before, binds = self._node, self._options.needs.has_virtual_servers
        decided = decide_node(self._cluster, self._options, facts, before.known)
        if decided.decides_as(before, binds=binds):
            self._node = decided
            return frozenset(self._table.update_node(decided.site, decided.ports_in_use))
        if not decided.differs_in_addresses_only(before):
            return None
        self._node, self._is_behind = decided, True
        touched = self._table.update_node(decided.site, decided.ports_in_use)
        has_moved = decided.site.addresses != before.site.addresses
        moves_proxy = any(node.proxy != before.nodes[family].proxy for family, node in decided.nodes.items())
        return frozenset(touched) | frozenset(
            name
            for name, service in self._services.items()
            if any(
                (has_moved and port.source_ranges) or (binds and port.is_external) or (moves_proxy and port.is_proxied)
                for port in service.ports
            )
        )

    @property
    def is_behind(self) -> bool:
        """Whether the node's addresses have changed since the last committed update."""
        return self._is_behind

    @property
    def model(self) -> Model:
        """All current decisions."""
        return Model(
            node_name=self._node.name,
            nodes=self._node.nodes,
            services=dict(sorted(self._services.items())),
            sysctls=self._node.sysctls,
            timeouts=self._options.ipvs_timeouts if self._options.needs.has_virtual_servers else (0, 0, 0),
            warnings=self.warnings,
        )

    def compiled(self) -> Compiled:
        """Return everything as in a complete plan."""
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
        """Decide again about changed Services, and about those that share a frontend with them.

        Only the decisions are stored: fragments stay as in the kernel until `commit`. An update that was not committed
        becomes part of the next one, because Services that shared a frontend then may no longer do so.
        """
        self._put(names)
        return self._updated(self._unwritten)

    def update_beside(self, names: Iterable[ObjectName], other: Update) -> Update | None:
        """Decide about Services while another update is being written; both may then be committed in any order.

        Returns:
            None if one depends on the other, because they share a frontend or a kernel object. It then becomes part of
            the next update.
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
        """Read Services from the cluster; return all whose decisions may change."""
        touched: set[ObjectName] = set()
        for name in sorted(names):
            self._left_out.discard(name)
            touched |= self._table.put(name, self._cluster.service(name) if self._serves else None)
        self._unwritten |= touched
        return touched

    def _updated(self, names: Collection[ObjectName]) -> Update:
        """Return the update for Services whose decisions may have changed."""
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
        """The left-out Services: their state in the kernel stays until they are part of an update again."""
        return frozenset(self._left_out)

    @property
    def leaving(self) -> Collection[tuple[str, str, Any]]:
        """The draining real servers, as far as known: language, family and key of each."""
        return [
            (name, family.value, key)
            for family, memories in self._memories.items()
            for name, memory in memories.items()
            for key in memory.leaving
        ]

    @property
    def held(self) -> tuple[OwnedObjects, ...]:
        """The kernel state of the left-out Services, for another complete decision."""
        keys = ((family, name) for name in sorted(self._left_out) for family in self._families)
        return tuple(self._fragments[key] for key in keys if key in self._fragments)

    def leave_out(self, names: Iterable[ObjectName], there: Iterable[OwnedObjects] | None = None) -> None:
        """Leave Services out. With the next update, Services that share their addresses and ports get these.

        Args:
            names: Their names.
            there: Their state in the kernel, see `pinned`, if it is not known what was written last; of several entries
                for one Service and family, the last one counts. None for the last committed state.
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
        """Set the objects of an owner, for example to those in the kernel."""
        before = self._fragments.pop((family, name), None)
        put(self._unions[family], before, after)
        memories = self._memories[family]
        for language in {**(before.objects if before else {}), **(after.objects if after else {})}:
            memories[language].replaced(content_of(before, language), content_of(after, language))
        if after is not None:
            self._fragments[family, name] = after

    def _carried(self, before: OwnedObjects | None, after: OwnedObjects) -> OwnedObjects:
        """Return the desired objects of an owner, with the objects of its previous fragment that stay."""
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
        """Return the changes between fragments, and the node's own fragment if it changes too."""
        unions, memories = self._unions[family], self._memories[family]
        wants = {name: list(contents_of(name, pairs)) for name in self._backend.all_languages}
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
        """Store the state of the kernel from a complete plan, and drop what was stored before.

        This is the list of draining real servers, and of rules with other comments, such as kube-proxy's: a rule is
        deleted by its complete text.
        """
        self._former.clear()
        for family, memories in self._memories.items():
            contents = self._contents(family)
            for name, memory in memories.items():
                part = plan.parts.get(PartKey(family, name))
                self._adopt(family, name, memory.remember(part, contents[name]))
        self._note_written(plan)

    def _note_written(self, plan: Plan) -> None:
        """Store the state of the kernel after a plan was written."""
        for key, part in plan.parts.items():
            if key.family is not None and key.family in self._memories and not key.variant:
                self._memories[key.family][key.language].written(part, self._unions[key.family][key.language])

    def commit(self, update: Update, *, is_written: bool = True) -> None:
        """Record an update as written; otherwise the previous state stays, until `remember_kernel_state`."""
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
        """The Node object used for all decisions; None if there never was one."""
        return self._node.known

    @property
    def kept(self) -> tuple[str, ...]:
        """Warnings about values of an earlier Node object that stay in use."""
        return self._node.kept

    @property
    def nodes(self) -> Mapping[Family, ResolvedNode]:
        """Node-wide settings, by family."""
        return self._node.nodes

    @property
    def warnings(self) -> tuple[str, ...]:
        """Warnings for the user."""
        return (*self._node.warnings, *self._node.kept, *self._cluster.warnings, *self._table.warnings())

    @property
    def conflicts(self) -> tuple[Conflict, ...]:
        """Conflicts between two Services, or a Service and a program; `warnings` has them too."""
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
