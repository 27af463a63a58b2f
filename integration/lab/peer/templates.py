"""Processes that have imported a program and run it in forks: see `prestarted`."""

from __future__ import annotations

import json
import select
import socket
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

PRESTARTED = Path(__file__).with_name("prestarted.py")


class Template:
    """One such process, which ends when its socket does."""

    def __init__(self, python: list[str], module: str) -> None:
        ours, theirs = socket.socketpair()
        argv = [*python, str(PRESTARTED), str(theirs.fileno()), module]
        with theirs:
            # Outside of the groups of its forks, and in no group that a test ends.
            self._process = subprocess.Popen(argv, pass_fds=[theirs.fileno()], start_new_session=True)
        self._socket = ours
        self._begun = b""
        self._codes: dict[int, int] = {}

    def fork(self, argv: list[str], env: dict[str, str], folder: Path, network: str) -> int:
        """Run the program, in a network namespace if one is given, by its file; return the process once it runs."""
        asked = json.dumps({"argv": argv, "env": env, "folder": str(folder), "network": network})
        self._socket.sendall(asked.encode() + b"\n")
        while True:
            answer = self._read(None)
            if "pid" in answer:
                self._codes.pop(answer["pid"], None)  # of an earlier process that had this number
                return answer["pid"]

    def code(self, pid: int, timeout_s: float | None) -> int | None:
        """Return the exit code of a fork; None where it still runs when the time is over."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while pid not in self._codes:
            left = None if deadline is None else max(deadline - time.monotonic(), 0.0)
            if not self._read(left):
                return None
        return self._codes[pid]

    def close(self) -> None:
        """End the process; its forks go on."""
        self._socket.close()
        self._process.wait()

    def _read(self, timeout_s: float | None) -> dict[str, int]:
        """Read one message and return it; nothing at the timeout, after which reading goes on where it was."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while b"\n" not in self._begun:
            left = None if deadline is None else max(deadline - time.monotonic(), 0.0)
            if not select.select([self._socket], [], [], left)[0]:
                return {}
            piece = self._socket.recv(65536)
            if not piece:
                raise OSError(f"{PRESTARTED.name} has ended with {self._process.wait()}")
            self._begun += piece
        line, _, self._begun = self._begun.partition(b"\n")
        message: dict[str, int] = json.loads(line)
        if "ended" in message:
            self._codes[message["ended"]] = message["code"]
        return message


@dataclass(frozen=True)
class Forked:
    """A program in a fork, asked like a `subprocess.Popen`."""

    template: Template
    pid: int

    def poll(self) -> int | None:
        """Return its exit code; None where it still runs."""
        return self.template.code(self.pid, 0.0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end and return its exit code.

        Raises:
            subprocess.TimeoutExpired: It still runs.
        """
        code = self.template.code(self.pid, timeout)
        if code is None:
            raise subprocess.TimeoutExpired(str(self.pid), timeout or 0.0)
        return code


@dataclass
class Templates:
    """A template for each Python, its flags and module; each begins when first asked for."""

    _started: dict[tuple[str, ...], Template] = field(default_factory=dict)

    def fork(self, argv: list[str], env: dict[str, str], folder: Path, network: str = "") -> Forked:
        """Run `python FLAGS -m MODULE ...` in a fork of its template, in its network namespace or in another."""
        at = argv.index("-m")
        key = tuple(argv[: at + 2])
        if key not in self._started:
            self._started[key] = Template(argv[:at], argv[at + 1])
        template = self._started[key]
        return Forked(template, template.fork(argv[at + 2 :], env, folder, network))

    def close(self) -> None:
        """End the templates; their forks go on."""
        for template in self._started.values():
            template.close()
        self._started.clear()
