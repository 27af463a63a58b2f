"""Texts with variables, such as a header, a URL, a hash key or a log format.

`read_text` parses the syntax of ingress-nginx (`$host`, `${host}`, `$1`) once, to typed parts. Each use of a text has a
set of allowed subjects; it rejects other variables, and the error names them. Only the backend of an engine chooses the
engine's variables for the parts.
"""

from __future__ import annotations

import enum
import re
from typing import TYPE_CHECKING, Final, NamedTuple

from rulegen.text import quoted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

MAX_NAME: Final = 80
"""Maximum number of characters of a name that becomes part of a variable's name."""

VARIABLE: Final = re.compile(r"\$(?:\{([A-Za-z0-9_]+)\}|([1-9])|([A-Za-z_][A-Za-z0-9_]*))")
"""A variable of a text, as ingress-nginx writes it."""
_SLASHES: Final = "/\\"
"""What browsers read as a slash."""


class Subject(enum.StrEnum):
    """What a variable refers to: a property of the request, the connection, the location or the response."""

    # the URL
    QUERY = "query"
    QUERY_MARK = "question mark, if there is a query"
    PARAMETER = "parameter of the query"
    PATH = "decoded path"
    RAW_PATH = "path as the client has written it"
    REQUEST_URI = "path and query as the client has written them"
    ESCAPED_REQUEST_URI = "path and query, escaped as the value of a parameter"
    ESCAPED_URL = "URL, escaped as the value of a parameter"
    SCHEME = "scheme"
    HOST = "host without port"
    HOST_HEADER = "header Host"
    OUTSIDE_HOST = "header Host, or that of a trusted proxy"
    OUTSIDE_SCHEME = "scheme, or that of a trusted proxy"
    OUTSIDE_PORT = "port, or that of a trusted proxy"
    # the request
    REQUEST_LINE = "request line"
    METHOD = "method"
    PROTOCOL = "protocol"
    HEADER = "header"
    COOKIE = "cookie"
    CONTENT_TYPE = "content type"
    CONTENT_LENGTH = "content length"
    REQUEST_LENGTH = "length of the request"
    REQUEST_ID = "identifier of the request, or that of the client"
    NEW_REQUEST_ID = "identifier of the request"
    USER = "user of basic authentication"
    FORWARDED_FOR = "addresses of the client and of proxies"
    # the connection
    CLIENT_ADDRESS = "address of the client"
    CLIENT_PORT = "port of the client"
    CLIENT_ADDRESS_BYTES = "address of the client in bytes"
    NEIGHBOUR_ADDRESS = "address that the connection is from"
    NEIGHBOUR_PORT = "port that the connection is from"
    PROXIED_ADDRESS = "address of the client, of the PROXY protocol"
    PROXIED_PORT = "port of the client, of the PROXY protocol"
    SERVER_ADDRESS = "address of the server"
    SERVER_PORT = "port of the server"
    SERVER_NAME = "name of the server"
    CONNECTION = "number of the connection"
    CONNECTION_REQUESTS = "requests of the connection"
    ROUND_TRIP_TIME = "round trip time"
    HTTPS = "on, if over TLS"
    TLS_PROTOCOL = "version of TLS"
    TLS_CIPHER = "cipher"
    TLS_SERVER_NAME = "server name of TLS"
    TLS_REUSED = "whether the TLS session was reused"
    TLS_CLIENT_SUBJECT = "subject of the client's certificate"
    TLS_CLIENT_ISSUER = "issuer of the client's certificate"
    TLS_CLIENT_SERIAL = "serial number of the client's certificate"
    TLS_CLIENT_FINGERPRINT = "fingerprint of the client's certificate"
    TLS_CLIENT_CERTIFICATE = "client's certificate, escaped"
    TLS_CLIENT_VERIFIED = "whether the client's certificate was verified"
    # location and time
    HOSTNAME = "name of the node"
    TIME_MS = "seconds since 1970 with milliseconds"
    TIME_ISO = "time in ISO 8601"
    TIME_LOCAL = "time as logs have it"
    NAMESPACE = "namespace of the Ingress"
    INGRESS = "name of the Ingress"
    SERVICE = "name of the Service"
    SERVICE_PORT = "port of the Service"
    INGRESS_PATH = "path of the Ingress"
    SCRIPT = "path of the FastCGI script"
    SCRIPTS = "folder of FastCGI scripts"
    # the response
    STATUS = "status"
    REQUEST_TIME = "seconds that the request took"
    PIPELINED = "whether the request was pipelined"
    COMPLETED = "whether the request was completed"
    BYTES_SENT = "bytes sent"
    BODY_BYTES_SENT = "bytes of the body sent"
    GZIP_RATIO = "ratio of compression"
    ANSWER_HEADER = "header of the answer"
    BACKEND_HEADER = "header of the backend"
    BACKEND = "key of the backend"
    BACKEND_HOST = "host of the backend"
    BACKEND_PORT = "port of the backend"
    OTHER_BACKEND = "key of the canary's backend"
    BACKEND_ADDRESS = "address of the backend"
    BACKEND_STATUS = "status of the backend"
    BACKEND_TIME = "seconds that the backend took"
    BACKEND_CONNECT_TIME = "seconds that the connection to the backend took"
    BACKEND_HEADER_TIME = "seconds until the backend's header"
    BACKEND_LENGTH = "length of the backend's answer"
    BACKEND_BYTES_RECEIVED = "bytes from the backend"
    BACKEND_BYTES_SENT = "bytes to the backend"
    CACHE_STATUS = "status of the cache"
    # only for logs
    WORKER = "process ID of the worker"
    REQUESTS_LIMITED = "what the limit of requests decided"
    CONNECTIONS_LIMITED = "what the limit of connections decided"
    TLS_SESSION = "ID of the TLS session"
    TLS_EARLY = "1, if the request is early data of TLS"
    PROXIED_SERVER_ADDRESS = "address of the server, of the PROXY protocol"
    PROXIED_SERVER_PORT = "port of the server, of the PROXY protocol"


