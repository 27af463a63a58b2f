"""The HAProxy processes of a supervisor: the one that takes new connections, and old ones that finish theirs."""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import socket
import time
from typing import TYPE_CHECKING, Final, NamedTuple

from rulegen.backends.userspace.configuration import (
    CONFIGURATION_FILE,
    CONTROL_DESCRIPTOR,
    DESCRIPTORS,
    LOG_DESCRIPTOR,
)
from rulegen.errors import HostError
from rulegen.host.proxy import inherited_sockets, process_list
from rulegen.host.proxy.sandbox import identity
from rulegen.host.userspace import folder as of
from rulegen.host.userspace import listeners
from rulegen.host.userspace.child import spawn
from rulegen.host.userspace.exchange import ask
from rulegen.host.userspace.health_log import HealthLog
from rulegen.safe_files import read_regular

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from rulegen.net import Family

_START_S: Final = 10.0
_ADOPTED_S: Final = 2.0
_CHUNK: Final = 1 << 16
_CHECK_S: Final = 20.0
_NOT_STARTED: Final = 126
"""Exit codes from this one on: the program could not be started."""
NO_VERDICT: Final = "no verdict: "
"""Begins a complaint that is not about the release, such as a timeout: the same release may be served later."""
LATER: Final = "later: "
"""Begins an answer before the end: a test or a start takes long and goes on."""
_MOST_SAID: Final = 1 << 16
_MOST_LEAVING: Final = 8
_NEW: Final = f"{of.CONTROL}.new"
_PID: Final = re.compile(r"^Pid: ([0-9]+)$", re.MULTILINE)
_NEW_INSTANCES: Final = f"{of.INSTANCES}.new"


class ReleaseCheck(NamedTuple):
    """A running `haproxy -c`.

    Attributes:
        pid: Its process.
        descriptor: Of the process; readable when it has ended.
        until: When it is given up, in seconds of a monotonic clock.
    """

    pid: int
    descriptor: int
    until: float


class StartingHAProxy(NamedTuple):
    """An HAProxy that has been started, and has not answered yet.

    Attributes:
        pid: Its process.
        descriptor: Of the process; readable when it has ended.
        link: A connection with a question; readable when it answers.
        answer: What it has answered so far.
        until: When it is given up, in seconds of a monotonic clock.
    """

    pid: int
    descriptor: int
    link: socket.socket
    answer: bytearray
    until: float


