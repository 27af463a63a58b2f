"""A plan: all that must change on the node, as data; nothing here writes it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from rulegen.diff.changes import diff
from rulegen.diff.items import Action, Item, Line

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from rulegen.diff.changes import Change
    from rulegen.languages.language import Changes, Part
    from rulegen.model.services.stale_flows import Stale
    from rulegen.net import Family
    from rulegen.plan.ingress import IngressPlan


class PartKey(NamedTuple):
    """Which part of a plan.

    Attributes:
        family: None for what belongs to no family.
        variant: The other variant of iptables, where the part is of that; else empty.
    """

    family: Family | None
    language: str
    variant: str = ""


Parts = dict[PartKey, "Part"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All that must change.

    Attributes:
        parts: What changes by family and language, in the order in which it is shown.
        sysctls: Kernel parameters, by dotted name.
        counters: Names of nfacct objects to create.
        flows: Conntrack entries to delete, behind everything else.
        site: What changes for the ingress engine; None where it is not planned.
        notes: What stays although one might expect it to go, and why, for people.
        items: The same, for people and machines, in the order in which it is shown.
    """

    parts: Mapping[PartKey, Part] = field(default_factory=lambda: MappingProxyType({}))
    sysctls: tuple[Change[str, str], ...] = ()
    counters: tuple[str, ...] = ()
    flows: tuple[Stale, ...] = ()
    site: IngressPlan | None = None
    notes: tuple[str, ...] = ()
    items: tuple[Item, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Whether the node is as it should be; real servers that are draining are no change."""
        return not self.items

    @property
    def draining(self) -> tuple[Any, ...]:
        """Keys of objects that are on their way out, about which nothing is to be done yet."""
        return tuple(key for part in self.parts.values() for key in part.draining)

    def changes(self, language: str, family: Family | None) -> Changes:
        """Return what changes in one language and family."""
        part = self.parts.get(PartKey(family, language))
        return part.changes if part is not None else ()

    def of(self, language: str) -> dict[Family | None, Part]:
        """Return the parts of one language by family, the other variant of iptables apart."""
        return {key.family: part for key, part in self.parts.items() if key.language == language and not key.variant}

    def beside(self, language: str) -> dict[Family | None, Part]:
        """Return the parts of one language in the other variant of iptables, by family."""
        return {key.family: part for key, part in self.parts.items() if key.language == language and key.variant}

    def count(self, action: Action) -> int:
        """Return how many objects are added, changed or deleted."""
        return sum(item.action is action for item in self.items)


def with_site(plan: Plan, site: IngressPlan) -> Plan:
    """Return the plan with what changes for the ingress engine, which is shown behind the rest."""
    return replace(plan, site=site, items=(*plan.items, *site.items))


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
    parts: Mapping[PartKey, tuple[Part, list[Item]]],
    *,
    sysctls: tuple[Change[str, str], ...] = (),
    counters: tuple[str, ...] = (),
    flows: Iterable[Stale] = (),
    notes: Iterable[str] = (),
) -> Plan:
    """Put the parts together, items in the order in which people read them: the node, Services by name, leftovers."""
    flows = tuple(flows)
    items = [item for _, of_part in parts.values() for item in of_part]
    items += _sysctl_items(sysctls)
    items += _counter_items(counters)
    items += _flow_items(flows)
    items.sort(key=lambda item: (item.is_leftover, item.owner))
    return Plan(
        parts={key: part for key, (part, _) in parts.items()},
        sysctls=sysctls,
        counters=counters,
        flows=flows,
        notes=tuple(notes),
        items=tuple(items),
    )


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
