"""The supervisor: a small process that starts a proxy, restarts it after an unexpected end, and outlives the command.

`python -m MODULE DIR PROGRAM [CODE]` detaches itself and returns once it holds the lock
DIR/run/keeper.lock. If another supervisor holds the lock, it does nothing. CODE is a checksum: commands replace a
supervisor of other code (`rulegen.host.proxy.processes.supervision`). These signals control it:

    QUIT, TERM   let the program finish its requests, then end; a second one ends it at once
    HUP          start the program now, without waiting for the next try
    USR2         end; the program keeps running

The program keeps running if its supervisor ends; the next supervisor finds it. The imports are small, because the
process lives long.

It runs as root for months and starts a program from a path. The path is therefore checked at each start, and all files
are written to folders that it has held by descriptors since its start. MODULE knows the program (`ProxyProgram`).
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from typing import TYPE_CHECKING, Final, NamedTuple

from rulegen.host.files import trust
from rulegen.host.locks.file_locks import locked_for_good, locked_or_not
from rulegen.host.proxy import process_list as processes
from rulegen.host.proxy.disk.log_rotation import RotatedLog, cut, rotate
from rulegen.host.proxy.disk.space import shortage
from rulegen.host.proxy.processes.draining import Draining
from rulegen.host.proxy.processes.ends import add_end
from rulegen.safe_files import read_regular, write_at

if TYPE_CHECKING:
    from pathlib import Path

    from rulegen.host.proxy.program import ProxyProgram

LOCK: Final = "keeper.lock"
PID_FILE: Final = "keeper.pid"
START_LOG: Final = "start.log"
"""The messages of the program at its last start, before it opened its own log."""

_AT_WORK: Final = b"at work"
_MOST_SAID: Final = 1 << 20
_ROUND_S: Final = 20.0
_COMPANION_ROUND_S: Final = 1.0
_SOON_S: Final = 0.05
_FIRST_PAUSE_S: Final = 0.2
_LONGEST_PAUSE_S: Final = 5.0  # nothing is served meanwhile
_STABLE_S: Final = 30.0
_ORPHANS_S: Final = 2.0
_START_S: Final = 30.0
_FILE_S: Final = 0.01
"""The time limit for a start, and for each file of the configuration."""


class Held(NamedTuple):
    """The folders of a supervisor as descriptors, so that a rename of a folder does not change where it writes.

    Attributes:
        home: DIR.
        run: Its folder `run`.
        logs: Its folder `logs`.
    """

    home: int
    run: int
    logs: int

    @classmethod
    def of(cls, folder: Path) -> Held:
        """Return the descriptors for a folder.

        Raises:
            OSError: The folder does not exist, or another user could write to it or replace it.
        """
        with contextlib.ExitStack() as opened:  # this is repeated for months: no descriptor may stay open
            home = trust.open_folder(folder)
            opened.callback(os.close, home)
            inner = []
            for name in ("run", "logs"):
                inner.append(trust.open_inner(home, name, folder / name))
                opened.callback(os.close, inner[-1])
                trust.check_written(inner[-1], folder / name, all_ours=name == "run")
            opened.pop_all()
        return cls(home, *inner)

    def close(self) -> None:
        """Close the descriptors."""
        for descriptor in self:
            os.close(descriptor)


class Supervisor:
    """Keeps the program of one folder running."""

    def __init__(self, folder: Path, program: str, held: Held, kind: ProxyProgram) -> None:
        """Take a folder (DIR), the path of the program, the descriptors of the folders, and the kind of program."""
        self._folder = folder
        self._program = program
        self._kind = kind
        self._name = kind.name
        self._held = held
        self._journal = RotatedLog(held.logs, "keeper.log")
        self._companion = kind.companion(self._note)
        self._child = 0
        self._start_limit_s = _START_S
        self._given_up = 0
        self._asked = 0
        self._now = False
        self._leave = False
        self._refused = False
        self._wake, self._waker = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)

    def listen(self) -> None:
        """Install the signal handlers."""
        signal.set_wakeup_fd(self._waker, warn_on_full_buffer=False)
        for number in (signal.SIGQUIT, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2):
            signal.signal(number, self._signalled)

    def keep(self) -> None:
        """Keep the program running until a signal ends the supervisor."""
        pause = 0.0
        while not self._asked and not self._leave:
            began = time.monotonic()
            self._tend_companion()
            running = self._kind.processes(self._folder)
            pid = self._adopt(running) or self._start()
            if pid:
                self._watch(pid, processes.orphans(running))
            if self._asked or self._leave:
                break
            lived = time.monotonic() - began
            pause = 0.0 if lived > _STABLE_S else min(max(pause * 2, _FIRST_PAUSE_S), _LONGEST_PAUSE_S)
            if pid:
                how = f"after {lived:.1f} s{self._why(pid)}"
                self._journal.write(f"{self._name} {pid} ended unexpectedly {how}; restart in {pause:g} s")
                add_end(self._held.run, how)
                self._fall_back()
            self._pause(pause)  # workers of a killed master serve meanwhile
        if self._asked:
            self._drain()
        self._companion.end()
        self._journal.write("the supervisor ends" + (f"; {self._name} keeps running" if self._leave else ""))

    def forget_pid(self) -> None:
        """Delete the file with the process id of the supervisor."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(PID_FILE, dir_fd=self._held.run)

    def _adopt(self, running: tuple[processes.ProxyProcess, ...]) -> int:
        master = processes.master(running)
        if master is None:
            return 0
        self._journal.write(f"{self._name} {master.pid} is already running: supervising it")
        return master.pid

    def _start(self) -> int:
        """Start the program and return its process id; 0 if other users could have changed its files."""
        try:
            held = Held.of(self._folder)
        except OSError as error:
            self._journal.write(f"{self._name} is not started: {error.filename} {error.strerror}")
            return 0
        self._held.close()
        self._held, self._journal = held, RotatedLog(held.logs, self._journal.name)
        pid = os.fork()
        if pid == 0:
            self._become_program()
        self._child = pid
        files = sum(len(names) for _, _, names in os.walk(self._folder / "current"))
        self._start_limit_s = _START_S + _FILE_S * files
        self._now = False
        self._journal.write(f"{self._name} {pid} started")
        return pid

    def _become_program(self) -> None:
        """Replace this process, a fresh child, by the program."""
        try:
            # sockets of a configuration may be relative to it, and it identifies our program
            os.fchdir(self._held.home)
            os.setsid()
            flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_APPEND | os.O_NONBLOCK
            log = os.open(START_LOG, flags, 0o600, dir_fd=self._held.logs)
            os.dup2(log, 1)
            os.dup2(log, 2)
            signal.set_wakeup_fd(-1)
            for number in (signal.SIGQUIT, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2):
                signal.signal(number, signal.SIG_DFL)
            os.umask(0o027)
            environment = {"PATH": os.defpath, **self._inherited()}
            os.execve(self._program, self._kind.command(self._folder, self._program), environment)  # noqa: S606
        except BaseException as error:  # noqa: BLE001 - a copy of the supervisor must never return into its code
            with contextlib.suppress(OSError):  # such as a full disk
                os.write(2, f"{self._kind.failure(f'{self._program} cannot be started: {error}')}\n".encode())
        finally:
            os._exit(127)

    def _inherited(self) -> dict[str, str]:
        """Return the variable with the sockets of orphaned workers; without any, delete old socket files."""
        orphans = processes.orphans(self._kind.processes(self._folder))
        environment = self._kind.inherited(orphans, self._held.run)
        if environment is None:
            self._end(orphans)
        return environment or {}

    def _watch(self, pid: int, orphans: tuple[processes.ProxyProcess, ...]) -> None:
        """Wait until the process has ended, or a signal has a request.

        Args:
            pid: Its id.
            orphans: The orphaned workers that it replaces.
        """
        try:
            descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            return
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        poll.register(self._wake, select.POLLIN)
        relieved = False
        began = time.monotonic()
        try:
            while not self._asked and not self._leave:
                round_s = _COMPANION_ROUND_S if self._companion.is_wanted else _ROUND_S
                ready = [readable for readable, _ in poll.poll(1000 * (round_s if relieved else _SOON_S))]
                if descriptor in ready:
                    return
                self._forget_wakes()
                self._tend_companion()
                relieved = relieved or self._relieved(pid, orphans)
                if not relieved and time.monotonic() - began > self._start_limit_s:
                    self._give_up(pid)
                self._kind.close_sockets(self._held.run)
                self._rotate()
        finally:
            os.close(descriptor)

    def _give_up(self, pid: int) -> None:
        """Kill our child, with its own children, because it has no workers after the time limit."""
        if pid == self._child and pid != self._given_up:
            self._given_up = pid
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)

    def _note(self, line: str) -> None:
        self._journal.write(line)

    def _tend_companion(self) -> None:
        self._companion.tend(self._held.run, self._held.logs)

    def _why(self, pid: int) -> str:
        """Return how our child ended, with its messages; empty for a process of another supervisor."""
        if pid != self._child:
            return ""
        self._child = 0
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        try:
            said = read_regular(START_LOG, _MOST_SAID, dir_fd=self._held.logs).decode("utf-8", "replace")
        except OSError:
            said = ""
        self._refused = self._kind.refuses(code, said)
        lines = ascii(" / ".join(line for line in said[-400:].split("\n") if line))
        lacking = shortage(self._folder)
        if pid == self._given_up:
            how = f": killed, because it had no workers after {self._start_limit_s:.0f} s"
        else:
            how = f" by signal {-code}" if code < 0 else f" with code {code}, saying {lines}"
        return f"{how}; {lacking}" if lacking else how

    def _fall_back(self) -> None:
        """Make the last confirmed release live if the program does not even start with the present one.

        A running apply does this itself; this is for a node that stopped during an apply.
        """
        refused, self._refused = self._refused, False
        home = self._held.home
        with contextlib.suppress(OSError), locked_or_not("apply.lock", dir_fd=self._held.run) as mine:
            current, good = (os.readlink(name, dir_fd=home) for name in ("current", "good"))
            if refused and mine and current != good:
                os.stat(f"{good}/{self._kind.form.main}", dir_fd=home)
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(".current.new", dir_fd=home)
                os.symlink(good, ".current.new", dir_fd=home)
                os.replace(".current.new", "current", src_dir_fd=home, dst_dir_fd=home)
                self._journal.write(f"{self._name} rejects {current}: reverting to {good}")

    def _relieved(self, pid: int, orphans: tuple[processes.ProxyProcess, ...]) -> bool:
        """Signal orphaned workers as soon as workers of this master take connections; return whether they do.

        Only workers that are older than the master are signalled. If the master is killed meanwhile, its own workers
        are orphaned too, and must serve until the next master replaces them.
        """
        if not any(worker.parent == pid for worker in processes.workers(self._kind.processes(self._folder))):
            return False
        self._end(orphans)
        return True

    def _end(self, orphans: tuple[processes.ProxyProcess, ...]) -> None:
        """Let orphaned workers finish, and wait until they have closed the ports."""
        signalled = {
            (process.pid, process.started)
            for process in orphans
            if process.role is not processes.Role.LEAVING and processes.send(process, signal.SIGQUIT)
        }
        for pid, _ in sorted(signalled):
            self._journal.write(f"worker {pid} lost its master: it finishes its requests")
        until = time.monotonic() + _ORPHANS_S
        while signalled and time.monotonic() < until:
            left = processes.workers(self._kind.processes(self._folder))
            if not any((worker.pid, worker.started) in signalled for worker in left):
                return
            time.sleep(0.01)

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self._asked and not self._leave and not self._now:
            left = until - time.monotonic()
            if left <= 0:
                return
            select.select([self._wake], [], [], left)
            self._forget_wakes()
        self._now = False

    def _drain(self) -> None:
        sent, draining = 0, Draining()
        while True:
            running = self._kind.processes(self._folder)
            if not running and not self._alive():
                return
            now = time.monotonic()
            if sent < self._asked:
                sent = self._asked
                self._journal.write(
                    f"stopping {self._name}" + (" after its current requests" if sent == 1 else " at once")
                )
            number = self._kind.finish if sent == 1 else signal.SIGTERM
            if draining.tell(running, number, now) and processes.master(running) is None and self._alive():
                os.kill(self._child, number)  # a master that is just starting; it was not waited for
            select.select([self._wake], [], [], 0.1)
            self._forget_wakes()

    def _alive(self) -> bool:
        if not self._child:
            return False
        with contextlib.suppress(ChildProcessError):
            if os.waitpid(self._child, os.WNOHANG)[0] == 0:
                return True
        self._child = 0
        return False

    def _rotate(self) -> None:
        cut(START_LOG, dir_fd=self._held.logs)
        number = self._kind.reopen
        if number is not None and rotate(self._held.logs, keep_open=(self._journal.name, START_LOG)):
            master = processes.master(self._kind.processes(self._folder))
            if master is not None:
                processes.send(master, number)

    def _signalled(self, number: int, _frame: object) -> None:
        if number == signal.SIGHUP:
            self._now = True
        elif number == signal.SIGUSR2:
            self._leave = True
        else:
            self._asked += 1

    def _forget_wakes(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self._wake, 4096)


