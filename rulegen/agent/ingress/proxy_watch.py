"""Asks repeatedly whether the ingress proxy serves: health and published addresses depend on its answers."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from rulegen.agent.telemetry.events import EventRequest, ObjectReference, to_nobody
from rulegen.compiler.ingress.engine import ProgramEnds
from rulegen.errors import RulegenError

if TYPE_CHECKING:
    from collections.abc import Callable

    from rulegen.agent.telemetry.log import AgentLog
    from rulegen.agent.telemetry.state import AgentState
    from rulegen.compiler.ingress.engine import AnyEngine

PERIOD_S: Final = 0.5
"""Seconds between two questions while the proxy answers."""
AGAIN_S: Final = 0.2
"""Seconds until the next question after one without an answer."""
SILENCE_S: Final = 2.0
"""Seconds without an answer after which nothing counts as served. A restart after a crash is faster."""
END_S: Final = 3.0
"""Maximum time for stopping, in seconds."""
FILES_S: Final = 10.0
"""Minimum time between two checks because of changed files, in seconds."""
REPORTS_S: Final = 60.0
"""Minimum time between two reports about unexpected ends, in seconds: a crash loop fills no log."""


@dataclass(slots=True)
class ProxyWatch:
    """Follows whether the proxy of this node serves, in a thread of its own.

    Attributes:
        is_alone: Whether only Ingresses are managed, so that the health of the node is that of the proxy.
        on_change: Called when the proxy stops or starts serving.
        send_event: Sends Events about this node.
        about: Returns the reference of this node; None for no Events.
        is_serving: Whether the proxy answers.
        hindrance: Why changes wait although it answers; not reported while `is_busy`.
        is_busy: Whether a change is being served, which such a wait is a part of.
    """

    live: AnyEngine
    state: AgentState
    log: AgentLog
    clock: Callable[[], float]
    is_alone: bool
    on_change: Callable[[], None]
    send_event: Callable[[EventRequest], None] = to_nobody
    about: Callable[[], ObjectReference] | None = None
    is_serving: bool = False
    hindrance: str = ""
    is_busy: bool = False
    _hindered: str = ""
    _silent_at: float | None = None
    _down_at: float | None = None
    _ends: ProgramEnds = field(default_factory=ProgramEnds)
    _unreported: int = 0
    _are_changed: bool = False
    _files_at: float = 0.0
    _report_at: float = 0.0
    _ended: threading.Event = field(default_factory=threading.Event)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Ask once, then start to ask repeatedly."""
        self._ends = self.live.ends
        self.look()
        self._thread = threading.Thread(target=self._run, name="ingress proxy", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop; the answer to a sent request is not awaited."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join(END_S)
        self.live.follow_files(ends=True)

    def look(self) -> None:
        """Ask the proxy, and report whether it serves."""
        with self._lock:
            asked_at = self.clock()
            answers = self._answers()
            if answers:
                self._silent_at = None
            elif self._silent_at is None:
                self._silent_at = asked_at
            is_silent = self._silent_at is not None and self.clock() - self._silent_at >= SILENCE_S
            before, self.is_serving = self.is_serving, answers or (self.is_serving and not is_silent)
            hindered, seen = self.hindrance, self._hindrance() if answers and not self.is_busy else ""
            self.hindrance, self._hindered = seen and self._hindered, seen  # a reload by a command is none
            silence = self.hindrance if self.is_serving else f"{self.live.name} does not answer"
            self.state.hears_proxy(silence, is_down=self.is_alone and not self.is_serving)
            if before != self.is_serving:
                self._report_change()
            elif hindered != self.hindrance and not self.is_busy:
                self._report_hindrance()

    def _run(self) -> None:
        while not self._ended.wait(PERIOD_S if self._silent_at is None else AGAIN_S):
            self.look()
            self.count_ends()
            self.look_at_files()

    def look_at_files(self) -> None:
        """Have files checked that others may have changed; not again at once, since each check may reload the proxy."""
        if self.is_busy:
            return
        self._are_changed = self.live.have_files_changed() or self._are_changed
        if self._are_changed and self.clock() >= self._files_at:
            self._are_changed, self._files_at = False, self.clock() + FILES_S
            self.on_change()

    def _answers(self) -> bool:
        try:
            return self.live.is_serving
        except RulegenError:
            return False

    def _hindrance(self) -> str:
        try:
            return self.live.hindrance
        except RulegenError:
            return ""

    def _report_hindrance(self) -> None:
        if self.hindrance:
            self.state.metrics.site_failures.add()
            self.log.error("changes of Ingresses wait", error=self.hindrance)
        else:
            self.log.info("changes of Ingresses are served again")
        self.on_change()

    def _report_change(self) -> None:
        name = self.live.name
        if not self.is_serving:
            self._down_at = self.clock()
            self.log.error("no Ingress is served", error=f"{name} does not answer")
        elif self._down_at is not None:
            self.log.info(f"{name} answers again", seconds=round(self.clock() - self._down_at, 3))
        self.on_change()

    def count_ends(self) -> None:
        """Count and report the unexpected ends of the proxy since the last time."""
        now, before = self.live.ends, self._ends
        self._ends = now
        new = max(now.times - before.times, 0)
        if new:
            self.state.metrics.proxy_ends.add(new)
            self._unreported += new
        if not self._unreported or self.clock() < self._report_at:
            return
        self._report_at = self.clock() + REPORTS_S
        count, self._unreported = self._unreported, 0
        self.log.error(f"{self.live.name} ended unexpectedly", times=count, how=now.how)
        if self.about is not None:
            note = f"{self.live.name} ended unexpectedly: {now.how}; it is started again"
            self.send_event(EventRequest(self.about(), "IngressProxyEnded", "Serve", note))
