"""Which processes of a proxy get which signal until all have ended, also if the master hangs.

A master passes the signal on to its workers. One that hangs does not, so after a moment the workers get it too. When
they have ended, nothing is served any more, and the master is killed.
"""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Final

from rulegen.host.proxy import process_list
from rulegen.host.proxy.process_list import Role

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rulegen.host.proxy.process_list import ProxyProcess

ASKED_AGAIN_S: Final = 1.0
"""A signal is repeated after this time: a program that is just starting can miss it."""
_HANGS_S: Final = 1.5
_ALONE_S: Final = 3.0


class Draining:
    """The signals of one end."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._number: signal.Signals | None = None
        self._asked_at = self._again_at = self._served_at = 0.0

    def tell(self, running: tuple[ProxyProcess, ...], number: signal.Signals, now: float) -> bool:
        """Signal the processes that need it now; return whether it was time for that.

        Args:
            running: The processes of the program.
            number: The signal.
            now: The time, in seconds of a monotonic clock.
        """
        if number != self._number:
            self._number, self._asked_at, self._again_at = number, now, now
            self._served_at = max(self._served_at, now)
        if any(process.role in {Role.WORKER, Role.LEAVING} for process in running):
            self._served_at = now
        if now < self._again_at:
            return False
        self._again_at = now + ASKED_AGAIN_S
        for process in self._asked(running, now):
            is_useless = process.role is Role.MASTER and now - self._served_at > _ALONE_S
            process_list.send(process, signal.SIGKILL if is_useless else number)
        return True

    def _asked(self, running: tuple[ProxyProcess, ...], now: float) -> Iterator[ProxyProcess]:
        """Yield the master and orphaned workers, and later all; SIGKILL is for all."""
        if self._number == signal.SIGKILL or now - self._asked_at > _HANGS_S:
            yield from running
            return
        master = process_list.master(running)
        if master is not None:
            yield master
        yield from process_list.orphans(running)
