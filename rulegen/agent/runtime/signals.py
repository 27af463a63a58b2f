"""Signals of this process, passed to the running agent."""

from __future__ import annotations

import signal
import socket
import threading
from typing import TYPE_CHECKING, Any, Final, Protocol, Self

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType

_STOPS: Final = frozenset({signal.SIGTERM, signal.SIGINT})


class Wakeable(Protocol):
    """Something that waits for events until it is woken up."""

    def wake_up(self, why: str = "") -> None:
        """End the wait: for `stop`, for `reload`, or to handle a pending signal."""


class Signals:
    """Passes signals to the running agent: SIGTERM and SIGINT stop it, SIGHUP makes it reload.

    A signal between two agents is for the next one; a stop is always passed to the next one too.

    The kernel delivers the second of two signals to any thread, but Python runs handlers only in the main thread, which
    would sleep until something else happens. A separate thread therefore reads the number of each signal
    (`set_wakeup_fd`) and wakes up the agent.
    """

    def __init__(self, on_stop: Callable[[], None] = lambda: None) -> None:
        """Start without an agent; `on_stop` is called by that thread for each signal that stops the agent."""
        self._on_stop = on_stop
        self._agent: Wakeable | None = None
        self._why = ""
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        self._receiver, self._sender = socket.socketpair()
        self._sender.settimeout(0)
        self._former_fd = signal.set_wakeup_fd(self._sender.fileno(), warn_on_full_buffer=False)
        self._thread = threading.Thread(target=self._listen, name="signals", daemon=True)
        self._thread.start()
        for number, why in ((signal.SIGTERM, "stop"), (signal.SIGINT, "stop"), (signal.SIGHUP, "reload")):
            self._before[number] = signal.signal(number, self._taker(why))
        return self

    def __exit__(self, *_: object) -> None:
        for number, taker in self._before.items():
            signal.signal(number, taker)
        signal.set_wakeup_fd(self._former_fd)
        self._sender.close()
        self._thread.join()
        self._receiver.close()

    def _listen(self) -> None:
        while numbers := self._receiver.recv(64):
            if not _STOPS.isdisjoint(numbers):
                self._on_stop()
            agent = self._agent
            if agent is not None:
                agent.wake_up()

    def hand_to(self, agent: Wakeable | None) -> None:
        """Pass signals to this agent from now on, including those that arrived while there was none."""
        self._agent = agent
        if agent is not None and self._why:
            agent.wake_up(self._why)
            self._why = self._why if self._why == "stop" else ""

    def _taker(self, why: str) -> Any:
        def take(_number: int, _frame: FrameType | None) -> None:
            # A stop is also stored for the next agent: this one may be ending for a reload, and no longer reads its
            # inbox.
            if why == "stop" or (self._agent is None and not self._why):
                self._why = why
            if self._agent is not None:
                self._agent.wake_up(why)

        return take
