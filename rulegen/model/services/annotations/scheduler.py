"""`rulegen.io/ipvs-scheduler`: the IPVS scheduler of one Service. Source: ipvsadm(8)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rulegen.kube.proxyconfig.validation import SCHEDULERS
from rulegen.model.services.annotations.annotation import ServiceAnnotation
from rulegen.model.services.annotations.weights import WEIGHTS
from rulegen.text import quoted

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from rulegen.kube.objects.structs import Service

_WEIGHTED: Final = {"rr": "wrr", "lc": "wlc", "dh": "sh"}
"""Each scheduler that ignores weights, with the corresponding one that uses them. Source: ipvsadm(8)."""

SCHEDULER: Final = ServiceAnnotation[str | None](
    "ipvs-scheduler",
    str,
    None,
    "the scheduler of this Service; for a name that the kernel does not offer, the node's own scheduler is used",
    otherwise="the node's own scheduler is used",
    modes=("ipvs",),
)


def scheduler_of(service: Service, known: Collection[str] | None, where: str, warn: Callable[[str], None]) -> str:
    """Return the scheduler that a Service requests; empty if it requests none, or one that the kernel does not offer.

    Args:
        service: The Service.
        known: The schedulers that this node's kernel offers; None if unknown: all schedulers of Linux are accepted.
        where: The Service, for messages.
        warn: Receives a warning about a name that the kernel does not offer.
    """
    name = SCHEDULER.of(service, where, warn)
    offered = SCHEDULERS if known is None else known
    if name is None or name in offered:
        return name or ""
    expected = ", ".join(sorted(offered)) or "none here"
    warn(
        f"{where}: {SCHEDULER.path}: {quoted(name)} is not a scheduler that this kernel offers"
        f" (expected one of {expected}); {SCHEDULER.otherwise}"
    )
    return ""


def warn_of_ignored_weights(service: Service, scheduler: str, where: str, warn: Callable[[str], None]) -> None:
    """Warn if a Service has weights that its scheduler ignores."""
    if scheduler in _WEIGHTED and service.metadata.annotations.get(WEIGHTS.name):
        other = f'{SCHEDULER.name}: "{_WEIGHTED[scheduler]}"'
        warn(f"{where}: {WEIGHTS.path}: the scheduler {scheduler} ignores weights; use one that does not: {other}")
