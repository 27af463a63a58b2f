"""Connections that another thread can break at any time: during a handshake, or while it waits for an answer.

urllib3 shows the socket of a connection only after the TLS handshake, which moves the descriptor to a new socket. The
TLS context therefore creates sockets that can be broken themselves.
"""

from __future__ import annotations

import socket
import ssl
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Protocol

from rulegen.apiserver.transport.metering import MeteredResponse, pools_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from rulegen.apiserver.transport.tls import SharedTls


class Cuttable(Protocol):
    """Something that any thread can break."""

    def cut(self) -> None:
        """Break it; threads that wait for it get an error."""


def cuttable_sockets(begun: Callable[[Cuttable], None]) -> type[ssl.SSLSocket]:
    """Return a class of TLS sockets that are registered before their handshake and can be broken by another thread."""

    class CuttableSocket(ssl.SSLSocket):
        def do_handshake(self, block: bool = False) -> None:  # noqa: FBT001, FBT002 - the signature of the library
            begun(self)
            super().do_handshake(block)

        def cut(self) -> None:
            shut(self)

    return CuttableSocket


def cuttable_pools(begun: Callable[[Cuttable], None], tls: SharedTls | None) -> dict[str, Any]:
    """Return pool classes by scheme whose connections are registered and can be broken by another thread."""
    from urllib3.connection import HTTPConnection, HTTPSConnection  # noqa: PLC0415 - comes with the client

    class CuttableConnection(HTTPConnection):
        response_class = MeteredResponse
        _read: socket.socket | None = None

        def connect(self) -> None:
            begun(self)  # so that it can be broken while the proxy is connected
            super().connect()
            begun(self)  # it may have been broken before there was a socket

        def getresponse(self) -> Any:
            self._read = self.sock  # removed if the server closes the connection with its answer
            return super().getresponse()

        def cut(self) -> None:
            for each in (self._read, self.sock):
                if each is not None:
                    shut(each)

    class CuttableTls(CuttableConnection, HTTPSConnection):
        def connect(self) -> None:
            if tls is not None:  # each time, because a connection object of the pool connects repeatedly
                self.ssl_context = tls.context()
            super().connect()

    return pools_of(CuttableConnection, CuttableTls)


def shut(connection: socket.socket) -> None:
    """Shut down both directions of a socket; TLS's own method would discard state that another thread uses."""
    outer = getattr(connection, "socket", connection)  # for TLS through a proxy that uses TLS itself
    with suppress(OSError, ValueError):  # it has ended by itself
        socket.socket.shutdown(outer, socket.SHUT_RDWR)
