"""The redirect to a sign-in page, with the escaped URL of the request as a parameter.

Standard nginx has no function that escapes a value. But if the path of a request contains an escaped character, then a
`rewrite` escapes each capture that it copies into the query. Therefore the request is sent to another server block of
this nginx, on a unix socket. Its headers are the URL to escape and the rest of the redirect. `escaping_server` copies
the URL into the path, then into the query, and responds with the redirect.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rulegen.backends.nginx.names import mark
from rulegen.backends.nginx.texts import written_parts
from rulegen.languages.nginx.sockets import SIGNIN_SOCKET
from rulegen.languages.nginx.tree import Directive, template, variable
from rulegen.model.ingress.values.readers import spell_size
from rulegen.model.ingress.values.texts import Reference, Subject

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rulegen.languages.nginx.tree import Node, Word
    from rulegen.model.ingress.ir import ExternalAuth, Server
    from rulegen.model.ingress.values.settings import Settings
    from rulegen.model.ingress.values.texts import Part

_URL, _BEFORE, _AFTER = "X-Url", "X-Before", "X-After"
_ESCAPED_SPACE: Final = "/%20"
"""A path with an escaped character."""
_WHOLE: Final = {
    Subject.ESCAPED_REQUEST_URI: template("$request_uri"),
    Subject.ESCAPED_URL: template("$pass_access_scheme://$this_host$request_uri"),
}


def signin_name(auth: ExternalAuth, host: str) -> str:
    """Return the name of the location that redirects to the sign-in page."""
    return f"@signin_{mark(host, auth)}"


def signin_location(auth: ExternalAuth, server: Server, settings: Settings) -> Directive:
    """Return the location that redirects to the sign-in page, with the URL to return to."""
    before, escaped, after = _split(auth.signin.parts)
    name = signin_name(auth, server.host)
    if escaped is None:
        return Directive("location", (name,), (Directive("return", ("302", before)),))
    size = spell_size(4 * _longest(settings))
    headers: list[tuple[str, Word]] = [
        ("Host", "localhost"),
        ("Connection", "close"),
        ("Content-Length", ""),
        (_BEFORE, before),
        (_URL, escaped),
        (_AFTER, after),
    ]
    block: list[Node] = [
        Directive("proxy_intercept_errors", ("off",)),
        Directive("proxy_method", ("GET",)),
        Directive("proxy_http_version", ("1.1",)),
        Directive("proxy_pass_request_headers", ("off",)),
        Directive("proxy_pass_request_body", ("off",)),
        Directive("proxy_buffering", ("on",)),
        Directive("proxy_buffer_size", (size,)),
        Directive("proxy_buffers", ("4", size)),
        Directive("proxy_busy_buffers_size", (size,)),
        *(Directive("proxy_set_header", pair) for pair in headers),
        Directive("rewrite", ("^", _ESCAPED_SPACE, "break")),
        Directive("proxy_pass", (f"http://unix:{SIGNIN_SOCKET}:",)),
    ]
    return Directive("location", (name,), tuple(block))


def escaping_server(settings: Settings) -> Directive:
    """Return the server that escapes a URL and responds with the redirect; its socket is only for nginx itself."""
    size = spell_size(2 * _longest(settings))
    url, before, after = (f"http_{name.lower().replace('-', '_')}" for name in (_URL, _BEFORE, _AFTER))
    redirect = template("%s$args%s", variable(before), variable(after))
    escape: tuple[Node, ...] = (
        Directive("rewrite", ("^", template("%s?", variable(url)))),
        Directive("rewrite", ("^(.*)$", template("/?%s?", variable("1")))),
        Directive("return", ("302", redirect)),
    )
    return Directive(
        "server",
        (),
        (
            Directive("listen", (f"unix:{SIGNIN_SOCKET}",)),
            Directive("access_log", ("off",)),
            Directive("client_header_buffer_size", (size,)),
            Directive("large_client_header_buffers", ("4", size)),
            Directive("location", ("/",), escape),
        ),
    )


def _longest(settings: Settings) -> int:
    """Return the maximum length of a request's URL, in bytes."""
    return max(settings.client_header_buffer_size, settings.large_client_header_buffers[1], 4096)


def _split(parts: Sequence[Part]) -> tuple[Word, Word | None, Word]:
    """Return the text before the escaped URL, the URL, and the text after it; None if there is no escaped URL."""
    for number, part in enumerate(parts):
        if isinstance(part, Reference) and (whole := _WHOLE.get(part.subject)) is not None:
            return written_parts(parts[:number]), whole, written_parts(parts[number + 1 :])
    return written_parts(parts), None, ""
