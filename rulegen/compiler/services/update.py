"""The changes for some Services, and whether two such updates can be written at the same time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rulegen.kube.objects.names import ObjectName
    from rulegen.model.services.ir import ResolvedNode, ResolvedService
    from rulegen.net import Family
    from rulegen.plan.fragments import OwnedObjects
    from rulegen.plan.plan import Plan


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """The changes for some Services.

    Attributes:
        plan: The changes to write, without items for display.
        fragments: Desired objects of the Services, and of the node if they change too; None for deleted Services.
        services: The Services as now served; None for deleted ones.
        nodes: Node-wide settings, by family.
    """

    plan: Plan
    fragments: Mapping[tuple[Family, ObjectName | None], OwnedObjects | None]
    services: Mapping[ObjectName, ResolvedService | None]
    nodes: Mapping[Family, ResolvedNode]


def content_of(fragment: OwnedObjects | None, language: str) -> Any:
    """Return the objects of a fragment in one language; None for nothing."""
    return fragment.objects.get(language) if fragment is not None else None


def contents_of(
    language: str, pairs: Iterable[tuple[OwnedObjects | None, OwnedObjects | None]]
) -> Iterator[tuple[str, Any, Any]]:
    """Yield the old and new objects of owners in one language."""
    for before, after in pairs:
        owner = after.owner if after is not None else before.owner if before is not None else ""
        yield owner, content_of(before, language), content_of(after, language)


def meets(update: Update, other: Update) -> bool:
    """Whether one update deletes a kernel object that the other needs; rules are counted, so they never conflict."""
    goes = {
        (key.language, change.key)
        for key, part in update.plan.parts.items()
        for change in part.changes
        if change.after is None
    }
    wanted = (fragment.objects for fragment in other.fragments.values() if fragment is not None)
    return bool(goes) and any(
        (language, key) in goes
        for objects in wanted
        for language, content in objects.items()
        if isinstance(content, Mapping)
        for key in content
    )
