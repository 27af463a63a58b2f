"""A plan: all changes for the node, as data. This module writes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple, overload

import msgspec
from msgspec.structs import replace

from rulegen.diff.changes import diff
from rulegen.diff.items import Action, Item, Line

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping

    from rulegen.diff.changes import Change
    from rulegen.languages.language import Changes, Part
    from rulegen.model.services.stale_flows import Stale
    from rulegen.net import Family
    from rulegen.plan.ingress import IngressPlan


class PartKey(NamedTuple):
    """Key of a part of a plan.

    Attributes:
        family: None for changes that belong to no family.
        variant: The other iptables variant, if the part belongs to it; else empty.
    """

    family: Family | None
    language: str
    variant: str = ""


Parts = dict[PartKey, "Part"]


class LaterItems(Sequence["Item"]):
    """The items of a plan in display order: the node, Services by name, leftovers.

    They are created when one of them is first used: a write needs only their number, and on a first load there are as
    many as objects.
    """

    def __init__(self, made: Callable[[], Iterator[Item]], number: Callable[[], int]) -> None:
        """Take a function that yields the items in any order, and one that counts them without creating them."""
        self._made, self._count = made, number

    @cached_property
    def _items(self) -> tuple[Item, ...]:
        return tuple(sorted(self._made(), key=lambda item: (item.is_leftover, item.owner)))

    @cached_property
    def _number(self) -> int:
        return self._count()

    def __len__(self) -> int:
        """Return the number of items."""
        return self._number

    @overload
    def __getitem__(self, index: int) -> Item: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Item, ...]: ...
    def __getitem__(self, index: int | slice) -> Item | tuple[Item, ...]:
        """Return items by their place."""
        return self._items[index]

    def __iter__(self) -> Iterator[Item]:
        """Yield the items."""
        return iter(self._items)

    def __eq__(self, other: object) -> bool:
        """Return whether another sequence has the same items."""
        return isinstance(other, Sequence) and self._items == tuple(other)

    __hash__ = None  # type: ignore[assignment]


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """All changes for a node.

    Attributes:
        parts: Changes by family and language, in display order.
        sysctls: Kernel parameters, by dotted name.
        counters: Names of nfacct objects to create.
        flows: Conntrack entries to delete, after everything else.
        site: Changes for the ingress engine; None if it is not planned.
        notes: What stays although a user may expect it to be removed, with the reason.
        items: The changes as items, in display order.
    """

    parts: Mapping[PartKey, Part] = msgspec.field(default_factory=lambda: MappingProxyType({}))
    sysctls: tuple[Change[str, str], ...] = ()
    counters: tuple[str, ...] = ()
    flows: tuple[Stale, ...] = ()
    site: IngressPlan | None = None
    notes: tuple[str, ...] = ()
    items: Sequence[Item] = ()

    @property
    def is_empty(self) -> bool:
        """Whether the node needs no change; draining real servers do not count as changes."""
        return not self.items

    @property
    def draining(self) -> tuple[Any, ...]:
        """Keys of draining objects, which need no action yet."""
        return tuple(key for part in self.parts.values() for key in part.draining)

    def changes(self, language: str, family: Family | None) -> Changes:
        """Return the changes in one language and family."""
        part = self.parts.get(PartKey(family, language))
        return part.changes if part is not None else ()

    def of(self, language: str) -> dict[Family | None, Part]:
        """Return the changes in one language by family, without those of the other iptables variant."""
        return {key.family: part for key, part in self.parts.items() if key.language == language and not key.variant}

    def beside(self, language: str) -> dict[Family | None, Part]:
        """Return the changes in one language in the other iptables variant, by family."""
        return {key.family: part for key, part in self.parts.items() if key.language == language and key.variant}

    def count(self, action: Action) -> int:
        """Return the number of added, changed and deleted objects."""
        return sum(item.action is action for item in self.items)


def with_site(plan: Plan, site: IngressPlan) -> Plan:
    """Return the plan together with the changes for the ingress engine, which are displayed last."""
    return replace(plan, site=site, items=(*plan.items, *site.items))


def plan_sysctls(
    observed: Mapping[str, str], desired: Mapping[str, str], always: Collection[str] = ()
) -> tuple[Change[str, str], ...]:
    """Return the kernel parameters to set.

    Args:
        observed: The current values.
        desired: The required values.
        always: Parameters that are set even if their value is unknown, because a rule is omitted for them. Other
            parameters with an unknown value are not set.
    """
    return diff(
        {k: v for k, v in observed.items() if k in desired},
        {k: v for k, v in desired.items() if k in observed or k in always},
    )


def make_plan(
    parts: Mapping[PartKey, tuple[Part, Callable[[], Iterable[Item]]]],
    *,
    sysctls: tuple[Change[str, str], ...] = (),
    counters: tuple[str, ...] = (),
    flows: Iterable[Stale] = (),
    notes: Iterable[str] = (),
) -> Plan:
    """Join the parts, each with what yields its items."""
    flows = tuple(flows)
    described = [of_part for _, of_part in parts.values()]

    def made() -> Iterator[Item]:
        for items in described:
            yield from items()
        yield from _sysctl_items(sysctls)
        yield from _counter_items(counters)
        yield from _flow_items(flows)

    def number() -> int:
        return sum(part.differing for part, _ in parts.values()) + len(sysctls) + len(counters) + len(flows)

    return Plan(
        parts={key: part for key, (part, _) in parts.items()},
        sysctls=sysctls,
        counters=counters,
        flows=flows,
        notes=tuple(notes),
        items=LaterItems(made, number),
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
