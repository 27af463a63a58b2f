"""Headers of requests and responses for all locations.

A location inherits `proxy_set_header` and `add_header` only if it has none of its own. Therefore the lists are written
once, in the block `http`, and contain variables that a location sets. They are empty by default, and nginx does not
send an empty header. A location that needs another header repeats the whole list.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rulegen.backends.nginx.names import header_variable
from rulegen.backends.nginx.texts import written
from rulegen.languages.nginx.tree import Directive, Entry, KeyKind, Word, template, variable
from rulegen.model.ingress.values.readers import HOPS_HEADER

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rulegen.languages.nginx.tree import Node
    from rulegen.model.ingress.values.settings import Settings
    from rulegen.model.ingress.values.texts import Text

_REQUEST: Final[tuple[tuple[str, str], ...]] = (
    ("Host", "upstream_host"),
    ("X-Request-ID", "req_id"),
    ("X-Real-IP", "remote_addr"),
    ("X-Forwarded-For", "forwarded_for"),
    ("X-Forwarded-Host", "best_http_host"),
    ("X-Forwarded-Port", "pass_port"),
    ("X-Forwarded-Proto", "pass_access_scheme"),
    ("X-Forwarded-Scheme", "pass_access_scheme"),
    ("X-Forwarded-Prefix", "plain_prefix"),
    ("X-Scheme", "pass_access_scheme"),
    ("X-Original-Forwarded-Host", "http_x_forwarded_host"),
    ("Authorization", "passed_authorization"),
)
_ANSWER: Final[tuple[tuple[str, str], ...]] = (
    ("Strict-Transport-Security", "hsts"),
    ("Set-Cookie", "sticky_cookie"),
    ("Set-Cookie", "auth_cookie_always"),
    ("Access-Control-Allow-Origin", "cors_origin"),
    ("Access-Control-Allow-Credentials", "cors_credentials_sent"),
    ("Access-Control-Allow-Methods", "cors_methods_sent"),
    ("Access-Control-Allow-Headers", "cors_headers_sent"),
    ("Access-Control-Expose-Headers", "cors_expose_sent"),
    ("Access-Control-Max-Age", "cors_max_age_sent"),
)
MAX_HOPS: Final = 5
"""Maximum number of rulegen nginx instances that a request may pass.

