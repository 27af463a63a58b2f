"""Access control: passwords, auth servers, networks and limits."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from rulegen.model.ingress.values import readers
from rulegen.model.ingress.values.annotations.annotation import CLOSE, NO_NAMES, NO_NETWORKS, Annotation
from rulegen.model.ingress.values.annotations.redirects import plain_redirect
from rulegen.model.ingress.values.annotations.signin import signin_url
from rulegen.model.ingress.values.empty import unless_empty
from rulegen.model.ingress.values.readers import boolean, choice, integer, quoted
from rulegen.model.ingress.values.texts import IN_KEYS, IN_URLS, Subject, Text, read_text

if TYPE_CHECKING:
    from collections.abc import Callable

_METHOD = choice("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
auth_url: Final = readers.url(frozenset({Subject.HOST}), IN_URLS)
Kept = tuple[tuple[tuple[int, ...], int], ...]
"""Statuses of the auth server, each list with the seconds that such an answer is kept."""
DEFAULT_KEPT: Final[Kept] = (((200, 202, 401), 300),)
_MOST_REQUESTS: Final = 1_000_000


def _limit(most: int) -> Callable[[str], int]:
    """Return a reader of limits: zero or a negative number means no limit; larger numbers are reduced to `most`."""
    return unless_empty(partial(_read_limit, most))


def _read_limit(most: int, text: str) -> int:
    if not readers.re.match(r"[+-]?[0-9]{1,18}\Z", text):
        raise ValueError(f"{quoted(text)} is not a whole number")
    return min(max(int(text), 0), most)


_OF_CLIENTS: Final = frozenset(
    {Subject.HEADER, Subject.COOKIE, Subject.PARAMETER, Subject.QUERY}
    | {Subject.CLIENT_ADDRESS, Subject.CLIENT_ADDRESS_BYTES, Subject.FORWARDED_FOR, Subject.PROXIED_ADDRESS}
    | {Subject.TLS_CLIENT_SUBJECT, Subject.TLS_CLIENT_SERIAL, Subject.TLS_CLIENT_FINGERPRINT}
)
_KEPT: Final = readers.re.compile(
    r"(?P<codes>(?:[1-5][0-9]{2} +)*)(?P<times>[0-9]{1,7}(?:ms|[smhdwMy])(?: +[0-9]{1,7}(?:ms|[smhdwMy]))*)"
)
_UNITS_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800, "M": 2_592_000, "y": 31_536_000}
_MOST_KEPT_S: Final = 31_536_000


def _cache_key(text: str) -> Text:
    """Return what a kept answer of the auth server holds for. It must distinguish clients."""
    if not text:
        return Text()
    if not readers.re.match(r"[A-Za-z0-9_${}:|.,-]{1,500}\Z", text):
        raise ValueError(f"{quoted(text)} is not a key such as $remote_user$http_authorization")
    key = read_text(text, IN_KEYS)
    if _OF_CLIENTS.isdisjoint(key.subjects):
        raise ValueError(
            f"{quoted(text)} has no variable that distinguishes clients, such as $http_authorization: the answer for"
            " one of them would be used for all"
        )
    return key


def _cache_durations(text: str) -> Kept:
    """Return statuses of the auth server, each list with the seconds that such an answer is kept."""
    results = []
    for entry in readers.items(text):
        match = _KEPT.fullmatch(entry)
        if match is None:
            raise ValueError(f"{quoted(entry)} is not a list of status codes and a time such as 200 401 5m")
        seconds = sum(
            0 if part.endswith("ms") else int(part[:-1]) * _UNITS_S[part[-1]] for part in match["times"].split()
        )
        results.append((tuple(map(int, match["codes"].split())), min(seconds, _MOST_KEPT_S)))
    return tuple(results) or DEFAULT_KEPT


def _realm(text: str) -> str:
    if text == "off":
        raise ValueError('"off" is not allowed: nginx would switch authentication off')
    if len(text) > 400:
        raise ValueError(f"{quoted(text)} is longer than 400 characters")
    return readers.header_text(text)


AUTH_TYPE: Final = Annotation(
    "auth-type", choice("basic"), "`basic`; `digest` is not supported, because it needs a module", CLOSE
)
AUTH_SECRET: Final = Annotation(
    "auth-secret",
    readers.reference,
    "Secret of the namespace; hashes as below",
    CLOSE,
    refers_to="Secret",
)
AUTH_SECRET_TYPE: Final = Annotation(
    "auth-secret-type",
    choice("auth-file", "auth-map"),
    "`auth-file` (key `auth`), `auth-map` (a key for each user)",
    CLOSE,
    default="auth-file",
)
AUTH_REALM: Final = Annotation("auth-realm", _realm, "text of at most 400 characters, not `off`", CLOSE, default="")
AUTH_URL: Final = Annotation(
    "auth-url",
    auth_url,
    "URL of the auth server; a Service's DNS name leads to its endpoints",
    CLOSE,
)
AUTH_METHOD: Final = Annotation("auth-method", _METHOD, "HTTP method", CLOSE, default="")
AUTH_SIGNIN: Final = Annotation("auth-signin", signin_url, "URL or path of a redirect that replaces a 401", CLOSE)
AUTH_SIGNIN_REDIRECT_PARAM: Final = Annotation(
    "auth-signin-redirect-param", readers.header_name, "default `rd`", CLOSE, default="rd"
)
AUTH_RESPONSE_HEADERS: Final = Annotation(
    "auth-response-headers",
    readers.settable_headers,
    "headers of the auth server's answer that the backend gets; no framing headers",
    CLOSE,
    default=NO_NAMES,
)
AUTH_PROXY_SET_HEADERS: Final = Annotation(
    "auth-proxy-set-headers",
    readers.reference,
    "ConfigMap of the namespace with headers for the auth server",
    CLOSE,
    refers_to="ConfigMap",
)
AUTH_REQUEST_REDIRECT: Final = Annotation(
    "auth-request-redirect", plain_redirect, "path or URL; variables of the request's URL", CLOSE, default=Text()
)
AUTH_ALWAYS_SET_COOKIE: Final = Annotation("auth-always-set-cookie", boolean, "`true`, `false`", CLOSE, default=False)
AUTH_CACHE_KEY: Final = Annotation(
    "auth-cache-key",
    _cache_key,
    "text with variables of the request, one of which distinguishes clients; for the same text, host and path, an"
    " answer of the auth server is reused",
    CLOSE,
    default=Text(),
)
AUTH_CACHE_DURATION: Final = Annotation(
    "auth-cache-duration",
    _cache_durations,
    "list of status codes with a time, default `200 202 401 5m`; the auth server's `Cache-Control` has priority",
    CLOSE,
    default=DEFAULT_KEPT,
)
AUTH_KEEPALIVE: Final = Annotation(
    "auth-keepalive",
    _limit(10_000),
    "idle connections to an auth server that is a Service and answers without a body, for each worker; 0: none;"
    " default: `upstream-keepalive-connections`",
)
AUTH_KEEPALIVE_REQUESTS: Final = Annotation(
    "auth-keepalive-requests",
    _limit(10_000_000),
    "requests over such a connection; below 1: none is kept",
    default=1000,
)
AUTH_KEEPALIVE_TIMEOUT: Final = Annotation(
    "auth-keepalive-timeout", _limit(readers.MAX_TIME_S), "seconds; below 1: none is kept", default=60
)
ENABLE_GLOBAL_AUTH: Final = Annotation("enable-global-auth", boolean, "`true`, `false`", default=True, is_exact=True)
WHITELIST_SOURCE_RANGE: Final = Annotation("whitelist-source-range", readers.networks, "networks", CLOSE)
ALLOWLIST_SOURCE_RANGE: Final = Annotation(
    "allowlist-source-range", readers.networks, "networks; has priority over the other name", CLOSE
)
DENYLIST_SOURCE_RANGE: Final = Annotation(
    "denylist-source-range",
    unless_empty(readers.networks),
    "networks; an empty list refuses no client",
    CLOSE,
    default=NO_NETWORKS,
)
SATISFY: Final = Annotation(
    "satisfy",
    choice("any", "all"),
    "`all` (default), `any`",
    CLOSE,
    default="all",
)
LIMIT_RPS: Final = Annotation("limit-rps", _limit(_MOST_REQUESTS), "requests a second; 0: no limit", CLOSE, default=0)
LIMIT_RPM: Final = Annotation("limit-rpm", _limit(_MOST_REQUESTS), "requests a minute; 0: no limit", CLOSE, default=0)
LIMIT_CONNECTIONS: Final = Annotation(
    "limit-connections", _limit(65535), "connections at a time; 0: no limit", CLOSE, default=0
)
LIMIT_BURST_MULTIPLIER: Final = Annotation(
    "limit-burst-multiplier", integer(0, 1000), "default 5; 0: not even one request above the limit", default=5
)
LIMIT_RATE: Final = Annotation(
    "limit-rate", _limit(1 << 21), "KiB a second for each answer, 0: any; needs `proxy-buffering: on`"
)
LIMIT_RATE_AFTER: Final = Annotation("limit-rate-after", _limit(1 << 21), "KiB sent before `limit-rate` applies")
LIMIT_WHITELIST: Final = Annotation("limit-whitelist", readers.networks, "networks")
LIMIT_ALLOWLIST: Final = Annotation("limit-allowlist", readers.networks, "networks; has priority over the other name")
