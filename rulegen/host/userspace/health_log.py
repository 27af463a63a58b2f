"""What HAProxy logs about its servers: that one is ejected, or used again.

HAProxy writes each change to a pipe of the supervisor, which passes it on. A line that is not read in time is lost.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Final, NamedTuple

from rulegen.languages.listeners.state import POOL_NAME, split_endpoint

if TYPE_CHECKING:
    from collections.abc import Iterator

_CHUNK: Final = 1 << 16
_MOST: Final = 10_000
_SAID: Final = re.compile(
    rf"Server (?P<backend>{POOL_NAME}(?:\.a[0-9]{{1,6}})?|spare[0-9]{{1,4}}\.v[46](?:\.a[0-9]{{1,6}})?)/"
    r"(?P<address>[0-9a-f.:]{2,45})_(?P<port>[0-9]{1,5}) is (?P<state>UP|DOWN)[.,]"
)
_PASSED_ON: Final = re.compile(r"server (?P<backend>[a-z0-9.-]{1,260}) (?P<endpoint>\S{3,60}) (?P<state>up|down)")


class ServerHealth(NamedTuple):
    """A server that HAProxy has ejected, or uses again.

    Attributes:
        backend: Its backend, which may be a spare one.
        endpoint: Its address and port.
    """

    backend: str
    endpoint: str
    is_up: bool


class EndpointHealth(NamedTuple):
    """An endpoint that a program does not use any more because it has failed, or uses again.

    Attributes:
        service: Namespace and name of the Service, with a slash between them.
        endpoint: Address and port.
    """

    service: str
    endpoint: str
    is_up: bool


class HealthLog:
    """The pipe that HAProxy logs to, and which servers it has ejected."""

    def __init__(self) -> None:
        """Open it."""
        self.descriptor, self.writes = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._rest = b""
        self._down: dict[str, None] = {}

    def adopt(self, path: str) -> None:
        """Use the pipe that a HAProxy has already.

        Args:
            path: The descriptor of the pipe in that process, in /proc.

        Raises:
            OSError: It has none, or may not be inspected.
        """
        reads = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        writes = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        self.close()
        self.descriptor, self.writes = reads, writes

    def close(self) -> None:
        """Close the pipe."""
        os.close(self.descriptor)
        os.close(self.writes)

    def ejected(self) -> Iterator[str]:
        """Yield the lines of the servers that are ejected now, for a new reader."""
        return (f"{server} down" for server in tuple(self._down))

    def forget(self) -> None:
        """Count no server as ejected: a new HAProxy must detect the failed ones again."""
        self._down.clear()

    def lines(self) -> Iterator[str]:
        """Yield what the supervisor passes on, of what has arrived; other lines of HAProxy are skipped."""
        try:
            content = self._rest + os.read(self.descriptor, _CHUNK)
        except BlockingIOError:
            return
        *whole, self._rest = content.split(b"\n")
        self._rest = self._rest[-_CHUNK:]
        for each in whole:
            match = _SAID.match(each.decode("ascii", "replace"))
            if match is not None:
                address = f"[{match['address']}]" if ":" in match["address"] else match["address"]
                endpoint = f"{address}:{match['port']}"
                server = f"server {match['backend']} {endpoint}"
                if match["state"] == "DOWN" and len(self._down) < _MOST:
                    self._down[server] = None
                else:
                    self._down.pop(server, None)
                yield f"{server} {match['state'].lower()}"


def read(line: str) -> ServerHealth | None:
    """Return what a line says that was passed on; None for another line.

    >>> read("server demo.web.http.v4 10.0.0.1:80 down")
    ServerHealth(backend='demo.web.http.v4', endpoint='10.0.0.1:80', is_up=False)
    """
    match = _PASSED_ON.fullmatch(line)
    if match is None:
        return None
    try:
        split_endpoint(match["endpoint"])
    except ValueError:
        return None
    return ServerHealth(match["backend"], match["endpoint"], match["state"] == "up")
