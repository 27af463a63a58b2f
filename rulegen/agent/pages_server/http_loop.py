"""One thread that serves the clients of all ports, so that their total cost is bounded."""

from __future__ import annotations

import errno
import selectors
import socket
import threading
import time
from collections import deque
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from rulegen.agent.pages_server.access import source_of
from rulegen.agent.pages_server.clients import CLIENT_S, CLOSE_S, DISCARDED_BYTES, WAIT_S, Client, ClientPhase, Clients
from rulegen.agent.pages_server.listener import Connection, ListeningPort
from rulegen.agent.pages_server.rendering import Made, Rendering, Slow
from rulegen.agent.pages_server.reply import Encoded, Reply, encoded, failure
from rulegen.agent.pages_server.request import HEAD_BYTES, TOO_LONG, RequestRefusal, head_length, parse
from rulegen.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Callable

_BATCH: Final = 16
"""Maximum number of clients of one port that are accepted before other ports are served."""
_PIECES: Final = 16
"""Maximum number of writes to one client before other clients are served."""
_EXHAUSTED: Final = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_REST_S: Final = 0.05
_READ, _WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE


class HttpLoop:
    """Accepts clients of any number of ports, reads one request of each, and sends one answer.

    The thread runs while there are ports. Other threads make slow pages, see `Rendering`.
    """

    def __init__(self, on_cut: Callable[[str], None] = lambda _reason: None) -> None:
        """Take the function that is called with the reason for each cut client: `crowded`, `late` or `outdated`."""
        self._on_cut = on_cut
        self._lock = threading.Lock()
        self._ports = 0
        self._thread: threading.Thread | None = None
        self._wake: socket.socket | None = None
        self._calls: deque[Callable[[], None]] = deque()
        self._clients = Clients()
        self._rendering = Rendering[Client](self._deliver)
        self._selector: selectors.BaseSelector = selectors.DefaultSelector()

    def add(self, listener: ListeningPort) -> None:
        """Add a port; the loop owns its socket.

        Raises:
            HostError: The kernel cannot watch more sockets.
        """
        with self._lock:
            self._ports += 1
            if self._thread is None:
                self._wake, woken = socket.socketpair()
                self._wake.settimeout(0)
                woken.settimeout(0)
                self._thread = threading.Thread(target=self._run, args=(woken,), name="http", daemon=True)
                self._thread.start()
        try:
            self._call_and_wait(lambda: self._listen(listener))
        except OSError as error:
            listener.opened.close()
            self._end_without_ports()
            raise HostError(f"cannot listen: {error.strerror}") from None

    def remove(self, listener: ListeningPort) -> None:
        """Remove a port: it is closed and its clients are disconnected when this returns."""
        self._call_and_wait(lambda: self._close_listener(listener))
        self._end_without_ports()

    def _end_without_ports(self) -> None:
        """Count one port less; stop the thread after the last port."""
        with self._lock:
            self._ports -= 1
            if not self._ports and self._thread is not None and self._wake is not None:
                self._wake.close()
                self._thread.join()
                self._thread = self._wake = None

    def _call_and_wait(self, function: Callable[[], None]) -> None:
        """Run a function in the thread of the loop, and wait for its end.

        Raises:
            OSError: As the function does.
        """
        done = threading.Event()
        errors: list[OSError] = []

        def call() -> None:
            try:
                function()
            except OSError as error:
                errors.append(error)
            finally:
                done.set()

        self._call(call)
        done.wait()
        if errors:
            raise errors[0]

    def _call(self, function: Callable[[], None]) -> None:
        """Run a function in the thread of the loop later."""
        self._calls.append(function)
        if threading.current_thread() is self._thread:
            return  # the loop runs all functions in each iteration
        with self._lock:
            if self._wake is not None:
                with suppress(BlockingIOError):  # a wake-up is already pending
                    self._wake.send(b"\0")

    def _run(self, woken: socket.socket) -> None:
        with woken, selectors.DefaultSelector() as self._selector:
            self._selector.register(woken, _READ)
            while True:
                events = self._selector.select(self._timeout_s())
                for key, _ in events:
                    if isinstance(key.data, Client):
                        self._serve(key.data)
                for key, _ in events:
                    if isinstance(key.data, ListeningPort):
                        self._accept(key.data)
                    elif key.data is None and not woken.recv(4096):
                        return
                while self._calls:
                    self._calls.popleft()()
                self._expire()
                self._rendering.begin()

    def _timeout_s(self) -> float | None:
        """Return the seconds until the next deadline."""
        times = [at for at in (self._clients.next_deadline(), self._rendering.next_begin()) if at is not None]
        return max(min(times) - time.monotonic(), 0.0) if times else None

    def _listen(self, listener: ListeningPort) -> None:
        self._selector.register(listener.opened, _READ, listener)

    def _close_listener(self, listener: ListeningPort) -> None:
        self._selector.unregister(listener.opened)
        listener.opened.close()
        for client in self._clients:
            if client.listener is listener:
                self._close(client)

    def _accept(self, listener: ListeningPort) -> None:
        for _ in range(_BATCH):
            try:
                connection, address = listener.opened.accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno not in _EXHAUSTED:
                    continue  # the client has disconnected
                if (oldest := self._clients.oldest()) is not None:
                    self._cut(oldest, "crowded")
                else:
                    time.sleep(_REST_S)  # other programs or parts use the resources that are missing
                return
            connection.settimeout(0)
            if (first := self._clients.first_to_go()) is not None:
                self._cut(first, "crowded")
            client = Client(connection, listener, source_of(str(address[0])), time.monotonic() + CLIENT_S)
            if not self._registered(client, _READ):
                connection.close()
                continue
            self._clients.add(client)
            self._serve(
                client
            )  # a probe has usually sent its request by now, so it is answered before it can be displaced

    def _registered(self, client: Client, events: int) -> bool:
        """Register a client with epoll; return False if the kernel cannot (epoll_ctl(2): ENOMEM, ENOSPC)."""
        try:
            self._selector.register(client.connection, events, client)
        except OSError:
            return False
        return True

    def _serve(self, client: Client) -> None:
        """Continue with a client; an internal error disconnects only that client."""
        if client not in self._clients:
            return
        try:
            match client.phase:
                case ClientPhase.ASKS:
                    self._read(client)
                case ClientPhase.READS:
                    self._write(client)
                case ClientPhase.CLOSES:
                    self._discard(client)
                case ClientPhase.WAITS:
                    pass  # received bytes are discarded
        except (BlockingIOError, InterruptedError):
            pass  # later
        except OSError:
            self._close(client)  # the client has disconnected
        except Exception as error:  # noqa: BLE001 - as said
            self._fail(client, error)

    def _fail(self, client: Client, error: Exception) -> None:
        """Answer a client with status 500 after an internal error, unless an answer is already being sent."""
        try:
            if client.phase is not ClientPhase.ASKS:
                self._close(client)
            else:
                self._send(client, encoded(failure(error)))
        except (OSError, RuntimeError):
            self._close(client)

    def _read(self, client: Client) -> None:
        received = client.received
        before = len(received)
        piece = client.connection.recv(HEAD_BYTES + 1 - before)
        if not piece:
            self._close(client)
            return
        received += piece
        if not before:
            received[:] = received.lstrip(b"\r\n")  # RFC 9112, section 2.2
        length = head_length(received, before)
        if length:
            self._answer(client, bytes(received[:length]))
        elif len(received) > HEAD_BYTES:
            self._send(client, _refused(TOO_LONG))

    def _answer(self, client: Client, head: bytes) -> None:
        client.received.clear()
        request = parse(head)
        if isinstance(request, RequestRefusal):
            self._send(client, _refused(request))
            return
        client.with_body = request.method != "HEAD"
        answer = client.listener.answer(request, _connection(client.connection))
        if isinstance(answer, Slow):
            self._selector.unregister(client.connection)
            now = time.monotonic()
            client.phase, client.left_s, client.deadline = ClientPhase.WAITS, client.deadline - now, now + WAIT_S
            self._rendering.ask(client, answer)
        else:
            self._send(client, answer)

    def _deliver(self, made: Made[Client]) -> None:
        """Receive a page from the thread that made it."""
        self._call(lambda: self._hand_out(made))

    def _hand_out(self, made: Made[Client]) -> None:
        self._rendering.finished(made)
        page = made.slow.page
        for client in self._clients:  # keep at most two answers of a page: this one and the previous one
            if client.page is not None and client.page[0] is page and client.page[1] < made.number - 1:
                self._cut(client, "outdated")
        for client, refusal in made.refused:
            self._send_later(client, refusal)
        if made.answer is not None:
            for client in made.clients:
                client.page = page, made.number
                self._send_later(client, made.answer)

    def _send_later(self, client: Client, answer: Encoded) -> None:
        """Send an answer to a waiting client."""
        if client not in self._clients or client.phase is not ClientPhase.WAITS:
            return
        if not self._registered(client, _WRITE):
            self._cut(client, "crowded")  # it is still waiting
            return
        client.deadline = time.monotonic() + max(client.left_s, CLOSE_S)
        self._send(client, answer, is_registered=True)

    def _send(self, client: Client, answer: Encoded, *, is_registered: bool = False) -> None:
        client.phase = ClientPhase.READS
        client.unsent = [memoryview(answer.head)] + ([memoryview(answer.body)] if client.with_body else [])
        if not is_registered:
            self._selector.modify(client.connection, _WRITE, client)
        self._serve(client)

    def _write(self, client: Client) -> None:
        for _ in range(_PIECES):
            sent = client.connection.sendmsg(client.unsent)
            while client.unsent and sent >= len(client.unsent[0]):
                sent -= len(client.unsent.pop(0))
            if not client.unsent:
                client.connection.shutdown(socket.SHUT_WR)
                client.phase = ClientPhase.CLOSES
                client.page = None
                client.deadline = min(client.deadline, time.monotonic() + CLOSE_S)
                self._selector.modify(client.connection, _READ, client)
                return
            client.unsent[0] = client.unsent[0][sent:]

    def _discard(self, client: Client) -> None:
        piece = client.connection.recv(HEAD_BYTES)
        client.discarded += len(piece)
        if not piece or client.discarded > DISCARDED_BYTES:
            self._close(client)

    def _expire(self) -> None:
        now = time.monotonic()
        for client in self._clients:
            if client.deadline > now:
                continue
            if client.phase is ClientPhase.WAITS:
                self._rendering.leave(client)
                self._send_later(client, encoded(Reply(503, "the page is not ready yet\n")))
            elif client.phase is ClientPhase.CLOSES:
                self._close(client)
            else:
                self._cut(client, "late")

    def _cut(self, client: Client, reason: str) -> None:
        self._on_cut(reason)
        self._close(client)

    def _close(self, client: Client) -> None:
        if client not in self._clients:
            return
        self._clients.remove(client)
        if client.phase is ClientPhase.WAITS:
            self._rendering.leave(client)
        else:
            self._selector.unregister(client.connection)
        client.unsent.clear()
        client.connection.close()


def _refused(refusal: RequestRefusal) -> Encoded:
    return encoded(Reply(refusal.status, f"{refusal.reason}\n"))


def _connection(connection: socket.socket) -> Connection:
    (client, client_port), (server, server_port) = connection.getpeername()[:2], connection.getsockname()[:2]
    return Connection((client, client_port), (server, server_port))
