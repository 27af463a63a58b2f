"""Tools that are started in advance, so that a change does not wait for their start.

Starting `iptables-nft-restore` from a program of 200 MB takes some milliseconds, mostly for loading it. It then waits
for its script and reads the state of the kernel only afterwards, so it can wait for months.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rulegen.errors import HostError
from rulegen.host.commands.runner import end, finish, located, start

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

    from rulegen.host.commands.runner import Command, Completed


@dataclass(frozen=True, slots=True)
class _Tool:
    """Identity of a program file; it changes with an update."""

    path: str
    device: int
    inode: int
    changed_ns: int

    @classmethod
    def of(cls, path: str) -> _Tool:
        status = Path(path).stat()
        return cls(path, status.st_dev, status.st_ino, status.st_ctime_ns)


class Standby:
    """Runs commands, and keeps the tool of recurring ones started.

    One process waits for each form of such a command. It has read nothing, so it ends without any effect when this
    process ends, even if it is killed.
    """

    def __init__(self, recurs: Callable[[Command], bool]) -> None:
        """Start with none.

        Args:
            recurs: Returns whether a command will come again with the same arguments and another input.
        """
        self._recurs = recurs
        self._waiting: dict[tuple[str, ...], tuple[_Tool, subprocess.Popen[bytes]]] = {}
        self._lock = threading.Lock()
        self._is_over = False

    def run_noting(self, command: Command, note: Callable[[int], None]) -> Completed:
        """Run a command as `rulegen.host.commands.runner.run_noting` does, and raise what that raises."""
        path = located(command)
        recurs = not command.environment and self._recurs(command)
        process = self._take(command.argv, path) if recurs else None
        if process is None:
            process = start(command, path)
        ended = finish(process, command, note)
        if recurs:
            self._ready(command, path)
        return ended

    def stop(self) -> None:
        """End the waiting processes; no further ones are started."""
        with self._lock:
            self._is_over = True
            waiting, self._waiting = self._waiting, {}
        for _, process in waiting.values():
            end(process)

    def _take(self, argv: tuple[str, ...], path: str) -> subprocess.Popen[bytes] | None:
        """Return the waiting process for a command; None if there is none that can be used."""
        with self._lock:
            tool, process = self._waiting.pop(argv, (None, None))
        if process is None:
            return None
        try:
            if process.poll() is None and tool == _Tool.of(path):
                return process
        except OSError:
            pass  # the program was deleted; starting it reports that
        end(process)
        return None

    def _ready(self, command: Command, path: str) -> None:
        """Start a process for the next such command; if this fails, that command reports it."""
        try:
            tool, process = _Tool.of(path), start(command, path)
        except (OSError, HostError):
            return
        with self._lock:
            if not self._is_over and command.argv not in self._waiting:
                self._waiting[command.argv] = tool, process
                return
        end(process)
