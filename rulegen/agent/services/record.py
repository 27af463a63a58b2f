"""What this agent knows about the kernel since its last read or write."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable

    from rulegen.host.dataplane.dataplane import KernelRevision
    from rulegen.plan.fragments import OwnedObjects


@dataclass(slots=True)
class KernelRecord:
    """Known facts about the kernel.

    Attributes:
        revision: Shows whether another program has written since; None if there is no way to know.
        attempted: Objects that a write may have left incomplete, or that another proxy still has time to write.
        held: State on the node of the Services that are left out.
        notes: Notes of the last complete plan: what stays, and why.
    """

    revision: KernelRevision | None = None
    attempted: set[Hashable] = field(default_factory=set)
    held: tuple[OwnedObjects, ...] = ()
    notes: tuple[str, ...] = ()
