"""From objects to a plan, for `plan`, `apply`, `export` and the agent; nothing here touches the host.

World ─ resolve ─► Model ─ compile, per Service ─► Fragments ─ union ─► desired ─ diff with observed ─► Plan
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from rulegen.backends.table import BACKENDS, Backend
from rulegen.compiler.services import guarded_parameters
from rulegen.diff import Change, diff
from rulegen.errors import ConfigError
from rulegen.languages.ipset import state as ipset
from rulegen.languages.ipset.script import TEMPORARY, replaced
from rulegen.languages.iptables.ruleset import ChainName, target
from rulegen.languages.iptables.state import BlockKey, ChainKey, Layout, wanted
from rulegen.languages.ipvs.state import Timeouts, VirtualServerKey
from rulegen.model.services.node.context import BE_LIBERAL, ROUTE_LOCALNET
from rulegen.model.services.stale_flows import FlowFrontend, StaleUdpPolicy, answering, stale_flows
from rulegen.net import Family, Protocol, parse_address, parse_network
from rulegen.ownership import chains, ipsets, virtual_servers
from rulegen.ownership.served import Served
from rulegen.plan.fragments import IPSET, IPVS, LINKS, Union
from rulegen.plan.plan import Plan, make_plan, plan_family, plan_objects, plan_sysctls

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from rulegen.languages.addresses.state import Links
    from rulegen.languages.iptables import state as iptables
    from rulegen.languages.iptables.ruleset import Ruleset
    from rulegen.languages.iptables.state import Key, Value, Wanted
    from rulegen.languages.ipvs import state as ipvs
    from rulegen.model.host.facts import HostFacts
    from rulegen.model.services.ir import Model
    from rulegen.model.services.stale_flows import Flow
    from rulegen.net import Address, Network
    from rulegen.plan.fragments import OwnedObjects
    from rulegen.plan.items import Item
    from rulegen.plan.plan import FamilyPlan, ObjectPlan

_UDP_FRONTEND = re.compile(
    r"(?:-d (?P<address>\S+)/\d+ )?-p udp (?:-m addrtype --dst-type LOCAL )?-m udp --dport (?P<port>\d+) "
)
_MATCH_SET = re.compile(r"--match-set (\S+) ")
_KIND_OF_DEVICE = "dummy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Compiled:
    """A model in the words of its backend.

    Attributes:
        fragments: By family, the node's first, then one for each Service in order of name.
        unions: By family, what the fragments come to in languages of keyed objects.
        counts: Whether rules count with nfacct.
    """

    model: Model
    backend: Backend
    fragments: Mapping[Family, Sequence[OwnedObjects]]
    unions: Mapping[Family, Union]
    counts: bool

    def rules(self, family: Family) -> list[iptables.RulesFragment]:
        """Return what the fragments want of iptables."""
        return [fragment.rules for fragment in self.fragments[family]]

    def objects(self, language: str) -> dict[Any, Any]:
        """Return all objects of one language, of all families."""
        return {key: value for union in self.unions.values() for key, value in union.objects(language).items()}


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """What the node has now; what is None was not looked at, and is not planned.

    Attributes:
        rulesets: By family; a family that is not here is not planned.
        flows: What conntrack remembers of UDP.
        counters: Names of the nfacct objects that are there.
        sets, servers: All ipsets and virtual servers, ours and others'.
        links: Our dummy device, if it is there, and what is bound to it.
        timeouts: How long IPVS remembers connections.
        beside: By family, the rules of the other variant of iptables, where chains of Kubernetes are among them.
    """

    rulesets: Mapping[Family, Ruleset]
    flows: Sequence[Flow] = ()
    counters: Collection[str] | None = None
    sets: Mapping[ipset.Key, ipset.Value] | None = None
    servers: Mapping[ipvs.Key, ipvs.Value] | None = None
    links: Links | None = None
    timeouts: Timeouts | None = None
    beside: Mapping[Family, Ruleset] = field(default_factory=lambda: MappingProxyType({}))


def backend_of(mode: str) -> Backend:
    """Return the backend of a mode.

    Raises:
        ConfigError: There is none.
    """
    backend = BACKENDS.get(mode)
    if backend is None:
        raise ConfigError(
            f"mode {mode!r} is not supported", hint=f"use --mode with one of: {', '.join(sorted(BACKENDS))}"
        )
    return backend


def compile_model(model: Model, mode: str, *, counts: bool) -> Compiled:
    """Return the fragments of every family that the model has."""
    backend = backend_of(mode)
    fragments, unions = {}, {}
    for family, node in model.nodes.items():
        own = [backend.compile_service(service, node, counts=counts) for service in model.services.values()]
        union = Union.of(own)
        first = backend.compile_node(node, counts=counts, filled=union.filled)
        union.replace(None, first)
        fragments[family], unions[family] = [first, *own], union
    return Compiled(model=model, backend=backend, fragments=fragments, unions=unions, counts=counts)


def with_held(compiled: Compiled, fragments: Iterable[OwnedObjects]) -> Compiled:
    """Return what is wanted, and what the node has of Services that are left out, see `pinned`."""
    by_family: dict[Family, list[OwnedObjects]] = {family: [] for family in compiled.fragments}
    for fragment in fragments:
        by_family[fragment.family].append(fragment)
    parts, unions = {}, {}
    for family, (_, *own) in compiled.fragments.items():
        union = Union.of([*own, *by_family[family]])
        node = compiled.model.nodes[family]
        first = compiled.backend.compile_node(node, counts=compiled.counts, filled=union.filled)
        union.replace(None, first)
        parts[family], unions[family] = [first, *own, *by_family[family]], union
    return replace(compiled, fragments=parts, unions=unions)


def plan_node(
    compiled: Compiled,
    observed: Observed,
    facts: HostFacts,
    service_cidrs: Iterable[str] = (),
    forgetting: StaleUdpPolicy = StaleUdpPolicy.ALL,
) -> Plan:
    """Return all that must change for the node to be as the model has it.

    Args:
        compiled: What is wanted.
        observed: What is there.
        facts: What the host is: its addresses tell flows to node ports, its parameters are compared.
        service_cidrs: Where ClusterIPs come from, if known.
        forgetting: Which stale UDP flows are forgotten.
    """
    model = compiled.model
    families: dict[Family, tuple[FamilyPlan, list[Item]]] = {}
    objects: dict[Family, tuple[ObjectPlan, list[Item]]] = {}
    decision = guarded_parameters.LoopbackDecision()
    served = Served(model.services.values())
    for family, ruleset in observed.rulesets.items():
        node, union = model.nodes[family], compiled.unions[family]
        layout = compiled.backend.layout(node, ruleset)
        there = _there(observed, family, union, {*facts.addresses(family), *facts.former}, node.ipvs.excluded)
        objects[family] = plan_objects(
            family,
            there,
            {language: _kept(language, union, there, ruleset, layout) for language in there},
            {language: union.owners(language) for language in there},
            served,
        )
        between = _between(compiled, family, there, objects[family][0])
        filled = ipset.filled(there.get(IPSET, ()))
        rules = wanted(compiled.rules(family))
        families[family] = plan_family(family, ruleset, rules, layout, between, owners=served, filled=filled)
        if family is Family.IPV4:
            decision = _loopback_of(families[family][0], observed, facts, model)
            if decision.keeps_guard:
                layout = layout.without(guarded_parameters.FIREWALL)
                families[family] = plan_family(family, ruleset, rules, layout, between, owners=served, filled=filled)
    missing = [
        name for name in compiled.backend.counters if observed.counters is not None and name not in observed.counters
    ]
    return make_plan(
        families,
        objects=objects,
        devices=_devices(observed, compiled.backend.devices),
        timeouts=_timeouts(observed, Timeouts(*model.timeouts)),
        sysctls=(
            *plan_sysctls(facts.sysctls, model.sysctls, always={BE_LIBERAL} if _writes_forward(families) else ()),
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
            gone={*_gone_frontends(part for part, _ in families.values()), *_gone_servers(objects.values())},
            service_networks=[parse_network(cidr) for cidr in service_cidrs],
            forgetting=forgetting,
        ),
    )


def step(before: iptables.RulesFragment | None, after: iptables.RulesFragment | None) -> tuple[Change[Key, Value], ...]:
    """Return the changes that turn what one owner had of iptables into what it wants: what changed, not what exists.

    It is the difference of the whole, seen where it is: rules in shared chains are counted, so what other owners want
    of the same stays. `rulegen.plan.fragments.Union.changes` is the same for other languages.
    """
    old, new = ((fragment,) if fragment is not None else () for fragment in (before, after))
    return diff(wanted(old).objects, wanted(new).objects)


def plan_cleanup(
    mode: str,
    observed: Observed,
    addresses: Collection[Address] = (),
    excluded: Sequence[Network] = (),
    *,
    facts: HostFacts | None = None,
    beside: str = "",
) -> Plan:
    """Return all that must go for nothing of ours to be left on the node, of any mode; what others share with us stays.

    Args:
        mode: Of which backend.
        observed: What is there.
        addresses: The node's own.
        excluded: Prefixes with virtual servers that are not ours.
        facts: The kernel's parameters; None where nobody looked, and none is changed.
        beside: The name of the other variant of iptables, whose rules go too; empty where they stay.
    """
    backend = backend_of(mode)
    families = _emptied(backend, observed.rulesets)
    others = _emptied(backend, observed.beside, beside) if beside else {}
    decision = _loopback_left(observed, facts, families, others)
    if decision.keeps_guard:
        families = _emptied(backend, observed.rulesets, keeps_guard=True)
        others = _emptied(backend, observed.beside, beside, keeps_guard=True) if beside else {}
    objects: dict[Family, tuple[ObjectPlan, list[Item]]] = {}
    for family, ruleset in observed.rulesets.items():
        there = _there(observed, family, Union(), addresses, excluded)
        layout = backend.cleanup_layout(ruleset)
        kept = {language: _kept(language, Union(), there, ruleset, layout) for language in there}
        if family in observed.beside and IPSET in there:  # a set that a rule looks into cannot go, in either variant
            other = observed.beside[family]
            layout = backend.cleanup_layout(other) if beside else _NOTHING_OURS
            kept[IPSET] = {**kept[IPSET], **_kept(IPSET, Union(), there, other, layout)}
        objects[family] = plan_objects(family, there, kept, {}, Served())
    return make_plan(
        families,
        objects=objects,
        devices=_devices(observed, ()),
        sysctls=tuple(filter(None, [decision.closing])),
        beside=others,
        notes=filter(None, [decision.note]),
    )


_NOTHING_OURS = Layout(chains={}, prefixes={})


def _emptied(
    backend: Backend, rulesets: Mapping[Family, Ruleset], variant: str = "", *, keeps_guard: bool = False
) -> dict[Family, tuple[FamilyPlan, list[Item]]]:
    """Return by family what must go of the rules; each item names the variant, if one is given."""
    families = {}
    for family, ruleset in rulesets.items():
        layout = backend.cleanup_layout(ruleset)
        if keeps_guard:
            layout = layout.without(guarded_parameters.FIREWALL)
        part, items = plan_family(family, ruleset, wanted(()), layout, owners=Served())
        items = [replace(item, drift=None, variant=variant) for item in items]
        families[family] = replace(part, switches=False), items
    return families


def _loopback_left(
    observed: Observed,
    facts: HostFacts | None,
    families: Mapping[Family, tuple[FamilyPlan, list[Item]]],
    others: Mapping[Family, tuple[FamilyPlan, list[Item]]],
) -> guarded_parameters.LoopbackDecision:
    """Return what becomes of the loopback prefix where nothing of ours is to be left."""
    if facts is None or Family.IPV4 not in families:
        return guarded_parameters.LoopbackDecision()
    goes = guarded_parameters.takes_guard(families[Family.IPV4][0].changes)
    goes_beside = Family.IPV4 in others and guarded_parameters.takes_guard(others[Family.IPV4][0].changes)
    return guarded_parameters.decide(
        facts,
        is_wanted=False,
        goes=goes or goes_beside,
        stays=not goes and guarded_parameters.is_guarded(observed.rulesets[Family.IPV4]),
        guarded_beside=not goes_beside and guarded_parameters.is_guarded(observed.beside.get(Family.IPV4)),
    )


def beside_warning(observed: Observed, variant: str) -> str:
    """Return what a user must know where the other variant of iptables has rules of a proxy; empty where it has none.

    Args:
        observed: What is there.
        variant: The variant that rules are written in: `nft` or `legacy`.
    """
    rules = sum(
        chains.is_proxys(name) or chains.is_proxys(ChainName(name.table, target(rule)))
        for ruleset in observed.beside.values()
        for name, rule in ruleset.rules()
    )
    if not rules:
        return ""
    other = "legacy" if variant == "nft" else "nft"
    return (
        f"iptables-{other} has {rules} rules of a Service proxy besides those in iptables-{variant}, and the kernel"
        f" applies both: stop that proxy, then remove its rules with `rulegen cleanup --variant {other}`"
    )


def counts_in(rulesets: Iterable[Ruleset]) -> bool:
    """Whether any rule of a dump counts with nfacct."""
    return any("--nfacct-name" in rule.spec for ruleset in rulesets for _, rule in ruleset.rules())


def without_sets(fragment: iptables.RulesFragment, names: Collection[str]) -> iptables.RulesFragment:
    """Return a fragment without the rules that look into one of the sets named."""

    def keeps(spec: str) -> bool:
        told = _MATCH_SET.search(spec)
        return told is None or told[1] not in names

    exact = {name: tuple(rule for rule in rules if keeps(rule.spec)) for name, rules in fragment.exact.items()}
    return replace(fragment, exact=exact)


def _there(
    observed: Observed,
    family: Family,
    union: Union,
    addresses: Collection[Address],
    excluded: Collection[Network],
) -> dict[str, Mapping[Any, Any]]:
    """Return by language what of ours is there in one family."""
    there: dict[str, Mapping[Any, Any]] = {}
    entries: ipset.Objects = {}
    bound = {}
    if observed.links is not None:
        told = observed.links.addresses
        bound = {
            key: value for key, value in told.items() if key.family is family and key.device == virtual_servers.DEVICE
        }
        there[LINKS] = bound
    if observed.sets is not None:
        names = ipsets.names(family)
        if family is next(iter(observed.rulesets)):  # it is neither's, and must be gone before the first is written
            names += (TEMPORARY,)
        there[IPSET] = entries = ipset.found(observed.sets, names)
    if observed.servers is not None:
        there[IPVS] = virtual_servers.found(
            observed.servers,
            family,
            entries=entries,
            bound={*bound, *union.objects(LINKS)},
            wanted=union.objects(IPVS),
            node_addresses=addresses,
            excluded=excluded,
        )
    return there


def _kept(
    language: str, union: Union, there: Mapping[str, Mapping[Any, Any]], ruleset: Ruleset, layout: Layout
) -> Mapping[Any, Any]:
    """Return what is wanted of one language, and the sets, empty, that others' rules look into: they cannot go.

    Where a table is unknown, so is which sets its rules look into: all stay.
    """
    desired = union.objects(language)
    if language != IPSET:
        return desired
    if ruleset.unknown:
        return {**{key: value for key, value in there[IPSET].items() if isinstance(key, ipset.SetKey)}, **desired}
    names = {
        told[1]
        for name, rule in ruleset.rules()
        if "--match-set" in rule.spec and layout.kind(name) is None and (told := _MATCH_SET.search(f"{rule.spec} "))
    }
    for name in names:
        key = ipset.SetKey(name)
        if key in there[IPSET] and key not in desired:
            desired[key] = there[IPSET][key]
    return desired


def _between(
    compiled: Compiled, family: Family, there: Mapping[str, Mapping[Any, Any]], plan: ObjectPlan
) -> Wanted | None:
    """Return the rules that are right while sets change: for sets filled before or after, none for one made anew."""
    if IPSET not in there:
        return None
    union, node = compiled.unions[family], compiled.model.nodes[family]
    filled = union.filled | ipset.filled(there[IPSET])
    anew = replaced(plan.changes.get(IPSET, ()))
    if filled == union.filled and not anew:
        return None
    first = compiled.backend.compile_node(node, counts=compiled.counts, filled=filled).rules
    if anew:
        first = without_sets(first, anew)
    return wanted([first, *compiled.rules(family)[1:]])


def _devices(observed: Observed, desired: Collection[str]) -> tuple[Change[str, str], ...]:
    if observed.links is None:
        return ()
    there = {name: kind for name, kind in observed.links.devices.items() if name == virtual_servers.DEVICE}
    return diff(there, dict.fromkeys(desired, _KIND_OF_DEVICE))


def _timeouts(observed: Observed, desired: Timeouts) -> Change[str, Timeouts] | None:
    if observed.timeouts is None or not any(desired):
        return None
    after = Timeouts(*(told or now for told, now in zip(desired, observed.timeouts, strict=True)))
    return Change("IPVS", observed.timeouts, after) if after != observed.timeouts else None


def _writes_forward(families: Mapping[Family, tuple[FamilyPlan, list[Item]]]) -> bool:
    """Whether the chain that may hold the rule for INVALID packets is written: then it matters what makes up for it."""
    key = ChainKey(chains.filter_(chains.FORWARD))
    return any(change.key == key for part, _ in families.values() for change in part.changes)


def _loopback_of(
    part: FamilyPlan, observed: Observed, facts: HostFacts, model: Model
) -> guarded_parameters.LoopbackDecision:
    """Return what becomes of the loopback prefix where a mode that needs it open has left it so."""
    ruleset = observed.rulesets[Family.IPV4]
    goes = guarded_parameters.takes_guard(part.changes)
    return guarded_parameters.decide(
        facts,
        is_wanted=ROUTE_LOCALNET in model.sysctls,
        goes=goes,
        stays=part.switches and not goes and guarded_parameters.is_guarded(ruleset),
        guarded_beside=guarded_parameters.is_guarded(observed.beside.get(Family.IPV4)),
    )


def _gone_frontends(parts: Iterable[FamilyPlan]) -> Iterator[FlowFrontend]:
    """Yield the UDP frontends whose rules the plan takes away without putting others in their place."""
    for part in parts:
        kept = {f for key in part.desired if isinstance(key, BlockKey) for f in _frontends(key)}
        for change in part.changes:
            if change.after is None and isinstance(change.key, BlockKey):
                yield from (frontend for frontend in _frontends(change.key) if frontend not in kept)


def _gone_servers(parts: Iterable[tuple[ObjectPlan, list[Item]]]) -> Iterator[FlowFrontend]:
    """Yield the UDP frontends whose virtual servers the plan takes away."""
    for part, _ in parts:
        for change in part.changes.get(IPVS, ()):
            key = change.key
            if change.after is None and isinstance(key, VirtualServerKey) and key.frontend.protocol is Protocol.UDP:
                yield FlowFrontend(key.frontend.address, key.frontend.port)


def _frontends(key: BlockKey) -> Iterator[FlowFrontend]:
    for spec in key.specs:
        found = _UDP_FRONTEND.search(f"{spec} ")
        if found:
            address = found["address"]
            yield FlowFrontend(parse_address(address) if address else None, int(found["port"]))