_NAMES: Final[Mapping[str, Subject]] = {
    "args": Subject.QUERY,
    "best_http_host": Subject.OUTSIDE_HOST,
    "binary_remote_addr": Subject.CLIENT_ADDRESS_BYTES,
    "body_bytes_sent": Subject.BODY_BYTES_SENT,
    "bytes_sent": Subject.BYTES_SENT,
    "connection": Subject.CONNECTION,
    "connection_requests": Subject.CONNECTION_REQUESTS,
    "content_length": Subject.CONTENT_LENGTH,
    "content_type": Subject.CONTENT_TYPE,
    "document_root": Subject.SCRIPTS,
    "document_uri": Subject.PATH,
    "escaped_request_uri": Subject.ESCAPED_REQUEST_URI,
    "fastcgi_script_name": Subject.SCRIPT,
    "gzip_ratio": Subject.GZIP_RATIO,
    "host": Subject.HOST,
    "hostname": Subject.HOSTNAME,
    "http_host": Subject.HOST_HEADER,
    "https": Subject.HTTPS,
    "ingress_name": Subject.INGRESS,
    "is_args": Subject.QUERY_MARK,
    "limit_conn_status": Subject.CONNECTIONS_LIMITED,
    "limit_req_status": Subject.REQUESTS_LIMITED,
    "location_path": Subject.INGRESS_PATH,
    "msec": Subject.TIME_MS,
    "namespace": Subject.NAMESPACE,
    "pass_access_scheme": Subject.OUTSIDE_SCHEME,
    "pass_port": Subject.OUTSIDE_PORT,
    "pass_server_port": Subject.SERVER_PORT,
    "pid": Subject.WORKER,
    "pipe": Subject.PIPELINED,
    "proxy_add_x_forwarded_for": Subject.FORWARDED_FOR,
    "proxy_alternative_upstream_name": Subject.OTHER_BACKEND,
    "proxy_host": Subject.BACKEND_HOST,
    "proxy_port": Subject.BACKEND_PORT,
    "proxy_protocol_addr": Subject.PROXIED_ADDRESS,
    "proxy_protocol_port": Subject.PROXIED_PORT,
    "proxy_protocol_server_addr": Subject.PROXIED_SERVER_ADDRESS,
    "proxy_protocol_server_port": Subject.PROXIED_SERVER_PORT,
    "proxy_upstream_name": Subject.BACKEND,
    "query_string": Subject.QUERY,
    "realip_remote_addr": Subject.NEIGHBOUR_ADDRESS,
    "realip_remote_port": Subject.NEIGHBOUR_PORT,
    "remote_addr": Subject.CLIENT_ADDRESS,
    "remote_port": Subject.CLIENT_PORT,
    "remote_user": Subject.USER,
    "req_id": Subject.REQUEST_ID,
    "request": Subject.REQUEST_LINE,
    "request_completion": Subject.COMPLETED,
    "request_id": Subject.NEW_REQUEST_ID,
    "request_length": Subject.REQUEST_LENGTH,
    "request_method": Subject.METHOD,
    "request_time": Subject.REQUEST_TIME,
    "request_uri": Subject.REQUEST_URI,
    "scheme": Subject.SCHEME,
    "server_addr": Subject.SERVER_ADDRESS,
    "server_name": Subject.SERVER_NAME,
    "server_port": Subject.SERVER_PORT,
    "server_protocol": Subject.PROTOCOL,
    "service_name": Subject.SERVICE,
    "service_port": Subject.SERVICE_PORT,
    "ssl_cipher": Subject.TLS_CIPHER,
    "ssl_client_escaped_cert": Subject.TLS_CLIENT_CERTIFICATE,
    "ssl_client_fingerprint": Subject.TLS_CLIENT_FINGERPRINT,
    "ssl_client_i_dn": Subject.TLS_CLIENT_ISSUER,
    "ssl_client_s_dn": Subject.TLS_CLIENT_SUBJECT,
    "ssl_client_serial": Subject.TLS_CLIENT_SERIAL,
    "ssl_client_verify": Subject.TLS_CLIENT_VERIFIED,
    "ssl_early_data": Subject.TLS_EARLY,
    "ssl_protocol": Subject.TLS_PROTOCOL,
    "ssl_server_name": Subject.TLS_SERVER_NAME,
    "ssl_session_id": Subject.TLS_SESSION,
    "ssl_session_reused": Subject.TLS_REUSED,
    "status": Subject.STATUS,
    "tcpinfo_rtt": Subject.ROUND_TRIP_TIME,
    "the_real_ip": Subject.CLIENT_ADDRESS,
    "time_iso8601": Subject.TIME_ISO,
    "time_local": Subject.TIME_LOCAL,
    "upstream_addr": Subject.BACKEND_ADDRESS,
    "upstream_bytes_received": Subject.BACKEND_BYTES_RECEIVED,
    "upstream_bytes_sent": Subject.BACKEND_BYTES_SENT,
    "upstream_cache_status": Subject.CACHE_STATUS,
    "upstream_connect_time": Subject.BACKEND_CONNECT_TIME,
    "upstream_header_time": Subject.BACKEND_HEADER_TIME,
    "upstream_response_length": Subject.BACKEND_LENGTH,
    "upstream_response_time": Subject.BACKEND_TIME,
    "upstream_status": Subject.BACKEND_STATUS,
    "uri": Subject.PATH,
}
"""Supported variables of ingress-nginx, without the dollar sign."""