class Instances:
    """The processes of one folder."""

    def __init__(self, folder: Path, program: str, home: int) -> None:
        """Take the folder, the path of HAProxy, and the descriptor of the folder."""
        self._folder, self._program, self._home = folder, program, home
        self._pid = 0
        self._leaving: list[int] = []
        self._codes: dict[int, int] = {}
        self._check: ReleaseCheck | None = None
        self._starting: StartingHAProxy | None = None
        self._is_recorded = True
        self.health = HealthLog()
        self.descriptor: int | None = None
        """Of the process that takes new connections; readable when it has ended. None without a process."""

    def begin_check(self, release: str, sockets: Mapping[int, int]) -> int:
        """Let HAProxy read a release without serving it; return a descriptor that is readable when it has done so.

        An earlier check is given up.

        Raises:
            OSError: HAProxy cannot be started.
            HostError: It cannot be started safely.
        """
        self.end_check()
        with contextlib.closing(socket.socket(socket.AF_UNIX)) as control:
            inherited = {**sockets, CONTROL_DESCRIPTOR: control.fileno()}
            pid = self._spawn(release, inherited, of.CHECK_LOG, "-c", ends_with_us=True)
        self._check = ReleaseCheck(pid, os.pidfd_open(pid), time.monotonic() + _CHECK_S)
        return self._check.descriptor

    def checked(self) -> str | None:
        """Return why HAProxy rejects the release, or nothing if it does not; None while it reads the release."""
        check = self._check
        if check is None:
            return f"{NO_VERDICT}`haproxy -c` was given up"
        code = self._codes.get(check.pid)
        if code is None and time.monotonic() < check.until:
            return None
        self.end_check()
        if code is None:
            return f"{NO_VERDICT}`haproxy -c` has not ended after {_CHECK_S:g} s"
        return self._verdict(code)

    def end_check(self) -> None:
        """Cancel the check, if there is one."""
        if self._check is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._check.descriptor, signal.SIGKILL)
            os.close(self._check.descriptor)
            self._check = None

    def _verdict(self, code: int) -> str:
        """Return why HAProxy rejects a release, or nothing; if it does not say why, that is no verdict."""
        if code == 0:
            return ""
        how = f"`haproxy -c` was ended by signal {-code}" if code < 0 else f"`haproxy -c` ended with exit code {code}"
        said = self._said(of.CHECK_LOG)
        return said if said and 0 < code < _NOT_STARTED else ": ".join(filter(None, (f"{NO_VERDICT}{how}", said)))

    def begin_start(self, release: str, sockets: Mapping[int, int]) -> str:
        """Start HAProxy with a release, which `started` waits for; return why that is impossible, or nothing.

        An earlier start is given up.
        """
        self.end_start()
        path = f"/proc/self/fd/{self._home}/{_NEW}"
        until = time.monotonic() + _START_S
        with contextlib.ExitStack() as failed:
            try:
                with contextlib.suppress(FileNotFoundError):
                    os.unlink(_NEW, dir_fd=self._home)
                link = failed.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
                with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as control:
                    control.bind(path)
                    control.listen(64)
                    link.settimeout(0)
                    link.connect(path)  # HAProxy accepts it as soon as it runs
                    link.sendall(b"show info\n")
                    pid = self._spawn(release, {**sockets, CONTROL_DESCRIPTOR: control.fileno()}, of.LOG, "-db", "-q")
                self._starting = StartingHAProxy(pid, os.pidfd_open(pid), link, bytearray(), until)
                self._record()
            except (OSError, HostError) as error:  # such as a folder that became read-only
                self.end_start()
                return f"{NO_VERDICT}HAProxy cannot be started: {error}"
            failed.pop_all()
        return ""

    @property
    def awaited(self) -> tuple[int, ...]:
        """Descriptors that are readable when `started` has something new."""
        starting = self._starting
        return () if starting is None else (starting.descriptor, starting.link.fileno())

    def started(self) -> str | None:
        """Return why the HAProxy that was started does not run, or nothing if it does; None while it is starting.

        If it answers, the old process takes no new connection, and ends with its last one.
        """
        starting = self._starting
        if starting is None:
            return f"{NO_VERDICT}the start was given up"
        is_open = not select.select([starting.descriptor], [], [], 0)[0]
        with contextlib.suppress(BlockingIOError):
            while is_open:
                is_open = bool(chunk := _received(starting.link))
                starting.answer.extend(chunk)
        if b"\nPid: %d\n" % starting.pid not in starting.answer:
            if is_open and time.monotonic() < starting.until:
                return None
            self.end_start()
            return NO_VERDICT + (self._said(of.LOG) or self._unanswered(is_open=is_open))
        try:
            os.replace(_NEW, of.CONTROL, src_dir_fd=self._home, dst_dir_fd=self._home)
        except OSError as error:
            self.end_start()
            return f"{NO_VERDICT}{of.CONTROL}: {error.strerror}"
        self._starting = None
        os.close(starting.descriptor)
        starting.link.close()
        self.retire()
        self._take(starting.pid)
        self._record()
        return ""

    @staticmethod
    def _unanswered(*, is_open: bool) -> str:
        return f"HAProxy does not answer after {_START_S:g} s" if is_open else "HAProxy ends without a message"

    def end_start(self) -> None:
        """Cancel the start, if there is one."""
        if self._starting is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._starting.descriptor, signal.SIGKILL)
            os.close(self._starting.descriptor)
            self._starting.link.close()
            self._starting = None

    def adopt(self) -> dict[Family, socket.socket]:
        """Return the listening sockets of the newest HAProxy that answers, which is supervised from now on.

        If none answers, it is the newest one.
        """
        sockets: dict[Family, socket.socket] = {}
        recorded = self._recorded()
        serving = self._serving(recorded)
        for pid in reversed(recorded):
            held = listeners.by_family(inherited_sockets.listening_at(pid, DESCRIPTORS.values()))
            if held and not sockets and serving in {0, pid}:
                sockets = held
                self._take(pid)
                with contextlib.suppress(OSError):  # it was started by a supervisor without such a pipe
                    self.health.adopt(f"/proc/{pid}/fd/{LOG_DESCRIPTOR}")
                continue
            for each in held.values():
                each.close()
            if held:  # it was replaced, or its start was not over, when its supervisor ended
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGUSR1 if sockets else signal.SIGKILL)
            if sockets:
                self._leaving.insert(0, pid)
        if sockets:
            self._record()
        return sockets

    def _serving(self, pids: list[int]) -> int:
        """Return the newest of these processes that answers; 0 if none does."""
        for name in (_NEW, of.CONTROL):
            with contextlib.suppress(OSError):
                match = _PID.search(ask(self._folder, name, "show info\n", _ADOPTED_S) or "")
                if match is not None and (pid := int(match[1])) in pids:
                    if name == _NEW:  # its supervisor ended before it could see that
                        os.replace(_NEW, of.CONTROL, src_dir_fd=self._home, dst_dir_fd=self._home)
                    return pid
        return 0

    def answers(self) -> bool:
        """Whether HAProxy answers on its socket."""
        try:
            return bool(ask(self._folder, of.CONTROL, "show info\n", _ADOPTED_S))
        except OSError:
            return False

    def retire(self) -> None:
        """Let the process that takes new connections finish those that it has; end the oldest of too many."""
        if self.descriptor is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.descriptor, signal.SIGUSR1)
            self._leaving.append(self._pid)
        self.forget()
        self.reap()
        for pid in self._leaving[:-_MOST_LEAVING]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)

    def ended(self) -> str:
        """Return a clause that says how the process that took new connections has ended."""
        if not self._pid:
            return "HAProxy has not started"
        code = self._codes.get(self._pid)
        if code is None:
            return f"{self.named} has ended"
        return f"{self.named} has ended " + (f"by signal {-code}" if code < 0 else f"with code {code}")

    @property
    def named(self) -> str:
        """The process that takes new connections, for messages."""
        return f"HAProxy (process {self._pid})"

    def forget(self) -> None:
        """Forget the process that takes new connections, for example because it has ended."""
        if self.descriptor is not None:
            os.close(self.descriptor)
        self.descriptor, self._pid = None, 0

    def reap(self) -> None:
        """Forget processes that have ended; only the kernel knows that of an adopted process."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if not pid:
                break
            self._codes[pid] = os.waitstatus_to_exitcode(status)
        awaited = {self._pid, self._check.pid if self._check is not None else 0}
        self._codes = {pid: code for pid, code in self._codes.items() if pid in awaited}
        self._leaving = [pid for pid in self._leaving if process_list.started(pid)]
        if not self._is_recorded:
            self._record()

    def _take(self, pid: int) -> None:
        self._pid = pid
        self.health.forget()
        try:
            self.descriptor = os.pidfd_open(pid)
        except ProcessLookupError:
            self.descriptor = None

    def _spawn(
        self, release: str, sockets: Mapping[int, int], log: str, *options: str, ends_with_us: bool = False
    ) -> int:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK
        output = os.open(log, flags, 0o600, dir_fd=self._home)
        try:
            place = os.open(release, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=self._home)
        except OSError:
            os.close(output)
            raise
        try:
            argv = [self._program, *options, "-f", CONFIGURATION_FILE]
            inherited = {**sockets, LOG_DESCRIPTOR: self.health.writes}
            return spawn(argv, identity.unused(), place, output, inherited, ends_with_us=ends_with_us)
        finally:
            os.close(place)
            os.close(output)

    def _said(self, log: str) -> str:
        try:
            said = read_regular(log, _MOST_SAID, dir_fd=self._home).decode("utf-8", "replace")
        except OSError:
            return ""
        lines = [line for line in said.splitlines() if "[ALERT]" in line]
        return ascii(lines[0])[1:-1] if lines else ""

    def _record(self) -> None:
        """Write down which processes there are, for the next supervisor; on a full disk, `reap` tries again."""
        starting = self._starting.pid if self._starting is not None else 0
        pids = (*self._leaving, *filter(None, [self._pid, starting]))
        text = "".join(f"{pid} {process_list.started(pid)}\n" for pid in pids)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK
        self._is_recorded = False
        with contextlib.suppress(OSError):
            with os.fdopen(os.open(_NEW_INSTANCES, flags, 0o600, dir_fd=self._home), "w") as file:
                file.write(text)
            os.replace(_NEW_INSTANCES, of.INSTANCES, src_dir_fd=self._home, dst_dir_fd=self._home)
            self._is_recorded = True

    def _recorded(self) -> list[int]:
        """Return the processes of an earlier supervisor that are still running, the newest last."""
        try:
            text = read_regular(of.INSTANCES, _MOST_SAID, dir_fd=self._home).decode("ascii", "replace")
        except OSError:
            return []
        pairs = [tuple(map(int, line.split())) for line in text.splitlines() if line.replace(" ", "").isdigit()]
        return [pair[0] for pair in pairs if len(pair) == 2 and pair[1] and process_list.started(pair[0]) == pair[1]]


def _received(link: socket.socket) -> bytes:
    """Return what has arrived; nothing at the end.

    Raises:
        BlockingIOError: Nothing has arrived.
    """
    try:
        return link.recv(_CHUNK)
    except ConnectionError:  # HAProxy has ended before it has accepted the connection
        return b""
