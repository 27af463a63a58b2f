"""A plan: all that must change on the node, as data; `make_plan` finds it, nothing here makes it so."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

from rulegen.diff import Change, diff
from rulegen.languages.iptables.state import Objects, Wanted, found, referred_by_others
from rulegen.plan import iptables
from rulegen.plan.items import Action, Item, Line

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from rulegen.languages.iptables.ruleset import Ruleset
    from rulegen.languages.iptables.state import Key, Layout, Value
    from rulegen.model.conntrack import Stale
    from rulegen.net import Family
    from rulegen.plan.nginx import SitePlan


@dataclass(frozen=True, slots=True)
class FamilyPlan:
    """What changes in the iptables of one family.

    Attributes:
        changes: In order of key.
        desired: All objects that are wanted.
    """

    changes: tuple[Change[Key, Value], ...]
    desired: Objects


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All that must change.

    Attributes:
        iptables: By family.
        sysctls: Kernel parameters, by dotted name.
        counters: Names of nfacct objects to create.
        flows: Conntrack entries to delete, behind everything else.
        site: What changes for nginx; None where it is not planned.
        items: The same, for people and machines, in the order in which it is shown.
    """

    iptables: Mapping[Family, FamilyPlan] = field(default_factory=lambda: MappingProxyType({}))
    sysctls: tuple[Change[str, str], ...] = ()
    counters: tuple[str, ...] = ()
    flows: tuple[Stale, ...] = ()
    site: SitePlan | None = None
    items: tuple[Item, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether the node is as it should be."""
        return not self.items

    def count(self, action: Action) -> int:
        """Return how many objects are added, changed or deleted."""
        return sum(item.action is action for item in self.items)


def with_site(plan: Plan, site: SitePlan) -> Plan:
    """Return the plan with what changes for nginx, which is shown behind the rest."""
    return replace(plan, site=site, items=(*plan.items, *site.items))


def plan_family(family: Family, ruleset: Ruleset, desired: Wanted, layout: Layout) -> tuple[FamilyPlan, list[Item]]:
    """Return what changes in one family, and its items."""
    observed = found(ruleset, layout)
    desired = desired.keeping(observed, referred_by_others(ruleset, layout))
    changes = diff(observed, desired.objects)
    return FamilyPlan(changes, desired.objects), list(iptables.items(family, changes, observed, desired, layout))


def plan_sysctls(observed: Mapping[str, str], desired: Mapping[str, str]) -> tuple[Change[str, str], ...]:
    """Return the kernel parameters to set; those that nobody could read are left alone."""
    return diff(
        {k: v for k, v in observed.items() if k in desired}, {k: v for k, v in desired.items() if k in observed}
    )


def make_plan(
    families: Mapping[Family, tuple[FamilyPlan, list[Item]]],
    *,
    sysctls: tuple[Change[str, str], ...] = (),
    counters: tuple[str, ...] = (),
    flows: Iterable[Stale] = (),
) -> Plan:
    """Put the parts together, items in the order in which people read them: the node, Services by name, leftovers."""
    flows = tuple(flows)
    items = [item for _, part in families.values() for item in part]
    items += _sysctl_items(sysctls)
    items += _counter_items(counters)
    items += _flow_items(flows)
    items.sort(key=lambda item: (item.is_leftover, item.owner))
    return Plan(
        iptables={family: part for family, (part, _) in families.items()},
        sysctls=sysctls,
        counters=counters,
        flows=flows,
        items=tuple(items),
    )


def _sysctl_items(changes: Iterable[Change[str, str]]) -> Iterator[Item]:
    for name, before, after in changes:
        lines = (Line("-", str(before)), Line("+", str(after)))
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
