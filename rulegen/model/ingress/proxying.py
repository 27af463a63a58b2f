"""How requests are passed on to a backend, as part of the L7 model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxySSL:
    """How TLS is spoken with a backend; paths are those of files in the configuration.

    Attributes:
        revoked: Lists of revoked certificates of backends; empty for none.
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
    """How requests are passed on to a backend; None if what holds for all does.

    Attributes:
        connect_timeout_s, send_timeout_s, read_timeout_s: For a connection, between two writes, between two reads.
        buffers_answers, buffers_requests: Whether an answer, or the body of a request, is read before it is passed on.
        http_version: `1.0` or `1.1`.
        buffer_size, busy_buffers_size: Bytes; `buffers_number` of the first hold an answer, the second bounds those
            that are being sent to the client.
        temporary_file_size: Bytes of an answer that are kept on disk at most; 0 for none.
        retry_on: Failures after which another server is asked, as the annotation proxy-next-upstream names them.
        retry_tries: How many servers are asked at most; 0 for no limit.
        retry_timeout_s: For how long others are asked; 0 for as long as one may take to answer.
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
"""Requests are passed on as what holds for all says."""