_FAMILIES: Final[Mapping[str, Subject]] = {
    "arg_": Subject.PARAMETER,
    "cookie_": Subject.COOKIE,
    "http_": Subject.HEADER,
    "sent_http_": Subject.ANSWER_HEADER,
    "upstream_http_": Subject.BACKEND_HEADER,
}
"""Prefixes of variables; the rest of the name is that of a parameter, cookie or header."""

OF_LOCATION: Final = frozenset(
    {Subject.NAMESPACE, Subject.INGRESS, Subject.SERVICE, Subject.SERVICE_PORT, Subject.INGRESS_PATH}
)
"""Equal for all requests to a path of an Ingress."""
OF_REQUEST: Final = (
    frozenset(list(Subject)[: list(Subject).index(Subject.STATUS)])
    - {Subject.ESCAPED_REQUEST_URI, Subject.ESCAPED_URL, Subject.RAW_PATH, Subject.SCRIPT}
    - {Subject.SCRIPTS, Subject.CLIENT_ADDRESS_BYTES, Subject.INGRESS_PATH}
)
"""Allowed in request headers: known before the request is passed on."""
IN_ANSWERS: Final = OF_REQUEST | {Subject.BACKEND_ADDRESS, Subject.BACKEND_STATUS, Subject.STATUS}
"""Allowed in response headers."""
IN_LOGS: Final = frozenset(Subject) - {
    Subject.ESCAPED_REQUEST_URI,
    Subject.ESCAPED_URL,
    Subject.RAW_PATH,
    Subject.SCRIPT,
    Subject.SCRIPTS,
    Subject.INGRESS_PATH,
    Subject.TLS_CLIENT_CERTIFICATE,
}
"""Allowed in the access log."""
IN_KEYS: Final = OF_REQUEST - OF_LOCATION | {Subject.CLIENT_ADDRESS_BYTES}
"""Allowed in the key of consistent hashing."""
IN_URLS: Final = OF_LOCATION | {
    Subject.QUERY,
    Subject.QUERY_MARK,
    Subject.PARAMETER,
    Subject.RAW_PATH,
    Subject.REQUEST_URI,
    Subject.SCHEME,
    Subject.HOST,
    Subject.HOST_HEADER,
    Subject.OUTSIDE_HOST,
    Subject.OUTSIDE_SCHEME,
    Subject.OUTSIDE_PORT,
    Subject.METHOD,
    Subject.NEW_REQUEST_ID,
    Subject.CLIENT_ADDRESS,
    Subject.SERVER_NAME,
    Subject.SERVER_PORT,
}
"""Allowed in URLs: parts of the client's URL, but nothing confidential, such as a cookie."""
IN_HOSTS: Final = OF_LOCATION - {Subject.INGRESS_PATH} | {
    Subject.HOST,
    Subject.HOST_HEADER,
    Subject.OUTSIDE_HOST,
    Subject.OUTSIDE_PORT,
    Subject.SERVER_NAME,
    Subject.SERVER_PORT,
    Subject.HEADER,
}
"""Allowed in the header Host for a backend."""


