"""The queue of the thread that keeps Services in sync: events of the cluster, and wake-ups."""

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
        why: `check` to read the kernel's rules, `host` to read the facts of the host, `reload` to restart with new
            options, `stop` to end, empty for nothing else.
    """

    why: str


@dataclass(slots=True)
class Inbox:
    """A queue of events and wake-ups; any thread may add one.

    Attributes:
        state: Is notified when something arrives.
        signals: The queue.
    """

    state: AgentState
    signals: queue.SimpleQueue[Event | Wake] = field(default_factory=queue.SimpleQueue)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def on_event(self, event: Event) -> None:
        """Add an event."""
        with self._lock:
            self.state.arrived()
            self.signals.put(event)

    def looked(self) -> None:
        """Note that the queue was emptied, unless something has arrived since. A tool that hangs can delay this."""
        with self._lock:
            if self.signals.empty():
                self.state.looked()

    def wake_up(self, why: str) -> None:
        """Add a wake-up; signal handlers may call this too."""
        self.signals.put(Wake(why))

    def size(self) -> int:
        """Return the number of waiting entries."""
        return self.signals.qsize()
