"""Long waits are logged, and ended when the agent has to stop."""

from __future__ import annotations

import os
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from rulegen.waits import WAITS, Wait, Waits

if TYPE_CHECKING:
    from collections.abc import Callable

    from rulegen.agent.telemetry.log import AgentLog

NOTICE_S = 15.0
"""A wait is logged after this time in seconds, and again each time it has become twice as long."""
LOOK_S: Final = 1.0
TERM_S = 4.0
"""After SIGTERM, programs have this time to end by themselves."""
KILL_S: Final = 4.0
"""After this further time, the agent ends although something still waits."""
EXIT_CODE: Final = 1


@dataclass(slots=True)
class WaitReports:
    """Logs what the agent waits for if it takes long, from a thread of its own."""

    log: AgentLog
    waits: Waits = field(default_factory=lambda: WAITS)
    notice_s: float = field(default_factory=lambda: NOTICE_S)
    _ended: threading.Event = field(default_factory=threading.Event)
    _thread: threading.Thread | None = None

    def start(self) -> None:
        """Start."""
        self._thread = threading.Thread(target=self._run, name="waits", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(min(LOOK_S, self.notice_s / 2)):
            for wait, age_s in self.waits.due(self.notice_s):
                report(self.log, wait, age_s)


def report(log: AgentLog, wait: Wait, age_s: float) -> None:
    """Log one wait."""
    limit = f"{wait.limit_s:g}" if wait.limit_s is not None else ""
    log.warning("still waiting", what=wait.what, pid=wait.pid or "", for_s=round(age_s, 1), given_up_after_s=limit)


@dataclass(slots=True)
class StopDeadline:
    """Ends what the agent waits for after SIGTERM, so that it stops in time.

    Programs that it has started get `term_s` seconds to end, and are then killed. If a wait of the main thread cannot
    be ended, for example in the kernel or at a disk, the process exits after `kill_s` more seconds. A computation is
    not interrupted.
    """

    log: AgentLog
    waits: Waits = field(default_factory=lambda: WAITS)
    term_s: float = field(default_factory=lambda: TERM_S)
    kill_s: float = KILL_S
    leave: Callable[[int], object] = os._exit
    _is_begun: bool = False
    _stopped: threading.Event = field(default_factory=threading.Event)

    def begin(self) -> None:
        """Start the time; further calls do nothing."""
        if not self._is_begun:
            self._is_begun = True
            threading.Thread(target=self._run, name="stop", daemon=True).start()

    def stopped(self) -> None:
        """Record that the sync has ended: what follows has time limits of its own."""
        self._stopped.set()

    def _run(self) -> None:
        if self._stopped.wait(self.term_s):
            return
        for wait in self.waits.end_all():
            if wait.is_ended:
                self.log.warning("wait ended, because the agent must stop in time", what=wait.what, pid=wait.pid or "")
        main = threading.main_thread().ident
        while not self._stopped.wait(self.kill_s):
            stuck = [wait for wait in self.waits.innermost() if wait.thread == main]
            if stuck:
                for wait in stuck:
                    self.log.error("stopped although a wait has not ended", what=wait.what, pid=wait.pid or "")
                self.leave(EXIT_CODE)
                return
            self.waits.end_all()
