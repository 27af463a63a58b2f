"""One change: a Service is decided and compiled anew, and the difference is what must be written.

The same functions as for the whole, and the same fragments; only what a change touches is looked at.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from rulegen.compiler.services.compile import Compiled, backend_of, step
from rulegen.compiler.services.node_decisions import decide_node
from rulegen.compiler.services.rule_text import adopted, carried, copies_of, written
from rulegen.diff import Change
from rulegen.languages.iptables.script import Comments, comments_of
from rulegen.languages.ipvs.script import as_drains
from rulegen.languages.ipvs.state import DRAINING, RealServer, RealServerKey
from rulegen.model.services.ir import Model
from rulegen.model.services.table import ServiceTable
from rulegen.plan.fragments import IPSET, IPVS, Union
from rulegen.plan.plan import FamilyPlan, ObjectPlan, Plan

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from rulegen.kube.objects import structs
    from rulegen.kube.objects.names import ObjectName
    from rulegen.kube.snapshot.cluster import Cluster
    from rulegen.languages.iptables import state as iptables
    from rulegen.languages.iptables.state import Key, Value
    from rulegen.model.host.facts import HostFacts
    from rulegen.model.services.conflicts import Conflict
    from rulegen.model.services.ir import ResolvedNode, ResolvedService
    from rulegen.model.services.options import Options
    from rulegen.net import Family
    from rulegen.plan.fragments import OwnedObjects

NODE = None
"""What the node's own fragment is kept under."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """What changes of some Services come to.

    Attributes:
        plan: What must be written, without items for people.
        fragments: What the Services want now, and the node where that changes with them; None where they are gone.
        services: The Services as they are served now; None where they are gone.
        nodes: What holds for all Services, by family.
    """

    plan: Plan
    fragments: Mapping[tuple[Family, ObjectName | None], OwnedObjects | None]
    services: Mapping[ObjectName, ResolvedService | None]
    nodes: Mapping[Family, ResolvedNode]

    @property
    def changes(self) -> Mapping[Family, tuple[Change[Key, Value], ...]]:
        """Changes of rules by family; a family without any is not in it."""
        return {family: part.changes for family, part in self.plan.iptables.items() if part.changes}


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
    ) -> None:
        """Decide about all Services of a cluster.

        Args:
            cluster: Has them, and the Node.
            options: What is wanted of the node.
            facts: What the host is.
            counts: Whether rules count with nfacct.
            known: The Node object that held until now; see `rulegen.model.services.node.known_node`.

        Raises:
            ConfigError: There is no backend for the mode.
        """
        self._cluster = cluster
        self._options = options
        self._backend = backend_of(options.mode)
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
        self._unions: dict[Family, Union] = {}
        self._leaving: dict[RealServerKey, RealServer] = {}
        self._timeouts = options.ipvs_timeouts if options.mode == "ipvs" else (0, 0, 0)
        for family, node in nodes.items():
            union = self._unions[family] = Union()
            for service, found in self._services.items():
                fragment = self._backend.compile_service(found, node, counts=counts)
                self._fragments[family, service] = fragment
                union.replace(None, fragment)
            first = self._backend.compile_node(node, counts=counts, filled=union.filled)
            self._fragments[family, NODE] = first
            union.replace(None, first)
        self._chains = dict.fromkeys(nodes, 0)
        for (family, _), one in self._fragments.items():
            self._chains[family] += len(one.rules.exact)
        self._comments: dict[Family, Comments] = {f: comments_of(count) for f, count in self._chains.items()}

    @property
    def has_outgrown(self) -> bool:
        """Whether there are so many chains more, or fewer, that a plan of the whole would write other comments."""
        return any(comments_of(count) is not self._comments[family] for family, count in self._chains.items())

    def settle_comments(self) -> None:
        """Write from now on the comments that a plan of the whole would, and keep in mind which are there.

        Not while an update is being written: what it writes has the comments of before.
        """
        for family, count in self._chains.items():
            before, after = self._comments[family], comments_of(count)
            self._comments[family] = after
            if before is after or Comments.NOWHERE not in {before, after}:  # rules of shared chains are written alike
                continue
            for key in [key for key in self._fragments if key[0] is family]:
                fragment = self._fragments[key]
                self._fragments[key] = replace(fragment, rules=written(fragment.rules, before))

    def follow(self, facts: HostFacts) -> frozenset[ObjectName] | None:
        """Take the host and the Node as they are now; where only addresses differ, the next update writes what follows.

        Returns:
            The Services that must be part of that update; None where all must be decided anew.
        """
        before, binds = self._node, bool(self._backend.devices)
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
            timeouts=self._timeouts,
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
            unions={family: union.copy() for family, union in self._unions.items()},
            counts=self._counts,
        )

    def update(self, names: Iterable[ObjectName]) -> Update:
        """Decide anew about Services that something happened to, and about those that they share a claim with.

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
        shares = any((family, NODE) in one.fragments for one in (update, other) for family in self._families)
        return None if shares or _meets(update, other) or _meets(other, update) else update

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
        rules: dict[Family, FamilyPlan] = {}
        objects: dict[Family, ObjectPlan] = {}
        for family, node in self._node.nodes.items():
            for name, service in services.items():
                before = self._fragments.get((family, name))
                after = self._backend.compile_service(service, node, counts=self._counts) if service else None
                fragments[family, name] = after and _carried(before, after)
            pairs = [(self._fragments.get((family, name)), fragments[family, name]) for name in services]
            rules[family], objects[family], first = self._family_update(family, pairs)
            if first is not None:
                fragments[family, NODE] = first
        plan = Plan(iptables=rules, objects=objects)
        return Update(plan=plan, fragments=fragments, services=services, nodes=self._node.nodes)

    @property
    def left_out(self) -> frozenset[ObjectName]:
        """The Services that are left out: what the kernel has of them stays, until they are part of an update again."""
        return frozenset(self._left_out)

    @property
    def leaving(self) -> Collection[RealServerKey]:
        """The real servers on their way out, as far as it is known: nothing wants them."""
        return self._leaving.keys()

    @property
    def held(self) -> tuple[OwnedObjects, ...]:
        """What the kernel has of the Services that are left out, for whoever decides all anew."""
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
            first = self._backend.compile_node(node, counts=self._counts, filled=self._unions[family].filled)
            self._replace(family, NODE, first)

    def _replace(self, family: Family, name: ObjectName | None, after: OwnedObjects | None) -> None:
        """Have an owner want something else, as what the kernel has."""
        before = self._fragments.pop((family, name), None)
        self._unions[family].replace(before, after)
        self._chains[family] -= len(before.rules.exact) if before else 0
        if after is not None:
            self._fragments[family, name] = after
            self._chains[family] += len(after.rules.exact)

    def _family_update(
        self, family: Family, pairs: Sequence[tuple[OwnedObjects | None, OwnedObjects | None]]
    ) -> tuple[FamilyPlan, ObjectPlan, OwnedObjects | None]:
        """Return what fragments in place of others come to, and the node's own fragment where it changes with them."""
        union, comments = self._unions[family], self._comments[family]
        rules = [change for before, after in pairs for change in step(_rules(before), _rules(after))]
        changes = union.changes(pairs)
        if IPVS in changes:
            known = (self._with_leaving(change) for change in changes[IPVS])
            changes[IPVS] = tuple(as_drains(known))
        had, has = union.filled, union.filled_after(changes.get(IPSET, ()))
        if had == has and not self._is_behind:
            return FamilyPlan(tuple(rules), {}, comments=comments), ObjectPlan(changes), None
        old = self._fragments[family, NODE]
        middle, first = (
            self._backend.compile_node(self._node.nodes[family], counts=self._counts, filled=filled)
            for filled in (had | has, has)
        )
        middle = _carried(old, middle)
        first = _carried(middle, first)
        there, on = step(old.rules, middle.rules), step(middle.rules, first.rules)
        bridge = ((*there, *rules), on) if on else None
        part = FamilyPlan((*step(old.rules, first.rules), *rules), {}, bridge, comments=comments)
        return part, ObjectPlan(changes), first

    def _with_leaving(self, change: Change[Any, Any]) -> Change[Any, Any]:
        """Return a change, told that its real server is still there where it is on its way out."""
        if change.before is None and change.key in self._leaving:
            return Change(change.key, self._leaving[change.key], change.after)
        return change

    def remember_kernel_state(self, plan: Plan) -> None:
        """Keep in mind what a plan of the whole tells of the kernel, and nothing that was kept before.

        Which real servers are on their way out; and which rules have other comments than ours, as those of kube-proxy
        do: a rule is deleted by its whole text.
        """
        self._former.clear()
        for family, part in plan.iptables.items():
            self._comments[family] = part.comments
            there = copies_of(part.printed)
            for key in [key for key in self._fragments if key[0] is family] if there else ():
                fragment = self._fragments[key]
                self._fragments[key] = replace(fragment, rules=adopted(fragment.rules, there))
        self._leaving = {key: RealServer(DRAINING) for key in plan.draining}
        self._drain_of(plan)

    def _drain_of(self, plan: Plan) -> None:
        """Keep in mind which real servers a plan that was written puts on their way out, or brings back."""
        for part in plan.objects.values():
            for change in part.changes.get(IPVS, ()):
                self._drain(change)

    def _drain(self, change: Change[Any, Any]) -> None:
        key, _, after = change
        if not isinstance(key, RealServerKey):
            if after is None:
                self._leaving = {k: v for k, v in self._leaving.items() if k.frontend != key.frontend}
            return
        union = self._unions[key.frontend.family]
        if isinstance(after, RealServer) and after.weight == DRAINING and not union.wants(IPVS, key):
            self._leaving[key] = after
        else:
            self._leaving.pop(key, None)

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
        self._drain_of(update.plan)

    @property
    def node_name(self) -> str:
        """The node's name."""
        return self._node.name

    @property
    def known(self) -> structs.Node | None:
        """The Node object that all was decided with; None where there never was one."""
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
        """What a user must be told although work goes on."""
        return (*self._node.warnings, *self._node.kept, *self._cluster.warnings, *self._table.warnings())

    @property
    def conflicts(self) -> tuple[Conflict, ...]:
        """What two Services have, or a Service and somebody else; `warnings` has it too."""
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


def _carried(before: OwnedObjects | None, after: OwnedObjects) -> OwnedObjects:
    """Return what an owner wants now, with the rules that stay as its fragment of before has them."""
    return after if before is None else replace(after, rules=carried(before.rules, after.rules))


def _meets(one: Update, other: Update) -> bool:
    """Whether an object of the kernel goes by one update that the other wants."""
    goes = {
        (language, change.key)
        for part in one.plan.objects.values()
        for language, changes in part.changes.items()
        for change in changes
        if change.after is None
    }
    wanted = (fragment.objects for fragment in other.fragments.values() if fragment is not None)
    return bool(goes) and any(
        (language, key) in goes for objects in wanted for language, found in objects.items() for key in found
    )


def _rules(fragment: OwnedObjects | None) -> iptables.RulesFragment | None:
    return fragment.rules if fragment is not None else None
