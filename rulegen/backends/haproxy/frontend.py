"""The frontend: it identifies the client, the host and the path of a request, and chooses the backend."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rulegen.backends.haproxy.answers import silent_lines, uncompressed_lines
from rulegen.backends.haproxy.maps import NO_EXPRESSION, certainly_without
from rulegen.backends.haproxy.names import (
    CANARIES,
    CERTIFICATES,
    EXACT,
    FRONTEND,
    HOSTS,
    NO_LOCATION,
    PREFIX,
    SLOTS,
    TRUSTED,
    server_id,
)
from rulegen.backends.haproxy.texts import written
from rulegen.languages.haproxy.tree import ConfigSection, is_set, log_format, matches, negated, sample, statement
from rulegen.model.ingress.values.readers import HOPS_HEADER

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rulegen.languages.haproxy.tree import ConfigLine, LogFormat, SampleExpression, Word
    from rulegen.model.ingress.defaults import HttpDefaults
    from rulegen.model.ingress.values.settings import Settings

MAX_HOPS: Final = 5
_HTTPS_OUTSIDE: Final = "443"
_FAMILIES: Final = {"4": ("!{", sample("src"), "-m", "sub", ":", "}"), "6": ("{", sample("src"), "-m", "sub", ":", "}")}
"""The family of the client's address, and its condition."""
_REQUEST: Final = "http-request"
_AFTER: Final = "http-after-response"


def variable(name: str) -> SampleExpression:
    """Return a variable of the request."""
    return sample("var", f"txn.{name}")


def put(name: str, value: SampleExpression, *, when: Iterable[Word] = ()) -> ConfigLine:
    """Return the statement that sets a variable of the request to the value of an expression."""
    return statement(_REQUEST, f"set-var(txn.{name})", value, when=when)


def put_text(name: str, value: LogFormat, *, when: Iterable[Word] = ()) -> ConfigLine:
    """Return the statement that sets a variable of the request to a format."""
    return statement(_REQUEST, f"set-var-fmt(txn.{name})", value, when=when)


def in_map(path: str, family: str = "txn.family") -> tuple[Word, ...]:
    """Return the condition that a client is in a network of a map whose values are families; see `network_entries`."""
    return "{", sample("src").then("map_ip", path).then("strcmp", family), "eq", "0", "}"


def answer(status: int, *, when: Iterable[Word] = ()) -> ConfigLine:
    """Return the statement that answers with a status."""
    return statement(_REQUEST, "return", "status", str(status), when=when)


def redirect(status: int, location: LogFormat, *, when: Iterable[Word] = ()) -> ConfigLine:
    """Return the statement that sends a client somewhere else."""
    return statement(_REQUEST, "return", "status", str(status), "hdr", "Location", location, when=when)


def frontend_section(
    defaults: HttpDefaults, slots: Iterable[str], choice: Iterable[ConfigLine], *, resumes: bool
) -> ConfigSection:
    """Return the frontend.

    Args:
        defaults: What holds for all.
        slots: The maps of expressions.
        resumes: Whether sessions of TLS are resumed.
        choice: Statements that choose another backend than that of the location, such as those of canaries.
    """
    settings = defaults.settings
    lines = [
        *_binds(defaults, resumes=resumes),
        *_trust(settings),
        statement(_REQUEST, "del-header", "_", "-m", "sub") if not settings.enable_underscores_in_headers else None,
        *_identity(defaults),
        *_route(slots),
        *_blocked(settings),
        *silent_lines(settings),
        *uncompressed_lines(settings),
        put("backend", variable("location")),
        put("canaries", variable("location").then("map_str", CANARIES)),
        statement(_REQUEST, "lua.rulegen_canary", when=is_set(variable("canaries"))),
        *choice,
        *_request_headers(settings),
        *_answer_headers(settings),
        statement("use_backend", log_format(variable("backend"))),
        statement("default_backend", NO_LOCATION),
    ]
    return ConfigSection("frontend", FRONTEND, tuple(line for line in lines if line is not None))


