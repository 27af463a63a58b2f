"""What the supervisor of the proxy is doing with HAProxy."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import socket

    from rulegen.net import Family


class ReleaseChange(NamedTuple):
    """A release that is being tested, and started afterwards.

    Attributes:
        link: The connection that waits for the answer; None if it was told to ask again.
        release: The release.
        wanted: The families whose listeners stay.
        sockets: The listeners that the release needs, and the current ones.
        descriptor: Readable when the test has ended; None once HAProxy is being started with the release.
        since: When it began, in seconds of a monotonic clock.
    """

    link: socket.socket | None
    release: str
    wanted: frozenset[Family]
    sockets: dict[Family, socket.socket]
    descriptor: int | None
    since: float

    def progress(self) -> str:
        """Return a clause that says what it waits for."""
        what = "`haproxy -c` has not ended" if self.descriptor is not None else "a new HAProxy does not answer"
        return f"{what} after {time.monotonic() - self.since:.0f} s"


class Restart(NamedTuple):
    """HAProxy has ended by itself, and is started again.

    Attributes:
        since: When it ended, in seconds of a monotonic clock.
        at: When it is started: after a short life, a moment later.
        why: How it ended.
        is_begun: Whether the new one is being started.
        is_reported: Whether the followers know of the end.
    """

    since: float
    at: float
    why: str
    is_begun: bool = False
    is_reported: bool = False
