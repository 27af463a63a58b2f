"""Notices for systemd, if it started this process: ready, stopping, alive (sd_notify(3))."""

from __future__ import annotations

import os
import socket
import threading
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

PINGS: Final = 3
"""Watchdog notices per watchdog period."""


def notify_systemd(state: str) -> None:
    """Send a state to systemd, if systemd gave this process a socket for it."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path:
        return
    address = f"\0{path[1:]}" if path.startswith("@") else path
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as notify:
            notify.sendto(state.encode(), address)
    except OSError:  # systemd has restarted, or no descriptor is free: the next notice follows soon
        return


class Watchdog:
    """Notifies systemd while changes reach the kernel; if they do not, its watchdog restarts the agent."""

    def __init__(self, is_working: Callable[[], bool]) -> None:
        """Take a function that returns whether changes reach the kernel, as /livez does."""
        self._is_working = is_working
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Start, if systemd has set a watchdog for this process."""
        period = os.environ.get("WATCHDOG_USEC", "")
        if not period.isdigit() or int(period) <= 0 or os.environ.get("WATCHDOG_PID", "") not in {"", str(os.getpid())}:
            return
        every_s = int(period) / 1e6 / PINGS
        self._thread = threading.Thread(target=self._run, args=(every_s,), name="watchdog", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()

    def _run(self, every_s: float) -> None:
        while not self._ended.wait(every_s):
            if self._is_working():
                notify_systemd("WATCHDOG=1")
