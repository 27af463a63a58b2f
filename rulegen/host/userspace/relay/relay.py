"""The relay: sends each datagram of a client to the endpoint of its flow, and answers from the requested destination.

A flow is a client (address and port) and a destination. It has a socket of its own, so the endpoint's answers are known
to be for it. Flows and sockets are bounded: a flow ends after 30 s without a datagram, and the flow that was silent for
longest ends if there are too many. Datagrams that cannot be sent are lost, as they may be in any network.
"""

from __future__ import annotations

import errno
import select
import time
from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from rulegen.errors import InputError
from rulegen.host.userspace.log import log
from rulegen.host.userspace.pulse import PING
from rulegen.host.userspace.relay import sockets
from rulegen.host.userspace.relay.table import RelayTable, Target
from rulegen.languages.listeners.state import ProxyListener, format_proxy, listener_key, read_proxy
from rulegen.net import Family, Protocol

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping

    from rulegen.host.userspace.relay.table import RelayPool

IDLE_S: Final = 30.0
LEAVING_S: Final = 1.0
"""After a change, how long a flow to a former endpoint still gets answers that are on their way."""
MOST_FLOWS: Final = 8192
MOST_ANSWERING: Final = 4096
"""Sockets for destinations; one that is closed is opened again when it is needed."""
OPEN_FILES: Final = MOST_FLOWS + MOST_ANSWERING + 64
SHOW: Final = "show"
CHANGE: Final = "change"
_AT_ONCE: Final = 64
"""Datagrams that are read from one socket before the next one has its turn."""
_LONGEST: Final = 65_535
_ROUND_S: Final = 1.0
_REQUEST_S: Final = 1.0
_MOST_REQUESTED: Final = 64 << 20
_COMPLAINT_S: Final = 10.0
_FULL: Final = {errno.EMFILE, errno.ENFILE}

FlowKey = tuple[Any, ...]
"""The family, the client as its socket has it, and the destination."""


@dataclass(slots=True)
class RelayFlow:
    """A client's datagrams to a destination, and their endpoint."""

    key: FlowKey
    upstream: socket.socket
    pool: RelayPool
    endpoint: Target
    used_at: float


