"""An answer of an API server whose body is read as it arrives, by its own thread or by one for many answers."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from rulegen.apiserver.limits import LIMIT_HINT
from rulegen.apiserver.transport.client import MAX_STATUS_BODY, asked_pause
from rulegen.apiserver.transport.failures import ApiError, failure_kind, refusal, unreachable
from rulegen.apiserver.transport.metering import STALL_S, Meter, pieces
from rulegen.apiserver.transport.reasons import ApiReason

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rulegen.apiserver.budget import Account

MAX_WRITTEN: Final = 16 << 20
"""Maximum size of an answer about a single object, or a few, in bytes."""


class Response:
    """An answer whose body is read as it arrives."""

    def __init__(self, url: str, response: Any, meter: Meter, account: Account) -> None:
        """Take an answer whose head has arrived.

        Args:
            url: Of the server, for messages.
            response: What urllib3 has of it.
            meter: The meter that it is read through.
            account: Counts the bytes that all current answers hold.
        """
        self._url = url
        self._response = response
        self._meter = meter
        self._account = account
        self._held = 0
        self._begun = bytearray()
        self._pieces: Iterator[bytes] | None = None

    def chunks(self) -> Iterator[bytes]:
        """Yield the body as it arrives.

        Raises:
            ApiError: It breaks, or exceeds a limit.
        """
        from urllib3.exceptions import HTTPError  # noqa: PLC0415 - comes with the client

        try:
            yield from pieces(self._response)
        except (HTTPError, OSError, ValueError, AttributeError) as error:  # the last two: broken by another thread
            raise self._broken(error) from error

    def _broken(self, error: Exception) -> ApiError:
        failure = unreachable(self._url, error)
        reason = failure_kind(error)
        return ApiError(failure.message, ApiReason.CUT if reason is ApiReason.CONNECTION else reason, hint=failure.hint)

    def body(self, limit: int) -> bytearray:
        """Return the whole body. It counts as held until the answer is closed.

        Raises:
            ApiError: It breaks, or is longer than `limit` bytes.
        """
        self._meter.allow(limit)
        whole = bytearray()
        for piece in self.chunks():
            self._hold(len(piece))
            whole += piece
            if len(whole) > limit:
                raise ApiError(
                    f"{self._url}: an answer of more than {limit} bytes", ApiReason.TOO_LARGE, hint=LIMIT_HINT
                )
        return whole

    def small(self) -> bytearray:
        """Return the whole body of an answer about a few objects, and close it.

        Raises:
            ApiError: It breaks, or is longer than such an answer may be.
        """
        try:
            return self.body(MAX_WRITTEN)
        finally:
            self.close()

    def lines(self, limit: int) -> Iterator[bytes | bytearray]:
        """Yield the lines of the body as soon as they are complete; text after the last line feed is not a line.

        Raises:
            ApiError: It breaks, or a line is longer than `limit` bytes.
        """
        self._meter.allow(limit)
        for piece in self.chunks():
            yield from self._lines_of(piece, limit)

    def ready_lines(self, limit: int) -> Iterator[bytes | bytearray] | None:
        """Return the lines that have arrived, without waiting for more; None at the end of the body.

        These are the lines of `lines`, for a thread that reads many answers: it waits until `fileno` is readable, and
        calls this until nothing is returned.

        Raises:
            ApiError: It breaks, a line is longer than `limit` bytes, or a part of it did not arrive in time.
        """
        if self._pieces is None:
            self._meter.silence_s = STALL_S
            self._meter.allow(limit)
            self._pieces = self.chunks()
        lines: list[bytes | bytearray] = []
        while not lines and self.is_ready():
            piece = next(self._pieces, None)
            if piece is None:
                return None
            lines += self._lines_of(piece, limit)
        return iter(lines)

    def fileno(self) -> int:
        """Return the descriptor that becomes readable when more of the answer arrives; -1 if there is none."""
        return self._meter.fileno()

    def is_ready(self) -> bool:
        """Return whether more of the body, or its end, can be read now, without waiting.

        Raises:
            ApiError: The connection broke.
        """
        try:
            return self._meter.is_ready()
        except (OSError, ValueError) as error:  # the latter: broken by another thread
            raise self._broken(error) from error

    def _lines_of(self, piece: bytes, limit: int) -> Iterator[bytes | bytearray]:
        """Yield the lines that end in the next piece of the body, and keep the rest."""
        first, *more = piece.split(b"\n")
        self._hold(len(first))
        self._begun += first
        if len(self._begun) > limit:
            raise ApiError(f"{self._url}: an event of more than {limit} bytes", ApiReason.TOO_LARGE)
        if not more:
            return
        yield self._begun
        yield from more[:-1]
        self._hold(len(more[-1]) - self._held)
        self._begun = bytearray(more[-1])
        self._meter.allow(limit)

    def _hold(self, count: int) -> None:
        """Count bytes that are kept until the answer is closed.

        Raises:
            ApiError: All current answers together have too many.
        """
        if not self._account.take(count):
            words = f"all answers that are being read have more than {self._account.most} bytes together"
            raise ApiError(f"{self._url}: {words}", ApiReason.TOO_LARGE, hint=LIMIT_HINT)
        self._held += count

    def refused(self, doing: str) -> ApiError:
        """Return this answer as an error, and close it."""
        self._meter.allow(MAX_STATUS_BODY)
        content = bytearray()
        try:
            for piece in self.chunks():
                content += piece
                if len(content) > MAX_STATUS_BODY:
                    break
        except ApiError:
            content.clear()  # the status is sufficient
        self.close()
        status = int(self._response.status)
        error = refusal(self._url, doing, status, content)
        reason = ApiReason.EXPIRED if status == 410 else ApiReason.STATUS
        pause = asked_pause(self._response.headers.get("Retry-After"))
        return ApiError(error.message, reason, status=status, retry_after=pause, causes=error.causes, hint=error.hint)

    def shut(self) -> None:
        """End the reading in another thread."""
        with suppress(ValueError, RuntimeError, OSError):  # it has ended by itself
            self._response.shutdown()

    def close(self) -> None:
        """Return the connection to the pool if the body was read completely, else close it."""
        self._hold(-self._held)
        if not self._response.closed:
            self._response.close()
        self._response.release_conn()