def _binds(defaults: HttpDefaults, *, resumes: bool) -> Iterator[ConfigLine]:
    settings, host = defaults.settings, defaults.host
    own = ["accept-proxy"] if settings.use_proxy_protocol and not settings.trusts_some else []
    for address in _addresses(defaults):
        v6only = ["v6only"] if address == "[::]" else []
        yield statement("bind", f"{address}:{host.http_port}", *v6only, *own)
        tls = ["ssl", "crt-list", CERTIFICATES, "alpn", "h2,http/1.1" if settings.use_http2 else "http/1.1"]
        tls += ["strict-sni"] if settings.ssl_reject_handshake else []
        versions = [name for name in ("TLSv1.0", "TLSv1.1", "TLSv1.2", "TLSv1.3") if name in _versions(settings)]
        tls += ["ssl-min-ver", versions[0], "ssl-max-ver", versions[-1]] if versions else []
        tls += [] if settings.ssl_session_tickets and resumes else ["no-tls-tickets"]
        tls += ["curves", settings.ssl_ecdh_curve] if settings.ssl_ecdh_curve != "auto" else []
        tls += ["allow-0rtt"] if settings.ssl_early_data else []
        tls += ["crt-ignore-err", "all", "ca-ignore-err", "all"]  # the rules of a host decide about its clients
        tls += ["prefer-client-ciphers"] if not settings.ssl_prefer_server_ciphers else []
        yield statement("bind", f"{address}:{host.https_port}", *v6only, *own, *tls)


def _trust(settings: Settings) -> Iterator[ConfigLine]:
    """Yield which neighbours are trusted: only these send a PROXY header, and only their headers are believed.

    This is decided when a connection is accepted: after a PROXY header, `src` is the address in it.
    """
    if not settings.trusts_some:
        return
    connection = ("tcp-request", "connection")
    for family, is_one in _FAMILIES.items():
        yield statement(*connection, "set-var(sess.family)", sample("str", family), when=is_one)
    listed = in_map(TRUSTED, "sess.family")
    yield statement(*connection, "set-var(sess.is_trusted)", sample("bool", "1"), when=listed)
    if settings.use_proxy_protocol:
        yield statement(*connection, "expect-proxy", "layer4", when=listed)


def _trusted(settings: Settings) -> tuple[Word, ...]:
    """Return the condition that what the neighbour says of the client is believed; empty if everybody is believed."""
    return is_set(sample("var", "sess.is_trusted")) if settings.trusts_some else ()


def _versions(settings: Settings) -> set[str]:
    return {"TLSv1.0" if name == "TLSv1" else name for name in settings.ssl_protocols}


def _addresses(defaults: HttpDefaults) -> list[str]:
    if bound := defaults.settings.bind_address:
        texts = [f"[{address}]" if ":" in address else address for address in bound]
        return [text for text in texts if defaults.has_ipv6 or not text.startswith("[")]
    return ["0.0.0.0", "[::]"] if defaults.has_ipv6 else ["0.0.0.0"]  # noqa: S104 - an ingress is asked by everybody


