"""Texts with references as nginx values; only this module chooses the nginx variable for a reference."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rulegen.languages.nginx.text import UnquotableError
from rulegen.languages.nginx.tree import Directive, Entry, KeyKind, template, variable
from rulegen.model.ingress.values.texts import Capture, Reference, Subject

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from rulegen.languages.nginx.tree import Node, Word
    from rulegen.model.ingress.values.texts import Part, Text

_VARIABLES: Final[Mapping[Subject, str]] = {
    Subject.QUERY: "args",
    Subject.QUERY_MARK: "is_args",
    Subject.PATH: "plain_uri",
    Subject.RAW_PATH: "request_path",
    Subject.REQUEST_URI: "request_uri",
    Subject.SCHEME: "scheme",
    Subject.HOST: "host",
    Subject.HOST_HEADER: "this_host",
    Subject.OUTSIDE_HOST: "best_http_host",
    Subject.OUTSIDE_SCHEME: "pass_access_scheme",
    Subject.OUTSIDE_PORT: "pass_port",
    Subject.REQUEST_LINE: "request",
    Subject.METHOD: "request_method",
    Subject.PROTOCOL: "server_protocol",
    Subject.CONTENT_TYPE: "content_type",
    Subject.CONTENT_LENGTH: "content_length",
    Subject.REQUEST_LENGTH: "request_length",
    Subject.REQUEST_ID: "req_id",
    Subject.NEW_REQUEST_ID: "request_id",
    Subject.USER: "plain_user",
    Subject.FORWARDED_FOR: "proxy_add_x_forwarded_for",
    Subject.CLIENT_ADDRESS: "remote_addr",
    Subject.CLIENT_PORT: "remote_port",
    Subject.CLIENT_ADDRESS_BYTES: "binary_remote_addr",
    Subject.NEIGHBOUR_ADDRESS: "realip_remote_addr",
    Subject.NEIGHBOUR_PORT: "realip_remote_port",
    Subject.PROXIED_ADDRESS: "proxy_protocol_addr",
    Subject.PROXIED_PORT: "proxy_protocol_port",
    Subject.SERVER_ADDRESS: "server_addr",
    Subject.SERVER_PORT: "server_port",
    Subject.SERVER_NAME: "server_name",
    Subject.CONNECTION: "connection",
    Subject.CONNECTION_REQUESTS: "connection_requests",
    Subject.ROUND_TRIP_TIME: "tcpinfo_rtt",
    Subject.HTTPS: "https",
    Subject.TLS_PROTOCOL: "ssl_protocol",
    Subject.TLS_CIPHER: "ssl_cipher",
    Subject.TLS_SERVER_NAME: "plain_server_name",
    Subject.TLS_REUSED: "ssl_session_reused",
    Subject.TLS_CLIENT_SUBJECT: "ssl_client_s_dn",
    Subject.TLS_CLIENT_ISSUER: "ssl_client_i_dn",
    Subject.TLS_CLIENT_SERIAL: "ssl_client_serial",
    Subject.TLS_CLIENT_FINGERPRINT: "ssl_client_fingerprint",
    Subject.TLS_CLIENT_CERTIFICATE: "ssl_client_escaped_cert",
    Subject.TLS_CLIENT_VERIFIED: "ssl_client_verify",
    Subject.HOSTNAME: "hostname",
    Subject.TIME_MS: "msec",
    Subject.TIME_ISO: "time_iso8601",
    Subject.TIME_LOCAL: "time_local",
    Subject.NAMESPACE: "namespace",
    Subject.INGRESS: "ingress_name",
    Subject.SERVICE: "service_name",
    Subject.SERVICE_PORT: "service_port",
    Subject.SCRIPT: "fastcgi_script_name",
    Subject.SCRIPTS: "document_root",
    Subject.STATUS: "status",
    Subject.REQUEST_TIME: "request_time",
    Subject.PIPELINED: "pipe",
    Subject.COMPLETED: "request_completion",
    Subject.BYTES_SENT: "bytes_sent",
    Subject.BODY_BYTES_SENT: "body_bytes_sent",
    Subject.GZIP_RATIO: "gzip_ratio",
    Subject.BACKEND: "proxy_upstream_name",
    Subject.BACKEND_HOST: "proxy_host",
    Subject.BACKEND_PORT: "proxy_port",
    Subject.OTHER_BACKEND: "proxy_alternative_upstream_name",
    Subject.BACKEND_ADDRESS: "upstream_addr",
    Subject.BACKEND_STATUS: "upstream_status",
    Subject.BACKEND_TIME: "upstream_response_time",
    Subject.BACKEND_CONNECT_TIME: "upstream_connect_time",
    Subject.BACKEND_HEADER_TIME: "upstream_header_time",
    Subject.BACKEND_LENGTH: "upstream_response_length",
    Subject.BACKEND_BYTES_RECEIVED: "upstream_bytes_received",
    Subject.BACKEND_BYTES_SENT: "upstream_bytes_sent",
    Subject.CACHE_STATUS: "upstream_cache_status",
    Subject.WORKER: "pid",
    Subject.REQUESTS_LIMITED: "limit_req_status",
    Subject.CONNECTIONS_LIMITED: "limit_conn_status",
    Subject.TLS_SESSION: "ssl_session_id",
    Subject.TLS_EARLY: "ssl_early_data",
    Subject.PROXIED_SERVER_ADDRESS: "proxy_protocol_server_addr",
    Subject.PROXIED_SERVER_PORT: "proxy_protocol_server_port",
}
"""Variables of nginx or of the template. None of them can contain a line break."""

_IN_LOGS: Final[Mapping[Subject, str]] = {
    Subject.PATH: "uri",
    Subject.USER: "remote_user",
    Subject.HOST_HEADER: "http_host",
}
"""Other variables for log formats, in which nginx escapes control characters."""

_FAMILIES: Final[Mapping[Subject, str]] = {
    Subject.PARAMETER: "arg_",
    Subject.COOKIE: "cookie_",
    Subject.HEADER: "http_",
    Subject.ANSWER_HEADER: "sent_http_",
    Subject.BACKEND_HEADER: "upstream_http_",
}
CONTROL: Final = r"[\x00-\x1f\x7f]"
"""Control characters. A header must not contain them; a decoded path, a user name and a TLS server name can."""


def written(text: Text) -> Word:
    """Return a text as a value; its variables cannot contain a line break, so it is safe in a header.

    Raises:
        UnquotableError: The text refers to something for which nginx has no variable.
    """
    return _written(text.parts, _VARIABLES)


def written_for_log(text: Text) -> Word:
    """Return a text as a value in a log format, which escapes control characters."""
    return _written(text.parts, {**_VARIABLES, **_IN_LOGS})


def written_parts(parts: Iterable[Part]) -> Word:
    """Return parts of a text as a value; see `written`."""
    return _written(parts, _VARIABLES)


def _written(parts: Iterable[Part], variables: Mapping[Subject, str]) -> Word:
    words: list[Word] = [part if isinstance(part, str) else _variable(part, variables) for part in parts]
    return template("%s" * len(words), *words)


def _variable(part: Reference | Capture, variables: Mapping[Subject, str]) -> Word:
    if isinstance(part, Capture):
        return variable(f"capture_{part.number}")
    if (family := _FAMILIES.get(part.subject)) is not None:
        return variable(f"{family}{part.name}")
    name = variables.get(part.subject)
    if name is None:
        raise UnquotableError(f"nginx has no variable for {part.subject.value!r} in this place")
    return variable(name)


def maps() -> Iterator[Node]:
    """Yield the maps that replace values from clients by empty ones if they contain control characters."""
    nothing = Entry(CONTROL, "", KeyKind.REGEX)
    sources = ("uri", "plain_uri"), ("remote_user", "plain_user"), ("ssl_server_name", "plain_server_name")
    for source, name in sources:
        entries = (Entry("default", variable(source), KeyKind.FIXED), nothing)
        yield Directive("map", (variable(source), f"${name}"), entries)
    entries = (
        Entry("default", variable("request_uri"), KeyKind.FIXED),
        Entry("^(?<raw_path>[^?#]*)", variable("raw_path"), KeyKind.REGEX),
    )
    yield Directive("map", (variable("request_uri"), "$request_path"), entries)
    ends = (Entry("default", "", KeyKind.FIXED), Entry(CONTROL, "1", KeyKind.REGEX))
    yield Directive("map", (variable("uri"), "$has_control"), ends)


def captures_of(texts: Iterable[Text], *, is_expression: bool) -> Iterator[Node]:
    """Yield the directives that save the captures of a location's regular expression; they must come first.

    nginx overwrites `$1` to `$9` when it evaluates another expression. nginx matches the decoded path, so a capture can
    contain control characters, which would end a header: such a request is answered with 400.
    """
    numbers = sorted({part.number for text in texts for part in text.parts if isinstance(part, Capture)})
    for number in numbers:
        yield Directive("set", (f"$capture_{number}", variable(str(number)) if is_expression else ""))
    if numbers and is_expression:
        yield Directive("if", ("(", "$has_control", ")"), (Directive("return", ("400",)),))
