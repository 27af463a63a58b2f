"""Requests over real connections from a host's namespace, and what came back."""

from __future__ import annotations

import base64
import contextlib
import ctypes
import http
import http.client
import json
import os
import socket
import ssl
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from integration.ingress.forms import http2, websocket

_CLONE_NEWNET = 0x40000000
_TIMEOUT_S = 15
_AT_ONCE = 20


@dataclass(frozen=True, kw_only=True)
class Request:
    """One question.

    Attributes:
        target: The path with its query, sent as it is.
        host: The Host header; None sends HTTP/1.0 without one.
        name: The server name of TLS; None where TLS is not used, empty to send none.
        alpn: The protocols that are offered with TLS; where `h2` is taken, the request is sent over HTTP/2.
    """

    target: str = "/"
    host: str | None = ""
    name: str | None = None
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    alpn: tuple[str, ...] = ()

    @property
    def all_headers(self) -> dict[str, str]:
        """All headers beside Host."""
        headers = dict(self.headers)
        if self.body or self.method in {"POST", "PUT", "PATCH"}:
            headers.setdefault("Content-Length", str(len(self.body)))
        return headers

    def header(self, name: str) -> str:
        """Return the header of a name, or nothing."""
        return next((value for key, value in self.headers.items() if key.lower() == name.lower()), "")

    def wire(self) -> bytes:
        """Return its bytes."""
        lines = [f"{self.method} {self.target} HTTP/1.{0 if self.host is None else 1}"]
        if self.host is not None:
            lines.append(f"Host: {self.host}")
        lines += [f"{key}: {value}" for key, value in self.all_headers.items()]
        if not self.header("Connection"):
            lines.append(f"Connection: {'upgrade' if self.header('Upgrade') else 'close'}")
        return "\r\n".join([*lines, "", ""]).encode() + self.body


@dataclass(frozen=True)
class Reply:
    """What came back; `failure` says why nothing did, with status 0; `alpn` is the protocol that was agreed on."""

    status: int
    headers: Sequence[tuple[str, str]]
    body: bytes
    elapsed_s: float
    certificate: bytes = b""
    failure: str = ""
    alpn: str = ""

    def all(self, name: str) -> list[str]:
        """Return all headers of a name."""
        return [value for key, value in self.headers if key.lower() == name.lower()]

    @cached_property
    def seen(self) -> dict[str, Any]:
        """What the pod that answered tells of the request; empty where no pod did."""
        # Who takes an upgrade has no body to tell it in.
        body = self.body or next(iter(self.all("X-Lab-Seen")), "")
        try:
            answer = json.loads(body)
        except ValueError:
            return {}
        return answer if isinstance(answer, dict) and "address" in answer else {}

    def seen_headers(self, name: str) -> list[str]:
        """Return the headers of a name that the pod received."""
        return [value for key, value in self.seen.get("headers", ()) if key.lower() == name.lower()]


def basic_auth(user: str, password: str) -> dict[str, str]:
    """Return the header that authenticates."""
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


class Asker:
    """Asks from within the network namespace of a process, up to 20 requests at once."""

    def __init__(self, pid: int, address: str, http_port: int = 80, https_port: int = 443) -> None:
        self._namespace = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        self._threads = ThreadPoolExecutor(_AT_ONCE, initializer=self._enter)
        self.address, self.http_port, self.https_port = address, http_port, https_port

    def _enter(self) -> None:
        """Move this one thread into the namespace."""
        if ctypes.CDLL(None, use_errno=True).setns(self._namespace, _CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")

    def close(self) -> None:
        """End the threads."""
        self._threads.shutdown()
        os.close(self._namespace)

    def ask(self, request: Request) -> Reply:
        """Ask once, over a new connection."""
        return self._threads.submit(self._ask, request).result()

    def burst(self, request: Request, count: int) -> list[Reply]:
        """Ask many times at once."""
        return [asked.result() for asked in [self._threads.submit(self._ask, request) for _ in range(count)]]

    def repeat(self, request: Request, count: int) -> list[Reply]:
        """Ask many times, one after the other."""
        return self._threads.submit(lambda: [self._ask(request) for _ in range(count)]).result()

    def connect(self, port: int, address: str | None = None) -> socket.socket:
        """Open a connection, to the node unless told otherwise."""
        where = (address or self.address, port)
        return self._threads.submit(socket.create_connection, where, _TIMEOUT_S).result()

    def _ask(self, request: Request) -> Reply:
        start = time.monotonic()
        try:
            return self._exchange(request, start)
        except (OSError, http.client.HTTPException) as error:
            return Reply(0, (), b"", time.monotonic() - start, failure=f"{type(error).__name__}: {error}")

    def _exchange(self, request: Request, start: float) -> Reply:
        secure = request.name is not None
        where = (self.address, self.https_port if secure else self.http_port)
        certificate, alpn = b"", ""
        with socket.create_connection(where, _TIMEOUT_S) as plain:
            connection = plain
            if secure:
                tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
                tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
                if request.alpn:
                    tls.set_alpn_protocols(list(request.alpn))
                connection = tls.wrap_socket(plain, server_hostname=request.name or None)
                certificate = connection.getpeercert(binary_form=True) or b""
                alpn = connection.selected_alpn_protocol() or ""
            with connection:
                got = _over_http2(where, request) if alpn == "h2" else _over_http1(connection, request)
                return Reply(*got, time.monotonic() - start, certificate, alpn=alpn)


_Got = tuple[int, Sequence[tuple[str, str]], bytes]


def _over_http2(where: tuple[str, int], request: Request) -> _Got:
    headers = {"Host": request.host or where[0], **request.all_headers}
    return http2.ask(where, request.name or "", request.method, request.target, headers, request.body)


def _over_http1(connection: socket.socket, request: Request) -> _Got:
    # Who refuses a body may answer before all of it is sent.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):
        connection.sendall(request.wire())
    response = http.client.HTTPResponse(connection, method=request.method)
    with response:
        response.begin()
        key = request.header("Sec-WebSocket-Key")
        if response.status == http.HTTPStatus.SWITCHING_PROTOCOLS and key:
            websocket.check(connection, key, response)
        return response.status, response.getheaders(), response.read()