class Reference(NamedTuple):
    """A variable in a text. `name` is the name of the header, cookie or parameter, as written in the annotation."""

    subject: Subject
    name: str = ""


class Capture(NamedTuple):
    """A capture group of the path's regular expression, by its number; empty if the path is no expression."""

    number: int


Part = str | Reference | Capture


class Text(NamedTuple):
    """A sequence of parts. Literal parts are never empty and never adjacent."""

    parts: tuple[Part, ...] = ()

    def __bool__(self) -> bool:
        """Whether the text has any part."""
        return bool(self.parts)

    def __str__(self) -> str:
        """Return the text for messages and hashes; a variable is shown as its subject."""
        return "".join(part if isinstance(part, str) else f"<{_shown(part)}>" for part in self.parts)

    @property
    def literal(self) -> str | None:
        """The text itself if it has no variables, else None."""
        if not self.parts:
            return ""
        return self.parts[0] if len(self.parts) == 1 and isinstance(self.parts[0], str) else None

    @property
    def subjects(self) -> frozenset[Subject]:
        """The subjects of its variables."""
        return frozenset(part.subject for part in self.parts if isinstance(part, Reference))

    @property
    def has_captures(self) -> bool:
        """Whether it contains a capture."""
        return any(isinstance(part, Capture) for part in self.parts)

    def joined(self, *others: Text) -> Text:
        """Return this text followed by the others."""
        return text_of([*self.parts, *(part for other in others for part in other.parts)])

    def without(self, beginning: str) -> Text:
        """Return the text without its literal prefix."""
        first = self.parts[0] if self.parts else ""
        if not isinstance(first, str) or not first.startswith(beginning):
            return self
        return text_of([first.removeprefix(beginning), *self.parts[1:]])

    def with_one_slash(self) -> Text:
        """Return the text with one of the slashes that it begins with: behind two, browsers read a host."""
        first = self.parts[0] if self.parts else ""
        if not isinstance(first, str) or not first.startswith("/"):
            return self
        return text_of([f"/{first.lstrip(_SLASHES)}", *self.parts[1:]])

    def bound(self, values: Mapping[Subject, str]) -> Text:
        """Return the text with these subjects replaced by values."""
        if self.subjects.isdisjoint(values):
            return self
        return text_of(values.get(part.subject, part) if isinstance(part, Reference) else part for part in self.parts)


