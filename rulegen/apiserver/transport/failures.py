"""Reasons for failed requests to an API server, as text for people.

Messages of the HTTP library name its internal classes. These functions describe what happened on the network, in the
terms of the operating system or the protocol.
"""

from __future__ import annotations

import http.client
import json
import re
import socket
import ssl
from typing import TYPE_CHECKING, Any, Final, TypeVar

from rulegen.apiserver.transport.metering import WireError
from rulegen.apiserver.transport.reasons import ApiReason
from rulegen.errors import HostError
from rulegen.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

RENEW: Final = "renew the token or certificate"
LONGEST: Final = 300
MAX_CAUSES: Final = 20
_SECONDS: Final = re.compile(r"timeout=([0-9.]+)")
_NUMBER: Final = re.compile(r"\[Errno -?[0-9]+\] ")
_SOURCE: Final = re.compile(r" ?[(]_ssl[.]c:[0-9]+[)]")


class ApiError(HostError):
    """A request to the API server failed; the cause may be temporary.

    Attributes:
        reason: Of which sort.
        status: The HTTP status, 0 if there was none.
        retry_after: Pause in seconds that the server requests.
        causes: See `ApiRefusedError`.
    """

    def __init__(
        self,
        message: str,
        reason: ApiReason,
        *,
        status: int = 0,
        retry_after: float = 0.0,
        causes: frozenset[str] = frozenset(),
        hint: str = "",
    ) -> None:
        super().__init__(message, hint=hint)
        self.reason = reason
        self.status = status
        self.retry_after = retry_after
        self.causes = causes

    @property
    def label(self) -> str:
        """The label of counters: the reason, or the HTTP status if that is the reason."""
        return str(self.status) if self.reason is ApiReason.STATUS else self.reason.value


