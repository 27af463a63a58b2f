"""Damage: what others have changed on the node, told apart from what a change of objects asks for."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from rulegen.plan.objects import draining_text

if TYPE_CHECKING:
    from collections.abc import Collection

    from rulegen.kube.world import ObjectName
    from rulegen.plan.plan import Plan


class Damage(NamedTuple):
    """One thing that others have changed.

    Attributes:
        kind: What it is in its language: chain, rule, jump, parameter.
        text: What was done to it, for people.
    """

    kind: str
    text: str


def damage(plan: Plan, changed: Collection[ObjectName]) -> list[Damage]:
    """Return what others have changed, out of a plan of the whole.

    Args:
        plan: Against the kernel, where all but `changed` was as wanted before.
        changed: Services that changed since: what concerns them is no damage.
    """
    own = {str(name) for name in changed}
    ended = {draining_text(key) for part in plan.objects.values() for key in part.ended}
    found = []
    for item in plan.items:
        if item.language == "conntrack" or (item.owner and item.owner in own) or item.name in ended:
            continue
        done = {"add": "was taken away", "change": "was changed", "delete": "was put there"}[item.action.word]
        family = f" [{item.family}]" if item.family else ""
        found.append(Damage(item.kind, f"{item.kind} {item.name}{family} {done}"))
    return found
