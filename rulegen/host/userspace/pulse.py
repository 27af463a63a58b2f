"""Asks a process on its socket every second whether it answers, without waiting for it."""

from __future__ import annotations

import socket
import time
from contextlib import suppress
from typing import Final

PING: Final = "ping"
"""The question to the relay."""
_PERIOD_S: Final = 1.0
_STOPPED_S: Final = 3.0
"""If the last look is longer ago, this process was stopped itself, and the other one may have been, too."""


class Pulse:
    """The questions of the supervisor to one process."""

    def __init__(self, home: int, name: str, question: str) -> None:
        """Take the descriptor of the folder, the name of the socket there, and a question that is always answered."""
        self._home, self._name, self._question = home, name, f"{question}\n".encode()
        self._link: socket.socket | None = None
        self._silent_at: float | None = None
        self._ask_at = self._looked_at = 0.0

    def silent_s(self) -> float:
        """Return for how many seconds an answer is missing; ask again if one has arrived."""
        now = time.monotonic()
        was_stopped, self._looked_at = now - self._looked_at > _STOPPED_S, now
        if was_stopped or self._has_answer():
            self.begin()
        if self._link is None and now >= self._ask_at:
            self._ask_at = now + _PERIOD_S
            self._silent_at = now if self._silent_at is None else self._silent_at
            self._ask()
        return 0.0 if self._silent_at is None else now - self._silent_at

    def begin(self) -> None:
        """Forget what was asked: the process is a new one, or has answered."""
        if self._link is not None:
            self._link.close()
        self._link = self._silent_at = None

    def _has_answer(self) -> bool:
        """Whether the process has answered, or closed the connection."""
        if self._link is None:
            return False
        try:
            self._link.recv(64)
        except BlockingIOError:
            return False
        except OSError:  # it has ended: the next one is asked again
            return True
        return True

    def _ask(self) -> None:
        link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        link.settimeout(0)
        with suppress(OSError):  # too many ask already, or the socket was removed: no answer either
            link.connect(f"/proc/self/fd/{self._home}/{self._name}")
            link.sendall(self._question)
            link.shutdown(socket.SHUT_WR)
            self._link = link
            return
        link.close()