Each of them may send up to four requests for one: to the backend, an auth server, an error page and a mirror. If all of
them lead to the next instance, one request becomes at most 4 to the power of this number, 1024, on the last one.
"""
HOPS: Final[tuple[str, Word]] = (HOPS_HEADER, variable("hops"))
"""The header that detects loops, with the mark of this nginx."""
CORS_HEADERS: Final = tuple(dict.fromkeys(name for name, _ in _ANSWER if name.startswith("Access-Control-")))


def hop_maps() -> list[Node]:
    """Return the maps that count how many rulegen nginx instances a request has passed, by their marks in a header.

    A client that sends marks only gets its own requests rejected. It cannot hide marks, because each nginx appends to
    the header.
    """
    passed = variable(header_variable(HOPS_HEADER))
    entries = (Entry("default", template("%s 1", passed), KeyKind.FIXED), Entry("", "1"))
    too_many = Entry(f"(?:1[^1]*){{{MAX_HOPS + 1}}}", "1", KeyKind.REGEX)
    return [
        Directive("map", (passed, "$hops"), entries),
        Directive("map", (variable("hops"), "$is_loop"), (Entry("default", "0", KeyKind.FIXED), too_many)),
    ]


def loop_guard() -> Directive:
    """Return the check that rejects a request that has passed too many rulegen nginx instances: 508 (RFC 5842, 7.2)."""
    return Directive("if", ("(", "$is_loop", ")"), (Directive("return", ("508",)),))


def request_headers(settings: Settings, extra: Iterable[tuple[str, Word]] = ()) -> list[tuple[str, Word]]:
    """Return the request headers for a backend; headers of `extra` replace those with the same name."""
    headers: list[tuple[str, Word]] = [(name, variable(value)) for name, value in _REQUEST]
    headers.append(("X-Original-Forwarded-For", variable(header_variable(settings.forwarded_for_header))))
    if settings.proxy_add_original_uri_header:
        headers.append(("X-Original-URI", variable("request_uri")))
    headers += [("Proxy", ""), HOPS]
    return _replaced(_replaced(headers, _written(settings.proxy_set_headers)), extra)


def proxy_headers(settings: Settings, extra: Iterable[tuple[str, Word]] = ()) -> list[Node]:
    """Return the directives for these headers and the hop-by-hop headers of HTTP/1."""
    neighbours: list[tuple[str, Word]] = [
        ("Upgrade", variable("passed_upgrade")),
        ("Connection", variable("connection_header")),
    ]
    pairs = _replaced(neighbours + request_headers(settings), extra)
    return [Directive("proxy_set_header", (name, value)) for name, value in pairs]


def grpc_headers(settings: Settings, extra: Iterable[tuple[str, Word]] = ()) -> list[Node]:
    """Return the directives for these headers with gRPC."""
    return [Directive("grpc_set_header", pair) for pair in request_headers(settings, extra)]


def answer_headers(settings: Settings, extra: Iterable[tuple[str, Word]] = ()) -> list[Node]:
    """Return the directives that add headers to responses."""
    nodes: list[Node] = [Directive("add_header", (name, variable(value), "always")) for name, value in _ANSWER]
    nodes.append(Directive("add_header", ("Set-Cookie", variable("auth_cookie"))))
    pairs = [pair for pair in (*_written(settings.add_headers), *extra) if not is_server(pair)]
    return nodes + [Directive("add_header", (name, value, "always")) for name, value in pairs]


def server_header(settings: Settings, extra: Iterable[tuple[str, Word]] = ()) -> Iterator[Node]:
    """Yield the directives for the header Server, for an nginx with the module HEADERS_MORE.

    The last configured value is used. Without one, the header is removed, unless the settings keep that of nginx or of
    the backend.
    """
    values = [value for name, value in (*_written(settings.add_headers), *extra) if is_server((name, value))]
    if values:
        yield Directive("more_set_headers", (template("Server: %s", values[-1]),))
    elif not settings.server_tokens and not settings.allow_backend_server_header:
        yield Directive("more_clear_headers", ("Server",))


def is_server(header: tuple[str, Word]) -> bool:
    """Whether a header is Server, which `add_header` would send in addition to that of nginx."""
    return header[0].lower() == "server"


def hidden_headers(
    settings: Settings, extra: Iterable[str] = (), modules: Iterable[str] = ("proxy", "grpc", "fastcgi")
) -> list[Node]:
    """Return the directives for headers of backends that clients do not get, for some of nginx's modules."""
    modules = tuple(modules)
    names = ["Strict-Transport-Security", *settings.hide_headers]
    names += [name for name, _ in settings.add_headers]
    names += extra
    nodes: list[Node] = []
    for name in dict.fromkeys(names):
        nodes += [Directive(f"{module}_hide_header", (name,)) for module in modules]
    if settings.allow_backend_server_header:
        nodes.append(Directive("proxy_pass_header", ("Server",)))
    return nodes


def _written(headers: Iterable[tuple[str, Text]]) -> list[tuple[str, Word]]:
    return [(name, written(text)) for name, text in headers]


def _replaced(pairs: Iterable[tuple[str, Word]], extra: Iterable[tuple[str, Word]]) -> list[tuple[str, Word]]:
    new = [pair for pair in extra if pair[0].lower() != HOPS_HEADER.lower() or pair == HOPS]
    names = {name.lower() for name, _ in new}
    return [pair for pair in pairs if pair[0].lower() not in names] + new


FASTCGI: Final[tuple[tuple[str, Word], ...]] = (
    ("QUERY_STRING", variable("query_string")),
    ("REQUEST_METHOD", variable("request_method")),
    ("CONTENT_TYPE", variable("content_type")),
    ("CONTENT_LENGTH", variable("content_length")),
    ("SCRIPT_NAME", variable("fastcgi_script_name")),
    ("SCRIPT_FILENAME", variable("fastcgi_script_name")),
    ("REQUEST_URI", variable("request_uri")),
    ("DOCUMENT_URI", variable("document_uri")),
    ("SERVER_PROTOCOL", variable("server_protocol")),
    ("REQUEST_SCHEME", variable("scheme")),
    ("HTTPS", variable("https")),
    ("GATEWAY_INTERFACE", "CGI/1.1"),
    ("SERVER_SOFTWARE", "nginx"),
    ("REMOTE_ADDR", variable("remote_addr")),
    ("REMOTE_PORT", variable("remote_port")),
    ("SERVER_ADDR", variable("server_addr")),
    ("SERVER_PORT", variable("server_port")),
    ("SERVER_NAME", variable("server_name")),
    ("HTTP_HOST", template("$best_http_host")),
    ("HTTP_PROXY", ""),
    ("HTTP_AUTHORIZATION", variable("passed_authorization")),
)
"""Parameters for a FastCGI server (RFC 3875)."""


def fastcgi_parameters(extra: Iterable[tuple[str, Word]] = ()) -> list[Node]:
    """Return the directives for these parameters; those of `extra` replace others of the same name."""
    return [Directive("fastcgi_param", pair) for pair in _replaced(FASTCGI, extra)]