class ApiRefusedError(HostError):
    """The API server answered with an error.

    Attributes:
        status: The HTTP status.
        causes: The reasons in `details.causes` of the v1 Status, such as `NamespaceTerminating`.
    """

    def __init__(self, message: str, status: int, *, causes: frozenset[str] = frozenset(), hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.causes = causes


def refusal(url: str, doing: str, status: int, body: bytes | bytearray) -> ApiRefusedError:
    """Return the error for an answer with another status than 200, as text for people."""
    document = _status_document(body)
    message = document.get("message")
    message = one_line(message) if isinstance(message, str) else ""
    tail = f": {message}" if message else ""
    match status:
        case 401:
            words, hint = "the API server rejects the credentials", RENEW
        case 403:
            words, hint = f"not allowed to {doing}", f"grant it to this user: {doing}, in all namespaces"
        case 429:
            words, hint = "the API server is overloaded", "try again later"
        case _ if status >= 500:
            words, hint = f"the API server failed to {doing}", "check its log, or try again later"
        case _:
            words, hint = f"cannot {doing}", ""
    return ApiRefusedError(f"{url}: {words} ({status}{tail})", status, causes=_causes_of(document), hint=hint)


def unreachable(url: str, error: Exception) -> HostError:
    """Return why a request was not answered, as text for people."""
    words = network_words(error)
    if bound := _bound(error):
        return HostError(f"{url}: {words}", hint=bound.hint)
    match failure_kind(error):
        case ApiReason.TLS:
            return HostError(f"{url}: TLS: {words}", hint="check the server's address and certificate-authority")
        case ApiReason.TIMEOUT:
            return HostError(f"{url}: no answer in time: {words}", hint="check the address, and firewalls in between")
        case _ if any(isinstance(each, http.client.HTTPException) for each in _causes(error)):
            return HostError(f"{url}: {words}", hint="check the address, and proxies and firewalls on the way to it")
        case _:
            return HostError(f"{url}: cannot be reached: {words}", hint="check the address, and that the server runs")


def failure_kind(error: Exception) -> ApiReason:
    """Return the kind of a network failure: TLS, timeout, connection, or that of a `WireError`."""
    from urllib3 import exceptions  # noqa: PLC0415 - comes with the client

    causes = list(_causes(error))
    if bound := _bound(error):
        return bound.reason
    has_ended = any(isinstance(each, ssl.SSLEOFError | ssl.SSLZeroReturnError) for each in causes)
    if not has_ended and any(isinstance(each, exceptions.SSLError | ssl.SSLError) for each in causes):
        return ApiReason.TLS
    if isinstance(error, exceptions.TimeoutError) and not isinstance(error, exceptions.NewConnectionError):
        return ApiReason.TIMEOUT
    return ApiReason.CONNECTION


def network_words(error: Exception) -> str:
    """Return what happened on the network, in one line, usually from the innermost cause."""
    from urllib3 import exceptions  # noqa: PLC0415 - comes with the client

    causes = list(_causes(error))
    through = "the proxy: " if any(isinstance(each, exceptions.ProxyError) for each in causes) else ""
    for each in causes:
        if words := _words(each):
            return through + one_line(words)
    return through + "the connection was closed early"


def _words(error: BaseException) -> str:
    """Return the message of one error; empty if its cause has a better one, or if it only names classes."""
    from urllib3 import exceptions  # noqa: PLC0415 - comes with the client

    match error:
        case ssl.SSLCertVerificationError():
            return f"certificate verify failed: {error.verify_message.rstrip('.')}"
        case ssl.SSLEOFError() | ssl.SSLZeroReturnError():
            return "the connection was closed early"
        case ssl.SSLError(reason="WRONG_VERSION_NUMBER"):
            return "the server does not speak TLS"
        case ssl.SSLError():
            return _SOURCE.sub("", error.reason.replace("_", " ").lower() if error.reason else str(error.args[-1]))
        case exceptions.NameResolutionError():
            return _NUMBER.sub("", str(error).partition(": ")[2])
        case exceptions.ReadTimeoutError():
            return f"no data for {_seconds(error)}"
        case exceptions.ConnectTimeoutError() if not isinstance(error, exceptions.NewConnectionError):
            return f"no connection within {_seconds(error)}"
        case http.client.RemoteDisconnected():
            return "the server closed the connection without an answer"
        case http.client.IncompleteRead():  # that of a chunk, and urllib3's
            return "the connection was closed early during the answer"
        case http.client.HTTPException():
            return "the server does not speak HTTP"
        case WireError():
            return error.message
        case OSError() if not isinstance(error, TimeoutError | socket.gaierror):
            return error.strerror or _NUMBER.sub("", str(error))
        case ValueError() if not isinstance(error, exceptions.HTTPError):
            return str(error)
    return ""


def _bound(error: BaseException) -> WireError | None:
    """Return the limit of rulegen that ended the reading; None if it was something else."""
    return next((each for each in _causes(error) if isinstance(each, WireError)), None)


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield the causes of an error, the innermost first, and finally the error itself."""
    inner = [each for each in (error.__cause__, *error.args) if isinstance(each, BaseException)]
    if inner and inner[0] is not error:
        yield from _causes(inner[0])
    yield error


def _seconds(error: Exception) -> str:
    match = _SECONDS.search(str(error))
    return f"{float(match[1]):g} s" if match else "the time limit"


def _status_document(body: bytes | bytearray) -> dict[str, Any]:
    """Return the fields of a v1 Status; empty if the body is something else, such as a page of a proxy."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _causes_of(document: Mapping[str, Any]) -> frozenset[str]:
    details = document.get("details")
    causes = details.get("causes") if isinstance(details, dict) else None
    reasons = [cause.get("reason") for cause in causes if isinstance(cause, dict)] if isinstance(causes, list) else []
    return frozenset(reason for reason in reasons if isinstance(reason, str))


def one_line(text: object) -> str:
    """Return a text in one printable line."""
    return printable(" ".join(str(text).split()), LONGEST)


_Error = TypeVar("_Error", bound=Exception)


def without_frames(error: _Error) -> _Error:
    """Return an error without references to the data that was read: a page may have many MiB."""
    each: BaseException | None = error
    for _ in range(MAX_CAUSES):
        if each is None:
            break
        each.__traceback__ = None
        each = each.__cause__ or each.__context__
    return error
