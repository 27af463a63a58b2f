"""Functions of the supervisor for the resolver process: starts it, and sends it its settings."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import struct
import sys
import time
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rulegen.safe_files import read_regular

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

FILE: Final = "names.json"
"""The file in the folder `run` with the settings, one line; see `rulegen.host.proxy.resolver.settings.Naming`."""
LOG: Final = "names.err"
LARGEST: Final = 1 << 20
ADDRESSES: Final = ("127.0.0.1", "127.0.0.2")
"""The addresses that it listens on: one for connections to the ports of the proxy, and one for all others."""
_TABLES: Final = (Path("/proc/thread-self/net/udp"), Path("/proc/thread-self/net/udp6"))
_PACKED: Final = (ip_address(prefix + text).packed for prefix in ("", "::ffff:") for text in ADDRESSES)
_PLACES: Final = tuple(
    b"".join(struct.pack("=I", word) for word in struct.unpack(f"!{len(packed) // 4}I", packed)).hex().upper()
    for packed in (bytes(4), bytes(16), *_PACKED)
)
"""These addresses and the wildcard addresses, in the format of the kernel's socket lists."""
_AGAIN_S: Final = 1.0
_ANSWER_S: Final = 0.3
_NOT_IMPLEMENTED: Final = 4


def answers(port: int) -> bool:
    """Return whether the process answers on both addresses; the answer to the test question is an error code."""
    number = os.urandom(2)
    question = number + b"\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00" + b"\x07rulegen\x00" + b"\x00\x10\x00\x01"
    for address in ADDRESSES:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as link:
            link.settimeout(_ANSWER_S)
            try:
                link.connect((address, port))
                link.send(question)
                said = link.recv(512)
            except OSError:
                return False
            if said[:2] != number or said[3] & 0xF != _NOT_IMPLEMENTED:
                return False
    return True


def stranger(port: int, tables: Iterable[Path] = _TABLES) -> int | None:
    """Return the user of another program that has the port, whose answers the proxy would use; None if there is none.

    Any user can bind the port while the process does not run. The sockets of the process belong to root or our user.

    Args:
        port: The port that the proxy sends questions to.
        tables: The kernel's lists of UDP sockets (proc_net_udp(5)): local address and port in the second column, in hex
            as they lie in memory, and the user in the eighth.
    """
    places = {f"{place}:{port:04X}" for place in _PLACES}
    for table in tables:
        with contextlib.suppress(FileNotFoundError), table.open(encoding="ascii") as lines:  # the kernel has no IPv6
            next(lines, "")
            for fields in map(str.split, lines):
                if fields[1] in places and (user := int(fields[7])) not in {0, os.geteuid()}:
                    return user
    return None


def taken_by(port: int, user: int) -> str:
    """Return the message that another user has the port."""
    options = "--names-port and --haproxy-names-port"
    return f"names cannot be resolved: user {user} has port {port}/UDP; stop that program, or see {options}"


class NamesProcess:
    """Starts the process, restarts it when it ends, and sends it changed settings."""

    def __init__(self, write: Callable[[str], None], program: str) -> None:
        """Take the log of the supervisor, and the name of the program that asks."""
        self._what = f"the DNS resolver for {program}"
        self._write = write
        self._pid = 0
        self._pipe = -1
        self._sent = b""
        self._rest = b""
        self._not_before = 0.0

    @property
    def is_wanted(self) -> bool:
        """Whether the program uses it, as far as known."""
        return self._pid != 0 or self._not_before > 0

    def tend(self, run: int, logs: int) -> None:
        """Start the process with the settings in the file; without the file, end it.

        Args:
            run: The descriptor of the folder with the file.
            logs: The descriptor of the folder for its log.
        """
        try:
            settings = read_regular(FILE, LARGEST, dir_fd=run)
        except FileNotFoundError:
            self.end()
            return
        except OSError as error:
            self._write(f"run/{FILE} cannot be read: {error.strerror}")
            return
        if self._pid and os.waitpid(self._pid, os.WNOHANG)[0]:
            self._write(f"{self._what}, process {self._pid}, ended: see logs/{LOG}")
            self._forget()
        now = time.monotonic()
        if not self._pid and now >= self._not_before:
            self._start(logs)
            self._not_before = now + _AGAIN_S
        if self._pid and not self._rest and settings != self._sent:
            self._rest = self._sent = settings
        if self._rest:
            with contextlib.suppress(BrokenPipeError, BlockingIOError):  # it has ended and is started again, or is slow
                self._rest = self._rest[os.write(self._pipe, self._rest) :]  # a pipe has room for 64 KiB

    def end(self) -> None:
        """End the process."""
        self._not_before = 0.0
        if self._pid:
            os.close(self._pipe)
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)  # it has no state to save
            with contextlib.suppress(ChildProcessError):
                os.waitpid(self._pid, 0)
            self._pipe, self._pid, self._sent, self._rest = -1, 0, b"", b""

    def _forget(self) -> None:
        os.close(self._pipe)
        self._pipe, self._pid, self._sent, self._rest = -1, 0, b"", b""

    def _start(self, logs: int) -> None:
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_APPEND | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            log = os.open(LOG, flags, 0o600, dir_fd=logs)
        except OSError as error:
            self._write(f"{self._what} was not started: logs/{LOG}: {error.strerror}")
            return
        heard, tell = os.pipe2(os.O_CLOEXEC)
        argv = [sys.executable, "-P", "-s", "-m", "rulegen.host.proxy.resolver.process"]
        actions = [(os.POSIX_SPAWN_DUP2, heard, 0), (os.POSIX_SPAWN_DUP2, log, 1), (os.POSIX_SPAWN_DUP2, log, 2)]
        defaults = (signal.SIGQUIT, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2, signal.SIGPIPE)
        try:
            self._pid = os.posix_spawn(argv[0], argv, os.environ, file_actions=actions, setsigdef=defaults)
        except OSError as error:
            self._write(f"{self._what} was not started: {error.strerror}")
            os.close(tell)
        else:
            os.set_blocking(tell, False)
            self._pipe = tell
            self._write(f"process {self._pid} is {self._what}")
        finally:
            os.close(heard)
            os.close(log)
