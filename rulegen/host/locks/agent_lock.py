"""Locks for the life of an agent: one agent for one part of a node. The kernel frees them when it ends or crashes."""

from __future__ import annotations

import contextlib
import fnmatch
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rulegen.errors import HostError
from rulegen.host.files import trust
from rulegen.host.locks.file_locks import locked_or_not, opened_or_not
from rulegen.safe_files import read_descriptor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_RUN: Final = Path("/run/rulegen")
_RUN_MODE: Final = 0o711
_PATIENCE_S: Final = 1.0
"""Seconds to wait for an agent that is just ending."""
_AGAIN_S: Final = 0.05
_MOST_BYTES: Final = 64
_OF_SERVICES: Final = "services-[0-9]*.lock"


class AgentTwiceError(HostError):
    """Another agent already keeps this part of the node."""


class AgentLock:
    """A lock on one part of this node, such as its Services.

    It is a file with mode 0600 in a folder that only root can write to, so that no other user can hold it.
    """

    def __init__(
        self, folder: Path, name: str, part: str, *, prepare: Callable[[], None] | None = None, similar: str = ""
    ) -> None:
        """Describe the lock; `take` takes it.

        Args:
            folder: The folder of the file.
            name: The name of the file.
            part: What its holder keeps, for messages.
            prepare: Creates the folder where it is missing; by default, other users may pass through it.
            similar: A pattern for the names of locks of the same kind. Those that killed agents have left are deleted.
        """
        self._similar = similar
        self._folder, self._name, self._part, self._prepare = folder, name, part, prepare
        self._descriptor = -1

    @classmethod
    def of_services(cls) -> AgentLock:
        """Return the lock on the Services of the network namespace of this thread."""
        namespace = os.stat("/proc/thread-self/ns/net").st_ino  # noqa: PTH116 - the kernel's link
        part = "the rules of Services in this network namespace"
        return cls(_RUN, f"services-{namespace}.lock", part, similar=_OF_SERVICES)

    def take(self) -> None:
        """Take the lock, unless this process has it. Whoever ends or crashes gives it back.

        Raises:
            AgentTwiceError: Another process has it; the message names this process.
            HostError: The file cannot be created, or another user could write to its folder.
        """
        try:
            self._take()
        except OSError as error:
            where = error.filename or self._folder
            raise HostError(f"cannot lock {self._part}: {where}: {error.strerror}") from None

    @property
    def is_held(self) -> bool:
        """Whether this process has the lock."""
        return self._descriptor != -1

    def _take(self) -> None:
        until = time.monotonic() + _PATIENCE_S
        while True:
            with self._opened() as home:
                if self._is_current(home):
                    self._delete_abandoned(home)
                    return
                self._close()
                descriptor, is_free = opened_or_not(self._name, dir_fd=home)
                if is_free:
                    self._descriptor = descriptor
                    with contextlib.suppress(OSError):  # a full disk: then the lock names nobody
                        os.ftruncate(descriptor, 0)
                        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
                    continue  # whoever had it may just have deleted the file
                holder = _holder(descriptor)
                os.close(descriptor)
            if time.monotonic() > until:
                raise AgentTwiceError(
                    f"another agent{holder} already manages {self._part}", hint="stop it first, or stop this one"
                )
            time.sleep(_AGAIN_S)

    def _delete_abandoned(self, home: int) -> None:
        """Delete the locks of the same kind that nobody holds; who takes one just then notices, and tries again."""
        with contextlib.suppress(OSError):  # they harm nobody
            for name in fnmatch.filter(os.listdir(home), self._similar):
                if name != self._name:
                    with locked_or_not(name, dir_fd=home, make=False) as is_free:
                        if is_free:
                            os.unlink(name, dir_fd=home)

    def release(self) -> None:
        """Give the lock back, and delete its file."""
        if self.is_held:
            with contextlib.suppress(OSError, HostError), self._opened() as home:
                if self._is_current(home):
                    os.unlink(self._name, dir_fd=home)
        self._close()

    def _close(self) -> None:
        if self._descriptor != -1:
            os.close(self._descriptor)
            self._descriptor = -1

    @contextlib.contextmanager
    def _opened(self) -> Iterator[int]:
        if self._prepare is not None and not self._folder.is_dir():
            self._prepare()
        with trust.folder(self._folder, make_mode=_RUN_MODE if self._prepare is None else None) as home:
            yield home

    def _is_current(self, home: int) -> bool:
        """Return whether this process has the lock on the file that is there now: a folder may be deleted."""
        if self._descriptor == -1:
            return False
        try:
            there = os.stat(self._name, dir_fd=home, follow_symlinks=False)
        except FileNotFoundError:
            return False
        ours = os.fstat(self._descriptor)
        return (there.st_dev, there.st_ino) == (ours.st_dev, ours.st_ino)


def _holder(descriptor: int) -> str:
    try:
        pid = int(read_descriptor(descriptor, _MOST_BYTES, "lock"))
    except (OSError, ValueError):  # it has just taken the lock
        return ""
    return f", process {pid},"
