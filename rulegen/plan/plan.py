"""A plan: all that must change on the node, as data; `make_plan` finds it, nothing here makes it so."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from rulegen.diff import Change, diff
from rulegen.languages.ipset.state import needs_resize
from rulegen.languages.iptables.script import Comments, comment_of, comments_of, settled, written_anew
from rulegen.languages.iptables.state import (
    BlockKey,
    BlockValue,
    ChainKey,
    ChainValue,
    Kind,
    Objects,
    Wanted,
    found,
    referred_by_others,
    understood,
)
from rulegen.languages.ipvs.script import as_drains, draining
from rulegen.plan import iptables, objects
from rulegen.plan.fragments import IPSET, IPVS
from rulegen.plan.items import Action, Item, Line

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from rulegen.languages.iptables.ruleset import Ruleset
    from rulegen.languages.iptables.state import Key, Layout, Value
    from rulegen.languages.ipvs.state import RealServerKey, Timeouts
    from rulegen.model.services.stale_flows import Stale
    from rulegen.net import Family
    from rulegen.plan.fragments import Changes
    from rulegen.plan.ingress import IngressPlan
    from rulegen.plan.items import Owners


@dataclass(frozen=True, slots=True)
class FamilyPlan:
    """What changes in the iptables of one family.

    Attributes:
        changes: In order of key.
        desired: All objects that are wanted.
        bridge: Where the rules must pass through a state between, since the sets that they look into change: the
            changes to there, and those from there on. Else None, and `changes` is all.
        switches: Whether another mode has ruled here: then all that answers must be ready before the rules change.
        comments: Which rules are written with their comments.
        printed: Blocks that are wanted, as the kernel has them once the changes are written, where their comments are
            not those that `comments` asks for.
    """

    changes: tuple[Change[Key, Value], ...]
    desired: Objects
    bridge: tuple[tuple[Change[Key, Value], ...], tuple[Change[Key, Value], ...]] | None = None
    switches: bool = False
    comments: Comments = Comments.EVERYWHERE
    printed: Mapping[BlockKey, BlockValue] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class ObjectPlan:
    """What changes of sets, servers and addresses in one family.

    Attributes:
        changes: By language, in order of key.
        desired: By language, all that is wanted; empty where that is not needed to make the changes.
        draining: Real servers that are on their way out, about which nothing is to be done yet.
        ended: Those whose connections have ended: they are deleted.
    """

    changes: Mapping[str, Changes]
    desired: Mapping[str, Mapping[Any, Any]] = field(default_factory=lambda: MappingProxyType({}))
    draining: tuple[RealServerKey, ...] = ()
    ended: tuple[RealServerKey, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All that must change.

    Attributes:
        iptables: By family.
        objects: Sets, servers and addresses, by family.
        devices: Dummy devices to create or delete: name to kind.
        timeouts: How long IPVS is to remember connections; None where that stays.
        sysctls: Kernel parameters, by dotted name.
        counters: Names of nfacct objects to create.
        flows: Conntrack entries to delete, behind everything else.
        site: What changes for the ingress engine; None where it is not planned.
        beside: Rules of the other variant of iptables, by family, which go (`cleanup` only).
        notes: What stays although one might expect it to go, and why, for people.
        items: The same, for people and machines, in the order in which it is shown.
    """

    iptables: Mapping[Family, FamilyPlan] = field(default_factory=lambda: MappingProxyType({}))
    objects: Mapping[Family, ObjectPlan] = field(default_factory=lambda: MappingProxyType({}))
    devices: tuple[Change[str, str], ...] = ()
    timeouts: Change[str, Timeouts] | None = None
    sysctls: tuple[Change[str, str], ...] = ()
    counters: tuple[str, ...] = ()
    flows: tuple[Stale, ...] = ()
    site: IngressPlan | None = None
    beside: Mapping[Family, FamilyPlan] = field(default_factory=lambda: MappingProxyType({}))
    notes: tuple[str, ...] = ()
    items: tuple[Item, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether the node is as it should be; real servers that are on their way out are no change."""
        return not self.items

    @property
    def draining(self) -> tuple[RealServerKey, ...]:
        """Real servers that are on their way out."""
        return tuple(key for part in self.objects.values() for key in part.draining)

    def count(self, action: Action) -> int:
        """Return how many objects are added, changed or deleted."""
        return sum(item.action is action for item in self.items)


def with_site(plan: Plan, site: IngressPlan) -> Plan:
    """Return the plan with what changes for the ingress engine, which is shown behind the rest."""
    return replace(plan, site=site, items=(*plan.items, *site.items))


def plan_family(
    family: Family,
    ruleset: Ruleset,
    desired: Wanted,
    layout: Layout,
    between: Wanted | None = None,
    *,
    owners: Owners,
    filled: Collection[str] = (),
) -> tuple[FamilyPlan, list[Item]]:
    """Return what changes in one family's rules, and its items.

    Args:
        family: Which family.
        ruleset: What is there. Its unknown tables are left out of the plan.
        desired: What is wanted.
        layout: What of it is ours.
        between: What is wanted while sets change; None for nothing of the kind.
        owners: Tells whose a rule is that nobody wants.
        filled: The sets that have entries now.
    """
    if not ruleset.is_readable:
        ruleset = understood(ruleset, desired.objects)
    observed = found(ruleset, layout)
    referred = referred_by_others(ruleset, layout)
    desired = desired.keeping(observed, referred).without(ruleset.unknown)
    changes = diff(observed, desired.objects)
    bridge = None
    if between is not None:
        middle = between.keeping(observed, referred).without(ruleset.unknown).objects
        if middle != desired.objects:
            bridge = diff(observed, middle), diff(middle, desired.objects)
    switches = any(isinstance(key, ChainKey) and key.name in layout.others for key in observed)
    comments = comments_of(sum(isinstance(v, ChainValue) and v.kind is Kind.EXACT for v in desired.objects.values()))
    printed = dict(_printed(observed, desired.objects, comments))
    anew = written_anew(changes, desired.objects) if printed and bridge is None else frozenset()
    printed = {key: value for key, value in printed.items() if key.name not in anew}
    part = FamilyPlan(changes, desired.objects, bridge, switches, comments, printed)
    items = iptables.items(family, changes, observed, desired, layout, owners=owners, filled=filled)
    return part, list(items)


def _printed(observed: Objects, desired: Objects, comments: Comments) -> Iterator[tuple[BlockKey, BlockValue]]:
    """Yield the blocks that are wanted and there, but with other comments than we would write.

    Of several copies, those that stay come first; the others are written.
    """
    for key, there in observed.items():
        wants = desired.get(key)
        if not (isinstance(key, BlockKey) and isinstance(there, BlockValue) and isinstance(wants, BlockValue)):
            continue
        stays = min(len(there.copies), len(wants.copies)) if there.place is wants.place else 0
        if not stays:
            continue
        ours = [[comment_of(rule, comments) for rule in copy] for copy in wants.copies]
        if [[rule.comment for rule in copy] for copy in there.copies[:stays]] == ours:
            continue  # most blocks: nothing is written, and nothing need be put in order
        written = (tuple(settled(rule, comments) for rule in copy) for copy in wants.copies[stays:])
        copies = (*there.copies[:stays], *written)
        if sorted([rule.comment for rule in copy] for copy in copies) != sorted(ours):
            yield key, BlockValue(copies, wants.place)


def plan_objects(
    family: Family,
    observed: Mapping[str, Mapping[Any, Any]],
    desired: Mapping[str, Mapping[Any, Any]],
    owners: Mapping[str, Mapping[Any, str]],
    served: Owners,
) -> tuple[ObjectPlan, list[Item]]:
    """Return what changes of sets, servers and addresses in one family, and its items.

    Args:
        family: Which family.
        observed: By language, what of ours is there; a language that is not in it is not planned.
        desired: By language, what is wanted.
        owners: By language, who wants it.
        served: Tells whose an object is that nobody wants.
    """
    changes: dict[str, Changes] = {}
    items: list[Item] = []
    leaving: tuple[RealServerKey, ...] = ()
    ended: tuple[RealServerKey, ...] = ()
    for language, there in observed.items():
        wanted = desired.get(language, {})
        found_ = diff(there, wanted)
        if language == IPSET:
            found_ = tuple(sorted((*needs_resize(there, wanted), *found_), key=lambda change: change.key))
        if language == IPVS:
            found_ = tuple(as_drains(found_))
            changed = {change.key for change in found_}
            out = draining(there, wanted)
            leaving = tuple(key for key in out if key not in changed)
            ended = tuple(key for key in out if key in changed)
        changes[language] = found_
        seen = objects.Seen(language, family, observed, desired, owners, served)
        items += objects.items(found_, seen)
    return ObjectPlan(changes, desired, leaving, ended), items


def plan_sysctls(
    observed: Mapping[str, str], desired: Mapping[str, str], always: Collection[str] = ()
) -> tuple[Change[str, str], ...]:
    """Return the kernel parameters to set.

    Args:
        observed: Those that were read.
        desired: What they must be.
        always: Those that are set even if nobody could read them, since a rule is left out for them. Others that
            nobody could read are left alone.
    """
    return diff(
        {k: v for k, v in observed.items() if k in desired},
        {k: v for k, v in desired.items() if k in observed or k in always},
    )


def make_plan(
    families: Mapping[Family, tuple[FamilyPlan, list[Item]]],
    *,
    objects: Mapping[Family, tuple[ObjectPlan, list[Item]]] | None = None,
    devices: tuple[Change[str, str], ...] = (),
    timeouts: Change[str, Timeouts] | None = None,
    sysctls: tuple[Change[str, str], ...] = (),
    counters: tuple[str, ...] = (),
    flows: Iterable[Stale] = (),
    beside: Mapping[Family, tuple[FamilyPlan, list[Item]]] | None = None,
    notes: Iterable[str] = (),
) -> Plan:
    """Put the parts together, items in the order in which people read them: the node, Services by name, leftovers."""
    flows = tuple(flows)
    items = [item for _, part in families.values() for item in part]
    items += [item for _, part in (beside or {}).values() for item in part]
    items += _device_items(devices)
    items += [item for _, part in (objects or {}).values() for item in part]
    items += _timeout_items(timeouts)
    items += _sysctl_items(sysctls)
    items += _counter_items(counters)
    items += _flow_items(flows)
    items.sort(key=lambda item: (item.is_leftover, item.owner))
    return Plan(
        iptables={family: part for family, (part, _) in families.items()},
        objects={family: part for family, (part, _) in (objects or {}).items()},
        devices=devices,
        timeouts=timeouts,
        sysctls=sysctls,
        counters=counters,
        flows=flows,
        beside={family: part for family, (part, _) in (beside or {}).items()},
        notes=tuple(notes),
        items=tuple(items),
    )


def _device_items(changes: Sequence[Change[str, str]]) -> Iterator[Item]:
    for name, before, after in changes:
        action = Action.ADD if before is None else Action.DELETE
        line = Line("+" if after else "-", f"{after or before} device")
        yield Item(action=action, language="links", family="", kind="device", name=name, lines=(line,))


def _timeout_items(change: Change[str, Timeouts] | None) -> Iterator[Item]:
    if change is not None:
        lines = tuple(
            Line(sign, f"tcp {told.tcp} s, tcpfin {told.tcp_fin} s, udp {told.udp} s")
            for sign, told in (("-", change.before), ("+", change.after))
            if told is not None
        )
        yield Item(action=Action.CHANGE, language="ipvs", family="", kind="timeouts", name=change.key, lines=lines)


def _sysctl_items(changes: Iterable[Change[str, str]]) -> Iterator[Item]:
    for name, before, after in changes:
        lines = (*(() if before is None else (Line("-", before),)), Line("+", str(after)))
        yield Item(action=Action.CHANGE, language="sysctl", family="", kind="parameter", name=name, lines=lines)


def _counter_items(names: Iterable[str]) -> Iterator[Item]:
    for name in names:
        yield Item(action=Action.ADD, language="nfacct", family="", kind="counter", name=name)


def _flow_items(flows: Iterable[Stale]) -> Iterator[Item]:
    for stale in flows:
        flow = stale.flow
        yield Item(
            action=Action.DELETE,
            language="conntrack",
            family=flow.family.value,
            kind="flow",
            name=str(flow),
            owner=stale.owner,
            is_leftover=not stale.owner,
            lines=(Line("-", str(flow), stale.why),),
        )
