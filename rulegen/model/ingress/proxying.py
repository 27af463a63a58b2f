"""Options of connections to backends, as part of the Ingress model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from rulegen.model.ingress.values.texts import Text


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthCache:
    """Answers of an auth server that are reused, for requests to the same path of a host with the same key.

    Attributes:
        key: What distinguishes clients and requests.
        kept: Statuses, each list with the seconds that such an answer is kept; no statuses mean those of success.
    """

    key: Text
    kept: tuple[tuple[tuple[int, ...], int], ...]


class Keepalive(NamedTuple):
    """Idle connections that are kept for the next requests.

    Attributes:
        connections: The most that each worker keeps; 0 for none.
        requests: The most requests over one of them.
        timeout_s: How long one of them is kept without a request.
    """

    connections: int
    requests: int
    timeout_s: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxySSL:
    """Options of TLS to a backend; paths are those of files in the configuration.

    Attributes:
        revoked: Path of the revocation lists for certificates of backends; empty for none.
    """

    certificate: str = ""
    ca: str = ""
    revoked: str = ""
    verify: bool = False
    verify_depth: int = 1
    ciphers: str = ""
    protocols: str = ""
    name: str = ""
    server_name: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxying:
    """Options of the connection to a backend; None means the default of all hosts.

    Attributes:
        connect_timeout_s, send_timeout_s, read_timeout_s: Time limits for connecting, between two writes, between two
            reads.
        buffers_answers, buffers_requests: Whether a response, or the body of a request, is read before it is passed on.
        http_version: `1.0` or `1.1`.
        buffer_size, busy_buffers_size: Bytes. A response gets `buffers_number` buffers of the first size; the second
            limits those that are being sent to the client.
        temporary_file_size: Maximum size in bytes of a response on disk; 0 for none.
        retry_on: Failures after which the next server is tried, as in the annotation proxy-next-upstream.
        retry_tries: Maximum number of servers that are tried; 0 for no limit.
        retry_timeout_s: Time limit for trying; 0 for the time limit of one response.
    """

    connect_timeout_s: int | None = None
    send_timeout_s: int | None = None
    read_timeout_s: int | None = None
    buffers_answers: bool | None = None
    buffers_requests: bool | None = None
    http_version: str | None = None
    buffer_size: int | None = None
    buffers_number: int | None = None
    busy_buffers_size: int | None = None
    temporary_file_size: int | None = None
    retry_on: tuple[str, ...] | None = None
    retry_tries: int | None = None
    retry_timeout_s: int | None = None


AS_FOR_ALL: Final = Proxying()
"""All defaults."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """What HAProxy does with each server of a backend.

    Attributes:
        check_path: Path that is requested to find out whether a server is healthy; empty for no checks.
        check_interval_s: Seconds between two checks.
        slow_start_s: Seconds until a server that is healthy again gets its full share; 0 for none.
        max_connections: The most requests at once, others wait; 0 for any number.
        retry_on: Failures after which another server is tried; empty for those of `Proxying`.
    """

    check_path: str = ""
    check_interval_s: int = 2
    slow_start_s: int = 0
    max_connections: int = 0
    retry_on: tuple[str, ...] = ()


NO_OPTIONS: Final = ServerOptions()
"""All defaults."""
