"""What this agent knows of the kernel since it last read or wrote it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Hashable

    from rulegen.host.dataplane.dataplane import KernelRevision
    from rulegen.plan.fragments import OwnedObjects


@dataclass(slots=True)
class KernelRecord:
    """What is known of the kernel.

    Attributes:
        revision: Shows whether anything else has written since; None where nothing shows that.
        attempted: Objects that a write may have left half done, or that another proxy is given time to write.
        held: What the node has of the Services that are left out.
        notes: What users must know of the last plan of the whole: what stays, and why.
    """

    revision: KernelRevision | None = None
    attempted: set[Hashable] = field(default_factory=set)
    held: tuple[OwnedObjects, ...] = ()
    notes: tuple[str, ...] = ()
