"""The supervisor of the proxy: a small process that holds the listening sockets and keeps HAProxy running.

It outlives the command that has started it. New connections wait in the listening sockets while HAProxy is started
again. If the supervisor ends, HAProxy goes on; the next supervisor takes over its sockets.

Commands send one line over a Unix socket in a folder that only root can enter, and get one line:

    serve RELEASE v4:10261 v6:10261    start HAProxy with a release, and let the old one finish its connections
    keep RELEASE                       HAProxy serves this release already: it is for later starts
    state                              the listeners that the supervisor holds, and the release
    follow                             a line for each time that HAProxy has ended by itself, until the supervisor ends
    end                                HAProxy finishes its connections; the supervisor ends
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final, NamedTuple

from rulegen.backends.userspace.configuration import DESCRIPTORS
from rulegen.errors import HostError
from rulegen.host.locks.file_locks import locked_for_good
from rulegen.host.userspace import folder as of
from rulegen.host.userspace import listeners
from rulegen.host.userspace.instances import NO_VERDICT, Instances
from rulegen.host.userspace.notices import FOLLOW
from rulegen.host.userspace.relay.keeper import RelayKeeper

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rulegen.net import Family

_ROUND_S: Final = 1.0
_REQUEST_S: Final = 2.0
_LONGEST: Final = 512
_STABLE_S: Final = 2.0
_FIRST_PAUSE_S: Final = 0.05
_LONGEST_PAUSE_S: Final = 2.0
_MOST_FOLLOWERS: Final = 16
READY: Final = b"ready"


class ReleaseChange(NamedTuple):
    """A release that is being tested, and served afterwards.

    Attributes:
        link: The connection that waits for the answer.
        release: The release.
        wanted: The families whose listeners stay.
        sockets: The listeners that the release needs, and the current ones.
        descriptor: Readable when the test has ended.
    """

    link: socket.socket
    release: str
    wanted: frozenset[Family]
    sockets: dict[Family, socket.socket]
    descriptor: int


class ProxySupervisor:
    """Keeps the HAProxy of one folder running."""

    def __init__(self, folder: Path, program: str, home: int, requests: socket.socket) -> None:
        """Take the folder, the path of HAProxy, the descriptor of the folder, and the socket for requests."""
        self._folder, self._home, self._requests = folder, home, requests
        self._instances = Instances(folder, program, home)
        self._relay = RelayKeeper(home)
        self._sockets: dict[Family, socket.socket] = {}
        self._pause_s = 0.0
        self._started_at = 0.0
        self._ends = False
        self._followers: list[socket.socket] = []
        self._change: ReleaseChange | None = None

    def adopt(self) -> None:
        """Take over HAProxy and its sockets from an earlier supervisor, if it is still running."""
        self._relay.adopt()
        self._sockets = self._instances.adopt()
        with contextlib.suppress(OSError, HostError):  # `keep` tries again
            self._relay.listen(_ports(self._sockets))
        if self._sockets and not self._instances.answers():
            self._start(of.current(self._home))

    def keep(self) -> None:
        """Serve requests, and start HAProxy again when it ends, until a request ends the supervisor."""
        while not self._ends:
            poll = select.poll()
            poll.register(self._requests, select.POLLIN)
            process = self._instances.descriptor
            if self._relay.descriptor is not None:
                poll.register(self._relay.descriptor, select.POLLIN)
            if process is not None:
                poll.register(process, select.POLLIN)
            if self._change is not None:
                poll.register(self._change.descriptor, select.POLLIN)
            ready = [number for number, _ in poll.poll(1000 * _ROUND_S)]
            self._instances.reap()
            if (process is None and self._sockets) or (process is not None and process in ready):
                self._restart()
            if report := self._relay.restart():
                self._report(report)
            if self._change is not None and (complaint := self._instances.checked()) is not None:
                self._finish(self._change, complaint)
            if self._requests.fileno() in ready:
                self._serve_one()

    def _restart(self) -> None:
        """Start HAProxy again; after a short life, wait a moment."""
        ended_at = time.monotonic()
        lived = ended_at - self._started_at
        self._pause_s = 0.0 if lived > _STABLE_S else min(max(2 * self._pause_s, _FIRST_PAUSE_S), _LONGEST_PAUSE_S)
        time.sleep(self._pause_s)
        ended = self._instances.ended()
        self._instances.forget()
        complaint = self._start(of.current(self._home))
        took_s = time.monotonic() - ended_at
        self._report(
            f"{ended}; "
            + (f"no new one: {complaint.removeprefix(NO_VERDICT)}" if complaint else f"a new one after {took_s:.2f} s")
        )

    def _report(self, text: str) -> None:
        """Send a line to all followers; those that have ended or do not read are forgotten."""
        sys.stderr.write(f"{text}\n")
        for link in tuple(self._followers):
            try:
                link.sendall(f"{text}\n".encode("utf-8", "replace"))
            except OSError:
                self._followers.remove(link)
                link.close()

    def _follow(self, link: socket.socket) -> None:
        link.settimeout(0)
        self._followers.append(link)
        while len(self._followers) > _MOST_FOLLOWERS:
            self._followers.pop(0).close()

    def _start(self, release: str) -> str:
        """Start HAProxy with a release; return why it failed, or nothing."""
        self._started_at = time.monotonic()
        return self._instances.start(release, _inherited(self._sockets))

    def _serve_one(self) -> None:
        """Serve the request of one command."""
        with contextlib.suppress(OSError):
            link, _ = self._requests.accept()
            with contextlib.ExitStack() as closed:
                closed.enter_context(link)
                link.settimeout(_REQUEST_S)
                words = link.recv(_LONGEST).decode("ascii", "replace").split()
                match words:
                    case [of_reports] if of_reports == FOLLOW:
                        closed.pop_all()
                        self._follow(link)
                    case ["serve", release, *wanted] if _is_release(release):
                        closed.pop_all()
                        self._begin(link, release, dict(listeners.read(wanted)))
                    case _:
                        _send(link, self._answer(words))

    def _answer(self, words: list[str]) -> str:
        match words:
            case ["keep", release] if _is_release(release):
                self._give_up()
                of.make_current(self._home, release)
                return "ok"
            case ["state"]:
                return f"ok {listeners.request(_ports(self._sockets))} {of.current(self._home)}"
            case ["end"]:
                self._ends = True
                self._give_up()
                self._instances.retire()
                self._relay.end()
                for held in self._sockets.values():
                    held.close()
                return "ok"
        return "unknown request"

    def _begin(self, link: socket.socket, release: str, wanted: dict[Family, int]) -> None:
        """Test a release, then serve it; another one that is being tested is given up."""
        self._give_up()
        sockets = dict(self._sockets)
        try:
            for family, port in wanted.items():
                if family not in sockets or sockets[family].getsockname()[1] != port:
                    sockets[family] = listeners.listening(family, port)
            descriptor = self._instances.begin_check(release, _inherited(sockets))
        except (OSError, HostError) as error:
            self._close_except(sockets, self._sockets)
            why = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else error.message
            _end(link, f"{NO_VERDICT}{why}")
            return
        self._change = ReleaseChange(link, release, frozenset(wanted), sockets, descriptor)

    def _finish(self, change: ReleaseChange, complaint: str) -> None:
        """Start HAProxy with a tested release; the old one finishes its connections, unless the new one does not start.

        Args:
            change: The release.
            complaint: Why it is not served; empty if it is valid.
        """
        self._change = None
        if not complaint:
            self._started_at = time.monotonic()
            complaint = self._instances.start(change.release, _inherited(change.sockets))
        if complaint:
            self._close_except(change.sockets, self._sockets)
        else:
            of.make_current(self._home, change.release)
            before = self._sockets
            self._sockets = {family: held for family, held in change.sockets.items() if family in change.wanted}
            for each in (before, change.sockets):
                self._close_except(each, self._sockets)
            complaint = self._listen_to_udp()
        _end(change.link, complaint or "ok")

    def _listen_to_udp(self) -> str:
        """Have the relay listen on the ports of HAProxy; return why it does not, or nothing."""
        try:
            self._relay.listen(_ports(self._sockets))
        except (OSError, HostError) as error:
            return f"{NO_VERDICT}the relay of UDP: {getattr(error, 'filename', None) or ''} {error}"
        return ""

    def _give_up(self) -> None:
        """Give up the release that is being tested, if there is one."""
        if self._change is not None:
            self._instances.end_check()
            self._finish(self._change, f"{NO_VERDICT}another request came first")

    @staticmethod
    def _close_except(held: Mapping[Family, socket.socket], kept: Mapping[Family, socket.socket]) -> None:
        for family, each in held.items():
            if kept.get(family) is not each:
                each.close()


def _inherited(sockets: Mapping[Family, socket.socket]) -> dict[int, int]:
    return {DESCRIPTORS[family]: held.fileno() for family, held in sockets.items()}


def _ports(sockets: Mapping[Family, socket.socket]) -> dict[Family, int]:
    return {family: held.getsockname()[1] for family, held in sockets.items()}


def _send(link: socket.socket, answer: str) -> None:
    with contextlib.suppress(OSError):
        link.sendall(f"{answer}\n".encode("utf-8", "replace"))


def _end(link: socket.socket, answer: str) -> None:
    with link:
        _send(link, answer)


def _is_release(name: str) -> bool:
    return name.startswith(of.PREFIX) and name.removeprefix(of.PREFIX).isalnum()


def main(folder: Path, program: str) -> int:
    """Become the detached supervisor of a folder. Return 0 in the caller as soon as a supervisor runs."""
    ready, tell = os.pipe()
    if os.fork():
        os.close(tell)
        answer = os.read(ready, 4096)
        if answer != READY:
            sys.stderr.write(f"{answer.decode('utf-8', 'replace')}\n")
        return 0 if answer == READY else 1
    os.close(ready)
    os.setsid()
    try:
        with of.opened(folder, make=True) as home:
            if not locked_for_good(of.LOCK, dir_fd=home):
                os.write(tell, READY)
                return 0
            if os.fork():  # no process waits for the supervisor, and it never gets a terminal
                os._exit(0)
            with _requests(home) as requests:
                _detach(home)
                supervisor = ProxySupervisor(folder, program, home, requests)
                supervisor.adopt()
                os.write(tell, READY)
                os.close(tell)
                supervisor.keep()
    except Exception as error:  # noqa: BLE001 - the caller prints it
        with contextlib.suppress(OSError):
            os.write(tell, f"{error}".encode("utf-8", "backslashreplace"))
        return 1
    return 0


@contextlib.contextmanager
def _requests(home: int) -> Iterator[socket.socket]:
    """Yield the socket for requests; its path is replaced, since a killed supervisor leaves one."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(of.REQUESTS, dir_fd=home)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as requests:
        requests.bind(f"/proc/self/fd/{home}/{of.REQUESTS}")
        requests.listen(16)
        yield requests
        with contextlib.suppress(FileNotFoundError):
            os.unlink(of.REQUESTS, dir_fd=home)


def _detach(home: int) -> None:
    os.chdir("/")
    os.umask(0o077)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    null = os.open("/dev/null", os.O_RDWR)
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK
    log = os.open("supervisor.log", flags, 0o600, dir_fd=home)
    for number, descriptor in ((0, null), (1, null), (2, log)):
        os.dup2(descriptor, number)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2]))