def main(folder: Path, program: str, kind: ProxyProgram) -> int:
    """Become the detached supervisor of a folder. Return 0 in the caller as soon as a supervisor runs."""
    ready, tell = os.pipe()
    if os.fork():
        os.close(tell)
        answer = os.read(ready, 4096)
        if answer != _AT_WORK:
            sys.stderr.write(f"{answer.decode('utf-8', 'replace')}\n")
        return 0 if answer == _AT_WORK else 1
    os.close(ready)
    os.setsid()
    try:
        held = Held.of(folder)
        if not locked_for_good(LOCK, dir_fd=held.run):
            os.write(tell, _AT_WORK)
            return 0
        if os.fork():  # no process waits for the supervisor, and it never gets a terminal
            os._exit(0)
        _detach(held.logs)
        supervisor = Supervisor(folder, program, held, kind)
        supervisor.listen()
        if _was_killed(held.run) and processes.master(kind.processes(folder)) is None:
            add_end(held.run, "with its supervisor")
        pid = os.getpid()
        _write_pid(f"{pid} {processes.started(pid)}\n", held.run)
    except OSError as error:
        os.write(tell, f"{error.filename or folder}: {error.strerror}".encode("utf-8", "backslashreplace"))
        return 1
    os.write(tell, _AT_WORK)
    os.close(tell)
    supervisor.keep()
    supervisor.forget_pid()
    return 0


def _detach(logs: int) -> None:
    os.chdir("/")
    os.umask(0o077)
    null = os.open("/dev/null", os.O_RDWR)
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK
    log = os.open("keeper.err", flags, 0o600, dir_fd=logs)
    for number, descriptor in ((0, null), (1, null), (2, log)):
        os.dup2(descriptor, number)


def _was_killed(run: int) -> bool:
    """Return whether the last supervisor has left its file: it was killed, or the host has lost power."""
    try:
        os.stat(PID_FILE, dir_fd=run, follow_symlinks=False)
    except OSError:
        return False
    return True


def _write_pid(text: str, run: int) -> None:
    try:
        write_at(PID_FILE, text.encode(), 0o600, dir_fd=run)
    except OSError as error:  # the error of a full disk has no path
        raise OSError(error.errno, error.strerror, f"run/{PID_FILE}") from None
