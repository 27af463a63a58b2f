"""From desired and observed state to a plan, for `plan`, `apply` and the agent; nothing here touches the host."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from rulegen.compiler.services import guarded_parameters
from rulegen.compiler.services.compile import merge
from rulegen.compiler.tables import TABLES, Tables
from rulegen.languages.iptables.state import ChainKey, Layout
from rulegen.languages.language import References, Scene
from rulegen.model.services.node.context import BE_LIBERAL, ROUTE_LOCALNET
from rulegen.model.services.stale_flows import FlowFrontend, StaleUdpPolicy, answering, stale_flows
from rulegen.net import Family, Protocol, parse_network
from rulegen.ownership import chains
from rulegen.ownership.served import Served
from rulegen.ownership.surroundings import NodeSurroundings
from rulegen.ownership.table import OwnershipContext
from rulegen.plan.plan import PartKey, make_plan, plan_sysctls

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from rulegen.backends.backend import Backend
    from rulegen.compiler.services.compile import Compiled, Unions
    from rulegen.compiler.services.observed import Observed
    from rulegen.diff.items import Item
    from rulegen.languages.language import Changes, Objects, Part
    from rulegen.model.host.facts import HostFacts
    from rulegen.model.services.ir import ResolvedNode
    from rulegen.net import Address, Network
    from rulegen.plan.plan import Plan

Planned = dict[PartKey, "tuple[Part, Callable[[], Iterable[Item]]]"]
"""The parts of a plan, each with what yields its items."""


def plan_node(
    compiled: Compiled,
    observed: Observed,
    facts: HostFacts,
    service_cidrs: Iterable[str] = (),
    stale_udp: StaleUdpPolicy = StaleUdpPolicy.ALL,
) -> Plan:
    """Return all changes that the node needs for a model.

    Args:
        compiled: The desired state.
        observed: The observed state.
        facts: Facts of the host: its addresses identify flows to node ports, its parameters are compared.
        service_cidrs: Ranges of ClusterIPs, if known.
        stale_udp: Which stale UDP flows are deleted from conntrack.
    """
    model, backend = compiled.model, compiled.backend
    planner = _Planner(
        tables=compiled.tables,
        backend=backend,
        observed=observed,
        served=Served(model.services.values()),
        nodes=model.nodes,
        unions=compiled.unions,
        host_objects=backend.compile_host(model),
        addresses={family: {*facts.addresses(family), *facts.former} for family in model.nodes},
        excluded={family: node.ipvs.excluded for family, node in model.nodes.items()},
        counts=compiled.counts,
    )
    parts = planner.plan()
    decision = _loopback_of(parts, observed, facts, compiled.tables, is_wanted=ROUTE_LOCALNET in model.sysctls)
    if decision.keeps_guard:
        planner.keeps_guard = True
        parts = planner.plan()
    missing = [name for name in backend.counters if observed.counters is not None and name not in observed.counters]
    return make_plan(
        parts,
        sysctls=(
            *plan_sysctls(facts.sysctls, model.sysctls, always={BE_LIBERAL} if _writes_forward(parts) else ()),
            *filter(None, [decision.closing]),
        ),
        notes=filter(None, [decision.note]),
        counters=tuple(missing) if compiled.counts else (),
        flows=stale_flows(
            observed.flows,
            model.services.values(),
            node_addresses=answering(
                model.nodes, [address for family in model.nodes for address in facts.addresses(family)]
            ),
            gone=set(_frontends_removed(parts, compiled.tables)),
            service_networks=[parse_network(cidr) for cidr in service_cidrs],
            stale_udp=stale_udp,
        ),
    )


def plan_cleanup(
    mode: str,
    observed: Observed,
    addresses: Collection[Address] = (),
    excluded: Sequence[Network] = (),
    *,
    facts: HostFacts | None = None,
    beside: str = "",
    tables: Tables = TABLES,
) -> Plan:
    """Return the removal of all state of rulegen, in all modes; objects shared with other programs stay.

    Args:
        mode: The mode whose ownership has priority; for other languages, that of all other modes is used.
        observed: The observed state.
        addresses: The node's own.
        excluded: Prefixes whose virtual servers belong to other programs.
        facts: The kernel's parameters; None if they were not read; then none is changed.
        beside: Name of the other iptables variant if its rules are removed too; else empty.
        tables: The known languages and backends.
    """
    planner = _Planner(
        tables=tables,
        backend=_all_that_is_ours(mode, tables),
        observed=observed,
        served=Served(),
        nodes={},
        unions={family: merge((), tables) for family in observed.families},
        host_objects={},
        addresses=dict.fromkeys(observed.families, addresses),
        excluded=dict.fromkeys(observed.families, excluded),
        counts=False,
        beside=beside,
    )
    parts = planner.plan()
    decision = _loopback_left(parts, observed, facts, tables)
    if decision.keeps_guard:
        planner.keeps_guard = True
        parts = planner.plan()
    return make_plan(
        parts,
        sysctls=tuple(filter(None, [decision.closing])),
        notes=filter(None, [decision.note]),
    )


def _all_that_is_ours(mode: str, tables: Tables) -> Backend:
    """Return a backend that recognises the objects of all modes."""
    backend = tables.backends.get(mode) or next(iter(tables.backends.values()))
    ownership = {name: of for other in tables.backends.values() for name, of in other.ownership.items()}
    return msgspec.structs.replace(backend, ownership={**ownership, **backend.ownership})


@dataclass(kw_only=True)
class _Planner:
    """Compares desired and observed state, family by family.

    Attributes:
        nodes: Node-wide settings by family; empty to remove everything.
        addresses: Current and former addresses of the node, by family.
        beside: Name of the other iptables variant if its rules are removed too; else empty.
        keeps_guard: Whether the rule that protects the loopback prefix stays.
    """

    tables: Tables
    backend: Backend
    observed: Observed
    served: Served
    nodes: Mapping[Family, ResolvedNode]
    unions: Mapping[Family, Unions]
    host_objects: Mapping[str, Mapping[Any, Any]]
    addresses: Mapping[Family, Collection[Address]]
    excluded: Mapping[Family, Sequence[Network]]
    counts: bool
    beside: str = ""
    keeps_guard: bool = False

    def plan(self) -> Planned:
        """Return all parts in display order: by language, then by family."""
        parts: Planned = {}
        for family in self.observed.families:
            parts.update(_OfFamily(self, family).plan())
        parts.update(_OfFamily(self, None).plan())
        ranks = {name: rank for rank, name in enumerate(self.tables.languages)}
        families = {family: rank for rank, family in enumerate((None, *self.observed.families))}
        order = sorted(parts, key=lambda key: (ranks[key.language], key.variant, families[key.family]))
        return {key: parts[key] for key in order}


@dataclass
class _OfFamily:
    """The comparison of one family, or of objects without a family."""

    all: _Planner
    family: Family | None
    ours: dict[str, Objects] = field(default_factory=dict)
    desired: dict[str, Objects] = field(default_factory=dict)
    ownership: dict[str, Any] = field(default_factory=dict)

    def plan(self) -> Planned:
        """Return the parts of the family, in any order."""
        self._observe()
        references = self._references()
        for name, objects in self.ours.items():
            self.desired[name] = self.all.tables.languages[name].pinned(self.desired[name], objects, references)
        unions = self._unions
        owners = {name: unions[name].owners() for name in self.ours} if self.family is not None else {}
        around = NodeSurroundings(self.ours, self.desired, owners, self.all.served)
        parts: Planned = {}
        changes: dict[str, Changes] = {}
        for name in self.ours:
            language = self.all.tables.languages[name]
            scene = Scene(
                family=self.family,
                state=self.all.observed.state(name, self.family),
                ours=self.ours,
                desired=self.desired,
                owners=owners,
                ownership=self.ownership[name],
                between=self._between(name, changes),
                around=around,
                is_cleanup=self._is_cleanup,
            )
            part = language.compare(scene)
            changes[name] = part.changes
            items: Callable[[], Iterable[Item]] = partial(language.items, part, scene)
            if self._is_cleanup:
                items = partial(_without_drift, items)
            if self.family is not None or part.changes:
                parts[PartKey(self.family, name)] = part, items
        return {**parts, **self._beside(around)}

    @property
    def _unions(self) -> Unions:
        return self.all.unions[self.family] if self.family is not None else {}

    @property
    def _is_cleanup(self) -> bool:
        return not self.all.nodes

    def _context(self, state: Any) -> OwnershipContext:
        families = self.all.observed.families
        return OwnershipContext(
            family=self.family,
            is_first=bool(families) and self.family is families[0],
            node=self.all.nodes.get(self.family) if self.family is not None else None,
            state=state,
            ours=self.ours,
            desired=self.desired,
            node_addresses=self.all.addresses[self.family] if self.family is not None else (),
            excluded=self.all.excluded[self.family] if self.family is not None else (),
            keeps_guard=self.all.keeps_guard and self.family is Family.IPV4,
        )

    def _observe(self) -> None:
        """Find the observed and desired objects of rulegen in all observed languages."""
        unions = self._unions
        names = [name for name in self.all.backend.ownership if name in self.all.tables.languages]
        self.desired = {
            name: unions[name].objects() if self.family is not None else dict(self.all.host_objects.get(name, {}))
            for name in names
        }
        for name in names:
            state = self.all.observed.state(name, self.family)
            if state is None:
                continue
            ownership = self.all.backend.ownership[name](self._context(state))
            ours = self.all.tables.languages[name].ours(state, ownership, self.desired[name])
            if ours is not None:
                self.ownership[name], self.ours[name] = ownership, ours

    def _references(self) -> References:
        """Return names that foreign objects refer to, in both variants: these cannot be deleted."""
        references = References()
        for name, ownership in self.ownership.items():
            language, state = self.all.tables.languages[name], self.all.observed.state(name, self.family)
            references = references.merged_with(language.references(state, ownership))
            beside = self._state_beside(name)
            if beside is not None:
                other = self.all.backend.ownership[name](self._context(beside)) if self.all.beside else _NOTHING_OURS
                references = references.merged_with(language.references(beside, other))
        return references

    def _state_beside(self, name: str) -> Any:
        """Return the rules of the other variant, if they belong to this language and everything is to be removed."""
        if not self._is_cleanup or self.family is None or (name, self.family) not in self.all.observed.states:
            return None
        if not self.all.tables.languages[name].has_variants:
            return None
        return self.all.observed.beside.get(self.family)

    def _between(self, name: str, changes: Mapping[str, Changes]) -> Objects | None:
        """Return the desired state of a language while the languages before it change."""
        compile_between, family = self.all.backend.compile_between, self.family
        if compile_between is None or family is None or family not in self.all.nodes or name != list(self.ours)[-1]:
            return None
        node, unions = self.all.nodes[family], self._unions
        middle = compile_between(node, counts=self.all.counts, unions=unions, ours=self.ours, changes=changes)
        if middle is None or name not in middle.objects:
            return None
        union = unions[name].copy()
        union.replace(middle.owner, None, middle.objects[name])
        return union.objects()

    def _beside(self, around: NodeSurroundings) -> Planned:
        """Return what is removed from the other iptables variant."""
        parts: Planned = {}
        for name in self.ours if self.all.beside else ():
            state = self._state_beside(name)
            if state is None:
                continue
            language = self.all.tables.languages[name]
            ownership = self.all.backend.ownership[name](self._context(state))
            scene = Scene(
                family=self.family,
                state=state,
                ours={name: language.ours(state, ownership, {}) or {}},
                desired={name: {}},
                owners={},
                ownership=ownership,
                around=around,
                is_cleanup=True,
            )
            part = language.compare(scene)
            items = partial(_without_drift, partial(language.items, part, scene), variant=self.all.beside)
            parts[PartKey(self.family, name, self.all.beside)] = part, items
        return parts


def _without_drift(items: Callable[[], Iterable[Item]], variant: str = "") -> Iterator[Item]:
    """Yield items of a removal."""
    return (replace(item, drift=None, variant=variant) for item in items())


_NOTHING_OURS = Layout(chains={}, prefixes={})


class _Loopback(msgspec.Struct, frozen=True):
    """The rules that protect the IPv4 loopback prefix from other hosts, in nftables and in both iptables variants.

    Attributes:
        goes: Whether the plan removes one of them, not from the other variant.
        goes_beside: Whether the plan removes the rule from the other variant.
        stays: Whether the plan keeps one of them, regardless of the program that wrote it.
        is_beside: Whether the rule exists in the other variant.
        chain: The chain of the rule that stays, else of the one that goes; empty for none.
    """

    goes: bool
    goes_beside: bool
    stays: bool
    is_beside: bool
    chain: str

    @classmethod
    def of(cls, parts: Planned, observed: Observed, tables: Tables) -> _Loopback:
        """Return the state of the rule in all languages."""
        gone = {
            (key.language, bool(key.variant))
            for key, (part, _) in parts.items()
            if key.family is Family.IPV4 and tables.languages[key.language].unguards_loopback(part.changes)
        }
        chains = {
            name: chain
            for (name, family), state in observed.states.items()
            if family is Family.IPV4 and (chain := tables.languages[name].guards_loopback(state))
        }
        staying = [name for name in chains if (name, False) not in gone]
        beside = observed.beside.get(Family.IPV4)
        with_variants = [row for row in tables.languages.values() if row.has_variants]
        return cls(
            goes=any(not is_beside for _, is_beside in gone),
            goes_beside=any(is_beside for _, is_beside in gone),
            stays=bool(staying),
            is_beside=beside is not None and any(row.guards_loopback(beside) for row in with_variants),
            chain=next((chains[name] for name in (*staying, *chains)), ""),
        )


def _loopback_of(
    parts: Planned, observed: Observed, facts: HostFacts, tables: Tables, *, is_wanted: bool
) -> guarded_parameters.LoopbackDecision:
    """Return what happens to the loopback prefix after a mode that opened it."""
    if Family.IPV4 not in observed.families:
        return guarded_parameters.LoopbackDecision()
    guard = _Loopback.of(parts, observed, tables)
    switches = any(part.takes_over for key, (part, _) in parts.items() if key.family is Family.IPV4)
    return guarded_parameters.decide(
        facts,
        is_wanted=is_wanted,
        goes=guard.goes,
        stays=(switches or guard.goes) and guard.stays,
        guarded_beside=guard.is_beside,
        chain=guard.chain,
    )


def _loopback_left(
    parts: Planned, observed: Observed, facts: HostFacts | None, tables: Tables
) -> guarded_parameters.LoopbackDecision:
    """Return what happens to the loopback prefix if everything is removed."""
    if facts is None or Family.IPV4 not in observed.families:
        return guarded_parameters.LoopbackDecision()
    guard = _Loopback.of(parts, observed, tables)
    return guarded_parameters.decide(
        facts,
        is_wanted=False,
        goes=guard.goes or guard.goes_beside,
        stays=guard.stays,
        guarded_beside=not guard.goes_beside and guard.is_beside,
        chain=guard.chain,
    )


def _writes_forward(parts: Planned) -> bool:
    """Whether the plan writes the chain of the rule that drops INVALID packets, so that its sysctl matters."""
    key = ChainKey(chains.filter_(chains.FORWARD))
    return any(change.key == key for part, _ in parts.values() for change in part.changes)


def _frontends_removed(parts: Planned, tables: Tables) -> Iterator[FlowFrontend]:
    """Yield the UDP frontends that the plan removes without a replacement."""
    for key, (part, _) in parts.items():
        for frontend in tables.languages[key.language].frontends_removed(part):
            if frontend.protocol is Protocol.UDP:
                yield FlowFrontend(frontend.address, frontend.port)
