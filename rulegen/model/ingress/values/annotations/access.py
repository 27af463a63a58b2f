"""Who may send requests, and how many: passwords, auth servers, networks, limits."""

from __future__ import annotations

from typing import Final

from rulegen.model.ingress.values import readers
from rulegen.model.ingress.values.annotations.annotation import CLOSE, NO_NAMES, NO_NETWORKS, Annotation
from rulegen.model.ingress.values.annotations.redirects import SAFE_VARIABLES, redirect
from rulegen.model.ingress.values.readers import boolean, choice, integer, quoted

AUTH_VARIABLES: Final = (*SAFE_VARIABLES, "escaped_request_uri", "server_name", "best_http_host", "pass_access_scheme")

_METHOD = choice("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
auth_url: Final = readers.url(*AUTH_VARIABLES)
_LIMIT = integer(1, 1_000_000)


def _cache_key(text: str) -> str:
    if not readers.re.match(r"[A-Za-z0-9_${}:|.,-]{1,500}\Z", text):
        raise ValueError(f"{quoted(text)} is not a key such as $remote_user$http_authorization")
    return text


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
    needs=(AUTH_TYPE,),
)
AUTH_SECRET_TYPE: Final = Annotation(
    "auth-secret-type",
    choice("auth-file", "auth-map"),
    "`auth-file` (key `auth`), `auth-map` (a key for each user)",
    CLOSE,
    default="auth-file",
)
AUTH_REALM: Final = Annotation(
    "auth-realm", _realm, "text of at most 400 characters, not `off`", CLOSE, default="", needs=(AUTH_TYPE,)
)
AUTH_URL: Final = Annotation(
    "auth-url",
    auth_url,
    "URL of the auth server; a Service's DNS name leads to its endpoints",
    CLOSE,
)
AUTH_METHOD: Final = Annotation("auth-method", _METHOD, "HTTP method", CLOSE, default="")
AUTH_SIGNIN: Final = Annotation(
    "auth-signin", auth_url, "URL of a redirect that replaces a 401", CLOSE, needs=(AUTH_URL,)
)
AUTH_SIGNIN_REDIRECT_PARAM: Final = Annotation(
    "auth-signin-redirect-param", readers.header_name, "default `rd`", CLOSE, default="rd"
)
AUTH_RESPONSE_HEADERS: Final = Annotation(
    "auth-response-headers",
    readers.settable_headers,
    "headers of its answer for the backend; no framing headers",
    CLOSE,
    default=NO_NAMES,
    needs=(AUTH_URL,),
)
AUTH_PROXY_SET_HEADERS: Final = Annotation(
    "auth-proxy-set-headers",
    readers.reference,
    "ConfigMap of the namespace with headers for the auth server",
    CLOSE,
    refers_to="ConfigMap",
)
AUTH_REQUEST_REDIRECT: Final = Annotation(
    "auth-request-redirect", redirect, "path or URL; variables of the request's URL", CLOSE, default=""
)
AUTH_ALWAYS_SET_COOKIE: Final = Annotation("auth-always-set-cookie", boolean, "`true`, `false`", CLOSE, default=False)
AUTH_CACHE_KEY: Final = Annotation(
    "auth-cache-key", _cache_key, "checked; answers are not cached, which is reported", CLOSE
)
ENABLE_GLOBAL_AUTH: Final = Annotation("enable-global-auth", boolean, "`true`, `false`", CLOSE, default=True)
WHITELIST_SOURCE_RANGE: Final = Annotation("whitelist-source-range", readers.networks, "networks", CLOSE)
ALLOWLIST_SOURCE_RANGE: Final = Annotation(
    "allowlist-source-range", readers.networks, "networks; has priority over the other name", CLOSE
)
DENYLIST_SOURCE_RANGE: Final = Annotation(
    "denylist-source-range", readers.networks, "networks", CLOSE, default=NO_NETWORKS
)
SATISFY: Final = Annotation(
    "satisfy",
    choice("any", "all"),
    "`all` (default), `any`",
    CLOSE,
    default="all",
    needs=(AUTH_TYPE, AUTH_URL, WHITELIST_SOURCE_RANGE, ALLOWLIST_SOURCE_RANGE),
)
LIMIT_RPS: Final = Annotation("limit-rps", _LIMIT, "requests a second", default=0)
LIMIT_RPM: Final = Annotation("limit-rpm", _LIMIT, "requests a minute", default=0)
LIMIT_CONNECTIONS: Final = Annotation("limit-connections", integer(1, 65535), "connections at a time", default=0)
LIMIT_BURST_MULTIPLIER: Final = Annotation("limit-burst-multiplier", integer(1, 1000), "default 5", default=5)
LIMIT_RATE: Final = Annotation(
    "limit-rate", integer(0, 1 << 21), "KiB a second for each answer; needs `proxy-buffering: on`", default=0
)
LIMIT_RATE_AFTER: Final = Annotation(
    "limit-rate-after", integer(0, 1 << 21), "KiB sent before `limit-rate` applies", default=0
)
LIMIT_WHITELIST: Final = Annotation("limit-whitelist", readers.networks, "networks")
LIMIT_ALLOWLIST: Final = Annotation("limit-allowlist", readers.networks, "networks; has priority over the other name")