def _identity(defaults: HttpDefaults) -> Iterator[ConfigLine]:
    """Yield who the client is, and what it asked for as seen from outside."""
    settings = defaults.settings
    believes, trusted = settings.use_forwarded_headers, _trusted(settings)
    yield put("neighbour", sample("src"))
    if (believes or settings.enable_real_ip) and not settings.use_proxy_protocol:
        yield statement(_REQUEST, "lua.rulegen_client", settings.forwarded_for_header)
        yield answer(500, when=negated(is_set(variable("client"))))
        yield statement(_REQUEST, "set-src", variable("client"))
    # An IPv4 address in IPv6 notation, in a header of a proxy, is an IPv4 address, as with nginx.
    mapped = (*matches(sample("src"), "beg", "::ffff:"), *matches(sample("src"), "sub", "."))
    yield statement(_REQUEST, "set-src", sample("src").then("field", "4", ":"), when=mapped)
    for family, is_one in _FAMILIES.items():
        yield put_text("family", log_format(family), when=is_one)
    yield put("this_host", sample("req.fhdr", "host"))
    yield put("host", variable("this_host").then("host_only").then("lower").then("rtrim", "."))
    yield put("request_uri", sample("pathq"))
    yield put("raw_path", sample("path"))
    yield put_text("own_scheme", log_format("https"), when=("{", sample("ssl_fc"), "}"))
    yield put_text("own_scheme", log_format("http"), when=negated(is_set(variable("own_scheme"))))
    yield put("scheme", variable("own_scheme"))
    yield put("port", sample("dst_port"))
    yield put("best_host", variable("this_host"))
    yield put("redirect_host", variable("host"))
    if settings.use_proxy_protocol:
        yield put_text(
            "scheme", log_format("https"), when=(*matches(sample("dst_port"), "int", _HTTPS_OUTSIDE), *trusted)
        )
    if believes:
        for name, header in (("scheme", "X-Forwarded-Proto"), ("port", "X-Forwarded-Port")):
            yield put(name, sample("req.fhdr", header), when=(*is_set(sample("req.fhdr", header)), *trusted))
        header = settings.forwarded_host_header
        first = sample("req.hdr", header, "1")
        yield put("best_host", first, when=(*is_set(first), *trusted))
        yield put("redirect_host", first.then("host_only"), when=(*is_set(first), *trusted))
    if str(defaults.host.https_port) != _HTTPS_OUTSIDE:
        own = matches(variable("port"), "str", str(defaults.host.https_port))
        yield put_text("port", log_format(_HTTPS_OUTSIDE), when=own)
    yield put("id", sample("req.fhdr", "X-Request-ID"))
    if settings.generate_request_id:
        yield put("id", sample("uuid").then("regsub", "-", "", "g"), when=negated(is_set(variable("id"))))


def _route(slots: Iterable[str]) -> Iterator[ConfigLine]:
    """Yield how host and path of a request lead to the name of a location."""
    yield statement(_REQUEST, "lua.rulegen_path")
    yield answer(400, when=is_set(variable("is_bad")))
    hops = sample("req.fhdr", HOPS_HEADER)
    yield answer(508, when=matches(hops, "reg", f"(?:1[^1]*){{{MAX_HOPS}}}"))
    missing = negated(is_set(variable("server")))
    yield put("server", variable("host").then("map_str", HOSTS))
    yield put("server", variable("wildcard").then("map_str", HOSTS), when=missing)
    yield put_text("server", log_format(server_id("")), when=missing)
    yield put("place", variable("server").then("concat", "", "txn.key"))
    yield put("location", variable("place").then("map_str", EXACT))
    unknown = negated(is_set(variable("location")))
    yield put("slot", variable("server").then("map_str", SLOTS), when=unknown)
    for slot in slots:
        when = (*unknown, *matches(variable("slot"), "str", slot))
        yield put("expression", variable("path").then("map_reg", expressions_file(slot)), when=when)
    expression = variable("expression")
    yield answer(500, when=(*is_set(variable("slot")), *negated(is_set(expression))))  # PCRE gave up
    yield put("location", expression, when=(*is_set(expression), *negated(matches(expression, "str", NO_EXPRESSION))))
    yield put("location", variable("place").then("map_beg", PREFIX), when=unknown)
    yield put_text("location", log_format(NO_LOCATION), when=unknown)


def expressions_file(slot: str) -> str:
    """Return the path of a map of expressions."""
    return f"maps/expressions-{slot}.map"


def _blocked(settings: Settings) -> Iterator[ConfigLine]:
    """Yield which clients are turned away from every host, whatever its own lists say."""
    for name, patterns in (("user-agent", settings.block_user_agents), ("referer", settings.block_referers)):
        header = sample("req.fhdr", name)
        for pattern in patterns:
            if pattern.startswith("~"):
                without = certainly_without((pattern.removeprefix("~").removeprefix("*"), pattern.startswith("~*")))
                yield answer(403, when=(*is_set(header), *negated(matches(header, "reg", without))))
            else:
                yield answer(403, when=matches(header, "str", pattern))


