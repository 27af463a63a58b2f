"""Slow pages: one thread makes each page, once for all clients that requested it before the start."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from rulegen.agent.pages_server.reply import Encoded, Reply, answer_of, encoded, failure

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Mapping

C = TypeVar("C", bound="Hashable")

LONGEST_REST_S: Final = 1.0
"""Maximum pause of a lane after a page; the pause is as long as the page took, so requests use at most half a CPU."""


@dataclass(frozen=True, slots=True)
class Slow:
    """A page that takes time to make.

    Attributes:
        page: Makes it, in its own thread.
        lane: Pages of one lane are made one after the other.
        refuse: Returns why a client may not see it, before it is made; None if it may. Runs in the same thread.
    """

    page: Callable[[], Reply]
    lane: str
    refuse: Callable[[], Reply | None] = lambda: None


@dataclass(frozen=True, slots=True)
class Made(Generic[C]):
    """A page for all clients that requested it.

    Attributes:
        clients: The clients that may see it.
        answer: The page; None if no client may see it.
        refused: The other clients, each with its answer.
        number: Number of the page, counted for all pages.
        seconds: How long it took.
    """

    slow: Slow
    clients: tuple[C, ...]
    answer: Encoded | None
    refused: tuple[tuple[C, Encoded], ...]
    number: int
    seconds: float


@dataclass(slots=True)
class _Lane(Generic[C]):
    waiting: dict[Callable[[], Reply], dict[C, Slow]] = field(default_factory=dict)
    is_busy: bool = False
    rests_until: float = 0.0


class Rendering(Generic[C]):
    """Decides which page is made when. Only one thread may call its methods.

    A client that requests a page while it is made gets the next one, so that no answer is older than its request.
    """

    def __init__(self, deliver: Callable[[Made[C]], None]) -> None:
        """Take the function that receives each page in the thread that made it; call `finished` with it afterwards."""
        self._deliver = deliver
        self._lanes: dict[str, _Lane[C]] = {}
        self._begun = 0

    def ask(self, client: C, slow: Slow) -> None:
        """Request a page for a client."""
        lane = self._lanes.setdefault(slow.lane, _Lane())
        lane.waiting.setdefault(slow.page, {})[client] = slow
        self._begin(lane)

    def leave(self, client: C) -> None:
        """Drop a waiting client."""
        for lane in self._lanes.values():
            for page, clients in list(lane.waiting.items()):
                clients.pop(client, None)
                if not clients:
                    del lane.waiting[page]

    def finished(self, made: Made[C]) -> None:
        """Start the next page of the lane."""
        lane = self._lanes[made.slow.lane]
        lane.is_busy = False
        lane.rests_until = time.monotonic() + min(made.seconds, LONGEST_REST_S)
        self._begin(lane)

    def next_begin(self) -> float | None:
        """Return when `begin` has work."""
        lanes = self._lanes.values()
        return min((lane.rests_until for lane in lanes if lane.waiting and not lane.is_busy), default=None)

    def begin(self) -> None:
        """Start pages of lanes whose pause is over."""
        for lane in self._lanes.values():
            self._begin(lane)

    def _begin(self, lane: _Lane[C]) -> None:
        if lane.is_busy or not lane.waiting or time.monotonic() < lane.rests_until:
            return
        asked = lane.waiting.pop(next(iter(lane.waiting)))
        lane.is_busy = True
        self._begun += 1
        name = f"page of {next(iter(asked.values())).lane}"
        thread = threading.Thread(target=self._make, args=(dict(asked), self._begun), name=name, daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # the host cannot create more threads
            unavailable = encoded(Reply(503, f"{error}\n"))
            refused = tuple((client, unavailable) for client in asked)
            self._deliver(Made(next(iter(asked.values())), (), None, refused, self._begun, LONGEST_REST_S))

    def _make(self, asked: Mapping[C, Slow], number: int) -> None:
        began = time.monotonic()
        refusals = {client: _refusal(slow) for client, slow in asked.items()}
        refused = tuple((client, refusal) for client, refusal in refusals.items() if refusal)
        clients = tuple(client for client, refusal in refusals.items() if not refusal)
        slow = next(iter(asked.values()))  # the page is the same for every client
        answer = answer_of(slow.page) if clients else None
        self._deliver(Made(slow, clients, answer, refused, number, time.monotonic() - began))


def _refusal(slow: Slow) -> Encoded | None:
    """Return why a client may not see a page; if the check fails, the client is rejected."""
    try:
        refusal = slow.refuse()
    except Exception as error:  # noqa: BLE001 - as `answer_of`
        refusal = failure(error)
    return encoded(refusal) if refusal else None
