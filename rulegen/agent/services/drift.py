"""Drift: changes by other programs on the node, as opposed to changes that objects cause."""

from __future__ import annotations

from collections import Counter
from itertools import groupby
from typing import TYPE_CHECKING, Final, NamedTuple

from rulegen.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Hashable, Iterable

    from rulegen.agent.telemetry.log import AgentLog
    from rulegen.agent.telemetry.state import AgentState
    from rulegen.diff.items import Item
    from rulegen.kube.objects.names import ObjectName
    from rulegen.plan.plan import Plan

SHOWN: Final = 5
"""Maximum number of changed objects that are reported one by one."""

LINES: Final = 2
"""Maximum number of rules that are shown for one object."""

LONGEST: Final = 400
"""Maximum number of characters for one object in the log."""


_SHOWN_WITH_RULES: Final = {"chain", "rule", "jump"}
"""Kinds whose name is that of a chain: the changed rules are reported."""


class ForeignChange(NamedTuple):
    """An object that another program has changed.

    Attributes:
        kind: Kind of the object in its language: chain, rule, jump, parameter, host.
        text: What was changed, for people: the rule and its Service.
    """

    kind: str
    text: str


def written_keys(plan: Plan) -> set[Hashable]:
    """Return the objects that a plan writes: language, family and key of each."""
    return {
        (key.language, key.family.value if key.family is not None else "", change.key)
        for key, part in plan.parts.items()
        for change in part.all_changes
    }


def damage(
    items: Iterable[Item],
    changed: Collection[ObjectName],
    ended: Collection[str] = (),
    written: Collection[Hashable] = (),
) -> list[ForeignChange]:
    """Return the items of a complete plan that other programs have caused.

    Args:
        items: Items of a plan against the node; before the change, everything but `changed` matched.
        changed: Services that have changed since: their items are not drift.
        ended: Names of items that only report the normal end of an object.
        written: Objects that these changes affect, or that a failed write may have left, as returned by `written_keys`.
            For a chain without comments, the Service is unknown.
    """
    own = {str(name) for name in changed}
    damages = []
    for item in items:
        if item.language == "conntrack" or (item.owner and item.owner in own) or item.name in ended:
            continue
        if written and (item.language, item.family, item.key) in written:
            continue
        damages.append(ForeignChange(item.kind, _text(item)))
    return damages


def certain(items: Iterable[Item]) -> list[Item]:
    """Return the items that other programs have certainly caused; after the first check, no other drift is known."""
    return [item for item in items if item.drift is not None]


def _text(item: Item) -> str:
    """Return what another program did, with the rule if the item's name is only that of its chain."""
    done = {"add": "was deleted", "change": "was changed", "delete": "was added"}[item.action.word]
    family = f" [{item.family}]" if item.family else ""
    lines = [line.text for line in item.lines if line.sign != " "] if item.kind in _SHOWN_WITH_RULES else []
    shown = ", ".join(f"`{line}`" for line in lines[:LINES]) + (" …" if len(lines) > LINES else "")
    owner = f" of Service {item.owner}" if item.owner else ""
    return printable(f"{item.kind} {item.name}{family}{f' {shown}' if shown else ''}{owner} {done}", LONGEST)


def tell(
    damages: Iterable[ForeignChange],
    state: AgentState,
    log: AgentLog,
    announce: Callable[[str], None],
    *,
    mended: bool,
) -> None:
    """Count drift, log it and send it to users: one line for each kind, with the first few objects."""
    for kind, of_kind in groupby(sorted(damages, key=lambda each: each.kind), key=lambda each: each.kind):
        texts = [each.text for each in of_kind]
        state.metrics.drift.add(kind, len(texts))
        times = Counter(texts)
        shown = "; ".join(text if n == 1 else f"{text} ({n} times)" for text, n in list(times.items())[:SHOWN])
        log.warning("changed by another program", kind=kind, count=len(texts), what=shown, mended=mended)
        what = "repaired" if mended else "not repaired"
        announce(f"{len(texts)} of kind {kind} changed by another program, {what}: {shown}")
