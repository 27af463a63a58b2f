"""The connection of a long-running program to its API server: for many threads, renewed, and cut at the end.

Answers are read as they come. What keeps one from coming is a `ApiError`, which also says of which sort it is, so
that whoever asked can decide when to ask again.
"""

from __future__ import annotations

import datetime as dt
import json
import socket
import threading
from contextlib import suppress
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode
from weakref import WeakSet

from rulegen.apiserver.budget import Account
from rulegen.apiserver.limits import ANSWER_S, LIMIT_HINT, ApiTerms
from rulegen.apiserver.transport.client import MAX_STATUS_BODY, ApiServer, asked_pause
from rulegen.apiserver.transport.failures import failure_kind, refusal, unreachable
from rulegen.apiserver.transport.metering import STALL_S, Meter, MeteredResponse, metered, pieces, pools_of
from rulegen.apiserver.transport.tls import SharedTls
from rulegen.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

IDLE_CONNECTIONS: Final = 4096
"""More than there will be: the pool logs a warning for each one beyond."""
CONNECT_TIMEOUT_S: Final = 5.0
WRITE_TIMEOUT_S: Final = 10.0
MAX_WRITTEN: Final = 16 << 20
"""Bytes of an answer about a single object, or a few."""
_WELL: Final = frozenset({200, 201})