def _request_headers(settings: Settings) -> Iterator[ConfigLine]:
    """Yield the headers that every backend is sent."""

    def set_header(name: str, value: SampleExpression, *, when: Iterable[Word] = ()) -> ConfigLine:
        return statement(_REQUEST, "set-header", name, log_format(value), when=when)

    yield from _connection_header()
    received = sample("req.fhdr", settings.forwarded_for_header)
    outside = sample("req.fhdr", "X-Forwarded-Host")
    for name, source in (("X-Original-Forwarded-For", received), ("X-Original-Forwarded-Host", outside)):
        yield statement(_REQUEST, "del-header", name)
        yield set_header(name, source, when=is_set(source))
    client = sample("src")
    if settings.use_forwarded_headers and settings.compute_full_forwarded_for:
        neighbour = sample("src") if settings.use_proxy_protocol else variable("neighbour")
        yield put_text("forwarded_for", log_format(neighbour))
        joined = log_format(received, ", ", neighbour)
        yield put_text("forwarded_for", joined, when=(*is_set(received), *_trusted(settings)))
        client = variable("forwarded_for")
    yield set_header("X-Request-ID", variable("id"), when=is_set(variable("id")))
    yield set_header("X-Real-IP", sample("src"))
    yield set_header("X-Forwarded-For", client)
    yield set_header("X-Forwarded-Host", variable("best_host"))
    yield set_header("X-Forwarded-Port", variable("port"))
    for name in ("X-Forwarded-Proto", "X-Forwarded-Scheme", "X-Scheme"):
        yield set_header(name, variable("scheme"))
    if settings.proxy_add_original_uri_header:
        yield set_header("X-Original-URI", variable("request_uri"))
    for name in ("X-Forwarded-Prefix", "Proxy"):
        yield statement(_REQUEST, "del-header", name)
    hops = sample("req.fhdr", HOPS_HEADER)
    yield statement(_REQUEST, "set-header", HOPS_HEADER, log_format(hops, " 1"), when=is_set(hops))
    yield statement(_REQUEST, "set-header", HOPS_HEADER, log_format("1"), when=negated(is_set(hops)))
    for name, text in settings.proxy_set_headers:
        yield statement(_REQUEST, "set-header", name, written(text))


def _connection_header() -> Iterator[ConfigLine]:
    """Yield that Connection names no header: a backend that is a proxy itself would drop it, whoever has set it."""
    connection, upgrade = sample("req.fhdr", "connection"), sample("req.fhdr", "upgrade")
    is_upgrade = (*is_set(upgrade), *matches(connection, "sub", "upgrade", ignores_case=True))
    yield put_text("upgrades", log_format("1"), when=is_upgrade)
    yield statement(_REQUEST, "set-header", "Connection", log_format("upgrade"), when=is_set(variable("upgrades")))
    yield statement(_REQUEST, "del-header", "Connection", when=negated(is_set(variable("upgrades"))))


def _answer_headers(settings: Settings) -> Iterator[ConfigLine]:
    """Yield the headers that every answer has, or has not."""
    if not settings.allow_backend_server_header:
        yield statement("http-response", "del-header", "Server")
    for name in settings.hide_headers:
        yield statement("http-response", "del-header", name)
    if settings.hsts:
        hsts = f"max-age={settings.hsts_max_age}"
        hsts += "; includeSubDomains" * settings.hsts_include_subdomains + "; preload" * settings.hsts_preload
        other = ("!{", variable("server"), "-m", "str", "--", server_id(""), "}")
        known = (*is_set(variable("server")), *other, "{", sample("ssl_fc"), "}")
        yield statement(_AFTER, "set-header", "Strict-Transport-Security", log_format(hsts), when=known)
    for name, text in settings.add_headers:
        yield statement(_AFTER, "set-header", name, written(text))
