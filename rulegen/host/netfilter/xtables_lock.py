"""The xtables lock: a file that every writer of legacy rules locks with flock(2).

The nft variant has no lock, because the kernel serialises its commits.
"""

from __future__ import annotations

import os
import stat
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec

from rulegen.safe_files import read_kernel_text
from rulegen.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

DEFAULT_LOCK_FILE = "/run/xtables.lock"

_MODE: Final = 0o600
"""The mode that iptables uses. Every user who can open the file, even read-only, can lock it (flock(2))."""


class LockHolder(msgspec.Struct, frozen=True):
    """The process that holds the lock.

    Attributes:
        pid: Its id; 0 if it is in another PID namespace.
        command: Its command line, else its name; empty if the process has ended or is hidden.
    """

    pid: int
    command: str

    def __str__(self) -> str:
        if not self.pid:
            return "a process of another PID namespace"
        return f"process {self.pid} ({self.command})" if self.command else f"process {self.pid}"


def lock_file() -> Path:
    """Return the path of the file that the tools lock."""
    return Path(os.environ.get("XTABLES_LOCKFILE") or DEFAULT_LOCK_FILE)


def close_to_others(*, make: bool = True) -> str:
    """Set mode 0600 on the lock file, so that other users cannot lock it; return what failed.

    Only a regular file of our own user is changed, never the target of a symbolic link. A process that has already
    opened the file can still lock it; `holder` finds it.

    Args:
        make: Whether a missing file is created.

    Returns:
        An empty text if only our user can open the file; else a sentence with the reason.
    """
    path = lock_file()
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(path, flags | os.O_CREAT if make else flags, _MODE)
    except OSError as error:
        if not make and isinstance(error, FileNotFoundError):
            return ""
        return f"the xtables lock {path} cannot be opened: {error.strerror}"
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            return f"the xtables lock {path} is not a file: other users could block iptables"
        if status.st_uid != os.geteuid():
            return f"the xtables lock {path} belongs to user {status.st_uid}, who could block iptables"
        if stat.S_IMODE(status.st_mode) & ~_MODE and status.st_size:  # XTABLES_LOCKFILE may name any file
            return f"the xtables lock {path} may be locked by any user: it is not empty, so its mode is not changed"
        if stat.S_IMODE(status.st_mode) != _MODE:
            os.fchmod(descriptor, _MODE)
    except OSError as error:
        return f"the xtables lock {path} may be locked by any user: its mode cannot be changed: {error.strerror}"
    finally:
        os.close(descriptor)
    return ""


def holder() -> LockHolder | None:
    """Return the process that holds the lock; None if it is free, unknown, or held by a tool of ours."""
    try:
        status = lock_file().stat()
        locks = read_kernel_text("/proc/locks")
    except OSError:  # the lock file does not exist, or cannot be read
        return None
    device = f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}:{status.st_ino}"
    held = [line.split() for line in locks.splitlines() if " FLOCK " in line and "->" not in line]
    # on overlay file systems, stat and the lock list show different devices: compare the inode alone
    same_inode = [fields for fields in held if fields[5].endswith(f":{status.st_ino}")]
    exact = [fields for fields in same_inode if fields[5] == device]
    for fields in exact or same_inode:
        pid = max(int(fields[4]), 0)
        if not (pid and _parent(pid) == os.getpid()):
            return LockHolder(pid, _command(pid))
    return None


@contextmanager
def watched(on_wait: Callable[[str], None] | None, *, after_s: float = 1.0) -> Iterator[list[LockHolder]]:
    """Report each process that holds the lock while the body runs, once, to `on_wait`.

    Args:
        on_wait: Called from another thread with `waiting for the xtables lock: held by …`; None for no reports.
        after_s: The seconds before the first check, and between checks.

    Yields:
        The holders seen so far; the list grows while the body runs.
    """
    seen: list[LockHolder] = []
    done = threading.Event()

    def look() -> None:
        while not done.wait(after_s):
            lock_holder = holder()
            if lock_holder is not None and lock_holder not in seen:
                seen.append(lock_holder)
                if on_wait is not None:
                    on_wait(f"waiting for the xtables lock: held by {lock_holder}")

    thread = threading.Thread(target=look, name="xtables-lock-watch", daemon=True)
    thread.start()
    try:
        yield seen
    finally:
        done.set()
        thread.join()


def _parent(pid: int) -> int:
    try:
        stat = read_kernel_text(f"/proc/{pid}/stat")
    except OSError:  # it ended meanwhile
        return 0
    return int(stat.rpartition(")")[2].split()[1])


def _command(pid: int) -> str:
    """Return the command line of a process in printable characters, because other programs choose it."""
    for name in ("cmdline", "comm"):
        try:
            words = read_kernel_text(f"/proc/{pid}/{name}").replace("\0", " ").strip()
        except OSError:
            return ""
        if words:
            return printable(words, 120)
    return ""
