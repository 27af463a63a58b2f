"""Which Services have other endpoints than the proxy was given, as long as nothing else has changed."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

    from rulegen.kube.objects.names import ObjectName


class EndpointMoves:
    """The changes since the whole configuration was last decided; other threads add to them."""

    def __init__(self) -> None:
        """Start with an unknown change: nothing was decided yet."""
        self._lock = threading.Lock()
        self._all: set[ObjectName] | None = None
        self._new: set[ObjectName] = set()

    def add(self, services: Collection[ObjectName] | None) -> None:
        """Record that endpoints of Services have changed; None if something else may have."""
        with self._lock:
            if services is None or self._all is None:
                self._all = None
            else:
                self._all.update(services)
                self._new.update(services)

    def begin(self) -> None:
        """Record that all is about to be decided again."""
        with self._lock:
            self._all, self._new = set(), set()

    def take(self) -> frozenset[ObjectName]:
        """Return the Services whose endpoints the proxy is now given; none if something else has changed."""
        with self._lock:
            taken, self._new = frozenset(self._new), set()
            return taken if self._all is not None else frozenset()

    def failed(self) -> None:
        """Record that the proxy cannot be given endpoints before all is decided again."""
        with self._lock:
            self._all = None

    @property
    def is_done(self) -> bool:
        """Whether the proxy has all changes, and there are some."""
        with self._lock:
            return bool(self._all) and not self._new
