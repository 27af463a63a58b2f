"""systemd, where it started us: that we are ready, that we end, and that we live (sd_notify(3))."""

from __future__ import annotations

import os
import socket
import threading
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

PINGS: Final = 3
"""How often it is told that we live, in the time in which it wants to hear so once."""


def tell_systemd(state: str) -> None:
    """Tell systemd how we are, where it has asked."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path:
        return
    address = f"\0{path[1:]}" if path.startswith("@") else path
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as notify:
            notify.sendto(state.encode(), address)
    except OSError:  # systemd went on without us, or there is no descriptor left: it is told again soon
        return


class Watchdog:
    """Tells systemd that we live for as long as changes get through: else a restart may help."""

    def __init__(self, is_working: Callable[[], bool]) -> None:
        """Take what tells whether changes get through, as /livez does."""
        self._is_working = is_working
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin, where systemd has set a watchdog for this process."""
        period = os.environ.get("WATCHDOG_USEC", "")
        if not period.isdigit() or int(period) <= 0 or os.environ.get("WATCHDOG_PID", "") not in {"", str(os.getpid())}:
            return
        every_s = int(period) / 1e6 / PINGS
        self._thread = threading.Thread(target=self._run, args=(every_s,), name="watchdog", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self, every_s: float) -> None:
        while not self._ended.wait(every_s):
            if self._is_working():
                tell_systemd("WATCHDOG=1")