class ApiError(HostError):
    """Something was in the way between us and the API server, and may pass.

    Attributes:
        reason: Of which sort, for counters: `connection`, `timeout`, `tls`, `credentials`, `cut`, `too large`,
            `garbage`, `expired`, or the HTTP status.
        status: The HTTP status, 0 if there was none.
        retry_after: Seconds for which the server wants to be left alone.
    """

    def __init__(self, message: str, reason: str, *, status: int = 0, retry_after: float = 0.0, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.reason = reason
        self.status = status
        self.retry_after = retry_after


class ApiConnection:
    """A connection to one API server, for all threads of the program.

    Attributes:
        url: Where the server is.
        cautions: What a person must know of it, one line each.
        generation: How often the configuration was read.
        on_good: Called at each good answer.
        terms: What the kubeconfig may do, and answers may cost.
    """

    def __init__(
        self, kubeconfig: str | None = None, context: str | None = None, *, terms: ApiTerms | None = None
    ) -> None:
        """Read the configuration; nothing is sent yet.

        Raises:
            HostError: There is no configuration, or none that can be used.
        """
        self._named = (kubeconfig, context)
        self.terms = terms or ApiTerms()
        self._account = Account(2 * self.terms.page)
        self._lock = threading.Lock()
        self._open: WeakSet[Any] = WeakSet()
        self._open_lock = threading.Lock()
        self._is_cut = False
        self.generation = 0
        self.on_good: Callable[[], None] = lambda: None
        self._ahead = dt.timedelta()
        self._server = self._read_configuration()
        self.url = self._server.url
        self.cautions = self._server.cautions()

    def ask(
        self,
        path: str,
        parameters: Mapping[str, str | int],
        *,
        doing: str,
        silence_s: float,
        whole_s: float = ANSWER_S,
        accept: str = "",
    ) -> Response:
        """Send a GET and return the answer, once its head is there. It is to be closed.

        Args:
            path: As `/api/v1/services`.
            parameters: Of the query.
            doing: What for, as `list services`, for messages.
            silence_s: How long the server may say nothing, before its head and in its body.
            whole_s: How long the answer may take, from here to its end.
            accept: The media types that are wanted; JSON by default.

        Raises:
            ApiError: There is no answer, or another than 200.
        """
        target = f"{path}?{urlencode(parameters)}"
        more = {"Accept": accept} if accept else {}
        return self._request("GET", target, None, more, doing=doing, silence_s=silence_s, whole_s=whole_s)

    def send(self, method: str, path: str, document: object, *, kind: str, doing: str) -> bytearray:
        """Send a document and return what the server answers to it.

        Args:
            method: `POST`, `PUT` or `PATCH`.
            path: As `/api/v1/namespaces/shop/services/web/status`.
            document: What becomes JSON.
            kind: Its content type: a patch says by it of which kind it is.
            doing: What for, for messages.

        Raises:
            ApiError: There is no answer, or an error; a conflict has the status 409.
        """
        content = json.dumps(document).encode()
        headers = {"Content-Type": kind}
        answer = self._request(method, path, content, headers, doing=doing, silence_s=WRITE_TIMEOUT_S, whole_s=ANSWER_S)
        return answer.small()

    def fetch(self, path: str, parameters: Mapping[str, str | int] | None = None, *, doing: str) -> bytearray:
        """Return the body of the answer to a GET of something small.

        Raises:
            ApiError: There is no answer, or another than 200.
        """
        return self.ask(path, parameters or {}, doing=doing, silence_s=WRITE_TIMEOUT_S).small()

    def _request(
        self,
        method: str,
        target: str,
        content: bytes | None,
        more: Mapping[str, str],
        *,
        doing: str,
        silence_s: float,
        whole_s: float,
    ) -> Response:
        from urllib3 import Timeout  # noqa: PLC0415 - comes with the client
        from urllib3.exceptions import HTTPError  # noqa: PLC0415 - the same

        if self._is_cut:
            raise ApiError(f"{self.url}: the end", "cut")
        with self._lock:
            server, generation = self._server, self.generation
            try:
                headers = server.headers()
            except HostError as error:
                raise ApiError(error.message, "credentials", hint=error.hint) from error
        meter = Meter(whole_s)
        try:
            with metered(meter):
                response = server.pool.request(
                    method,
                    f"{server.url}{target}",
                    body=content,
                    headers={**headers, **more},
                    retries=False,
                    redirect=False,
                    preload_content=False,
                    timeout=Timeout(connect=CONNECT_TIMEOUT_S, read=silence_s),
                )
        except (HTTPError, OSError, ValueError) as error:
            told, reason = unreachable(server.url, error), failure_kind(error)
            if reason == "tls":
                self._renew(generation)  # the authority that the kubeconfig names may be another one by now
            raise ApiError(told.message, reason, hint=told.hint) from error
        self._note_time(response.headers.get("Date"))
        answer = Response(server.url, response, meter, self._account)
        if response.status in _WELL:
            self.on_good()
            return answer
        trouble = answer.refused(doing)
        if trouble.status == 401:
            self._renew(generation)
        raise trouble

    def now(self) -> dt.datetime:
        """Return the server's time, within a second, as its last answer told it; our own before there was any."""
        return dt.datetime.now(dt.UTC) + self._ahead

    def _note_time(self, date: str | None) -> None:
        """Note what an answer's Date (RFC 9110) tells of the server's clock."""
        try:
            told = parsedate_to_datetime(date or "")
        except ValueError:
            return  # a proxy left it out, or spoilt it
        if told.tzinfo is not None:
            self._ahead = told - dt.datetime.now(dt.UTC)

    def _renew(self, generation: int) -> None:
        """Read the configuration anew, as its credentials are refused; once for all threads that noticed.

        Raises:
            ApiError: It cannot be read; the one there was stays.
        """
        with self._lock:
            if generation != self.generation:
                return
            try:
                server = self._read_configuration()
            except HostError as error:
                raise ApiError(error.message, "credentials", hint=error.hint) from error
            self._server.close()
            self._server = server

    def _read_configuration(self) -> ApiServer:
        from urllib3 import disable_warnings  # noqa: PLC0415 - comes with the client
        from urllib3.exceptions import InsecureRequestWarning  # noqa: PLC0415 - the same

        server = ApiServer(*self._named, connections=IDLE_CONNECTIONS, terms=self.terms)
        # A proxy that speaks TLS itself is verified by what each connection reads on its own.
        proxy = server.pool.proxy
        is_shared = proxy is None or proxy.scheme != "https"
        tls = SharedTls(server.pool.connection_pool_kw) if is_shared else None
        server.pool.pool_classes_by_scheme = _cuttable_pools(self._begun, tls)
        if not server.is_verified:
            disable_warnings(InsecureRequestWarning)  # the caller tells it, in our own words
        self.generation += 1
        return server

    def _begun(self, connection: Any) -> None:
        with self._open_lock:
            self._open.add(connection)
            if self._is_cut:
                connection.cut()

    def cut(self) -> None:
        """Break all connections, also those that a thread is waiting on; no further one can be made."""
        with self._open_lock:
            self._is_cut = True
            for connection in list(self._open):
                connection.cut()
        if self._lock.acquire(timeout=0.1):  # a credential plugin that hangs must not keep us
            try:
                self._server.close()
            finally:
                self._lock.release()


class Response:
    """An answer whose body is read as it comes."""

    def __init__(self, url: str, response: Any, meter: Meter, account: Account) -> None:
        """Take an answer whose head is there.

        Args:
            url: Of the server, for messages.
            response: What urllib3 has of it.
            meter: That it is read through.
            account: Where the bytes that it holds are counted, with those of others.
        """
        self._url = url
        self._response = response
        self._meter = meter
        self._account = account
        self._held = 0
        self._begun = bytearray()
        self._pieces: Iterator[bytes] | None = None

    def chunks(self) -> Iterator[bytes]:
        """Yield the body, piece by piece, each as soon as it is there.

        Raises:
            ApiError: It breaks off, or is not what may come.
        """
        from urllib3.exceptions import HTTPError  # noqa: PLC0415 - comes with the client

        try:
            yield from pieces(self._response)
        except (HTTPError, OSError, ValueError, AttributeError) as error:  # the latter two: cut by another thread
            raise self._broken(error) from error

    def _broken(self, error: Exception) -> ApiError:
        failure = unreachable(self._url, error)
        reason = failure_kind(error)
        return ApiError(failure.message, "cut" if reason == "connection" else reason, hint=failure.hint)

    def body(self, limit: int) -> bytearray:
        """Return the whole body. It counts as held until the answer is closed.

        Raises:
            ApiError: It breaks off, or is longer than `limit` bytes.
        """
        self._meter.allow(limit)
        whole = bytearray()
        for piece in self.chunks():
            self._hold(len(piece))
            whole += piece
            if len(whole) > limit:
                raise ApiError(f"{self._url}: an answer of more than {limit} bytes", "too large", hint=LIMIT_HINT)
        return whole

    def small(self) -> bytearray:
        """Return the whole body of an answer about a few objects, and close it.

        Raises:
            ApiError: It breaks off, or is longer than such an answer may be.
        """
        try:
            return self.body(MAX_WRITTEN)
        finally:
            self.close()

    def lines(self, limit: int) -> Iterator[bytes | bytearray]:
        """Yield the lines of the body, each as soon as it is whole; what follows the last line feed is no line.

        Raises:
            ApiError: It breaks off, or a line is longer than `limit` bytes.
        """
        self._meter.allow(limit)
        for piece in self.chunks():
            yield from self._lines_of(piece, limit)

    def ready_lines(self, limit: int) -> Iterator[bytes | bytearray] | None:
        """Return the lines that are there now, without waiting for further ones; None at the end of the body.

        The same lines as those of `lines`, for a thread that reads many answers: it waits until `fileno` is readable,
        and calls this until nothing comes.

        Raises:
            ApiError: It breaks off, a line is longer than `limit` bytes, or a part of it has not come in time.
        """
        if self._pieces is None:
            self._meter.silence_s = STALL_S
            self._meter.allow(limit)
            self._pieces = self.chunks()
        lines: list[bytes | bytearray] = []
        while not lines and self._is_ready():
            piece = next(self._pieces, None)
            if piece is None:
                return None
            lines += self._lines_of(piece, limit)
        return iter(lines)

    def fileno(self) -> int:
        """Return the descriptor that becomes readable when more of the answer comes; -1 for none."""
        return self._meter.fileno()

    def _is_ready(self) -> bool:
        try:
            return self._meter.is_ready()
        except (OSError, ValueError) as error:  # the latter: cut by another thread
            raise self._broken(error) from error

    def _lines_of(self, piece: bytes, limit: int) -> Iterator[bytes | bytearray]:
        """Yield the lines that end within the next piece of the body, and keep what follows them."""
        first, *more = piece.split(b"\n")
        self._hold(len(first))
        self._begun += first
        if len(self._begun) > limit:
            raise ApiError(f"{self._url}: an event of more than {limit} bytes", "too large")
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
            ApiError: All answers that are being read have too many.
        """
        if not self._account.take(count):
            words = f"all answers that are being read have more than {self._account.most} bytes together"
            raise ApiError(f"{self._url}: {words}", "too large", hint=LIMIT_HINT)
        self._held += count

    def refused(self, doing: str) -> ApiError:
        """Return the error that this answer is, and close it."""
        self._meter.allow(MAX_STATUS_BODY)
        found = bytearray()
        try:
            for piece in self.chunks():
                found += piece
                if len(found) > MAX_STATUS_BODY:
                    break
        except ApiError:
            found.clear()  # the status tells enough
        self.close()
        status = int(self._response.status)
        told = refusal(self._url, doing, status, found)
        reason = "expired" if status == 410 else str(status)
        pause = asked_pause(self._response.headers.get("Retry-After"))
        return ApiError(told.message, reason, status=status, retry_after=pause, hint=told.hint)

    def shut(self) -> None:
        """End the reading of another thread."""
        with suppress(ValueError, RuntimeError, OSError):  # it ended by itself
            self._response.shutdown()

    def close(self) -> None:
        """Give the connection back if the body was read to its end, else close it."""
        self._hold(-self._held)
        if not self._response.closed:
            self._response.close()
        self._response.release_conn()


def _cuttable_pools(begun: Callable[[Any], None], tls: SharedTls | None) -> dict[str, Any]:
    """Return kinds of pools, by scheme, whose connections tell that they begin and can be cut by another thread."""
    from urllib3.connection import HTTPConnection, HTTPSConnection  # noqa: PLC0415 - comes with the client

    class Cuttable(HTTPConnection):
        response_class = MeteredResponse
        _raw: socket.socket | None = None
        _read: socket.socket | None = None

        def connect(self) -> None:
            try:
                super().connect()
            finally:
                raw, self._raw = self._raw, None
                if raw is not None:
                    raw.close()

        def _new_conn(self) -> socket.socket:
            made = super()._new_conn()
            self._raw = made.dup()  # TLS takes the descriptor out of `made`, and shows its own after the handshake only
            begun(self)
            return made

        def getresponse(self) -> Any:
            self._read = self.sock  # which is taken away where the server ends the connection with its answer
            return super().getresponse()

        def cut(self) -> None:
            for one in (self._raw, self._read, self.sock):
                if one is not None:
                    with suppress(OSError):  # it ended by itself
                        socket.socket.shutdown(one, socket.SHUT_RDWR)  # TLS's own would forget its state meanwhile

    class CuttableTls(Cuttable, HTTPSConnection):
        def connect(self) -> None:
            if tls is not None:  # each time: a connection object of the pool connects again and again
                self.ssl_context = tls.context()
            super().connect()

    return pools_of(Cuttable, CuttableTls)
