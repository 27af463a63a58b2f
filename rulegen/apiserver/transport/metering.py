"""Counts the bytes and time of an answer of an API server, from its first byte to its last.

The libraries limit each line and each pause, but not their number or sum: an attacker can send endless interim answers,
an extension of 64 KiB with each chunk of one byte, or a byte every few seconds. Each answer is therefore read through a
`Meter`.
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
"""Maximum time for the rest of a chunk if one thread reads many answers: a server sends an event at once."""
_IDENTITY: Final = frozenset({"", "identity"})


class WireError(OSError):
    """An answer exceeded a limit.

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
    """The remaining bytes and seconds of one answer. It starts at the head.

    Attributes:
        silence_s: Maximum silence of the server; None for that of the connection.
    """

    def __init__(self, seconds: float, words: str = "", *, clock: Callable[[], float] = time.monotonic) -> None:
        """Start counting.

        Args:
            seconds: For the whole answer.
            words: Text of the error when they are over.
            clock: Monotonic time in seconds.
        """
        self._too_late = words or f"the answer was not complete after {seconds:g} s"
        self._clock = clock
        self._until = clock() + seconds
        self.silence_s: float | None = None
        self._stream: tuple[io.BufferedReader, _MeteredSocket] | None = None
        self._left = HEAD_BYTES
        self._what = f"a head of more than {HEAD_BYTES >> 10} KiB"

    def allow(self, count: int) -> None:
        """Allow this many further bytes of a body, and the overhead of chunks."""
        self._left = 2 * count + CHUNK
        self._what = f"the chunked encoding adds more than {self._left} bytes"

    def seconds(self) -> float:
        """Return how many seconds are left.

        Raises:
            WireError: No time is left.
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
        """Register the connection that the answer is read from."""
        self._stream = buffer, raw

    def fileno(self) -> int:
        """Return the descriptor that becomes readable when more of the answer arrives; -1 if there is none."""
        return self._stream[1].descriptor() if self._stream is not None else -1

    def is_ready(self) -> bool:
        """Return whether more of the answer can be read now (bytes, or its end), without waiting.

        Raises:
            OSError: The connection broke.
        """
        return self._stream is not None and self._stream[1].has_more(self._stream[0])


_meter: ContextVar[Meter | None] = ContextVar("meter", default=None)


@contextmanager
def metered(meter: Meter) -> Iterator[None]:
    """Read the answer that this thread requests in the body through a meter, to its end."""
    token = _meter.set(meter)
    try:
        yield
    finally:
        _meter.reset(token)


class MeteredResponse(HTTPResponse):
    """An answer, also of a proxy to CONNECT, whose bytes and time are counted."""

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
        """Return whether the buffer has bytes after one attempt to read more, or the end was reached."""
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
            self._meter.seconds()  # was it the limit of the whole answer?
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
    """Return connection classes for HTTP and HTTPS whose answers are metered."""
    from urllib3.connection import HTTPConnection, HTTPSConnection  # noqa: PLC0415 - comes with the client

    class Metered(HTTPConnection):
        response_class = MeteredResponse

    class MeteredTls(HTTPSConnection):
        response_class = MeteredResponse

    return Metered, MeteredTls


def pools_of(plain: type[Any], tls: type[Any]) -> dict[str, Any]:
    """Return pool classes by scheme that create these connections."""
    from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool  # noqa: PLC0415 - the same

    class Pool(HTTPConnectionPool):
        ConnectionCls = plain

    class TlsPool(HTTPSConnectionPool):
        ConnectionCls = tls

    return {"http": Pool, "https": TlsPool}


def pieces(response: Any) -> Iterator[bytes]:
    """Yield the body of an answer as it arrives.

    Raises:
        WireError: It has a Content-Encoding, which was not requested, or exceeds its meter; or any error of urllib3.
    """
    encoding = str(response.headers.get("Content-Encoding", "")).strip().lower()
    if encoding not in _IDENTITY:
        words = f"the answer is encoded as {encoding[:40]!r}, which was not requested"
        raise WireError(ApiReason.ENCODED, words, "check for a proxy in between that compresses answers")
    if response.chunked and response.supports_chunked_reads():
        yield from response.read_chunked(CHUNK, decode_content=False)
    else:
        while piece := response.read1(CHUNK, decode_content=False):
            yield piece
