"""Keeps the relay running: its sockets, its process, and its rights.

The process is a copy of the supervisor, since a new interpreter would need more time and memory. It becomes a user that
nothing else has, and keeps two rights: to use addresses that this host does not have, and ports below 1024. It goes on
if the supervisor is killed. The next supervisor replaces it. A relay that hangs is killed: a new one serves the objects
that were written down.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import select
import signal
import socket
import struct
import time
import traceback
from typing import TYPE_CHECKING, Final, NoReturn

from rulegen.errors import HostError, RulegenError
from rulegen.host.proxy import process_list
from rulegen.host.proxy.sandbox import identity
from rulegen.host.userspace import folder as of
from rulegen.host.userspace.exchange import MOST_BYTES
from rulegen.host.userspace.log import log
from rulegen.host.userspace.pulse import PING, Pulse
from rulegen.host.userspace.relay import sockets
from rulegen.host.userspace.relay.relay import OPEN_FILES, Relay
from rulegen.languages.listeners.state import read_proxy
from rulegen.safe_files import read_regular

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rulegen.languages.listeners.state import ProxyObjects
    from rulegen.net import Family

_KEEP_CAPABILITIES, _SET_NAME, _NO_NEW_PRIVILEGES = 8, 15, 38
_CAPABILITY_VERSION: Final = 0x20080522
_KEPT: Final = (1 << 10) | (1 << 13)
"""CAP_NET_BIND_SERVICE and CAP_NET_RAW."""
_END_S: Final = 5.0
_STABLE_S: Final = 2.0
HANGS_S: Final = 5.0
"""A relay that does not answer for so long is replaced."""
_HANDLED: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGPIPE)


class RelayKeeper:
    """The relay of one folder."""

    def __init__(self, home: int) -> None:
        """Take the descriptor of the folder."""
        self._home, self._pulse = home, Pulse(home, of.RELAY, PING)
        self._sockets: dict[Family, socket.socket] = {}
        self._requests: socket.socket | None = None
        self._pid = 0
        self._started_at = 0.0
        self._is_recorded = True
        self.descriptor: int | None = None
        """Of the process; readable when it has ended. None without a process."""

    def adopt(self) -> None:
        """End the relay of an earlier supervisor, if it is still running: a new one takes its place."""
        try:
            words = read_regular(of.RELAY_PROCESS, 64, dir_fd=self._home).decode("ascii", "replace").split()
            pid, started = map(int, words)
        except (OSError, ValueError):
            return
        if started and process_list.started(pid) == started:
            with contextlib.suppress(ProcessLookupError):
                descriptor = os.pidfd_open(pid)
                try:
                    signal.pidfd_send_signal(descriptor, signal.SIGKILL)
                    _wait(descriptor)
                finally:
                    os.close(descriptor)

    def listen(self, ports: Mapping[Family, int]) -> None:
        """Listen on these ports, one for each family, and on no others.

        Raises:
            OSError: A port is in use, or a family is missing.
            HostError: The process cannot be started safely.
        """
        held = {family: each.getsockname()[1] for family, each in self._sockets.items()}
        if held == dict(ports) and (self.descriptor is not None or not ports):
            return
        self._stop()
        for family, port in held.items():
            if ports.get(family) != port:
                self._sockets.pop(family).close()
        for family, port in ports.items():
            if family not in self._sockets:
                self._sockets[family] = sockets.listening(family, port)
        if self._sockets:
            self._start()

    def restart(self) -> str:
        """Start the process again if it has ended or hangs; return a line that says so, or nothing."""
        if not self._sockets:
            return ""
        if self.descriptor is not None and not _has_ended(self.descriptor):
            if not self._is_recorded:
                self._record()
            if self._pulse.silent_s() < HANGS_S:
                return ""
            what = f"the relay of UDP (process {self._pid}) did not answer for {HANGS_S:g} s and was killed"
            self._stop()
        else:
            what = "the relay of UDP has ended"
            self._forget()
            if time.monotonic() - self._started_at < _STABLE_S:  # a later round starts it
                return ""
        try:
            self._start()
        except (OSError, HostError) as error:
            return f"{what}; no new one: {error}"
        return f"{what}; a new one was started"

    def end(self) -> None:
        """End the process and close its sockets."""
        self._stop()
        for each in self._sockets.values():
            each.close()
        self._sockets = {}
        if self._requests is not None:
            self._requests.close()
            self._requests = None

    def _stop(self) -> None:
        if self.descriptor is not None:
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.descriptor, signal.SIGKILL)
            _wait(self.descriptor)
        self._forget()

    def _forget(self) -> None:
        if self.descriptor is not None:
            os.close(self.descriptor)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self._pid, os.WNOHANG)
        self.descriptor, self._pid = None, 0

    def _start(self) -> None:
        self._started_at = time.monotonic()
        objects, user = self._objects(), identity.unused()
        if self._requests is not None and not of.has(self._home, of.RELAY):  # those that wait are lost
            self._requests.close()
            self._requests = None
        if self._requests is None:
            self._requests = _requests(self._home)
        pid = os.fork()
        if not pid:
            _become(self._sockets, self._requests, objects, user)
        self._pid = pid
        self._pulse.begin()
        with contextlib.suppress(ProcessLookupError):
            self.descriptor = os.pidfd_open(pid)
        self._record()

    def _record(self) -> None:
        """Record the process for the next supervisor; on a full disk, `restart` tries again."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_NONBLOCK
        self._is_recorded = False
        with contextlib.suppress(OSError):
            with os.fdopen(os.open(of.RELAY_PROCESS, flags, 0o600, dir_fd=self._home), "w") as file:
                file.write(f"{self._pid} {process_list.started(self._pid)}\n")
            self._is_recorded = True

    def _objects(self) -> ProxyObjects:
        """Return the objects that were written down; none if they cannot be read, which is reported."""
        try:
            text = read_regular(of.RELAY_OBJECTS, MOST_BYTES, dir_fd=self._home).decode("utf-8", "replace")
            return read_proxy(text, of.RELAY_OBJECTS)
        except FileNotFoundError:
            return {}
        except (OSError, RulegenError) as error:
            log(f"relay: {of.RELAY_OBJECTS}: {error}")
            return {}