class Relay:
    """Relays datagrams until the process ends."""

    def __init__(
        self, listeners: Mapping[Family, socket.socket], requests: socket.socket, most_flows: int = MOST_FLOWS
    ) -> None:
        """Take the listening sockets and the one for requests."""
        self._listeners, self._requests, self._most = dict(listeners), requests, most_flows
        self.table = RelayTable()
        self._flows: OrderedDict[FlowKey, RelayFlow] = OrderedDict()
        self._by_descriptor: dict[int, RelayFlow] = {}
        self._leaving: deque[tuple[float, RelayFlow]] = deque()
        self._answering: OrderedDict[tuple[Family, Target], socket.socket] = OrderedDict()
        self._poll = select.epoll()
        self._buffer = bytearray(_LONGEST)
        self._view = memoryview(self._buffer)
        self._complained_at = 0.0
        for held in (*self._listeners.values(), requests):
            self._poll.register(held.fileno(), select.EPOLLIN)

    def keep(self) -> None:
        """Relay until the process ends."""
        while True:
            self.round()

    def close(self) -> None:
        """End all flows, and close all sockets but those that were given."""
        for flow in tuple(self._by_descriptor.values()):
            self._end(flow)
        self._leaving.clear()
        for held in self._answering.values():
            held.close()
        self._answering.clear()
        self._poll.close()

    def round(self) -> None:
        """Wait for datagrams and requests, at most a second, and serve them."""
        families = {held.fileno(): family for family, held in self._listeners.items()}
        for descriptor, _ in self._poll.poll(_ROUND_S):
            if (family := families.get(descriptor)) is not None:
                self._from_clients(family)
            elif (flow := self._by_descriptor.get(descriptor)) is not None:
                self._from_endpoint(flow)
            elif descriptor == self._requests.fileno():
                self._serve_one()
        now = time.monotonic()
        while self._flows and now - (oldest := next(iter(self._flows.values()))).used_at > IDLE_S:
            self._end(oldest)
        while self._leaving and now > self._leaving[0][0]:
            self._end(self._leaving.popleft()[1])

    def _from_clients(self, family: Family) -> None:
        listener = self._listeners[family]
        for _ in range(_AT_ONCE):
            try:
                size, ancillary, _, client = listener.recvmsg_into([self._buffer], sockets.ANCILLARY)
            except BlockingIOError:
                return
            except OSError:  # an earlier datagram could not be delivered
                continue
            to = sockets.destination(family, ancillary)
            if to is None:
                continue
            key = (family, client, to)
            flow = self._flows.get(key)
            if flow is None and (flow := self._new_flow(key)) is None:
                continue
            now = time.monotonic()
            self._used(flow, now)
            flow.pool.saw(client[0], flow.endpoint, now)
            try:
                flow.upstream.send(self._view[:size])
            except BlockingIOError:
                continue
            except OSError as error:
                self._failed(flow, error)

    def _new_flow(self, key: FlowKey) -> RelayFlow | None:
        """Return a new flow; None if its destination is none of a Service, or there is no endpoint."""
        family, client, to = key
        pool = self.table.pool_of(family, to)
        endpoint = pool.choose(client[0], time.monotonic()) if pool is not None else None
        if pool is None or endpoint is None:
            return None
        while len(self._flows) + len(self._leaving) >= self._most:
            self._end(self._leaving.popleft()[1] if self._leaving else next(iter(self._flows.values())))
        upstream = self._upstream(family, endpoint)
        if upstream is None:
            pool.forget(client[0])
            return None
        flow = RelayFlow(key, upstream, pool, endpoint, time.monotonic())
        self._flows[key] = flow
        self._by_descriptor[upstream.fileno()] = flow
        self._poll.register(upstream.fileno(), select.EPOLLIN)
        return flow

    def _upstream(self, family: Family, endpoint: Target) -> socket.socket | None:
        """Return a socket for a new flow; if too many are open, the oldest flow ends."""
        while True:
            try:
                return sockets.connected(family, endpoint)
            except OSError as error:
                if error.errno not in _FULL or not self._flows:
                    self._complain(f"no socket for endpoint {endpoint.host} port {endpoint.port}: {error.strerror}")
                    return None
                self._end(next(iter(self._flows.values())))

    def _from_endpoint(self, flow: RelayFlow) -> None:
        family, client, to = flow.key
        for _ in range(_AT_ONCE):
            try:
                size = flow.upstream.recv_into(self._buffer)
            except BlockingIOError:
                return
            except OSError as error:
                self._failed(flow, error)
                return
            self._used(flow, time.monotonic())
            answering = self._socket_of(family, to)
            if answering is None:
                return
            try:
                answering.sendto(self._view[:size], client)
            except BlockingIOError:
                continue
            except OSError as error:
                self._complain(f"no answer from {to.host} port {to.port}: {error.strerror}")

    def _socket_of(self, family: Family, to: Target) -> socket.socket | None:
        """Return the socket that answers from a destination; None if another program has its port."""
        known = self._answering.get((family, to))
        if known is not None:
            self._answering.move_to_end((family, to))
            return known
        while len(self._answering) >= MOST_ANSWERING:
            self._answering.popitem(last=False)[1].close()
        try:
            made = self._answering[family, to] = sockets.answering(family, to)
        except OSError as error:
            self._complain(f"no socket that answers from {to.host} port {to.port}: {error.strerror}")
            return None
        return made

    def _used(self, flow: RelayFlow, now: float) -> None:
        flow.used_at = now
        if self._flows.get(flow.key) is flow:
            self._flows.move_to_end(flow.key)

    def _failed(self, flow: RelayFlow, error: OSError) -> None:
        """End a flow whose endpoint refuses datagrams, so that the next datagram goes to another one."""
        if error.errno not in {errno.EMSGSIZE, errno.ENOBUFS, errno.ENOMEM, errno.EPERM}:
            if self._flows.get(flow.key) is flow:
                flow.pool.forget(flow.key[1][0])
            self._end(flow)

    def _end(self, flow: RelayFlow) -> None:
        if self._flows.get(flow.key) is flow:
            del self._flows[flow.key]
        if self._by_descriptor.pop(flow.upstream.fileno(), None) is not None:  # else it has ended already
            flow.upstream.close()

    def _complain(self, text: str) -> None:
        """Write a line, at most one in ten seconds: a client chooses how often it happens."""
        now = time.monotonic()
        if now - self._complained_at > _COMPLAINT_S:
            self._complained_at = now
            log(f"relay: {text}")

    def _serve_one(self) -> None:
        """Serve one request: `show`, `ping`, or `change` and lines that begin with `-` or `+`."""
        try:
            link, _ = self._requests.accept()
            with link:
                link.settimeout(_REQUEST_S)
                with link.makefile("rb") as lines:
                    asked = lines.read(_MOST_REQUESTED).decode("utf-8", "replace")
                link.sendall(self._answer(asked).encode())
        except OSError as error:
            self._complain(f"a request: {error.strerror or error}")

    def _answer(self, asked: str) -> str:
        verb, _, rest = asked.partition("\n")
        if verb == SHOW:
            listeners = {
                listener_key(family, Protocol.UDP): ProxyListener(held.getsockname()[1])
                for family, held in self._listeners.items()
            }
            return format_proxy({**listeners, **self.table.objects})
        if verb == PING:
            return "ok\n"
        if verb != CHANGE:
            return "unknown request\n"
        rows = rest.splitlines()
        try:
            removed = read_proxy("\n".join(row[1:] for row in rows if row.startswith("-")), SHOW)
            added = read_proxy("\n".join(row[1:] for row in rows if row.startswith("+")), SHOW)
        except InputError as error:
            return f"{error.message}\n"
        self.change([*((key, None) for key in removed), *added.items()])
        return "ok\n"

    def change(self, changes: list[tuple[Any, Any]]) -> None:
        """Change the objects; the next datagram of a flow to an endpoint that is gone goes to another one.

        Answers that are on their way are still passed on.
        """
        self.table.change(change for change in changes if change[0] != listener_key(change[0].family, Protocol.UDP))
        for flow in tuple(self._flows.values()):
            if (
                self.table.pool_of(flow.key[0], flow.key[2]) is not flow.pool
                or flow.endpoint not in flow.pool.endpoints
            ):
                del self._flows[flow.key]
                self._leaving.append((time.monotonic() + LEAVING_S, flow))
