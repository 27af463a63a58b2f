"""rulegen in forks of a process that has imported it: a fresh interpreter costs most of what a short run of it costs.

A fork has arguments, an environment, streams and a session of its own, and is in the network namespace of who asks.
"""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import subprocess
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from integration.lab.peer.templates import Forked, Templates

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_TEMPLATES = Templates()
atexit.register(_TEMPLATES.close)


class Fork:
    """A program in a fork, with what the tests use of `subprocess.Popen`."""

    def __init__(self, forked: Forked) -> None:
        self._forked = forked
        self.pid = forked.pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return its exit code; None where it still runs."""
        if self.returncode is None:
            self.returncode = self._forked.poll()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end and return its exit code.

        Raises:
            subprocess.TimeoutExpired: It still runs.
        """
        if self.returncode is None:
            self.returncode = self._forked.wait(timeout)
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        """Ask it to end."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it."""
        self.send_signal(signal.SIGKILL)


def start(argv: Sequence[str], output: Path, environment: Mapping[str, str] | None = None) -> Fork:
    """Start `python FLAGS -m MODULE ...`; what it prints is added to a file."""
    folder = Path(tempfile.mkdtemp(prefix="fork-"))
    try:
        (folder / "stdin").touch()
        for stream in ("stdout", "stderr"):
            (folder / stream).symlink_to(output)
        return Fork(_forked(argv, folder, environment))
    finally:
        shutil.rmtree(folder)


def run(argv: Sequence[str], timeout_s: float = 60) -> subprocess.CompletedProcess[str]:
    """Run `python FLAGS -m MODULE ...` to its end; the exit code is the caller's to judge.

    Raises:
        subprocess.TimeoutExpired: It did not end in time; it is killed.
    """
    with tempfile.TemporaryDirectory(prefix="fork-") as name:
        folder = Path(name)
        for stream in ("stdin", "stdout", "stderr"):
            (folder / stream).touch()
        forked = _forked(argv, folder)
        try:
            code = forked.wait(timeout_s)
        except subprocess.TimeoutExpired:
            os.killpg(forked.pid, signal.SIGKILL)
            raise
        output = [(folder / stream).read_text(errors="replace") for stream in ("stdout", "stderr")]
    return subprocess.CompletedProcess(list(argv), code, *output)


def _forked(argv: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None) -> Forked:
    here = f"/proc/{os.getpid()}/task/{threading.get_native_id()}/ns/net"
    return _TEMPLATES.fork(list(argv), {**os.environ, **(environment or {})}, folder, network=here)