NO_TEXT: Final = Text()


def _shown(part: Reference | Capture) -> str:
    if isinstance(part, Capture):
        return f"capture {part.number}"
    return f"{part.subject} {part.name}".strip()


def text_of(parts: Iterable[Part]) -> Text:
    """Return a text of these parts; adjacent literal parts are joined."""
    joined: list[Part] = []
    for part in parts:
        if isinstance(part, str) and joined and isinstance(joined[-1], str):
            joined[-1] += part
        elif part != "":
            joined.append(part)
    return Text(tuple(joined))


def literal(text: str) -> Text:
    """Return a text without variables."""
    return text_of([text])


def read_text(text: str, allowed: frozenset[Subject], *, captures: bool = False) -> Text:
    """Parse a text.

    Args:
        text: The text, in the syntax of ingress-nginx's annotations.
        allowed: Allowed subjects of its variables.
        captures: Whether `$1` to `$9` are allowed.

    Raises:
        ValueError: A variable is unknown or not allowed here, or a dollar sign is not followed by a variable's name.
    """
    parts: list[Part] = []
    end = 0
    for match in VARIABLE.finditer(text):
        parts.append(text[end : match.start()])
        parts.append(Capture(int(match[2])) if match[2] and captures else _reference(match, text, allowed))
        end = match.end()
    parts.append(text[end:])
    for part in parts:
        if isinstance(part, str) and "$" in part:
            raise ValueError(f"{quoted(text)}: a dollar sign is not followed by the name of a variable")
    return text_of(parts)


def _reference(match: re.Match[str], text: str, allowed: frozenset[Subject]) -> Reference:
    name = match[1] or match[2] or match[3]
    known = _known(name.lower())
    if known is not None and known.subject is Subject.PATH and Subject.PATH not in allowed:
        known = Reference(Subject.RAW_PATH)
    if known is None and not match[2]:
        raise ValueError(f"{quoted(text)}: the variable ${name[:MAX_NAME]} is not known here")
    if known is None or known.subject not in allowed:
        raise ValueError(f"{quoted(text)}: the variable ${name} may not be used here")
    return known


def _known(name: str) -> Reference | None:
    if (subject := _NAMES.get(name)) is not None:
        return Reference(subject)
    for family, subject in _FAMILIES.items():
        if name.startswith(family) and family != name and len(name) <= MAX_NAME:
            return Reference(subject, name.removeprefix(family))
    return None


def reader(
    allowed: frozenset[Subject], check: Callable[[str], object] = str, *, captures: bool = False
) -> Callable[[str], Text]:
    """Return a reader of texts with these subjects; `check` may raise a ValueError for other reasons."""

    def read(text: str) -> Text:
        check(text)
        return read_text(text, allowed, captures=captures)

    return read
