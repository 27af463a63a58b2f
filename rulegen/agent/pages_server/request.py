"""The head of an HTTP request: parsed, or rejected with a status (RFC 9112).

Supports only what GET, HEAD and OPTIONS need: no body is read, and each connection has one request.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

HEAD_BYTES: Final = 16 * 1024
"""Maximum size of a head: request line and all header fields together."""
PROBING: Final = "OPTIONS"
"""Default method of HAProxy's checks; answered as GET where probes are answered."""
METHODS: Final = ("GET", "HEAD", PROBING)

_TOKEN: Final = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_CONTROL: Final = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_VERSION: Final = re.compile(r"HTTP/([0-9])\.([0-9])")
_ABSOLUTE: Final = re.compile(r"https?://([^/?#]*)(.*)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Request:
    """A parsed request.

    Attributes:
        method: One of `METHODS`.
        path: The path as sent, without the query.
        query: The text after the first question mark; empty if there is none.
        host: The Host with its port; None in an HTTP/1.0 request without one.
        headers: Values by name in lower case; values of one name are joined by a comma.
    """

    method: str
    path: str
    query: str = ""
    host: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class RequestRefusal:
    """Why a request is rejected.

    Attributes:
        status: The HTTP status.
        reason: One line for the client.
    """

    status: int
    reason: str


NOT_ANSWERED: Final = RequestRefusal(501, "only GET and HEAD are supported")
TOO_LONG: Final = RequestRefusal(431, f"the request head is limited to {HEAD_BYTES} bytes")


def head_length(received: bytes | bytearray, start: int = 0) -> int:
    """Return the length of a complete head with the empty line that ends it; 0 while it is incomplete.

    Args:
        received: All bytes so far, without empty lines in front.
        start: The head does not end before this offset.
    """
    start = max(start - 2, 0)
    ends = [(at, len(end)) for end in (b"\n\r\n", b"\n\n") if (at := received.find(end, start)) >= 0]
    return sum(min(ends)) if ends else 0


def parse(head: bytes) -> Request | RequestRefusal:
    """Return the request of a complete head. Lines may end with LF alone (RFC 9112, section 2.2)."""
    if len(head) > HEAD_BYTES:
        return TOO_LONG
    lines = [line.removesuffix("\r") for line in head.decode("latin-1").rstrip("\r\n").split("\n")]
    if any(_CONTROL.search(line) for line in lines):
        return RequestRefusal(400, "the request head contains control characters")
    words = lines[0].split(" ")
    if len(words) != 3 or not _TOKEN.fullmatch(words[0]) or not (version := _VERSION.fullmatch(words[2])):
        return RequestRefusal(400, "the first line is not an HTTP/1.0 or HTTP/1.1 request line")
    method, target = words[0], words[1]
    if version[1] != "1":
        return RequestRefusal(505, "only HTTP/1.0 and HTTP/1.1 are supported")
    if method not in METHODS:
        return NOT_ANSWERED
    fields = _fields(lines[1:])
    if fields is None:
        return RequestRefusal(400, "a line of the head is not a header field")
    hosts = fields.get("host", [])
    if len(hosts) > 1 or (not hosts and version[2] != "0"):
        return RequestRefusal(400, "the request must have exactly one Host header")
    host = hosts[0] if hosts else None
    if absolute := _ABSOLUTE.fullmatch(target):
        if host is not None and host.lower() != absolute[1].lower():
            return RequestRefusal(400, "the request target and the Host header name different hosts")
        host, target = absolute[1], absolute[2]
        target = target if target.startswith("/") else f"/{target}"
    if not target.startswith("/"):
        return RequestRefusal(400, "the request target is not a path")
    path, _, query = target.partition("?")
    return Request(method, path, query, host, {name: ", ".join(values) for name, values in fields.items()})


def _fields(lines: list[str]) -> dict[str, list[str]] | None:
    """Return values by name in lower case; None if a line is not a field, or continues the line before."""
    fields: dict[str, list[str]] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if not colon or not _TOKEN.fullmatch(name):
            return None
        fields.setdefault(name.lower(), []).append(value.strip(" \t"))
    return fields
