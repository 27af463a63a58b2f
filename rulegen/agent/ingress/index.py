"""Which Services the Ingresses refer to. It is queried for each change, and set by the thread that decides."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rulegen.kube.snapshot.cluster import Touched
    from rulegen.model.ingress.upstreams.reads import ServiceReads


class ReferenceIndex:
    """Distinguishes changes that may affect decisions about Ingresses from those that cannot.

    Before the first decision, and after a failed one, every change may affect them.
    """

    def __init__(self) -> None:
        """Start without a decision."""
        self._lock = threading.Lock()
        self._reads: ServiceReads | None = None
        self._meanwhile: list[Touched] | None = None

    def is_touched(self, touched: Touched) -> bool:
        """Return whether a change of the cluster may lead to other decisions than the last ones.

        While a decision is being made, the change is stored and later compared with what that decision has read.
        """
        with self._lock:
            if self._meanwhile is not None:
                self._meanwhile.append(touched)
            return self._may_matter(touched)

    def begin(self) -> None:
        """Record that a decision is about to read the cluster."""
        with self._lock:
            self._meanwhile = []

    def end(self, reads: ServiceReads | None) -> bool:
        """Record what the decision has read; None if that is unknown.

        Returns:
            Whether a change since `begin` may lead to another decision.
        """
        with self._lock:
            self._reads = reads
            meanwhile, self._meanwhile = self._meanwhile or [], None
            return any(map(self._may_matter, meanwhile))

    def _may_matter(self, touched: Touched) -> bool:
        if touched.site or touched.nodes or self._reads is None:
            return True
        return self._reads.is_touched(touched.services, touched.addresses)
