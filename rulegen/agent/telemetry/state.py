"""The state of the agent: the source of /healthz, /livez, metrics and log lines."""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from rulegen.agent.telemetry.metrics import Metrics
from rulegen.waits import WAITS

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

SHOWN_S = 5.0
"""Health shows a wait after this time in seconds."""
SITE_THREAD: Final = "ingress"
"""The name of the thread that serves Ingresses."""
_SYNC_THREADS: Final = ("MainThread", "read_0")
"""The names of the threads that write and read the rules of Services."""
MAX_TRIGGERS: Final = 100_000
"""Number of endpoint changes whose time is kept until they are applied."""


@dataclass(slots=True)
class AgentState:
    """The state of the agent, updated by its loop and read by its servers; any thread may call every method.

    Attributes:
        clock: Monotonic time in seconds.
        timeout_s: Maximum age of an unapplied change before the node counts as unhealthy.
        wall: Time of day, in seconds since 1970.
        metrics: All metrics, for /metrics.
        started: Start of the agent, in seconds since 1970.
        last_queued, last_applied: Time of the last change, and time when all were last applied; 0 for never.
        pending: Number of unapplied changes, by kind.
        site_message: Why changes of Ingresses cannot be served; empty if they can.
        proxy_silence: Why the ingress proxy counts as not serving; empty if it serves, or is not asked.
        service_proxy_silence: Why the proxy of Services counts as not serving; empty if it serves, or there is none.
        site_is_down: Whether this node serves nothing for that reason, neither Ingresses nor Services.
        lacks_tools: Whether the tools to write rules with have not worked since the start.
    """

    clock: Callable[[], float]
    timeout_s: float = 60.0
    wall: Callable[[], float] = time.time
    metrics: Metrics = field(init=False)
    desired: int = 0
    applied: int = 0
    last_error: str = ""
    site_message: str = ""
    proxy_silence: str = ""
    service_proxy_silence: str = ""
    site_is_down: bool = False
    lacks_tools: bool = False
    started: float = 0.0
    last_queued: float = 0.0
    last_applied: float = 0.0
    pending: Counter[str] = field(default_factory=Counter)
    _triggers: list[float] = field(default_factory=list)
    _oldest: float | None = None
    _synced: bool = False
    _listed_at: float | None = None
    _arrived_at: float | None = None
    _deleting: bool = False
    _ending: bool = False
    _lacking: str = ""
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.started = self.wall()
        self.metrics = Metrics(self)

    def services_changed(self, count: int = 1) -> None:
        """Count changes of Services to apply."""
        self.metrics.service_changes.add(count)
        with self._lock:
            self.pending["service"] += count

    def endpoints_changed(self, count: int = 1, *, triggered: float | None = None) -> None:
        """Count changes of endpoints to apply.

        Args:
            count: Number of changes.
            triggered: Times of their causes, in seconds since 1970, if known. Times before the start of the agent are
                ignored.
        """
        self.metrics.endpoint_changes.add(count)
        with self._lock:
            self.pending["endpoint"] += count
            if triggered is not None and triggered >= self.started and len(self._triggers) < MAX_TRIGGERS:
                self._triggers.append(triggered)

    def arrived(self) -> None:
        """Record that something has arrived and waits: a tool that hangs may delay it."""
        with self._lock:
            if self._arrived_at is None:
                self._arrived_at = self.clock()

    def looked(self) -> None:
        """Record that everything that arrived was processed."""
        with self._lock:
            self._arrived_at = None

    def changed(self, when: float | None = None) -> None:
        """Record a change to apply."""
        with self._lock:
            self.desired += 1
            self.last_queued = self.wall()
            if self._oldest is None:
                self._oldest = self.clock() if when is None else when

    def wrote(self, generation: int, *, oldest: float | None = None) -> None:
        """Record that all changes up to a generation are applied.

        Args:
            generation: Value of `desired` when the write started.
            oldest: Arrival of the oldest change that is not applied; None if there is none.
        """
        with self._lock:
            if self._lacking:
                self.last_error = self._lacking
                self._oldest = self.clock() if self._oldest is None else self._oldest
                return
            if self._oldest is not None:
                self.metrics.programming.add(self.clock() - self._oldest)
            self.applied = generation
            self._oldest = oldest if self.desired > generation else None
            self._synced = True
            if self._listed_at is None:
                self._listed_at = self.clock()
            self.last_error = ""
            self.last_applied = self.wall()
            triggers, self._triggers = self._triggers, []
            self.pending.clear()
        for triggered in triggers:  # may be very many: a health request does not wait for them
            self.metrics.network_programming.add(max(self.last_applied - triggered, 0.0))

    def failed(self, message: str) -> None:
        """Record that a write failed; it is tried again."""
        with self._lock:
            self.last_error = message
        self.metrics.sync_failures.add()

    def lacks(self, message: str) -> None:
        """Record why a part of all changes cannot be written; empty if all can. Until then, none counts as applied."""
        with self._lock:
            self._lacking = message

    def waits(self, reason: str) -> None:
        """Record why nothing is written yet, for /healthz."""
        with self._lock:
            self.last_error = reason

    def reconciled(self, seconds: float, deleted: int) -> None:
        """Record a search for stale UDP connections: its duration, and the number of deleted ones."""
        self.metrics.reconciles.add(seconds)
        self.metrics.deleted_flows.add(deleted)

    def waits_for_site(self, message: str) -> None:
        """Record that changes of Ingresses cannot be served, and why."""
        with self._lock:
            self.site_message = message

    def served_site(self) -> None:
        """Record that nginx serves the desired configuration."""
        self.waits_for_site("")

    def hears_proxy(self, silence: str, *, is_down: bool) -> None:
        """Record whether the ingress proxy answers.

        Args:
            silence: Why it counts as not serving; empty if it serves.
            is_down: Whether load balancers must see that.
        """
        with self._lock:
            self.proxy_silence = silence
            self.site_is_down = is_down

    def node_is_deleted(self, *, deleted: bool) -> None:
        """Record whether the node is being removed from the cluster: load balancers must then stop using it."""
        with self._lock:
            self._deleting = deleted

    def ends(self) -> None:
        """Record that this agent is about to stop serving."""
        with self._lock:
            self._ending = True

    def listed(self) -> None:
        """Record that every list was received, so that changes can be applied."""
        with self._lock:
            if self._listed_at is None:
                self._listed_at = self.clock()

    @property
    def is_ending(self) -> bool:
        """Whether this agent is about to stop serving."""
        return self._ending

    @property
    def not_served(self) -> str:
        """Why Ingresses, or their changes, are not served; empty if they are."""
        return self.site_message or self.proxy_silence or _wait_of([SITE_THREAD])

    @property
    def sync_wait(self) -> str:
        """What the sync of Services has been waiting for, for some seconds; empty for nothing."""
        return _wait_of(_SYNC_THREADS)

    @property
    def age_s(self) -> float:
        """How long the oldest unapplied change has waited; an event that was not processed yet counts as a change."""
        waiting = [at for at in (self._oldest, self._arrived_at) if at is not None]
        return self.clock() - min(waiting) if waiting else 0.0

    @property
    def is_working(self) -> bool:
        """Whether no change waits too long; also true before lists or tools are available: a restart would not help."""
        listed_at = self._listed_at
        return listed_at is None or self.lacks_tools or min(self.age_s, self.clock() - listed_at) < self.timeout_s

    @property
    def is_alive(self) -> bool:
        """Whether changes reach the kernel in time; also true without changes."""
        return self._synced and self.is_working

    @property
    def is_eligible(self) -> bool:
        """Whether load balancers may send traffic to this node (KEP-3836)."""
        is_down = self.site_is_down or bool(self.service_proxy_silence)
        return self.is_alive and not self._deleting and not self._ending and not is_down


def _wait_of(threads: Collection[str]) -> str:
    what = WAITS.of_threads(threads, SHOWN_S)
    return f"it waits for {what}" if what else ""
