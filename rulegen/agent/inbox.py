"""What arrives for the thread that keeps Services in sync: events of the cluster, and reasons to wake up."""

from __future__ import annotations

import queue
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rulegen.agent.telemetry.state import AgentState
    from rulegen.kube.objects.events import Event


@dataclass(frozen=True, slots=True)
class Wake:
    """Ends a wait for events.

    Attributes:
        why: `check` to read the kernel's rules, `host` to read the facts of the host, `reload` to end and start again
            with new options, `stop` to end, empty for nothing else.
    """

    why: str


@dataclass(slots=True)
class Inbox:
    """A queue of events and wake-ups; any thread may put something in.

    Attributes:
        state: Notes that something arrived.
        signals: The queue.
    """

    state: AgentState
    signals: queue.SimpleQueue[Event | Wake] = field(default_factory=queue.SimpleQueue)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def on_event(self, event: Event) -> None:
        """Put in an event."""
        with self._lock:
            self.state.arrived()
            self.signals.put(event)

    def looked(self) -> None:
        """Note that all was taken; not if something has arrived since, which may have to wait for a tool that hangs."""
        with self._lock:
            if self.signals.empty():
                self.state.looked()

    def wake_up(self, why: str) -> None:
        """Put in a wake-up; signal handlers may call this, too."""
        self.signals.put(Wake(why))

    def size(self) -> int:
        """Return how many wait."""
        return self.signals.qsize()
