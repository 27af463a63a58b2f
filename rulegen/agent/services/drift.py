"""Damage: what others have changed on the node, told apart from what a change of objects asks for."""

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
"""Of things that others have changed, so many are told one by one."""

LINES: Final = 2
"""Of the rules of one thing, so many are shown."""

LONGEST: Final = 400
"""Characters that one thing may take in the log."""


_SHOWN_WITH_RULES: Final = {"chain", "rule", "jump"}
"""Kinds whose name is that of a chain: what was done to it, its rules tell."""


class ForeignChange(NamedTuple):
    """One thing that others have changed.

    Attributes:
        kind: What it is in its language: chain, rule, jump, parameter, host.
        text: What was done to it, for people: which rule, and of which Service.
    """

    kind: str
    text: str


def written_keys(plan: Plan) -> set[Hashable]:
    """Return which objects a plan writes: language, family and key of each."""
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
    """Return what others have changed, out of a plan of the whole.

    Args:
        items: Of a plan against the node, where all but `changed` was as wanted before.
        changed: Services that changed since: what concerns them is no damage.
        ended: Names of items that only tell of an end in peace.
        written: Objects that these changes ask for, or that a failed write of ours may have left, as `written_keys`
            returns them. Of a chain without comments nobody can tell whose it was.
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
    """Return the items that others have caused for certain, as a plan tells them: all that a first look can know."""
    return [item for item in items if item.drift is not None]


def _text(item: Item) -> str:
    """Return what others did, with the rule where the item's name is only that of its chain."""
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
    """Count damage, log it and announce it to users: a line for each kind, with the first few things of it."""
    for kind, of_kind in groupby(sorted(damages, key=lambda each: each.kind), key=lambda each: each.kind):
        texts = [each.text for each in of_kind]
        state.metrics.drift.add(kind, len(texts))
        times = Counter(texts)
        shown = "; ".join(text if n == 1 else f"{text} ({n} times)" for text, n in list(times.items())[:SHOWN])
        log.warning("changed by another program", kind=kind, count=len(texts), what=shown, mended=mended)
        announce(f"{len(texts)} of kind {kind} changed by another program, {'mended' if mended else 'left'}: {shown}")
