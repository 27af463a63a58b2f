"""A small HTTP proxy that really forwards: tunnels by CONNECT, for who knows the password."""

from __future__ import annotations

import base64
import socket
import threading
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Self


class ForwardProxy:
    """The proxy. A context manager; forwards from its start to its end.

    Attributes:
        asked: Where clients wanted to go, in order.
    """

    def __init__(self, login: str = "") -> None:
        self.asked: list[str] = []
        wanted = f"Basic {base64.b64encode(login.encode()).decode()}" if login else None
        proxy = self

        class Handler(BaseHTTPRequestHandler):
            def do_CONNECT(self) -> None:
                if wanted is not None and self.headers.get("Proxy-Authorization") != wanted:
                    self.send_error(407)
                    return
                proxy.asked.append(self.path)
                host, _, port = self.path.rpartition(":")
                with socket.create_connection((host, int(port))) as there:
                    self.send_response(200)
                    self.end_headers()
                    back = threading.Thread(target=_pump, args=(there, self.connection), daemon=True)
                    back.start()
                    _pump(self.connection, there)
                    back.join()

            def log_message(self, *_: object) -> None:
                """Say nothing."""

        class Server(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                """Say nothing: clients hang up in the middle."""

        self._server = Server(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02})

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()


def _pump(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while piece := source.recv(1 << 16):
            target.sendall(piece)
    with suppress(OSError):
        target.shutdown(socket.SHUT_WR)
