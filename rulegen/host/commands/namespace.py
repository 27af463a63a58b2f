"""A temporary network namespace, for tests that must not run in the host's namespace."""

from __future__ import annotations

import ctypes
import os
import threading
from typing import TYPE_CHECKING, Final, TypeVar

from rulegen.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")

_CLONE_NEWNET: Final = 0x40000000


class NamespaceError(HostError):
    """No network namespace can be created, mostly because CAP_SYS_ADMIN is missing."""


def in_throwaway_namespace(job: Callable[[], T]) -> T:
    """Run a function in a new network namespace, which is deleted afterwards, and return its result.

    The function runs in its own thread, because a thread can change its namespace without the other threads. Tools that
    it starts are in the namespace too.

    Raises:
        NamespaceError: There can be none. Errors of the job are raised as they are.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def body() -> None:
        try:
            _leave()
            results.append(job())
        except BaseException as error:  # noqa: BLE001 - it is raised again, in the thread of the caller
            errors.append(error)

    thread = threading.Thread(target=body, name="throwaway-namespace")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def _leave() -> None:
    """Move this thread into a new network namespace (unshare(2))."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(_CLONE_NEWNET) != 0:
        raise NamespaceError(
            f"cannot create a network namespace for a test: {os.strerror(ctypes.get_errno())}",
            hint="run as root, or with CAP_SYS_ADMIN",
        )
