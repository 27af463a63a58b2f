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
"""How many clients of all ports together may be connected."""
CLIENT_S: Final = 10.0
"""How long a client has to send the head of its request and to take the answer; making the page does not count."""
WAIT_S: Final = 60.0
"""How long a client waits for a page that takes time."""
CLOSE_S: Final = 1.0
"""How long an answered client may take to close: closing earlier would discard the answer if it still sends."""

DISCARDED_BYTES: Final = 256 * 1024
"""How many bytes it may send meanwhile."""


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
        listener: Which port it came to.
        source: By what it is counted, see `access.source_of`.
        deadline: When it is disconnected, by the clock of the loop.
        left_s: While it waits for a page: how long it has for the rest afterwards.
        received: What it sent so far, until the head is there.
        unsent: What it has not taken yet.
        discarded: How many bytes it has sent that nobody looks at.
        with_body: Whether it asked for more than the head.
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
        """Count one."""
        self._connected[client] = None
        self._of_source[client.source] += 1

    def remove(self, client: Client) -> None:
        """Count one no longer."""
        del self._connected[client]
        self._of_source[client.source] -= 1
        if not self._of_source[client.source]:
            del self._of_source[client.source]

    def first_to_go(self) -> Client | None:
        """Return the client to disconnect for a new one: the oldest of the source with most; None if there is room.

        A probe is answered at once: who stays for long wants to keep others out. One host that connects again and
        again pushes out itself.
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
