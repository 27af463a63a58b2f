"""Confirms that nginx serves a release: all workers that take connections answer with its digest."""

from __future__ import annotations

import contextlib
import os
import re
import time
from typing import TYPE_CHECKING, Final

from rulegen.errors import HostError
from rulegen.host.nginx.status import ask
from rulegen.host.proxy.processes import process_list
from rulegen.host.proxy.processes.supervisor import START_LOG
from rulegen.host.proxy.sandbox.trial import clean
from rulegen.safe_files import open_regular

if TYPE_CHECKING:
    from pathlib import Path

    from rulegen.host.proxy.processes.process_list import NginxProcess

_QUESTIONS: Final = 5
_MOST_READ: Final = 1 << 20
_PAUSE_S: Final = 0.02
_LONGEST_PAUSE_S: Final = 0.2
_SERIOUS: Final = re.compile(r"\[emerg\] .*")
_MAY_PASS: Final = re.compile(r" bind\(\) to \S+ failed ")
"""nginx tries to bind five times before it fails."""


class ReleaseRefusedError(HostError):
    """nginx does not serve the wanted release."""


class Complaints:
    """The log lines that nginx writes from now on."""

    def __init__(self, folder: Path) -> None:
        """Take a folder (DIR); existing log lines are skipped."""
        self._release = folder / "current"
        self._logs = {folder / "logs" / name: 0 for name in ("error.log", START_LOG)}
        for path in self._logs:
            with contextlib.suppress(FileNotFoundError):
                self._logs[path] = path.lstat().st_size

    def read(self) -> str:
        """Return in one line why nginx has failed; empty if it has not, as far as known."""
        lines = [line for path, start in self._logs.items() for line in _SERIOUS.findall(_behind(path, start))]
        if not lines:
            return ""
        final = [line for line in lines if not _MAY_PASS.search(line)]
        if not final:
            return ""
        bind = [line for line in lines if _MAY_PASS.search(line)]
        return clean((bind or final)[0].removeprefix("[emerg] ").split(": ", 1)[-1], self._release)


def answers(folder: Path, digest: str, questions: int = _QUESTIONS) -> bool:
    """Return whether all of several status requests are answered with `digest`."""
    return all(ask(folder) == digest for _ in range(questions))


def wait_for(
    folder: Path, digest: str, before: tuple[NginxProcess, ...], complaints: Complaints, patience_s: float
) -> None:
    """Wait until nginx serves all new connections with `digest`.

    Args:
        folder: DIR.
        digest: The expected answer of the workers.
        before: The workers that took connections before; none of them may do so any more.
        complaints: The log lines of nginx meanwhile.
        patience_s: The longest wait in seconds.

    Raises:
        RefusedError: nginx reported a failure, or took too long.
    """
    until = time.monotonic() + patience_s
    pause = _PAUSE_S
    while not (_relieved(folder, before) and answers(folder, digest)):
        said = complaints.read()
        if said:
            raise ReleaseRefusedError(said)
        if time.monotonic() > until:
            raise ReleaseRefusedError(_silence(ask(folder), patience_s))
        time.sleep(pause)
        pause = min(pause * 1.5, _LONGEST_PAUSE_S)


def _relieved(folder: Path, before: tuple[NginxProcess, ...]) -> bool:
    """Return whether workers take connections, and none of them is an old one."""
    now = {(process.pid, process.started) for process in process_list.workers(process_list.find(folder))}
    return bool(now) and not now & {(process.pid, process.started) for process in before}


def _silence(answer: str | None, patience_s: float) -> str:
    if answer is None:
        return f"nothing answers on its status socket after {patience_s:g} s"
    return f"after {patience_s:g} s its workers still serve {answer[:64]!r}"


def _behind(path: Path, start: int) -> str:
    try:
        with os.fdopen(open_regular(path), "rb") as file:
            # the log was replaced
            file.seek(start if os.fstat(file.fileno()).st_size >= start else 0)
            return file.read(_MOST_READ).decode("utf-8", "replace")
    except OSError:
        return ""
