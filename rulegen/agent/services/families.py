"""An address family whose tools fail is tried in a separate thread, and written again when its tools work.

The same holds for IPv6 without tools from the start: then IPv4 alone is no failure. In a mode that writes no rules of
iptables, a family is tried again while its old rules cannot be seen.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from rulegen.agent.retry import LONGEST_PAUSE_S, RetryPause
from rulegen.agent.telemetry.log import fault
from rulegen.errors import HostError
from rulegen.net import Family

if TYPE_CHECKING:
    from collections.abc import Callable

    from rulegen.agent.services.reports import SyncReports
    from rulegen.host.dataplane.dataplane import Dataplane

FIRST_PAUSE_S: Final = 1.0


@dataclass(slots=True)
class _Attempt:
    """The attempts to use the tools of one family again.

    Attributes:
        again_at: The time of the next attempt; infinity while one runs.
        result: The result of an attempt that has ended: an error, or None; empty before.
    """

    pause: RetryPause = field(default_factory=lambda: RetryPause(FIRST_PAUSE_S, LONGEST_PAUSE_S))
    again_at: float = math.inf
    result: list[HostError | None] = field(default_factory=list)


@dataclass(slots=True)
class FamilyRetries:
    """Tries the families again that the dataplane has set aside; only the thread of the sync calls its methods.

    Attributes:
        on_result: Called by the thread of an attempt at its end.
        on_back: Called when a family is used again.
    """

    writer: Dataplane
    reports: SyncReports
    clock: Callable[[], float]
    on_result: Callable[[], None]
    on_back: Callable[[], None]
    _attempts: dict[Family, _Attempt] = field(default_factory=dict)

    def settle(self) -> None:
        """After a sync or check: report the families that it has set aside, and drop those that work again."""
        aside = dict(self.writer.aside)
        if self.writer.without_ipv6 is not None:
            aside.setdefault(Family.IPV6, self.writer.without_ipv6)
        for family, error in self.writer.unseen.items():
            aside.setdefault(family, error)
        for family in [family for family in self._attempts if family not in aside]:
            del self._attempts[family]
        for family, error in aside.items():
            attempt = self._attempts.setdefault(family, _Attempt())
            if attempt.again_at == math.inf and not attempt.result:
                self._failed(family, attempt, error)

    def turn(self) -> None:
        """Take the results of attempts, and start those that are due."""
        for family, attempt in list(self._attempts.items()):
            if attempt.result:
                error = attempt.result.pop()
                if error is not None:
                    self._failed(family, attempt, error)
                else:
                    self.writer.include(family)
                    self.reports.log.info("the tools work now: all rules are compared", family=str(family))
                    self.on_back()
            elif self.clock() >= attempt.again_at:
                attempt.again_at = math.inf
                threading.Thread(target=self._try, args=(family, attempt), name=f"{family} tools", daemon=True).start()

    def due_in(self) -> float:
        """Return the seconds until the next attempt is due."""
        now = self.clock()
        return min((max(attempt.again_at - now, 0.0) for attempt in self._attempts.values()), default=math.inf)

    def _try(self, family: Family, attempt: _Attempt) -> None:
        error: HostError | None = None
        try:
            self.writer.check_family(family)
        except HostError as failure:
            error = failure
        attempt.result.append(error)
        self.on_result()

    def _failed(self, family: Family, attempt: _Attempt, error: HostError) -> None:
        pause_s = attempt.pause.failed()
        attempt.again_at = self.clock() + pause_s
        if family in self.writer.aside:
            self.reports.family_failure(str(family), fault(error), pause_s)
