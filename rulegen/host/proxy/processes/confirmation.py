"""Confirms that a proxy serves a release: all workers that take connections answer with its digest."""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING, Final

from rulegen.errors import HostError
from rulegen.host.commands.waits import ENDS_ITSELF, WAITS
from rulegen.host.proxy import process_list
from rulegen.host.proxy.disk.space import shortage
from rulegen.host.proxy.processes.supervisor import START_LOG
from rulegen.host.proxy.sandbox.trial import clean
from rulegen.safe_files import open_regular

if TYPE_CHECKING:
    from pathlib import Path

    from rulegen.host.proxy.process_list import ProxyProcess
    from rulegen.host.proxy.program import ProxyProgram

_QUESTIONS: Final = 5
_MOST_READ: Final = 1 << 20
_PAUSE_S: Final = 0.02
_BUSY_S: Final = 3.0
_LONGEST_PAUSE_S: Final = 0.2


class ReleaseRefusedError(HostError):
    """The program does not serve the wanted release."""


class Complaints:
    """The log lines that the program writes from now on."""

    def __init__(self, folder: Path, program: ProxyProgram) -> None:
        """Take a folder (DIR); existing log lines are skipped."""
        self._program = program
        self._release = folder / "current"
        self._logs = {folder / "logs" / name: 0 for name in (*program.logs, START_LOG)}
        for path in self._logs:
            with contextlib.suppress(FileNotFoundError):
                self._logs[path] = path.lstat().st_size

    def read(self) -> str:
        """Return in one line why the program has failed; empty if it has not, as far as known."""
        lines = [
            line for path, start in self._logs.items() for line in self._program.serious.findall(_behind(path, start))
        ]
        if not lines:
            return ""
        final = [line for line in lines if not self._program.may_pass.search(line)]
        if not final:
            return ""
        bind = [line for line in lines if self._program.may_pass.search(line)]
        return clean((bind or final)[0].split(": ", 1)[-1], self._release, self._program)


def answers(program: ProxyProgram, folder: Path, digest: str, questions: int = _QUESTIONS) -> bool:
    """Return whether all of several status requests are answered with `digest`."""
    return all(program.serves(folder) == digest for _ in range(questions))


def still_answers(program: ProxyProgram, folder: Path, digest: str) -> bool:
    """Return whether the program still serves `digest`; while nothing answers, as during a reload, wait a moment."""
    until = time.monotonic() + _BUSY_S
    while program.serves(folder) is None and time.monotonic() < until:
        time.sleep(_PAUSE_S)
    return answers(program, folder, digest)


def wait_for(
    program: ProxyProgram,
    folder: Path,
    digest: str,
    before: tuple[ProxyProcess, ...],
    complaints: Complaints,
    patience_s: float,
) -> None:
    """Wait until the program serves all new connections with `digest`.

    Args:
        program: The program.
        folder: DIR.
        digest: The expected answer of the workers.
        before: The workers that took connections before; none of them may do so any more.
        complaints: The log lines of the program meanwhile.
        patience_s: The longest wait in seconds.

    Raises:
        RefusedError: The program reported a failure, or took too long.
        StoppingError: This process is stopping.
    """
    until = time.monotonic() + patience_s
    pause = _PAUSE_S
    what = f"{program.name} in {folder}, which does not serve release {digest} yet"
    with WAITS.waiting(what, limit_s=patience_s, end=ENDS_ITSELF) as wait:
        while not (_relieved(program, folder, before) and answers(program, folder, digest)):
            wait.check()
            said = complaints.read() or _full_disk(program, folder, time.monotonic() - wait.since)
            if said or time.monotonic() > until:
                said = said or _silence(program.serves(folder), patience_s)
                lacking = shortage(folder)
                raise ReleaseRefusedError(f"{said}; {lacking}" if lacking else said)
            time.sleep(pause)
            pause = min(pause * 1.5, _LONGEST_PAUSE_S)


def _relieved(program: ProxyProgram, folder: Path, before: tuple[ProxyProcess, ...]) -> bool:
    """Return whether workers take connections, and none of them is an old one."""
    now = {(process.pid, process.started) for process in process_list.workers(program.processes(folder))}
    return bool(now) and not now & {(process.pid, process.started) for process in before}


def _full_disk(program: ProxyProgram, folder: Path, after_s: float) -> str:
    """Return that the disk is full if the program does not run for a while: then its logs do not say why."""
    if after_s < _BUSY_S or process_list.master(program.processes(folder)) is not None:
        return ""
    return f"{program.name} does not start" if shortage(folder) else ""


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
