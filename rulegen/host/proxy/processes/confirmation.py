"""Confirms that a proxy serves a release: all workers that take connections answer with its digest."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Final, NamedTuple

from rulegen.errors import HostError
from rulegen.host.proxy import process_list
from rulegen.host.proxy.disk.space import shortage
from rulegen.host.proxy.processes.draining import ASKED_AGAIN_S
from rulegen.host.proxy.processes.ends import ends_of
from rulegen.host.proxy.processes.supervisor import START_LOG
from rulegen.host.proxy.sandbox.trial import clean
from rulegen.safe_files import open_regular
from rulegen.waits import ENDS_ITSELF, WAITS

if TYPE_CHECKING:
    from pathlib import Path

    from rulegen.host.proxy.process_list import ProxyProcess
    from rulegen.host.proxy.program import ProxyProgram

_QUESTIONS: Final = 5
_MOST_READ: Final = 1 << 20
_HEAD: Final = 4096
_CRASHES: Final = 2
_PAUSE_S: Final = 0.02
_BUSY_S: Final = 3.0
_STOPPED_S: Final = 5.0
_LONGEST_PAUSE_S: Final = 0.2


class ReleaseRefusedError(HostError):
    """The program does not serve the wanted release."""


class _Mark(NamedTuple):
    """The end of a log at one time. The supervisor rewrites the log at each start, perhaps with equal text.

    Attributes:
        size: The size of the log.
        changed_at: The time of its last change.
        head: Its first bytes.
    """

    size: int = 0
    changed_at: int = 0
    head: bytes = b""

    @classmethod
    def of(cls, path: Path) -> _Mark:
        try:
            with os.fdopen(open_regular(path), "rb") as file:
                status = os.fstat(file.fileno())
                return cls(status.st_size, status.st_mtime_ns, file.read(_HEAD))
        except OSError:
            return cls()

    def behind(self, path: Path) -> str:
        """Return what was written since; the whole log if it was replaced or written anew."""
        try:
            with os.fdopen(open_regular(path), "rb") as file:
                status = os.fstat(file.fileno())
                is_other = file.read(len(self.head)) != self.head
                is_again = status.st_size == self.size and status.st_mtime_ns != self.changed_at
                file.seek(0 if is_other or is_again else self.size)
                return file.read(_MOST_READ).decode("utf-8", "replace")
        except OSError:
            return ""


class Complaints:
    """The log lines that the program writes from now on."""

    def __init__(self, folder: Path, program: ProxyProgram) -> None:
        """Take a folder (DIR); existing log lines are skipped."""
        self._program = program
        self._release = folder / "current"
        paths = [folder / "logs" / name for name in (*program.logs, START_LOG)]
        self._logs = {path: _Mark.of(path) for path in paths}

    def read(self) -> str:
        """Return in one line why the program has failed; empty if it has not, as far as known."""
        lines = [line for path, mark in self._logs.items() for line in self._program.serious.findall(mark.behind(path))]
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
    *,
    reloads: ProxyProcess | None = None,
) -> None:
    """Wait until the program serves all new connections with `digest`.

    Args:
        program: The program.
        folder: DIR.
        digest: The expected answer of the workers.
        before: The workers that took connections before; none of them may do so any more.
        complaints: The log lines of the program meanwhile.
        patience_s: The longest wait in seconds.
        reloads: The master that was asked to reload. It is asked again if it may have missed that.

    Raises:
        RefusedError: The program reported a failure, or took too long.
        StoppingError: This process is stopping.
    """
    until, asked_at = time.monotonic() + patience_s, time.monotonic()
    pause, (ended, _) = _PAUSE_S, ends_of(folder)
    what = f"{program.name} in {folder}, which does not serve release {digest} yet"
    with WAITS.waiting(what, pid=reloads.pid if reloads else 0, limit_s=patience_s, end=ENDS_ITSELF) as wait:
        while not (_relieved(program, folder, before) and answers(program, folder, digest)):
            wait.check()
            times, how = ends_of(folder)
            looping = f"it ends again and again: {how}" if times - ended >= _CRASHES else ""
            age_s = time.monotonic() - wait.since
            said = complaints.read() or looping or _full_disk(program, folder, age_s) or _stopped(reloads, age_s)
            if said or time.monotonic() > until:
                said = said or _silence(program.serves(folder), patience_s)
                lacking = shortage(folder)
                raise ReleaseRefusedError(f"{said}; {lacking}" if lacking else said)
            if reloads is not None and time.monotonic() - asked_at > ASKED_AGAIN_S:
                asked_at = time.monotonic()
                if _has_missed(program, folder, before):
                    process_list.send(reloads, program.reload)
            time.sleep(pause)
            pause = min(pause * 1.5, _LONGEST_PAUSE_S)


def _relieved(program: ProxyProgram, folder: Path, before: tuple[ProxyProcess, ...]) -> bool:
    """Return whether workers take connections, and none of them is an old one."""
    now = {(process.pid, process.started) for process in process_list.workers(program.processes(folder))}
    return bool(now) and not now & {(process.pid, process.started) for process in before}


def _has_missed(program: ProxyProgram, folder: Path, before: tuple[ProxyProcess, ...]) -> bool:
    """Return whether the master was not reached by the request to reload: it answers, and has no new worker."""
    if not program.may_miss_reload or program.serves(folder) is None:
        return False
    now = {(process.pid, process.started) for process in process_list.workers(program.processes(folder))}
    return now <= {(process.pid, process.started) for process in before}


def _stopped(master: ProxyProcess | None, after_s: float) -> str:
    """Return that the master is stopped, if it has had some time to go on: it does not reload before that."""
    if master is None or after_s < _STOPPED_S or not process_list.is_stopped(master.pid):
        return ""
    return f"its master (process {master.pid}) is stopped by a signal"


def _full_disk(program: ProxyProgram, folder: Path, after_s: float) -> str:
    """Return that the disk is full if the program does not run for a while: then its logs do not say why."""
    if after_s < _BUSY_S or process_list.master(program.processes(folder)) is not None:
        return ""
    return f"{program.name} does not start" if shortage(folder) else ""


def _silence(answer: str | None, patience_s: float) -> str:
    if answer is None:
        return f"nothing answers on its status socket after {patience_s:g} s"
    return f"after {patience_s:g} s its workers still serve {answer[:64]!r}"
