"""What has changed since the proxy was last given all, and whether it can take that before its files are written."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection

    from rulegen.kube.objects.names import ObjectName


class EarlyChanges:
    """The changes since all was last decided; other threads add to them.

    The proxy may take endpoints of single Services, or all that is decided anew. Other changes reach it with its files.
    """

    def __init__(self) -> None:
        """Start with an unknown change: nothing was decided yet."""
        self._lock = threading.Lock()
        self._services: set[ObjectName] = set()
        self._new: set[ObjectName] = set()
        self._has_others = True
        self._is_given = False
        self._waits = False
        self._is_ahead = False

    def add(self, services: Collection[ObjectName] | None) -> None:
        """Record that endpoints of Services have changed; None if something else may have."""
        with self._lock:
            if services is None:
                self._has_others = True
            else:
                self._services.update(services)
                self._new.update(services)

    def begin(self) -> None:
        """Record that all is about to be decided again."""
        with self._lock:
            self._services, self._new = set(), set()
            self._has_others = self._is_given = self._waits = False

    def take(self) -> frozenset[ObjectName]:
        """Return the Services whose endpoints the proxy is now given; none if something else has changed."""
        with self._lock:
            taken, self._new = frozenset(self._new), set()
            return frozenset() if self._has_others or self._waits else taken

    def moved(self) -> None:
        """Record that the proxy has taken endpoints."""
        self._is_ahead = True

    def not_moved(self) -> None:
        """Record that the proxy does not take the endpoints alone."""
        with self._lock:
            self._has_others = True

    def given(self) -> None:
        """Record that the proxy has all that was decided since `begin`."""
        with self._lock:
            self._is_given = self._is_ahead = True

    def written(self) -> None:
        """Record that the files have all that the proxy has."""
        self._is_ahead = False

    def failed(self) -> None:
        """Record that the proxy takes nothing before its files are written."""
        with self._lock:
            self._waits = True

    @property
    def is_ahead(self) -> bool:
        """Whether the proxy has changes that its files do not have."""
        return self._is_ahead

    @property
    def needs_decision(self) -> bool:
        """Whether the proxy may be given what is decided now, and nothing less."""
        with self._lock:
            return self._has_others and not self._waits

    @property
    def is_done(self) -> bool:
        """Whether the proxy has all changes, and there are some."""
        with self._lock:
            has_some = self._is_given or bool(self._services)
            return has_some and not (self._new or self._has_others or self._waits)
