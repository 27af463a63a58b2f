"""What comes over a connection to an API server, counted and timed from the first byte of an answer to its last.

The libraries below bound each line and each silence, and neither their number nor their sum: interim answers for ever,
an extension of 64 KiB to each chunk of one byte, a byte every few seconds. So each answer is read through a `Meter`.
"""

from __future__ import annotations

import io
import ssl
import time
from contextlib import contextmanager
from contextvars import ContextVar
from http.client import HTTPResponse
from typing import TYPE_CHECKING, Any, Final

from rulegen.apiserver.limits import HEAD_BYTES
from rulegen.apiserver.transport.reasons import ApiReason

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator

CHUNK: Final = 1 << 16
STALL_S: Final = 5.0
"""How long the rest of a chunk may take, where one thread reads many answers: a server sends an event at once."""
_IDENTITY: Final = frozenset({"", "identity"})


class WireError(OSError):
    """An answer is not read any further.

    Attributes:
        reason: Of which sort.
        message: For people.
        hint: What to do about it.
    """

    def __init__(self, reason: ApiReason, message: str, hint: str) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.hint = hint


class Meter:
    """Bytes and seconds that are left for one answer. An answer is at its head first.

    Attributes:
        silence_s: How long the server may say nothing; None where that is what the connection has.
    """

    def __init__(self, seconds: float, words: str = "", *, clock: Callable[[], float] = time.monotonic) -> None:
        """Begin to count.

        Args:
            seconds: For the whole answer.
            words: What is said when they are over.
            clock: Seconds that only grow.
        """
        self._too_late = words or f"the answer was not whole after {seconds:g} s"
        self._clock = clock
        self._until = clock() + seconds
        self.silence_s: float | None = None
        self._stream: tuple[io.BufferedReader, _MeteredSocket] | None = None
        self._left = HEAD_BYTES
        self._what = f"a head of more than {HEAD_BYTES >> 10} KiB"

    def allow(self, count: int) -> None:
        """Allow this many further bytes of a body, with what chunks add to them."""
        self._left = 2 * count + CHUNK
        self._what = f"chunks with more around them than in them, of more than {self._left} bytes"

    def seconds(self) -> float:
        """Return how many seconds are left.

        Raises:
            WireError: None are.
        """
        left = self._until - self._clock()
        if left <= 0:
            raise WireError(
                ApiReason.TIMEOUT, self._too_late, "check the network in between, and the load of the server"
            )
        return left

    def count(self, received: int) -> None:
        """Count bytes.

        Raises:
            WireError: There are too many.
        """
        self._left -= received
        if self._left < 0:
            raise WireError(ApiReason.TOO_LARGE, self._what, "check that this is the address of an API server")

    def attach(self, buffer: io.BufferedReader, raw: _MeteredSocket) -> None:
        """Note what the answer is read from."""
        self._stream = buffer, raw

    def fileno(self) -> int:
        """Return the descriptor that becomes readable when more of the answer comes; -1 for none."""
        return self._stream[1].descriptor() if self._stream is not None else -1

    def is_ready(self) -> bool:
        """Return whether more of the answer can be read now: bytes, or its end; waits for nothing.

        Raises:
            OSError: The connection broke.
        """
        return self._stream is not None and self._stream[1].has_more(self._stream[0])


_meter: ContextVar[Meter | None] = ContextVar("meter", default=None)


@contextmanager
def metered(meter: Meter) -> Iterator[None]:
    """Have the answer that this thread asks for in the body read through a meter, to its end."""
    token = _meter.set(meter)
    try:
        yield
    finally:
        _meter.reset(token)


class MeteredResponse(HTTPResponse):
    """An answer, also that of a proxy to CONNECT, whose bytes are counted and timed."""

    def __init__(self, sock: socket.socket, *arguments: Any, **named: Any) -> None:
        """Read through the meter of this thread, if there is one."""
        super().__init__(sock, *arguments, **named)
        meter = _meter.get()
        if meter is not None:
            raw = _MeteredSocket(self.fp.detach(), sock, meter)
            self.fp = io.BufferedReader(raw)
            meter.attach(self.fp, raw)


class _MeteredSocket(io.RawIOBase):
    def __init__(self, raw: io.RawIOBase, sock: socket.socket, meter: Meter) -> None:
        self._raw = raw
        self._sock = sock
        self._meter = meter
        self._silence = sock.gettimeout()
        self._timeout = self._silence
        self._waits = True
        self._is_at_end = False

    def descriptor(self) -> int:
        return self._sock.fileno()

    def has_more(self, buffer: io.BufferedReader) -> bool:
        """Return whether the buffer has bytes, also after looking for more of them once, or the end was reached."""
        self._waits = False
        try:
            return bool(buffer.peek(1)) or self._is_at_end
        finally:
            self._waits = True

    def readable(self) -> bool:
        return True

    def readinto(self, into: Any) -> int | None:
        left = self._meter.seconds()
        bounds = [each for each in (self._silence, self._meter.silence_s) if each is not None]
        wanted = min(left, *bounds) if self._waits else 0.0
        if wanted != self._timeout:
            self._sock.settimeout(wanted)
            self._timeout = wanted
        try:
            received = self._raw.readinto(into)
        except TimeoutError:
            self._meter.seconds()  # was it that of the whole answer?
            raise
        except (ssl.SSLWantReadError, BlockingIOError):
            return None
        if received is not None:
            self._is_at_end = not received
            self._meter.count(received)
        return received

    def close(self) -> None:
        if not self.closed:
            self._raw.close()
        super().close()


def metered_connections() -> tuple[type[Any], type[Any]]:
    """Return kinds of connections, for HTTP and for HTTPS, whose answers are metered."""
    from urllib3.connection import HTTPConnection, HTTPSConnection  # noqa: PLC0415 - comes with the client

    class Metered(HTTPConnection):
        response_class = MeteredResponse

    class MeteredTls(HTTPSConnection):
        response_class = MeteredResponse

    return Metered, MeteredTls


def pools_of(plain: type[Any], tls: type[Any]) -> dict[str, Any]:
    """Return kinds of pools, by scheme, that make these connections."""
    from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool  # noqa: PLC0415 - the same

    class Pool(HTTPConnectionPool):
        ConnectionCls = plain

    class TlsPool(HTTPSConnectionPool):
        ConnectionCls = tls

    return {"http": Pool, "https": TlsPool}


def pieces(response: Any) -> Iterator[bytes]:
    """Yield the body of an answer, piece by piece, each as soon as it is there, as it came over the network.

    Raises:
        WireError: It is encoded, which nobody asked for, or more than its meter allows; or whatever urllib3 raises.
    """
    encoding = str(response.headers.get("Content-Encoding", "")).strip().lower()
    if encoding not in _IDENTITY:
        words = f"the answer is encoded as {encoding[:40]!r}, which was not asked for"
        raise WireError(ApiReason.ENCODED, words, "check for a proxy in between that compresses answers")
    if response.chunked and response.supports_chunked_reads():
        yield from response.read_chunked(CHUNK, decode_content=False)
    else:
        while piece := response.read1(CHUNK, decode_content=False):
            yield piece
