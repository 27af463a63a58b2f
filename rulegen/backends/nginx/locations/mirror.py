"""Request mirroring: the internal location that sends a copy of each request to a second server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rulegen.backends.nginx.locations.auth import asked_path
from rulegen.backends.nginx.locations.headers import request_headers
from rulegen.backends.nginx.locations.proxying import resolver_of
from rulegen.backends.nginx.names import INTERNAL, mark
from rulegen.backends.nginx.texts import written
from rulegen.languages.nginx.tree import Directive, template, variable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rulegen.languages.nginx.tree import Node, Word
    from rulegen.model.ingress.defaults import HttpDefaults
    from rulegen.model.ingress.ir import Mirror

_WITHOUT_BODY: Final[tuple[tuple[str, Word], ...]] = (("Content-Length", ""), ("Transfer-Encoding", ""))


def mirror_path(mirror: Mirror, verified: Sequence[tuple[str, Word]]) -> str:
    """Return the path of the internal location that sends the copies; clients cannot request it."""
    return f"{INTERNAL}mirror/{mark(mirror, *verified)}"


def mirror_directives(mirror: Mirror, verified: Sequence[tuple[str, Word]]) -> Iterator[Node]:
    """Yield the directives of a location whose requests are mirrored."""
    yield Directive("mirror", (mirror_path(mirror, verified),))
    if not mirror.passes_body:
        yield Directive("mirror_request_body", ("off",))


def mirror_location(mirror: Mirror, verified: Sequence[tuple[str, Word]], defaults: HttpDefaults) -> Directive:
    """Return the internal location that sends copies of requests to a mirror.

    It gets the headers that a backend gets, of which a client can set none that says who it is.
    """
    block: list[Node] = [
        Directive("internal"),
        Directive("proxy_intercept_errors", ("off",)),
        # The location itself has checked the size of the body.
        Directive("client_max_body_size", ("0",)),
    ]
    own: list[tuple[str, Word]] = [*verified, ("Host", written(mirror.host))]
    if not mirror.passes_body:
        block.append(Directive("proxy_pass_request_body", ("off",)))
        own += _WITHOUT_BODY
    neighbours: list[tuple[str, Word]] = [("Upgrade", ""), ("Connection", "")]
    block += [Directive("proxy_set_header", pair) for pair in (*neighbours, *request_headers(defaults.settings, own))]
    block += _pass(mirror, defaults)
    return Directive("location", ("=", mirror_path(mirror, verified)), tuple(block))


def _pass(mirror: Mirror, defaults: HttpDefaults) -> Iterator[Node]:
    url = mirror.url
    rest: Word = asked_path(url) if url.rest else variable("request_uri")
    if url.rest and url.rest.literal is not None:
        # As in ingress-nginx: nginx appends the query of the request to a URL without variables.
        rest = template("%s$is_args$args", rest)
    if url.scheme == "https":
        yield Directive("proxy_ssl_server_name", ("on",))
        yield Directive("proxy_ssl_name", (url.host,))
    if mirror.target:
        yield Directive("proxy_pass", (template("%s://%s%s", url.scheme, mirror.target, rest),))
        return
    port = url.port or (443 if url.scheme == "https" else 80)
    yield Directive("set", ("$mirror_server", f"{url.host}:{port}"))
    yield from resolver_of(defaults, port)
    yield Directive("proxy_pass", (template("%s://$mirror_server%s", url.scheme, rest),))
