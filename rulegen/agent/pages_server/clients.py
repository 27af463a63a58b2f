"""The clients of all servers: how many are accepted, for how long, and which one is disconnected first."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator

    from rulegen.agent.pages_server.listener import ListeningPort
    from rulegen.agent.pages_server.reply import Reply

CLIENTS: Final = 256
"""Maximum number of connected clients of all ports together."""
CLIENT_S: Final = 10.0
"""Time for a client to send the head of its request and to read the answer, without the time for making the page."""
WAIT_S: Final = 60.0
"""Time that a client waits for a slow page."""
CLOSE_S: Final = 1.0
"""Time for an answered client to close: closing earlier would discard the answer if the client still sends."""

DISCARDED_BYTES: Final = 256 * 1024
"""Maximum number of bytes that it may send meanwhile."""


class ClientPhase(Enum):
    """What a client is doing."""

    ASKS = auto()
    WAITS = auto()
    READS = auto()
    CLOSES = auto()


@dataclass(slots=True, eq=False)
class Client:
    """One connection.

    Attributes:
        listener: The port of the connection.
        source: The key by which it is counted, see `access.source_of`.
        deadline: When it is disconnected, by the clock of the loop.
        left_s: While it waits for a page: the remaining time afterwards.
        received: Received bytes, until the head is complete.
        unsent: Bytes that are not sent yet.
        discarded: Number of bytes that were received and discarded.
        with_body: Whether the answer has a body.
        page: The slow page that it reads, and the number of that answer.
    """

    connection: socket.socket
    listener: ListeningPort
    source: str
    deadline: float
    left_s: float = 0.0
    phase: ClientPhase = ClientPhase.ASKS
    received: bytearray = field(default_factory=bytearray)
    unsent: list[memoryview] = field(default_factory=list)
    discarded: int = 0
    with_body: bool = True
    page: tuple[Callable[[], Reply], int] | None = None


class Clients:
    """All connected clients, the oldest first."""

    def __init__(self) -> None:
        """Start without clients."""
        self._connected: dict[Client, None] = {}
        self._of_source = Counter[str]()

    def __iter__(self) -> Iterator[Client]:
        """Yield all, the oldest first; they may be removed meanwhile."""
        return iter(tuple(self._connected))

    def __contains__(self, client: object) -> bool:
        return client in self._connected

    def add(self, client: Client) -> None:
        """Add a client."""
        self._connected[client] = None
        self._of_source[client.source] += 1

    def remove(self, client: Client) -> None:
        """Remove a client."""
        del self._connected[client]
        self._of_source[client.source] -= 1
        if not self._of_source[client.source]:
            del self._of_source[client.source]

    def first_to_go(self) -> Client | None:
        """Return the client to disconnect for a new one: the oldest of the source with most; None if there is room.

        Probes are answered at once, so old connections are those that block others. A host that connects repeatedly
        displaces its own connections.
        """
        return self.oldest() if len(self._connected) >= CLIENTS else None

    def oldest(self) -> Client | None:
        """Return the oldest client of the source with most clients; None without clients."""
        if not self._connected:
            return None
        most = max(self._of_source.values())
        return next(client for client in self._connected if self._of_source[client.source] == most)

    def next_deadline(self) -> float | None:
        """Return the next deadline of a client."""
        return min((client.deadline for client in self._connected), default=None)
