"""The agent's HTTP servers: health for the kubelet and load balancers, metrics and views for people, on loopback."""

from __future__ import annotations

import json
import selectors
import socket
import threading
from contextlib import suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs, urlsplit

from rulegen.errors import HostError
from rulegen.kube.wording import harmless, harmless_json, printable

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

AS_JSON: Final = "?output=json"
"""Behind the path of a page: the same for who asks for JSON, by this query or by the header Accept."""
AGAIN_S: Final = 5.0
"""How often an address that was taken is tried again."""
TIMEOUT_S: Final = 10.0
"""How long a client may take to send its request."""
CLIENTS: Final = 64
"""How many clients of one server may be connected; for one more, the one that has been for longest has to go.

A probe is answered in milliseconds: who stays for long wants to keep all others out.
"""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer.

    Attributes:
        headers: Beside those about its body.
    """

    status: int
    body: str
    kind: str = "text/plain; charset=utf-8"
    headers: Mapping[str, str] | None = None

    @classmethod
    def of_json(cls, status: int, document: object, headers: Mapping[str, str] | None = None) -> Reply:
        """Return an answer in JSON."""
        return cls(status, json.dumps(document) + "\n", "application/json", headers)

    def encoded(self) -> bytes:
        """Return the body as it is sent: what others wrote commands no terminal that shows it."""
        shown = harmless_json(self.body) if self.kind == "application/json" else harmless(self.body)
        return shown.encode()


class Server:
    """Answers GET and HEAD on one address, from threads of its own."""

    def __init__(
        self,
        address: str,
        port: int,
        pages: Mapping[str, Callable[[], Reply]],
        *,
        private: Collection[str] = frozenset(),
    ) -> None:
        """Listen and answer.

        Args:
            address: IPv4 or IPv6.
            port: TCP port; 0 for any that is free.
            pages: Answers by path; that of `*` for every other path. See `AS_JSON`.
            private: Paths that only this host may see, wherever is listened.

        Raises:
            HostError: The address cannot be listened on.
        """
        connected: dict[socket.socket, None] = {}
        lock = threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            timeout = TIMEOUT_S
            server_version = "rulegen"
            sys_version = ""

            def do_GET(self) -> None:
                self._reply(with_body=True)

            def do_HEAD(self) -> None:
                self._reply(with_body=False)

            def _reply(self, *, with_body: bool) -> None:
                reply = self._found()
                encoded = reply.encoded()
                self.send_response(reply.status)
                for name, value in {**(reply.headers or {}), "X-Content-Type-Options": "nosniff"}.items():
                    self.send_header(name, value)
                self.send_header("Content-Type", reply.kind)
                self.send_header("Content-Length", str(len(encoded)))
                self.end_headers()
                if with_body:
                    self.wfile.write(encoded)

            def _found(self) -> Reply:
                url = urlsplit(self.path)
                if url.path in private and not self._is_from_here():
                    return Reply(403, "this is shown to this host only\n")
                wants_json = parse_qs(url.query).get("output") == ["json"]
                wants_json = wants_json or "application/json" in self.headers.get("Accept", "")
                page = (wants_json and pages.get(url.path + AS_JSON)) or pages.get(url.path) or pages.get("*")
                return _answer(page) if page else Reply(404, "not found\n")

            def _is_from_here(self) -> bool:
                """Whether a program of this host asks, and no page in a browser of it by a name of its own choice."""
                host = self.headers.get("Host", "localhost")
                host = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
                return _is_loopback(str(self.client_address[0])) and (
                    host == "localhost" or _is_loopback(host.strip("[]"))
                )

            def log_message(self, *_: object) -> None:
                """Say nothing: probes come every few seconds."""

        class Listener(ThreadingHTTPServer):
            address_family = socket.AF_INET6 if ":" in address else socket.AF_INET
            daemon_threads = True
            request_queue_size = CLIENTS
            timeout = 0

            def process_request(self, request: Any, client_address: Any) -> None:
                with lock:
                    connected[request] = None
                    oldest = next(iter(connected)) if len(connected) > CLIENTS else None
                    if oldest is not None:
                        del connected[oldest]
                        with suppress(OSError):  # it went just now
                            oldest.shutdown(socket.SHUT_RDWR)
                super().process_request(request, client_address)

            def shutdown_request(self, request: Any) -> None:
                with lock:
                    connected.pop(request, None)
                super().shutdown_request(request)

            def server_bind(self) -> None:
                if self.address_family == socket.AF_INET6:
                    self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                super().server_bind()

            def handle_error(self, *_: object) -> None:
                """Say nothing: clients hang up in the middle."""

        try:
            self._server = Listener((address, port), Handler)
        except OSError as error:
            raise HostError(f"cannot listen on {address} port {port}: {error.strerror}") from None
        self._server.socket.settimeout(0)  # a client that is gone again before it is accepted keeps nobody waiting
        self.port: int = self._server.server_address[1]
        self._wake, self._woken = socket.socketpair()
        self._thread = threading.Thread(target=self._serve, name=f"http {self.port}", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Listen no longer."""
        self._wake.close()
        self._thread.join()
        self._woken.close()
        self._server.server_close()

    def _serve(self) -> None:
        """Sleep until a client or the end comes: `serve_forever` would wake twice a second, and end as late."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._server, selectors.EVENT_READ)
            selector.register(self._woken, selectors.EVENT_READ)
            while all(key.fileobj is not self._woken for key, _ in selector.select()):
                self._server.handle_request()


class PatientServer:
    """Answers as `Server` does, as soon as its address is free: a kube-proxy that was here before may have it still."""

    def __init__(self, serve: Callable[[], Server], taken: Callable[[str], None]) -> None:
        """Listen now, or else try again every few seconds.

        Args:
            serve: Returns a server, or fails with a `HostError`.
            taken: Is told, once, why not yet.
        """
        self._serve = serve
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._server: Server | None = None
        try:
            self._server = serve()
        except HostError as error:
            taken(error.message)
            self._thread = threading.Thread(target=self._wait, name="http, waiting", daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """Listen no longer."""
        self._ended.set()
        if self._thread is not None:
            self._thread.join()
        if self._server is not None:
            self._server.stop()

    def _wait(self) -> None:
        while not self._ended.wait(AGAIN_S):
            try:
                self._server = self._serve()
            except HostError:
                continue
            return


def _is_loopback(text: str) -> bool:
    try:
        return ip_address(text).is_loopback
    except ValueError:
        return False


def _answer(page: Callable[[], Reply]) -> Reply:
    try:
        return page()
    except Exception as error:  # noqa: BLE001 - whatever it is, whoever asked is told, and others are answered
        return Reply(500, f"rulegen failed: {type(error).__name__}: {printable(str(error))}\n")
