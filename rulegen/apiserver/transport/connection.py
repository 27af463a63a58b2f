"""The connection of a long-running program to its API server: thread-safe, renewed, and cut at the end.

Answers are read as they arrive. A failure is an `ApiError` with its kind, so that the caller can decide when to try
again.
"""

from __future__ import annotations

import datetime as dt
import json
import threading
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode
from weakref import WeakSet

from rulegen.apiserver.budget import Account
from rulegen.apiserver.limits import ANSWER_S, ApiTerms
from rulegen.apiserver.transport.client import ApiServer
from rulegen.apiserver.transport.cuttable import cuttable_pools, cuttable_sockets
from rulegen.apiserver.transport.failures import ApiError, failure_kind, unreachable
from rulegen.apiserver.transport.metering import Meter, metered
from rulegen.apiserver.transport.reasons import ApiReason
from rulegen.apiserver.transport.response import Response
from rulegen.apiserver.transport.tls import SharedTls
from rulegen.errors import HostError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from rulegen.apiserver.transport.cuttable import Cuttable

IDLE_CONNECTIONS: Final = 4096
"""More connections than are ever used: the pool logs a warning for each one beyond this."""
CONNECT_TIMEOUT_S: Final = 5.0
WRITE_TIMEOUT_S: Final = 10.0
_WELL: Final = frozenset({200, 201})


class ApiConnection:
    """A connection to one API server, for all threads of the program.

    Attributes:
        url: Where the server is.
        cautions: Warnings about it, one line each.
        generation: How often the configuration was read.
        on_good: Called for each successful answer.
        terms: Limits for the kubeconfig and for answers.
    """

    def __init__(
        self, kubeconfig: str | None = None, context: str | None = None, *, terms: ApiTerms | None = None
    ) -> None:
        """Read the configuration; nothing is sent yet.

        Raises:
            HostError: There is no usable kubeconfig.
        """
        self._named = (kubeconfig, context)
        self.terms = terms or ApiTerms()
        self._account = Account(2 * self.terms.page)
        self._lock = threading.Lock()
        self._open: WeakSet[Cuttable] = WeakSet()
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
        """Send a GET and return the answer as soon as its head has arrived. The caller must close it.

        Args:
            path: Such as `/api/v1/services`.
            parameters: Query parameters.
            doing: Purpose for messages, such as `list services`.
            silence_s: Maximum silence of the server, before the head and in the body.
            whole_s: Maximum time of the answer, from now to its end.
            accept: Accepted media types; JSON by default.

        Raises:
            ApiError: There is no answer, or its status is not 200.
        """
        target = f"{path}?{urlencode(parameters)}"
        more = {"Accept": accept} if accept else {}
        return self._request("GET", target, None, more, doing=doing, silence_s=silence_s, whole_s=whole_s)

    def send(self, method: str, path: str, document: object, *, kind: str, doing: str) -> bytearray:
        """Send a document and return the server's answer.

        Args:
            method: `POST`, `PUT` or `PATCH`.
            path: Such as `/api/v1/namespaces/shop/services/web/status`.
            document: The document, sent as JSON.
            kind: Content type, which also defines the kind of a patch.
            doing: Purpose for messages.

        Raises:
            ApiError: There is no answer, or an error; a conflict has the status 409.
        """
        content = json.dumps(document).encode()
        headers = {"Content-Type": kind}
        answer = self._request(method, path, content, headers, doing=doing, silence_s=WRITE_TIMEOUT_S, whole_s=ANSWER_S)
        return answer.small()

    def fetch(self, path: str, parameters: Mapping[str, str | int] | None = None, *, doing: str) -> bytearray:
        """Return the body of a small answer to a GET.

        Raises:
            ApiError: There is no answer, or its status is not 200.
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
            raise ApiError(f"{self.url}: the end", ApiReason.CUT)
        with self._lock:
            server, generation = self._server, self.generation
            try:
                headers = server.headers()
            except HostError as error:
                raise ApiError(error.message, ApiReason.CREDENTIALS, hint=error.hint) from error
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
            failure, reason = unreachable(server.url, error), failure_kind(error)
            if reason is ApiReason.TLS:
                self._renew(generation)  # the authority that the kubeconfig names may be another one by now
            raise ApiError(failure.message, reason, hint=failure.hint) from error
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
        """Return the server's time, within a second, from its last answer; the local time before the first one."""
        return dt.datetime.now(dt.UTC) + self._ahead

    def _note_time(self, date: str | None) -> None:
        """Record the server's time from the Date of an answer (RFC 9110)."""
        try:
            time = parsedate_to_datetime(date or "")
        except ValueError:
            return  # a proxy removed or damaged it
        if time.tzinfo is not None:
            self._ahead = time - dt.datetime.now(dt.UTC)

    def read_again(self) -> bool:
        """Read the configuration again for all new connections; return whether it names the same server.

        If it names another one, nothing changes.

        Raises:
            HostError: There is no usable kubeconfig.
        """
        with self._lock:
            server = self._read_configuration()
            if server.url != self.url:
                server.close()
                return False
            self._server.close()
            self._server = server
        return True

    def _renew(self, generation: int) -> None:
        """Read the configuration again after rejected credentials; once for all threads.

        Raises:
            ApiError: It cannot be read; the previous one stays in use.
        """
        with self._lock:
            if generation != self.generation:
                return
            try:
                server = self._read_configuration()
            except HostError as error:
                raise ApiError(error.message, ApiReason.CREDENTIALS, hint=error.hint) from error
            self._server.close()
            self._server = server

    def _read_configuration(self) -> ApiServer:
        from urllib3 import disable_warnings  # noqa: PLC0415 - comes with the client
        from urllib3.exceptions import InsecureRequestWarning  # noqa: PLC0415 - the same

        server = ApiServer(*self._named, connections=IDLE_CONNECTIONS, terms=self.terms)
        # For a proxy that uses TLS itself, each connection reads its own settings.
        proxy = server.pool.proxy
        is_shared = proxy is None or proxy.scheme != "https"
        sockets = cuttable_sockets(self._begun)
        tls = SharedTls(server.pool.connection_pool_kw, sockets) if is_shared else None
        server.pool.pool_classes_by_scheme = cuttable_pools(self._begun, tls)
        if not server.is_verified:
            disable_warnings(InsecureRequestWarning)  # the caller reports it, in rulegen's own words
        self.generation += 1
        return server

    def _begun(self, connection: Cuttable) -> None:
        """Register a connection or socket that `cut` will break; break it now if `cut` was already called."""
        with self._open_lock:
            self._open.add(connection)
            if self._is_cut:
                connection.cut()

    def cut(self) -> None:
        """Break all connections, including those that a thread waits for; no new one can be made."""
        with self._open_lock:
            self._is_cut = True
            for connection in list(self._open):
                connection.cut()
        if self._lock.acquire(timeout=0.1):  # a credential plugin that hangs must not block this
            try:
                self._server.close()
            finally:
                self._lock.release()
