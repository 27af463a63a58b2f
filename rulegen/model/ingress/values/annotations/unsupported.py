"""Annotations of all releases of ingress-nginx that have no effect in rulegen, each with the reason."""

from __future__ import annotations

from typing import Final

from rulegen.model.ingress.values.snippets.judgement import SnippetPlace
from rulegen.model.ingress.values.without_effect.names import OFF, NameKind, NoEffect, by_name

_SNIPPET: Final = "snippets are never used; one that may refuse requests closes "
_PATHS: Final = _SNIPPET + "the paths of the Ingress"
_MODULE: Final = "it needs a module that standard nginx packages do not have"
_MIRROR: Final = "use mirror-target, with a URL"
_SHARED: Final = "the request to the auth server always has the variables of the client's request"
_SUBSET: Final = "the hash selects among all servers"
_WAF: Final = "ingress-nginx removed this firewall in 0.26, and rulegen has none"
_GLOBAL_LIMIT: Final = "ingress-nginx removed limits over all nodes in 1.12; use limit-rps or limit-rpm, for each node"
_PASSIVE: Final = "nginx itself leaves out a server that fails, for a short time"
_BASE: Final = "nothing is written into pages; let the application know its base path"


def _missing(name: str, reason: str) -> NoEffect:
    return NoEffect(name, NameKind.MISSING, reason)


def _switch(name: str, reason: str) -> NoEffect:
    return NoEffect(name, NameKind.MISSING, reason, OFF)


def _protection(name: str, reason: str, fulfilled_by: tuple[str, ...] = ()) -> NoEffect:
    return NoEffect(name, NameKind.PROTECTION, reason, fulfilled_by)


def _replaced(name: str, reason: str, fulfilled_by: tuple[str, ...] = ()) -> NoEffect:
    return NoEffect(name, NameKind.REPLACED, reason, fulfilled_by)


UNSUPPORTED: Final = by_name(
    _missing("configuration-snippet", _PATHS),
    _missing("server-snippet", _SNIPPET + "its hosts, see below"),
    _missing("stream-snippet", "snippets are never used: nothing is served for it"),
    _missing("auth-snippet", _PATHS),
    _missing("modsecurity-snippet", _PATHS),
    _protection("enable-modsecurity", _MODULE, OFF),
    _protection("enable-owasp-core-rules", _MODULE, OFF),
    _missing("modsecurity-transaction-id", _MODULE),
    _switch("enable-opentelemetry", _MODULE),
    _missing("opentelemetry-trust-incoming-span", _MODULE),
    _missing("opentelemetry-operation-name", _MODULE),
    _protection(
        "ssl-passthrough",
        "TLS ends at nginx: clients get nginx's certificate, and the Service gets plain HTTP unless"
        ' backend-protocol is "HTTPS"; a Service that checks certificates of clients does not get them',
        OFF,
    ),
    NoEffect("auth-keepalive-share-vars", NameKind.DONE, _SHARED, OFF),
    _switch("upstream-hash-by-subset", _SUBSET),
    _missing("upstream-hash-by-subset-size", _SUBSET),
    NoEffect("http2-push-preload", NameKind.DONE, "browsers do not support HTTP/2 push any more", OFF),
    _protection("auth-tls-crl", "lists of revoked certificates are read from the key `ca.crl` of the Secret"),
    # Annotations of older releases, which 1.15 does not have.
    _switch("enable-opentracing", _MODULE),
    _missing("opentracing-trust-incoming-span", _MODULE),
    _switch("enable-influxdb", _MODULE),
    *(_missing(f"influxdb-{name}", _MODULE) for name in ("measurement", "port", "host", "server-name")),
    _missing("influxdb", _MODULE),
    _replaced("secure-backends", 'use backend-protocol: "HTTPS"', OFF),
    _replaced("grpc-backend", 'use backend-protocol: "GRPC"', OFF),
    _protection("secure-verify-ca-secret", 'use proxy-ssl-secret and proxy-ssl-verify: "on"'),
    _protection("secure-client-ca-secret", "use proxy-ssl-secret"),
    _replaced("session-cookie-hash", "the value of the cookie cannot be chosen; use session-cookie-name"),
    _replaced("upstream-max-fails", _PASSIVE),
    _replaced("upstream-fail-timeout", _PASSIVE),
    _replaced("mirror-uri", _MIRROR),
    _replaced("add-base-url", _BASE, OFF),
    _replaced("base-url-scheme", _BASE),
    _replaced("proxy-pass-params", "no parameters are added to the address of the Service"),
    _replaced("vts-filter-key", "counters of requests are not kept; use the access log"),
    _protection("lua-resty-waf", _WAF, (*OFF, "inactive")),
    *(
        _protection(f"lua-resty-waf-{name}", _WAF)
        for name in ("debug", "ignore-rulesets", "extra-rules", "score-threshold")
    ),
    *(_protection(f"lua-resty-waf-{name}", _WAF) for name in ("allow-unknown-content-types", "process-multipart-body")),
    _protection("global-rate-limit", _GLOBAL_LIMIT, ("", "0")),
    *(_protection(f"global-rate-limit-{name}", _GLOBAL_LIMIT) for name in ("window", "key", "ignored-cidrs")),
)
"""By name; those of the last release first."""

SNIPPETS: Final = {
    "configuration-snippet": SnippetPlace.LOCATION,
    "server-snippet": SnippetPlace.SERVER,
    "stream-snippet": SnippetPlace.ELSEWHERE,
    "auth-snippet": SnippetPlace.AUTH,
    "modsecurity-snippet": SnippetPlace.MODSECURITY,
}
"""Annotations that are snippets, each with the place to which ingress-nginx copies it."""