def _become(
    listeners: Mapping[Family, socket.socket], requests: socket.socket, objects: ProxyObjects, user: int
) -> NoReturn:
    """Be the relay, in a new process, until it is ended."""
    try:
        signal.set_wakeup_fd(-1)
        for each in _HANDLED:
            signal.signal(each, signal.SIG_DFL)
        os.setsid()
        _close_except({0, 1, 2, requests.fileno(), *(each.fileno() for each in listeners.values())})
        _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        _drop(user)
        relay = Relay(listeners, requests)
        relay.change(list(objects.items()))
        relay.keep()
    except BaseException as error:  # noqa: BLE001 - a copy of the supervisor must never return into its code
        log(f"the relay of UDP: {''.join(traceback.format_exception(error))}")
    finally:
        os._exit(1)


def _close_except(kept: set[int]) -> None:
    """Close all other descriptors, also the lock of the supervisor, which the next one needs."""
    first = 0
    for number in sorted(kept):
        if first < number:  # with equal numbers, all descriptors would be closed
            os.closerange(first, number)
        first = number + 1
    os.closerange(first, 1 << 16)


def _drop(user: int) -> None:
    """Become a user, with the two rights that a relay needs, and a name of its own."""
    libc = ctypes.CDLL(None)
    libc.prctl(_SET_NAME, b"rulegen relay", 0, 0, 0)
    libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    libc.prctl(_KEEP_CAPABILITIES, 1, 0, 0, 0)
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
    header = struct.pack("=Ii", _CAPABILITY_VERSION, 0)
    for kept in (_KEPT, 1 << 13, 0):  # as many as this host allows
        if libc.capset(header, struct.pack("=6I", kept, kept, 0, 0, 0, 0)) == 0:
            return
    raise OSError("the relay cannot drop its privileges")


def _requests(home: int) -> socket.socket:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(of.RELAY, dir_fd=home)
    held = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    held.bind(f"/proc/self/fd/{home}/{of.RELAY}")
    held.listen(16)
    return held


def _has_ended(descriptor: int) -> bool:
    return _is_readable(descriptor, 0)


def _wait(descriptor: int) -> None:
    _is_readable(descriptor, _END_S)


def _is_readable(descriptor: int, timeout_s: float) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(1000 * timeout_s))
