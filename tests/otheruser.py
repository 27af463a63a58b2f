"""What another user of the host can do: tried by a process that has really become that user."""

from __future__ import annotations

import os
import pickle
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

NOBODY = 65534

T = TypeVar("T")


@contextmanager
def reachable_folder() -> Iterator[Path]:
    """Yield a fresh folder that every user may enter: pytest's own is for us alone. It is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="rulegen-test-", dir="/tmp") as name:
        Path(name).chmod(0o755)
        yield Path(name)


def as_user(uid: int, attempt: Callable[[], T], *, gid: int | None = None, groups: tuple[int, ...] = ()) -> T | OSError:
    """Return what a function returns, or the OSError that it raises, in a child that has become another user.

    Args:
        uid: The user.
        attempt: What is tried there; what it returns can be pickled.
        gid: The group; by default the one with the number of the user.
        groups: Further groups.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        result: object = None
        try:
            os.close(reading)
            os.setgroups(list(groups))
            group = uid if gid is None else gid
            os.setresgid(group, group, group)
            os.setresuid(uid, uid, uid)
            try:
                result = attempt()
            except OSError as error:
                result = error
            with os.fdopen(writing, "wb") as stream:
                pickle.dump(result, stream)
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as stream:
        pickled = stream.read()
    os.waitpid(child, 0)
    assert pickled, "the other user's process died"
    return pickle.loads(pickled)
