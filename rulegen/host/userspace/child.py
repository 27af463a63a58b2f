"""Starts HAProxy as a process without rights: a user id that nothing else has, and inherited sockets.

HAProxy needs no right: it gets its listening sockets ready for use, and files by its working directory.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import resource
import signal
from typing import TYPE_CHECKING, Final, NoReturn

if TYPE_CHECKING:
    from collections.abc import Mapping

_SPARE: Final = 64
"""Descriptors from this number on are not those that HAProxy inherits."""
_OPEN_FILES: Final = 200_000
_NO_NEW_PRIVILEGES: Final = 38
_HANDLED: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGPIPE)


def spawn(argv: list[str], user: int, release: int, output: int, sockets: Mapping[int, int]) -> int:
    """Start a program and return its process id.

    Args:
        argv: The path of the program, and its arguments.
        user: Its user and group id.
        release: A descriptor of its working directory.
        output: A descriptor for what it prints.
        sockets: Descriptors that it inherits, by the number under which it gets them.
    """
    pid = os.fork()
    if pid:
        return pid
    try:
        _become(argv, user, release, output, sockets)
    except OSError as error:
        os.write(2, f"{argv[0]} cannot be started: {error}\n".encode())
    os._exit(127)


def _become(argv: list[str], user: int, release: int, output: int, sockets: Mapping[int, int]) -> NoReturn:
    os.setsid()
    os.fchdir(release)
    copies = {number: fcntl.fcntl(descriptor, fcntl.F_DUPFD_CLOEXEC, _SPARE) for number, descriptor in sockets.items()}
    output = fcntl.fcntl(output, fcntl.F_DUPFD_CLOEXEC, _SPARE)
    os.closerange(3, _SPARE)
    null = os.open("/dev/null", os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(output, 1)
    os.dup2(output, 2)
    for number, copy in copies.items():
        os.dup2(copy, number)
    if null not in copies and null > 2:
        os.close(null)
    signal.set_wakeup_fd(-1)
    for each in _HANDLED:
        signal.signal(each, signal.SIG_DFL)
    _limit(resource.RLIMIT_NOFILE, _OPEN_FILES)
    _limit(resource.RLIMIT_CORE, 0)
    os.umask(0o077)
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
    ctypes.CDLL(None).prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    os.execve(argv[0], argv, {"PATH": os.defpath})  # noqa: S606 - no shell


def _limit(what: int, wanted: int) -> None:
    """Set a limit; without the right to raise it, as much as allowed."""
    _, hard = resource.getrlimit(what)
    try:
        resource.setrlimit(what, (wanted, wanted))
    except (OSError, ValueError):
        resource.setrlimit(what, (min(wanted, hard) if hard != resource.RLIM_INFINITY else wanted, hard))
