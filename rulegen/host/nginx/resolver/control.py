"""The process that nginx requests names, as the supervisor sees it: started where there is something to tell it."""

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
"""In the folder `run`: one line that the process is told, see `rulegen.host.nginx.resolver.settings.Naming`."""
LOG: Final = "names.err"
LARGEST: Final = 1 << 20
ADDRESSES: Final = ("127.0.0.1", "127.0.0.2")
"""Where it listens: one for connections to the ports of nginx, where loops end, and one for all others."""
_TABLES: Final = (Path("/proc/thread-self/net/udp"), Path("/proc/thread-self/net/udp6"))
_PACKED: Final = (ip_address(prefix + text).packed for prefix in ("", "::ffff:") for text in ADDRESSES)
_PLACES: Final = tuple(
    b"".join(struct.pack("=I", word) for word in struct.unpack(f"!{len(packed) // 4}I", packed)).hex().upper()
    for packed in (bytes(4), bytes(16), *_PACKED)
)
"""Those addresses, and those of sockets that have all, as the kernel's lists spell them."""
_AGAIN_S: Final = 1.0
_ANSWER_S: Final = 0.3
_NOT_IMPLEMENTED: Final = 4


def answers(port: int) -> bool:
    """Return whether the process answers on both of its addresses; it knows no answer to what is asked, and says so."""
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
    """Return the user who has the port in place of the process, and whom nginx would believe; None for nobody.

    Any user may have it, while the process does not run. The process gets its sockets as root, or as who we are.

    Args:
        port: Where nginx asks.
        tables: The kernel's lists of UDP sockets (proc_net_udp(5)): local address and port in the second column, in hex
            as they lie in memory, and the user in the eighth.
    """
    places = {f"{place}:{port:04X}" for place in _PLACES}
    for table in tables:
        with contextlib.suppress(FileNotFoundError), table.open(encoding="ascii") as lines:  # a kernel without IPv6
            next(lines, "")
            for fields in map(str.split, lines):
                if fields[1] in places and (user := int(fields[7])) not in {0, os.geteuid()}:
                    return user
    return None


def taken_by(port: int, user: int) -> str:
    """Return in words that another user has the port."""
    return f"names cannot be resolved: user {user} has port {port}/UDP; stop that program, or see --names-port"


class NamesProcess:
    """Starts the process, starts it again when it ends, and tells it what changes."""

    def __init__(self, write: Callable[[str], None]) -> None:
        """Take the supervisor's log."""
        self._write = write
        self._pid = 0
        self._pipe = -1
        self._sent = b""
        self._rest = b""
        self._not_before = 0.0

    @property
    def is_wanted(self) -> bool:
        """Whether nginx asks it, as far as is known."""
        return self._pid != 0 or self._not_before > 0

    def tend(self, run: int, logs: int) -> None:
        """Have the process run and know what the file says; without the file there is none.

        Args:
            run: The folder of the file, a descriptor.
            logs: The folder of its log, a descriptor.
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
            self._write(f"the DNS resolver for nginx, process {self._pid}, ended: see logs/{LOG}")
            self._forget()
        now = time.monotonic()
        if not self._pid and now >= self._not_before:
            self._start(logs)
            self._not_before = now + _AGAIN_S
        if self._pid and not self._rest and settings != self._sent:
            self._rest = self._sent = settings
        if self._rest:
            with contextlib.suppress(BrokenPipeError, BlockingIOError):  # it ends, and is started again; or it is slow
                self._rest = self._rest[os.write(self._pipe, self._rest) :]  # a pipe takes some 64 KiB at once

    def end(self) -> None:
        """End the process."""
        self._not_before = 0.0
        if self._pid:
            os.close(self._pipe)
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)  # it holds nothing
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
            self._write(f"the DNS resolver for nginx was not started: logs/{LOG}: {error.strerror}")
            return
        heard, tell = os.pipe2(os.O_CLOEXEC)
        argv = [sys.executable, "-P", "-s", "-m", "rulegen.host.nginx.resolver.process"]
        actions = [(os.POSIX_SPAWN_DUP2, heard, 0), (os.POSIX_SPAWN_DUP2, log, 1), (os.POSIX_SPAWN_DUP2, log, 2)]
        defaults = (signal.SIGQUIT, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR2, signal.SIGPIPE)
        try:
            self._pid = os.posix_spawn(argv[0], argv, os.environ, file_actions=actions, setsigdef=defaults)
        except OSError as error:
            self._write(f"the DNS resolver for nginx was not started: {error.strerror}")
            os.close(tell)
        else:
            os.set_blocking(tell, False)
            self._pipe = tell
            self._write(f"process {self._pid} is the DNS resolver for nginx")
        finally:
            os.close(heard)
            os.close(log)
