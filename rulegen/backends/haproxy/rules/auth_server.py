"""External authentication: a Lua program asks the auth server about a request, by HAProxy's own HTTP client."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rulegen.backends.haproxy.frontend import answer, put, put_text, variable
from rulegen.backends.haproxy.names import AUTH_SERVERS, mark
from rulegen.backends.haproxy.texts import written
from rulegen.languages.haproxy.text import UnwritableError
from rulegen.languages.haproxy.tree import is_set, log_format, matches, negated, sample, statement
from rulegen.model.ingress.values.texts import text_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rulegen.languages.haproxy.tree import ConfigLine
    from rulegen.model.ingress.ir import ExternalAuth, IngressModel
    from rulegen.model.ingress.proxying import AuthCache
    from rulegen.model.ingress.values.readers import Url
    from rulegen.model.ingress.values.texts import Part, Text

_METHODS: Final = frozenset({"", "GET", "HEAD", "POST", "PUT", "DELETE"})
"""What HAProxy's HTTP client sends; the empty method is GET, as with nginx."""
_WITH_COOKIE: Final = ("200", "201", "204", "206", "301", "302", "303", "304", "307", "308")
"""Statuses with which nginx adds a header."""
_REQUEST: Final = "http-request"


def auth_lines(
    auth: ExternalAuth, model: IngressModel, whose: str, *, satisfies: bool, is_last: bool
) -> Iterator[ConfigLine]:
    """Yield the lines that ask the auth server, and that apply its answer.

    Args:
        auth: What is asked.
        model: The model.
        whose: The path of an Ingress for which kept answers hold.
        satisfies: Whether another way to authenticate is enough: then known clients are not asked about.
        is_last: Whether a client that the auth server rejects is rejected.

    Raises:
        UnwritableError: HAProxy cannot ask this.
    """
    if auth.method not in _METHODS:
        raise UnwritableError(f"HAProxy sends no requests with method {auth.method} to an auth server")
    unknown = negated(is_set(variable("is_known"))) if satisfies else ()
    for name in auth.response_headers:
        yield statement(_REQUEST, "del-header", name)
    yield from address_lines("auth", auth.url, auth.target, model)
    yield put_text("auth_host", written(auth.url.name))
    yield put_text("auth_url", written(_asked(auth.url)))
    yield put_text("auth_method", log_format(auth.method or "GET"))
    back = written(auth.request_redirect) if auth.request_redirect else log_format(variable("request_uri"))
    original = log_format(variable("own_scheme"), "://", variable("this_host"), variable("request_uri"))
    headers = {
        "X-Original-URL": original,
        "X-Original-Method": log_format(sample("method")),
        "X-Sent-From": log_format("nginx-ingress-controller"),
        "X-Auth-Request-Redirect": back,
    }
    if auth.method:
        headers |= {"X-Original-URI": log_format(variable("request_uri")), "X-Scheme": log_format(variable("scheme"))}
    own = {name.lower() for name, _ in auth.set_headers}
    texts = [(name, text) for name, text in headers.items() if name.lower() not in own]
    texts += [(name, written(text)) for name, text in auth.set_headers]
    for number, (_, text) in enumerate(texts):
        yield put_text(f"auth_set{number}", text)
    if auth.cache is not None:
        yield from _kept(auth, auth.cache, whose)
    names = ",".join(name for name, _ in texts)
    yield statement(_REQUEST, "lua.rulegen_auth", names, ",".join(auth.response_headers) or "-", when=unknown)
    for number, name in enumerate(auth.response_headers):  # a header that does not fit into the buffer is answered 500
        value = variable(f"auth_header{number}")
        yield statement(_REQUEST, "set-header", name, log_format(value), when=is_set(value))
    yield from _results(auth, satisfies=satisfies, is_last=is_last)


def _kept(auth: ExternalAuth, cache: AuthCache, whose: str) -> Iterator[ConfigLine]:
    """Yield for which requests an answer holds again: those of the same path of an Ingress with the same key."""
    words = [text_of([part]) for part in cache.key.parts]
    parts = [part for word in words for part in ("|", *written(word).parts)][1:]
    bars = sum(part.count("|") for part in cache.key.parts if isinstance(part, str)) + len(words) - 1
    times = [(status, seconds) for statuses, seconds in cache.kept for status in statuses or (200, 301, 302)]
    yield put_text("auth_cache", log_format(mark(auth, whose)))
    yield put_text("auth_key", log_format(*parts))
    yield put_text("auth_bars", log_format(str(bars)))
    yield put_text("auth_times", log_format(",".join(f"{status}={seconds}" for status, seconds in times)))


def address_lines(what: str, url: Url, target: str, model: IngressModel) -> Iterator[ConfigLine]:
    """Yield the address of a server that Lua asks, as variables that begin with `what`.

    Args:
        what: `auth` or `mirror`.
        url: The URL.
        target: The upstream, if the URL names a Service.
        model: The model.

    Raises:
        UnwritableError: There is no name server.
    """
    if target:
        yield put(f"{what}_servers", sample("str", mark(target)).then("map_str", AUTH_SERVERS))
        return
    port = url.port or (443 if url.scheme == "https" else 80)
    yield put_text(f"{what}_port", log_format(str(port)))
    literal = url.host.strip("[]")
    if literal and (":" in literal or literal.replace(".", "").isdigit()):
        yield put_text(f"{what}_address", log_format(literal))
        return
    if not model.resolvers:
        raise UnwritableError("HAProxy has no name server for the name of a server that it asks")
    host = model.defaults.host
    resolvers = "own" if port in {host.http_port, host.https_port} else "other"
    yield put_text(f"{what}_name", written(url.name))
    yield statement(_REQUEST, f"do-resolve(txn.{what}_address,{resolvers},ipv4)", variable(f"{what}_name"))


def _asked(url: Url) -> Text:
    """Return the URL without its fragment."""
    parts: list[Part] = []
    for part in url.rest.parts:
        if isinstance(part, str) and "#" in part:
            parts.append(part.partition("#")[0])
            break
        parts.append(part)
    rest = text_of(parts)
    slash = "" if str(rest).startswith("/") else "/"
    return text_of([f"{url.scheme}://", *url.authority.parts, slash, *rest.parts])


def _results(auth: ExternalAuth, *, satisfies: bool, is_last: bool) -> Iterator[ConfigLine]:
    status = variable("auth_status")
    if satisfies:
        yield put_text("is_known", log_format("1"), when=matches(status, "str", "ok"))
    unknown = negated(is_set(variable("is_known"))) if satisfies else negated(matches(status, "str", "ok"))
    cookie = variable("auth_cookie")
    if auth.always_set_cookie:
        yield statement("http-after-response", "add-header", "Set-Cookie", log_format(cookie), when=is_set(cookie))
    else:
        when = (*is_set(cookie), *matches(sample("status"), "int", *_WITH_COOKIE))
        yield statement("http-after-response", "add-header", "Set-Cookie", log_format(cookie), when=when)
    if not is_last:
        return
    denied = (*unknown, *matches(status, "str", "401"))
    if auth.signin:
        location = written(auth.signin)
        yield statement(_REQUEST, "return", "status", "302", "hdr", "Location", location, when=denied)
    challenge = variable("auth_challenge")
    header = ("hdr", "WWW-Authenticate", log_format(challenge))
    yield statement(_REQUEST, "return", "status", "401", *header, when=(*denied, *is_set(challenge)))
    yield answer(401, when=denied)
    yield answer(403, when=(*unknown, *matches(status, "str", "403")))
    yield answer(500, when=unknown)
