"""Connections that another thread can break, whatever they are waiting for: a handshake, an answer, more of it.

urllib3 shows the socket of a connection once it is made, and hides it while TLS shakes hands: the handshake takes the
descriptor out of the socket that was there before. So the TLS context makes sockets that can be broken themselves.
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
    """What can be broken by any thread."""

    def cut(self) -> None:
        """Break it; whoever waits for it gets an error."""


def cuttable_sockets(begun: Callable[[Cuttable], None]) -> type[ssl.SSLSocket]:
    """Return a kind of TLS sockets that are reported before their handshake and can be cut by another thread."""

    class CuttableSocket(ssl.SSLSocket):
        def do_handshake(self, block: bool = False) -> None:  # noqa: FBT001, FBT002 - the signature of the library
            begun(self)
            super().do_handshake(block)

        def cut(self) -> None:
            shut(self)

    return CuttableSocket


def cuttable_pools(begun: Callable[[Cuttable], None], tls: SharedTls | None) -> dict[str, Any]:
    """Return kinds of pools, by scheme, whose connections are reported and can be cut by another thread."""
    from urllib3.connection import HTTPConnection, HTTPSConnection  # noqa: PLC0415 - comes with the client

    class CuttableConnection(HTTPConnection):
        response_class = MeteredResponse
        _read: socket.socket | None = None

        def connect(self) -> None:
            begun(self)  # so that it can be cut while a proxy is asked
            super().connect()
            begun(self)  # it was perhaps cut before there was a socket

        def getresponse(self) -> Any:
            self._read = self.sock  # which is taken away where the server ends the connection with its answer
            return super().getresponse()

        def cut(self) -> None:
            for each in (self._read, self.sock):
                if each is not None:
                    shut(each)

    class CuttableTls(CuttableConnection, HTTPSConnection):
        def connect(self) -> None:
            if tls is not None:  # each time: a connection object of the pool connects again and again
                self.ssl_context = tls.context()
            super().connect()

    return pools_of(CuttableConnection, CuttableTls)


def shut(connection: socket.socket) -> None:
    """End both directions of a socket; TLS's own method would forget its state while another thread uses it."""
    outer = getattr(connection, "socket", connection)  # that of TLS through a proxy that speaks TLS itself
    with suppress(OSError, ValueError):  # it ended by itself
        socket.socket.shutdown(outer, socket.SHUT_RDWR)
