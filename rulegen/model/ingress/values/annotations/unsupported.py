"""Annotations that are known and have no effect here, each with the reason."""

from __future__ import annotations

from typing import Final, NamedTuple

from rulegen.model.ingress.values.snippets.judgement import SnippetPlace


class Unsupported(NamedTuple):
    """One annotation without effect.

    Attributes:
        reason: Why it has none.
        protects: Whether it protects where it has an effect: its user must be warned more clearly.
        snippet: Where ingress-nginx copies it to, if it is a snippet: one that may protect closes what it guards.
    """

    name: str
    reason: str
    protects: bool = False
    snippet: SnippetPlace | None = None


_SNIPPET: Final = "snippets are never used; one that may keep requests out closes "
_PATHS: Final = _SNIPPET + "the paths of the Ingress"
_MODULE: Final = "needs a module that standard nginx packages do not have"
_MIRROR: Final = "requests are not mirrored"
_KEEPALIVE: Final = "each request to the auth server uses a new connection"
_SUBSET: Final = "the hash selects among all servers"

_ROWS: Final = (
    Unsupported("configuration-snippet", _PATHS, snippet=SnippetPlace.LOCATION),
    Unsupported("server-snippet", _SNIPPET + "its hosts, see below", snippet=SnippetPlace.SERVER),
    Unsupported("stream-snippet", "snippets are never used: nothing is served for it", snippet=SnippetPlace.ELSEWHERE),
    Unsupported("auth-snippet", _PATHS, snippet=SnippetPlace.AUTH),
    Unsupported("modsecurity-snippet", _PATHS, snippet=SnippetPlace.MODSECURITY),
    Unsupported("enable-modsecurity", _MODULE, protects=True),
    Unsupported("enable-owasp-core-rules", _MODULE, protects=True),
    Unsupported("modsecurity-transaction-id", _MODULE),
    Unsupported("enable-opentelemetry", _MODULE),
    Unsupported("opentelemetry-trust-incoming-span", _MODULE),
    Unsupported("opentelemetry-operation-name", _MODULE),
    Unsupported("enable-opentracing", _MODULE),
    Unsupported("ssl-passthrough", _MODULE),
    Unsupported("mirror-target", _MIRROR),
    Unsupported("mirror-host", _MIRROR),
    Unsupported("mirror-request-body", _MIRROR),
    Unsupported(
        "auth-cache-duration", "answers of the auth server are not cached: each request causes a request to it"
    ),
    Unsupported("auth-keepalive", _KEEPALIVE),
    Unsupported("auth-keepalive-share-vars", _KEEPALIVE),
    Unsupported("auth-keepalive-requests", _KEEPALIVE),
    Unsupported("auth-keepalive-timeout", _KEEPALIVE),
    Unsupported("upstream-hash-by-subset", _SUBSET),
    Unsupported("upstream-hash-by-subset-size", _SUBSET),
    Unsupported("http2-push-preload", "browsers do not support HTTP/2 push any more"),
    Unsupported(
        "auth-tls-crl", "lists of revoked certificates are read from the key `ca.crl` of the Secret", protects=True
    ),
    Unsupported("influxdb", _MODULE),
    Unsupported(
        "affinity-canary-behavior", "a client with a balanced cookie keeps its side: the canary or the main path"
    ),
    Unsupported("session-cookie-conditional-samesite-none", "current browsers do not need it"),
)

UNSUPPORTED: Final = {row.name: row for row in _ROWS}
"""By name."""
