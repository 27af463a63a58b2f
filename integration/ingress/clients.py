"""A client that asks with certificates, from other addresses, with other words before; and what it asks and gets."""

from __future__ import annotations

import http.client
import json
import socket
import ssl
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from integration.ingress import spaces
from integration.ingress.asking import Asker, Reply
from integration.ingress.identities import Pair

_TIMEOUT_S = 15


@dataclass(frozen=True, kw_only=True)
class Ask:
    """One question, and what must be answered; `want` is as in `expectations`, and more (see `Stage.judge`).

    Attributes:
        name: The server name of TLS; the host unless told.
        identity: Whose certificate is shown.
        before: What is sent on the connection before anything else.
        newest: The newest TLS that is offered.
    """

    host: str
    path: str = "/"
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    tls: bool = False
    name: str | None = None
    identity: Pair | None = None
    alpn: tuple[str, ...] = ()
    newest: str = ""
    ciphers: str = ""
    source: str = ""
    address: str = spaces.NODE
    port: int = 0
    before: bytes = b""
    times: int = 1
    at_once: bool = False
    want: Mapping[str, Any] = field(default_factory=dict)

    def wire(self) -> bytes:
        """Return its bytes."""
        headers = {"Host": self.host, **self.headers}
        if self.body or self.method in {"POST", "PUT", "PATCH"}:
            headers.setdefault("Content-Length", str(len(self.body)))
        headers.setdefault("Connection", "close")
        lines = [f"{self.method} {self.path} HTTP/1.1", *(f"{key}: {value}" for key, value in headers.items())]
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + self.body


@dataclass(frozen=True)
class Told(Reply):
    """A reply, and how TLS was spoken."""

    tls: tuple[str, str, str] = ("", "", "")

    @property
    def json(self) -> Any:
        """The body, read."""
        try:
            return json.loads(self.body)
        except ValueError:
            return {}


class Client(Asker):
    """Asks with certificates, from other addresses, with other words before."""

    def __init__(self, pid: int, folder: Path) -> None:
        super().__init__(pid, spaces.NODE)
        self._folder = folder

    def ask_all(self, ask: Ask) -> list[Told]:
        """Ask as often as told."""
        if ask.at_once:
            return [asked.result() for asked in [self._threads.submit(self._try, ask) for _ in range(ask.times)]]
        return self._threads.submit(lambda: [self._try(ask) for _ in range(ask.times)]).result()

    def ask_one(self, ask: Ask) -> Told:
        """Ask once."""
        return self.ask_all(ask)[0]

    def open(self, ask: Ask) -> socket.socket:
        """Open a connection, with TLS where told."""
        return self._threads.submit(self._open, ask).result()

    def resumed(self, first: Ask, second: Ask) -> tuple[Told, bool]:
        """Ask twice, the second time with the TLS session of the first; tell too whether it was taken up."""
        return self._threads.submit(self._resumed, first, second).result()

    def _resumed(self, first: Ask, second: Ask) -> tuple[Told, bool]:
        context = self._context(first)
        session: ssl.SSLSession | None = None
        reported = Told(0, (), b"", 0)
        reused = False
        for ask in (first, second):
            name = ask.host if ask.name is None else ask.name
            plain = socket.create_connection((ask.address, ask.port or 443), _TIMEOUT_S)
            try:
                connection = context.wrap_socket(plain, server_hostname=name, session=session)
            except ssl.SSLError as error:
                plain.close()
                return Told(0, (), b"", 0, failure=str(error)), False
            with connection:
                connection.sendall(ask.wire())
                with http.client.HTTPResponse(connection) as response:
                    response.begin()
                    reported = Told(response.status, response.getheaders(), response.read(), 0)
                session, reused = connection.session, bool(connection.session_reused)
        return reported, reused

    def _try(self, ask: Ask) -> Told:
        start = time.monotonic()
        try:
            with self._open(ask) as connection:
                connection.sendall(ask.wire())
                response = http.client.HTTPResponse(connection, method=ask.method)
                with response:
                    response.begin()
                    body = response.read()
                    shown, tls = b"", ("", "", "")
                    if isinstance(connection, ssl.SSLSocket):
                        shown = connection.getpeercert(binary_form=True) or b""
                        cipher = connection.cipher() or ("",)
                        tls = (connection.version() or "", cipher[0], connection.selected_alpn_protocol() or "")
                    elapsed = time.monotonic() - start
                    return Told(response.status, response.getheaders(), body, elapsed, shown, tls=tls)
        except (OSError, http.client.HTTPException) as error:
            return Told(0, (), b"", time.monotonic() - start, failure=f"{type(error).__name__}: {error}")

    def _open(self, ask: Ask) -> socket.socket:
        port = ask.port or (443 if ask.tls else 80)
        source = (ask.source, 0) if ask.source else None
        plain = socket.create_connection((ask.address, port), _TIMEOUT_S, source)
        try:
            if ask.before:
                plain.sendall(ask.before)
            if not ask.tls:
                return plain
            name = ask.host.partition(":")[0] if ask.name is None else ask.name
            return self._context(ask).wrap_socket(plain, server_hostname=name or None)
        except BaseException:
            plain.close()
            raise

    def _context(self, ask: Ask) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        if ask.identity is not None:
            path = self._folder / f"identity-{ask.identity.certificate.serial_number}.pem"
            if not path.exists():
                path.write_bytes(ask.identity.whole)
            context.load_cert_chain(str(path))
        if ask.alpn:
            context.set_alpn_protocols(list(ask.alpn))
        if ask.newest:
            context.maximum_version = ssl.TLSVersion[ask.newest]
        if ask.ciphers:
            context.set_ciphers(ask.ciphers)
        return context
