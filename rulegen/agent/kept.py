"""What an agent keeps when it reloads its configuration: health, sockets, and the watch of the cluster."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rulegen.agent.inbox import Inbox
from rulegen.agent.pages_server.http_loop import HttpLoop
from rulegen.agent.telemetry.events import to_nobody
from rulegen.agent.telemetry.state import AgentState

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from rulegen.agent.following import FollowedCluster
    from rulegen.agent.pages_server.health import ServiceHealth
    from rulegen.agent.pages_server.server import RetryingServer
    from rulegen.agent.servers import AgentServers, Pages
    from rulegen.agent.telemetry.events import EventRequest
    from rulegen.host.netfilter.variant import KnownTools


@dataclass(slots=True)
class KeptParts:
    """The parts that an agent hands to the next one; `close` ends them after the last.

    Load balancers see no difference: health stays as it is until the next agent has written, or is too late with it.

    Attributes:
        followed: The watched cluster; None before the first agent has begun.
        health: The health-check node ports; None before, and where another proxy answers on them.
        http_loop: Serves the clients of all ports.
        tools: The tools of this host; None before the first agent has begun.
    """

    state: AgentState
    inbox: Inbox
    http_loop: HttpLoop = field(init=False)
    followed: FollowedCluster | None = None
    health: ServiceHealth | None = None
    tools: KnownTools | None = None
    _answers: AgentServers | None = None
    _send: Callable[[EventRequest], None] = to_nobody
    _open: dict[tuple[str, str], tuple[RetryingServer, Pages]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.http_loop = HttpLoop(self.state.metrics.clients_cut.add)

    @classmethod
    def new(cls, clock: Callable[[], float]) -> KeptParts:
        """Return the parts of the first agent."""
        state = AgentState(clock)
        return cls(state, Inbox(state))

    def names(self) -> Collection[str]:
        """Return the names of this node, in lower case."""
        return self._answers.names() if self._answers is not None else frozenset()

    def send_event(self, request: EventRequest) -> None:
        """Send an Event with the recorder of the present agent."""
        self._send(request)

    def send_with(self, send_event: Callable[[EventRequest], None]) -> None:
        """Take the recorder of the next agent."""
        self._send = send_event

    def answer(self, servers: AgentServers) -> None:
        """Answer as these servers do from now on. An address that stays is not closed.

        Raises:
            HostError: An address is taken and bindAddressHardFail is set.
        """
        self._answers = servers
        ports = {(port.reason, port.address): port for port in servers.ports()}
        for place in self._open.keys() - ports.keys():
            self._open.pop(place)[0].stop()
        for place, port in ports.items():
            if place in self._open:
                self._open[place][1].update(port.pages)
            else:
                self._open[place] = servers.opened(port, self.names), port.pages

    def close(self) -> None:
        """End all."""
        while self._open:
            self._open.popitem()[1][0].stop()
        if self.health is not None:
            self.health.stop()
        if self.followed is not None:
            self.followed.watch.stop()
