"""The supervisor of the proxy: a small process that holds the listening sockets and keeps HAProxy running.

It outlives the command that has started it. New connections wait in the listening sockets while HAProxy is started
again. If the supervisor ends, HAProxy goes on; the next supervisor takes over its sockets.

Commands send one line over a Unix socket in a folder that only root can enter, and get one line:

    serve RELEASE v4:10261 v6:10261    start HAProxy with a release, and let the old one finish its connections. If that
                                       takes long, it goes on after the answer `later: …`, and the next request is told
                                       how it has ended
    keep RELEASE                       HAProxy serves this release already: it is for later starts
    state                              the listeners that the supervisor holds, and the release
    follow                             a line for each time that HAProxy has ended by itself, and for each server that
                                       it ejects or uses again, until the supervisor ends
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
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rulegen.backends.userspace.configuration import DESCRIPTORS
from rulegen.errors import HostError
from rulegen.host.locks.file_locks import locked_for_good
from rulegen.host.proxy.disk.log_rotation import cut
from rulegen.host.userspace import folder as of
from rulegen.host.userspace import listeners
from rulegen.host.userspace.changes import ReleaseChange, Restart
from rulegen.host.userspace.instances import LATER, NO_VERDICT, Instances
from rulegen.host.userspace.log import log
from rulegen.host.userspace.notices import FOLLOW
from rulegen.host.userspace.pulse import Pulse
from rulegen.host.userspace.relay.keeper import RelayKeeper

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rulegen.net import Family

_ROUND_S: Final = 1.0
_REQUEST_S: Final = 2.0
_LONGEST: Final = 512
_STABLE_S: Final = 2.0
_FIRST_PAUSE_S: Final = 0.05
_LONGEST_PAUSE_S: Final = 2.0
_SLOW_S: Final = 2.0
"""A start that takes longer is reported before it has ended."""
LATER_S: Final = 5.0
"""A test and a start that take longer are answered before they have ended."""
HANGS_S: Final = 15.0
"""Another HAProxy is started beside one that does not answer for so long."""
_MOST_FOLLOWERS: Final = 16
READY: Final = b"ready"


class ProxySupervisor:
    """Keeps the HAProxy of one folder running."""

    def __init__(self, folder: Path, program: str, home: int, requests: socket.socket) -> None:
        """Take the folder, the path of HAProxy, the descriptor of the folder, and the socket for requests."""
        self._folder, self._home, self._requests = folder, home, requests
        self._instances = Instances(folder, program, home)
        self._relay = RelayKeeper(home)
        self._pulse = Pulse(home, of.CONTROL, "show info")
        self._sockets: dict[Family, socket.socket] = {}
        self._pause_s = 0.0
        self._started_at = 0.0
        self._ends = False
        self._followers: list[socket.socket] = []
        self._change: ReleaseChange | None = None
        self._is_unheard = False
        self._unsaid: tuple[str, str] | None = None
        self._restart: Restart | None = None

    def adopt(self) -> None:
        """Take over HAProxy and its sockets from an earlier supervisor, if it is still running."""
        self._relay.adopt()
        self._sockets = self._instances.adopt()
        with contextlib.suppress(OSError, HostError):  # `keep` tries again
            self._relay.listen(_ports(self._sockets))
        if self._sockets and not self._instances.answers():
            self._again("HAProxy does not answer")

    def keep(self) -> None:
        """Serve requests, and start HAProxy again when it ends, until a request ends the supervisor.

        It waits for nothing else: while HAProxy is tested or started, requests are answered.
        """
        while not self._ends:
            process = self._instances.descriptor
            ready = self._ready(process)
            self._instances.reap()
            for line in self._instances.health.lines():
                self._pass_on(line)
            if process is None or process in ready:
                self._ended()
            self._look_at_haproxy()
            if report := self._relay.restart():
                self._report(report)
            self._go_on()
            if self._requests.fileno() in ready:
                self._serve_one()
            self._look_at_folder()

    def _look_at_haproxy(self) -> None:
        """Have another HAProxy started if the one that takes connections hangs; if it goes on, it finishes them."""
        if self._instances.descriptor is None or self._restart is not None or self._is_starting:
            self._pulse.begin()
        elif self._pulse.silent_s() >= HANGS_S:
            self._again(f"{self._instances.named} did not answer for {HANGS_S:g} s")

    def _look_at_folder(self) -> None:
        """Keep logs small; end if the folder was removed: no request arrives any more."""
        for name in (of.SUPERVISOR_LOG, of.LOG):
            cut(name, dir_fd=self._home)
        if os.fstat(self._home).st_nlink == 0:
            self._report("the folder of the proxy was removed: HAProxy finishes its connections")
            self._end()
        was_unheard, self._is_unheard = self._is_unheard, not of.has(self._home, of.REQUESTS)
        if was_unheard and self._is_unheard and not self._ends:  # not while the folder is being removed
            with contextlib.suppress(OSError):  # the next round tries again
                new = _requests(self._home)
                self._requests.close()
                self._requests = new

    def _ready(self, process: int | None) -> list[int]:
        """Wait until there is something to do; return the descriptors that are readable."""
        poll = select.poll()
        testing = self._change.descriptor if self._change is not None else None
        asked, health = self._requests.fileno(), self._instances.health.descriptor
        for each in (asked, health, process, testing, self._relay.descriptor, *self._instances.awaited):
            if each is not None:
                poll.register(each, select.POLLIN)
        due = time.monotonic() + _ROUND_S
        if self._restart is not None and not self._restart.is_begun:
            due = min(due, self._restart.at)
        if self._change is not None and self._change.link is not None:
            due = min(due, self._change.since + LATER_S)
        return [number for number, _ in poll.poll(1000 * max(due - time.monotonic(), 0.0))]

    def _ended(self) -> None:
        """Have HAProxy started again, unless it is being started."""
        if self._sockets and self._restart is None and not self._is_starting:
            self._again(self._instances.ended())
        self._instances.forget()

    @property
    def _is_starting(self) -> bool:
        """Whether HAProxy is being started with another release."""
        return self._change is not None and self._change.descriptor is None

    def _again(self, why: str) -> None:
        """Have HAProxy started again; after a short life, a moment later."""
        now = time.monotonic()
        lived = now - self._started_at
        self._pause_s = 0.0 if lived > _STABLE_S else min(max(2 * self._pause_s, _FIRST_PAUSE_S), _LONGEST_PAUSE_S)
        self._restart = Restart(now, now + self._pause_s, why)

    def _go_on(self) -> None:
        """Take the results of a test and of a start, and start HAProxy again if that is due."""
        self._say_later()
        change, restart = self._change, self._restart
        if change is not None and change.descriptor is not None:
            complaint = self._instances.checked()
            if complaint:
                self._finish(change, complaint)
            elif complaint is not None:
                self._serve(change)
        elif change is not None and (complaint := self._instances.started()) is not None:
            self._finish(change, complaint)
        if restart is not None and restart is self._restart:
            self._go_on_restarting(restart)

    def _say_later(self) -> None:
        """Answer a change that takes long: the command can do other things, and asks again."""
        change = self._change
        if change is not None and change.link is not None and time.monotonic() - change.since > LATER_S:
            _conclude(change.link, f"{LATER}{change.progress()}")
            self._change = change._replace(link=None)

    def _go_on_restarting(self, restart: Restart) -> None:
        complaint: str | None = None
        if restart.is_begun:
            complaint = self._instances.started()
        elif time.monotonic() >= restart.at:
            self._started_at = time.monotonic()
            self._restart = restart._replace(is_begun=True)
            complaint = self._instances.begin_start(of.current(self._home), _inherited(self._sockets)) or None
        took_s = time.monotonic() - restart.since
        if complaint is None:
            if took_s > _SLOW_S and restart.is_begun and not restart.is_reported:
                self._restart = restart._replace(is_reported=True)
                self._report(f"{restart.why}; the new one does not answer yet")
            return
        self._restart = None
        result = f"no new one: {complaint.removeprefix(NO_VERDICT)}" if complaint else f"a new one after {took_s:.2f} s"
        text = f"{restart.why}; {result}"
        if complaint or not restart.is_reported:
            self._report(text)
        else:
            log(text)

    def _report(self, text: str) -> None:
        """Log a line, and send it to all followers; those that have ended or do not read are forgotten."""
        log(text)
        self._pass_on(text)

    def _pass_on(self, text: str) -> None:
        for link in tuple(self._followers):
            try:
                link.sendall(f"{text}\n".encode("utf-8", "replace"))
            except OSError:
                self._followers.remove(link)
                link.close()

    def _follow(self, link: socket.socket) -> None:
        link.settimeout(0)
        with contextlib.suppress(OSError):  # `_pass_on` forgets it
            link.sendall("".join(f"{line}\n" for line in self._instances.health.ejected()).encode())
        self._followers.append(link)
        while len(self._followers) > _MOST_FOLLOWERS:
            self._followers.pop(0).close()

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
                return self._make_current(release) or "ok"
            case ["state"]:
                return f"ok {listeners.request(_ports(self._sockets))} {of.current(self._home)}"
            case ["end"]:
                self._end()
                return "ok"
        return "unknown request"

    def _end(self) -> None:
        self._ends = True
        self._give_up()
        self._instances.end_start()
        self._instances.retire()
        self._relay.end()
        for held in self._sockets.values():
            held.close()

    def _begin(self, link: socket.socket, release: str, wanted: dict[Family, int]) -> None:
        """Test a release, then serve it, unless one is being tested or started: that one comes first."""
        if self._change is not None:
            _conclude(link, f"{LATER}{self._change.progress()}")
            return
        unsaid, self._unsaid = self._unsaid, None
        if unsaid is not None and unsaid[0] == release:
            _conclude(link, unsaid[1])
            return
        sockets = dict(self._sockets)
        try:
            for family, port in wanted.items():
                if family not in sockets or sockets[family].getsockname()[1] != port:
                    sockets[family] = listeners.listening(family, port)
            descriptor = self._instances.begin_check(release, _inherited(sockets))
        except (OSError, HostError) as error:
            self._close_except(sockets, self._sockets)
            why = f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else error.message
            _conclude(link, f"{NO_VERDICT}{why}")
            return
        self._change = ReleaseChange(link, release, frozenset(wanted), sockets, descriptor, time.monotonic())

    def _serve(self, change: ReleaseChange) -> None:
        """Start HAProxy with a tested release; the old one serves until the new one answers."""
        if self._restart is not None:
            self._report(f"{self._restart.why}; it is started with another release")
            self._restart = None
        self._change = change = change._replace(descriptor=None)
        self._started_at = time.monotonic()
        complaint = self._instances.begin_start(change.release, _inherited(change.sockets))
        if complaint:
            self._finish(change, complaint)

    def _finish(self, change: ReleaseChange, complaint: str) -> None:
        """Answer a change.

        Args:
            change: The release.
            complaint: Why it is not served; empty if the new HAProxy answers, and the old one finishes its connections.
        """
        self._change = None
        if complaint:
            self._close_except(change.sockets, self._sockets)
        else:
            before = self._sockets
            self._sockets = {family: held for family, held in change.sockets.items() if family in change.wanted}
            for each in (before, change.sockets):
                self._close_except(each, self._sockets)
            of_relay, of_link = self._listen_to_udp(), self._make_current(change.release)
            complaint = of_relay or of_link
        if change.link is not None:
            _conclude(change.link, complaint or "ok")
        elif complaint:
            self._report(f"a new HAProxy does not serve: {complaint.removeprefix(NO_VERDICT)}")
            self._unsaid = change.release, complaint

    def _make_current(self, release: str) -> str:
        """Use a release for later starts; return why that is impossible, or nothing. The next request tries again."""
        try:
            of.make_current(self._home, release)
        except OSError as error:  # such as a full disk
            return f"{NO_VERDICT}{of.CURRENT}: {error.strerror}"
        return ""

    def _listen_to_udp(self) -> str:
        """Have the relay listen on the ports of HAProxy; return why it does not, or nothing."""
        try:
            self._relay.listen(_ports(self._sockets))
        except (OSError, HostError) as error:
            return f"{NO_VERDICT}the relay of UDP: {getattr(error, 'filename', None) or ''} {error}"
        return ""

    def _give_up(self) -> None:
        """Give up the release that is being tested or started, if there is one."""
        if self._change is not None:
            if self._is_starting:
                self._instances.end_start()
            self._instances.end_check()
            self._finish(self._change, f"{NO_VERDICT}a newer request has replaced this one")

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


def _conclude(link: socket.socket, answer: str) -> None:
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
            supervisor = ProxySupervisor(folder, program, home, _requests(home))
            _detach(home)
            supervisor.adopt()
            with contextlib.suppress(OSError):  # nobody waits any more
                os.write(tell, READY)
            os.close(tell)
            tell = -1
            supervisor.keep()
            with contextlib.suppress(OSError):
                os.unlink(of.REQUESTS, dir_fd=home)
    except Exception as error:  # noqa: BLE001 - the caller prints it, or the log has it
        if tell == -1:
            log(f"the supervisor ends: {''.join(traceback.format_exception(error))}")
            return 1
        with contextlib.suppress(OSError):
            os.write(tell, f"{error}".encode("utf-8", "backslashreplace"))
        return 1
    return 0


def _requests(home: int) -> socket.socket:
    """Return the socket for requests; its path is replaced, since a killed supervisor leaves one."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(of.REQUESTS, dir_fd=home)
    requests = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    requests.bind(f"/proc/self/fd/{home}/{of.REQUESTS}")
    requests.listen(16)
    return requests


def _detach(home: int) -> None:
    os.chdir("/")
    os.umask(0o077)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    null = os.open("/dev/null", os.O_RDWR)
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK
    output = os.open(of.SUPERVISOR_LOG, flags, 0o600, dir_fd=home)
    for number, descriptor in ((0, null), (1, null), (2, output)):
        os.dup2(descriptor, number)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2]))
