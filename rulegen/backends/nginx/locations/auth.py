"""External authentication: the internal location that asks an auth server (`auth_request`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rulegen.backends.nginx.locations.headers import HOPS
from rulegen.backends.nginx.locations.proxying import buffers_of, resolver_of
from rulegen.backends.nginx.names import INTERNAL, mark
from rulegen.backends.nginx.texts import written, written_parts
from rulegen.languages.nginx.tree import Directive, Entry, KeyKind, template, variable
from rulegen.model.ingress.values.texts import text_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rulegen.languages.nginx.tree import Node, Word
    from rulegen.model.ingress.defaults import HttpDefaults
    from rulegen.model.ingress.ir import ExternalAuth, Location, LocationPolicy, Server
    from rulegen.model.ingress.proxying import AuthCache
    from rulegen.model.ingress.values.readers import Url
    from rulegen.model.ingress.values.settings import Settings
    from rulegen.model.ingress.values.texts import Part

CACHE_ZONE: Final = "auth"
"""The name of the shared memory about answers that are kept."""
_TOO_LONG: Final = "auth_too_long"


def auth_path(auth: ExternalAuth, host: str, settings: Settings, location: Location) -> str:
    """Return the path of the internal location that asks the auth server; clients cannot request it.

    Locations with a cache have one each, since its answers hold for one path of one Ingress only.
    """
    buffers = _buffers(location.policy, settings)
    whose = (location.ingress, location.kind, location.path) if auth.cache is not None else ()
    return f"{INTERNAL}auth/{mark(host, auth, *buffers.items(), *whose)}"


def _buffers(policy: LocationPolicy, settings: Settings) -> Mapping[str, str]:
    """Return the buffer sizes for auth responses, whose headers are often large: those of the location itself."""
    return buffers_of(policy.proxying, settings)


def auth_location(auth: ExternalAuth, server: Server, defaults: HttpDefaults, location: Location) -> Directive:
    """Return the internal location that asks the auth server.

    It has no error pages: `auth_request` needs the status.
    """
    path = auth_path(auth, server.host, defaults.settings, location)
    buffers = _buffers(location.policy, defaults.settings)
    url = auth.url
    block: list[Node] = [
        Directive("internal"),
        Directive("proxy_intercept_errors", ("off",)),
        Directive("proxy_pass_request_body", ("off",)),
        # The subrequest has no body, but nginx compares the body of the main request with the limit here too. The limit
        # of the location itself applies.
        Directive("client_max_body_size", ("0",)),
    ]
    block += [Directive(f"proxy_{name}", tuple(text.split())) for name, text in buffers.items()]
    if auth.method:
        block.append(Directive("proxy_method", (auth.method,)))
    if url.scheme == "https":
        block.append(Directive("proxy_ssl_server_name", ("on",)))
    back: Word = written(auth.request_redirect) if auth.request_redirect else template("$request_uri")
    headers: list[tuple[str, Word]] = [
        ("Host", written(url.name)),
        ("Content-Length", ""),
        ("X-Forwarded-Proto", ""),
        ("X-Request-ID", variable("req_id")),
        ("X-Original-URL", template("$scheme://$this_host$request_uri")),
        ("X-Original-Method", variable("request_method")),
        ("X-Sent-From", "nginx-ingress-controller"),
        ("X-Real-IP", variable("remote_addr")),
        ("X-Forwarded-For", variable("forwarded_for")),
        ("X-Auth-Request-Redirect", back),
        ("Connection", ""),
        ("Proxy", ""),
    ]
    if auth.method:
        headers += [("X-Original-URI", variable("request_uri")), ("X-Scheme", variable("pass_access_scheme"))]
    if server.client_auth is not None:
        headers += [
            ("ssl-client-verify", variable("ssl_client_verify")),
            ("ssl-client-subject-dn", variable("ssl_client_s_dn")),
            ("ssl-client-issuer-dn", variable("ssl_client_i_dn")),
            ("ssl-client-cert", variable("ssl_client_escaped_cert") if server.client_auth.pass_certificate else ""),
        ]
    own = {name.lower() for name, _ in auth.set_headers}
    headers = [pair for pair in headers if pair[0].lower() not in own] + [
        (name, written(text)) for name, text in auth.set_headers
    ]
    headers = [*(pair for pair in headers if pair[0].lower() != HOPS[0].lower()), HOPS]
    block += [Directive("proxy_set_header", pair) for pair in headers]
    block += _pass(auth, defaults)
    if auth.cache is not None:
        block += _cached(auth.cache, path)
    return Directive("location", ("=", path), tuple(block))


def auth_maps(auth: ExternalAuth) -> Iterator[Node]:
    """Yield the maps with which the answers that are not kept are recognized."""
    if auth.cache is None:
        return
    # The length limits what is written to disk: nginx reads all of an answer that it keeps.
    short = Entry("^[0-9]{1,5}$", "", KeyKind.REGEX)
    length = variable("upstream_http_content_length")
    yield Directive("map", (length, f"${_TOO_LONG}"), (Entry("default", "1", KeyKind.FIXED), short))
    key, separators = _key(auth.cache)
    clear = Entry(rf"^[^|]*(?:\|[^|]*){{{separators}}}\z", "", KeyKind.REGEX)
    yield Directive("map", (key, f"${_unclear(auth.cache)}"), (Entry("default", "1", KeyKind.FIXED), clear))


def _key(cache: AuthCache) -> tuple[Word, int]:
    """Return the key, its parts separated by bars, and the number of bars that it has if no variable contains one.

    With one, two clients could have the same key: neither of them gets a kept answer.
    """
    words = [written_parts([part]) for part in cache.key.parts]
    bars = sum(part.count("|") for part in cache.key.parts if isinstance(part, str))
    return template("|".join(["%s"] * len(words)), *words), bars + len(words) - 1


def _unclear(cache: AuthCache) -> str:
    return f"auth_unclear_{mark(cache.key)}"


def _cached(cache: AuthCache, path: str) -> Iterator[Node]:
    key, _ = _key(cache)
    yield Directive("proxy_buffering", ("on",))
    yield Directive("proxy_cache", (CACHE_ZONE,))
    yield Directive("proxy_cache_key", (template("%s|%s", path, key),))
    yield Directive("proxy_cache_bypass", (variable(_unclear(cache)),))
    yield Directive("proxy_no_cache", (variable(_unclear(cache)), variable(_TOO_LONG)))
    for statuses, seconds in cache.kept:
        yield Directive("proxy_cache_valid", (*map(str, statuses), f"{seconds}s"))


def _pass(auth: ExternalAuth, defaults: HttpDefaults) -> Iterator[Node]:
    url = auth.url
    rest: Word = asked_path(url)
    if auth.target:
        if url.scheme == "https":
            # Otherwise nginx compares the certificate with the upstream's name.
            yield Directive("proxy_ssl_name", (url.host,))
        yield Directive("proxy_pass", (template("%s://%s%s", url.scheme, auth.target, rest),))
        return
    # With a variable, nginx resolves the name at each request, and starts even if the name does not exist.
    port = url.port or (443 if url.scheme == "https" else 80)
    yield Directive("set", ("$auth_server", template(f"%s:{port}", written(url.name))))
    yield from resolver_of(defaults, port)
    yield Directive("proxy_pass", (template("%s://$auth_server%s", url.scheme, rest),))


def asked_path(url: Url) -> Word:
    """Return path and query of a URL, without its fragment."""
    parts: list[Part] = []
    for part in url.rest.parts:
        if isinstance(part, str) and "#" in part:
            parts.append(part.partition("#")[0])
            break
        parts.append(part)
    path = text_of(parts)
    if not path:
        return "/"
    return template("/%s", written(path)) if str(path).startswith("?") else written(path)


def auth_answer(auth: ExternalAuth) -> Iterator[Node]:
    """Yield the directives that copy headers from the auth server's response."""
    cookie = "$auth_cookie_always" if auth.always_set_cookie else "$auth_cookie"
    yield Directive("auth_request_set", (cookie, variable("upstream_http_set_cookie")))
    for name in auth.response_headers:
        lowered = name.lower().replace("-", "_")
        yield Directive("auth_request_set", (f"$auth_header_{lowered}", variable(f"upstream_http_{lowered}")))
