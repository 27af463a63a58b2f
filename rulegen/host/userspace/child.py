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

from rulegen.host.userspace.log import log

if TYPE_CHECKING:
    from collections.abc import Mapping

_SPARE: Final = 64
"""Descriptors from this number on are not those that HAProxy inherits."""
_OPEN_FILES: Final = 200_000
_PARENT_DEATH_SIGNAL: Final = 1
_NO_NEW_PRIVILEGES: Final = 38
_NOT_STARTED: Final = 127
_HANDLED: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGPIPE)


def spawn(
    argv: list[str],
    user: int,
    release: int,
    output: int,
    sockets: Mapping[int, int],
    *,
    ends_with_us: bool = False,
) -> int:
    """Start a program and return its process id.

    Args:
        argv: The path of the program, and its arguments.
        user: Its user and group id.
        release: A descriptor of its working directory.
        output: A descriptor for what it prints.
        sockets: Descriptors that it inherits, by the number under which it gets them.
        ends_with_us: Whether it is killed when this process ends.

    Raises:
        OSError: There is no room for another process.
    """
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    try:
        _become(argv, user, release, output, sockets, parent if ends_with_us else 0)
    except BaseException as error:  # noqa: BLE001 - a copy of the supervisor must never return into its code
        log(f"[ALERT] {argv[0]} cannot be started: {error}")
    finally:
        os._exit(_NOT_STARTED)


def _become(argv: list[str], user: int, release: int, output: int, sockets: Mapping[int, int], parent: int) -> NoReturn:
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
    libc = ctypes.CDLL(None)
    libc.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    if parent:
        libc.prctl(_PARENT_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0)  # a change of the user would undo it
        if os.getppid() != parent:
            raise ProcessLookupError("its supervisor has ended")
    os.execve(argv[0], argv, {"PATH": os.defpath})  # noqa: S606 - no shell


def _limit(what: int, wanted: int) -> None:
    """Set a limit; without the right to raise it, as much as allowed."""
    _, hard = resource.getrlimit(what)
    try:
        resource.setrlimit(what, (wanted, wanted))
    except (OSError, ValueError):
        resource.setrlimit(what, (min(wanted, hard) if hard != resource.RLIM_INFINITY else wanted, hard))
