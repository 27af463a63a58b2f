"""Reports about the proxy: HAProxy or its supervisor has ended, and whether HAProxy answers."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from typing import TYPE_CHECKING, Final

from rulegen.backends.userspace.spares import BACKEND, POOLS_FILE, UnexpectedReportError, is_spare, read_pools
from rulegen.host.userspace import folder as of
from rulegen.host.userspace.exchange import ask
from rulegen.host.userspace.health_log import EndpointHealth, read
from rulegen.languages.listeners.state import owner_of_pool
from rulegen.text import printable
from rulegen.waits import StoppingError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FOLLOW: Final = "follow"
_AGAIN_S: Final = 1.0
_ASK_S: Final = 0.5
_ANSWER_S: Final = 1.0
_CONNECT_S: Final = 2.0
_END_S: Final = 4.0
_LONGEST: Final = 1000
_ENDED: Final = "its supervisor has ended"


class ProxyNotices:
    """Passes on each report of the supervisor, and asks HAProxy twice a second; see `ProgramNotices`."""

    def __init__(
        self,
        on_notice: Callable[[str], None],
        on_answer: Callable[[bool], None],
        on_health: Callable[[EndpointHealth], None],
    ) -> None:
        """Prepare to listen.

        Args:
            on_notice: Called with each report.
            on_answer: Called after each question with whether HAProxy answers; also true while there is none to ask.
            on_health: Called with each endpoint that HAProxy ejects or uses again.
        """
        self._on_health = on_health
        self._folder, self._on_notice, self._on_answer = of.of_this_namespace(), on_notice, on_answer
        self._stopped = threading.Event()
        self._link: socket.socket | None = None
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._listen, name="proxy notices", daemon=True)
        self._asker = threading.Thread(target=self._ask, name="proxy answers", daemon=True)

    def start(self) -> None:
        """Start to listen: from now on, a supervisor is expected to run while the proxy is to serve anything.

        A proxy that has ended altogether before is not: if the mode needs one, the first write starts it. While nothing
        is to be served, there is nobody to listen to: this waits for `proxy_begins`.
        """
        _forget_ended(self._folder)
        if _is_serving(self._folder):
            self.begin()
        else:
            _WAITING.append(self)

    def begin(self) -> None:
        """Listen, in threads of its own."""
        self._thread.start()
        self._asker.start()

    def stop(self) -> None:
        """Stop listening."""
        if self in _WAITING:
            _WAITING.remove(self)
        if not self._thread.is_alive():
            return
        with self._lock:
            self._stopped.set()
            if self._link is not None:
                self._link.shutdown(socket.SHUT_RDWR)
        self._thread.join(_END_S)
        self._asker.join(_END_S)
        self._on_answer(True)  # noqa: FBT003 - a callback

    def _ask(self) -> None:
        while not self._stopped.wait(_ASK_S):
            self._on_answer(_answers(self._folder))

    def _take(self, line: str) -> None:
        health = read(line)
        if health is None:
            self._on_notice(printable(line, _LONGEST))
        elif "." in (pool := _pool(self._folder, health.backend)):
            self._on_health(EndpointHealth(owner_of_pool(pool), health.endpoint, health.is_up))

    def _listen(self) -> None:
        is_expected = True
        while not self._stopped.is_set():
            link = _connected(self._folder)
            if link is None:
                if is_expected and _is_serving(self._folder):
                    self._on_notice(_ENDED)
                is_expected = False
                self._stopped.wait(_AGAIN_S)
                continue
            is_expected = True
            with link, link.makefile("rb") as lines:
                with self._lock:
                    self._link = None if self._stopped.is_set() else link
                if self._link is None:
                    return
                with contextlib.suppress(OSError):  # reset: it was killed before it has accepted the connection
                    while line := lines.readline(_LONGEST):
                        self._take(line.decode("utf-8", "replace").strip())
                with self._lock:
                    self._link = None


_WAITING: Final[list[ProxyNotices]] = []
"""Those of this process that begin to listen when there is a proxy."""


def proxy_begins() -> None:
    """Have reports begin: this process is about to have the proxy serve something."""
    while _WAITING:
        _WAITING.pop().begin()


def _pool(folder: Path, backend: str) -> str:
    """Return the pool that a backend serves; a spare one serves that of the map, or none any more."""
    match = BACKEND.fullmatch(backend)
    if match is None or not is_spare(match["pool"]):
        return match["pool"] if match is not None else ""
    try:
        return read_pools(ask(folder, of.CONTROL, f"show map {POOLS_FILE}\n", _ANSWER_S) or "").get(backend, "")
    except (OSError, UnexpectedReportError):
        return ""


def _is_serving(folder: Path) -> bool:
    """Return whether the proxy is to serve anything."""
    return (folder / of.CURRENT).is_symlink()


def _forget_ended(folder: Path) -> None:
    with contextlib.suppress(OSError):
        questions = ((of.REQUESTS, "state\n"), (of.CONTROL, "show info\n"))
        if _is_serving(folder) and all(ask(folder, name, text, _ANSWER_S) is None for name, text in questions):
            (folder / of.CURRENT).unlink(missing_ok=True)


def _answers(folder: Path) -> bool:
    """Return whether HAProxy answers, or nothing is to be served."""
    try:
        return not _is_serving(folder) or ask(folder, of.CONTROL, "show info\n", _ANSWER_S) is not None
    except (OSError, StoppingError):
        return False


def _connected(folder: Path) -> socket.socket | None:
    """Return a connection on which the supervisor of a folder sends its reports; None if none runs."""
    try:
        home = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return None
    link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    link.settimeout(_CONNECT_S)  # a supervisor that hangs accepts some connections, then none
    try:
        link.connect(f"/proc/self/fd/{home}/{of.REQUESTS}")
        link.sendall(f"{FOLLOW}\n".encode())
        link.settimeout(None)
    except OSError:
        link.close()
        return None
    finally:
        os.close(home)
    return link
