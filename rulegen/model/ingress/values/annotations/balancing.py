"""Load balancing and session affinity."""

from __future__ import annotations

from typing import Final

from rulegen.model.ingress.values import readers
from rulegen.model.ingress.values.annotations.annotation import NO_NAMES, Annotation
from rulegen.model.ingress.values.readers import boolean, choice, integer, path, quoted, seconds, words
from rulegen.model.ingress.values.texts import IN_KEYS, Text, read_text

_CAUSES: Final = (
    "conn-failure",
    "empty-response",
    "junk-response",
    "response-timeout",
    *(str(code) for code in (401, 403, 404, 408, 425, 500, 501, 502, 503, 504)),
)
"""Causes of a retry, as HAProxy calls them."""


def _age(text: str) -> int:
    """Return seconds; with a negative number, clients delete the cookie at once."""
    if text.startswith(("-", "+")):
        return readers.whole_number(-readers.MAX_TIME_S, readers.MAX_TIME_S)(text)
    return integer(0, 2_147_483_647)(text) if text.isdigit() else seconds(text)


def _own_path(text: str) -> str:
    """Return the path of a session cookie. A semicolon is rejected, as it would start another attribute (RFC 6265)."""
    if ";" in text:
        raise ValueError(f"{quoted(text)} is not a path such as /app")
    return readers.cookie_path(text)


def _same_site(text: str) -> str:
    return choice("None", "Lax", "Strict")(text.capitalize())


def _hash_key(text: str) -> Text:
    if not readers.re.match(r"[A-Za-z0-9_${}:|.,-]{1,200}\Z", text) or "$" not in text:
        raise ValueError(f"{quoted(text)} is not a key such as $request_uri or $http_x_user")
    return read_text(text, IN_KEYS)


LOAD_BALANCE: Final = Annotation(
    "load-balance",
    choice("round_robin", "ewma", "least_conn", "ip_hash"),
    "`round_robin`, `ewma` (of two random endpoints, the one with fewer connections), `least_conn`, `ip_hash`",
    default="",
)
UPSTREAM_HASH_BY: Final = Annotation(
    "upstream-hash-by", _hash_key, "text with variables of the request; a consistent hash", default=Text()
)
AFFINITY: Final = Annotation("affinity", choice("cookie"), "`cookie`", default="")
AFFINITY_MODE: Final = Annotation(
    "affinity-mode",
    choice("balanced", "persistent"),
    "`balanced` (a consistent hash of the cookie) or `persistent` (the cookie names the endpoint)",
    default="balanced",
)
AFFINITY_CANARY_BEHAVIOR: Final = Annotation(
    "affinity-canary-behavior",
    choice("sticky", "legacy"),
    "of a canary: `sticky` (a client with a cookie stays with the canary or the main Ingress) or `legacy` (no cookie"
    " leads to the canary)",
    default="sticky",
)
SESSION_COOKIE_NAME: Final = Annotation(
    "session-cookie-name", readers.cookie_name, "default `INGRESSCOOKIE`", default="INGRESSCOOKIE"
)
SESSION_COOKIE_PATH: Final = Annotation(
    "session-cookie-path", _own_path, "default: the path of the Ingress", default=""
)
SESSION_COOKIE_DOMAIN: Final = Annotation("session-cookie-domain", readers.cookie_domain, "domain", default="")
SESSION_COOKIE_EXPIRES: Final = Annotation(
    "session-cookie-expires", _age, "seconds, also negative; becomes Max-Age", default=0
)
SESSION_COOKIE_MAX_AGE: Final = Annotation(
    "session-cookie-max-age",
    _age,
    "seconds, also negative; has priority over `session-cookie-expires`",
)
SESSION_COOKIE_SAMESITE: Final = Annotation(
    "session-cookie-samesite", _same_site, "`None`, `Lax`, `Strict`", default=""
)
SESSION_COOKIE_CONDITIONAL_SAMESITE_NONE: Final = Annotation(
    "session-cookie-conditional-samesite-none",
    boolean,
    "`true`, `false`: `SameSite=None` is not sent to old browsers that reject such a cookie",
    default=False,
)
SESSION_COOKIE_CHANGE_ON_FAILURE: Final = Annotation(
    "session-cookie-change-on-failure",
    boolean,
    "`true`, `false`; the cookie never changes, and a note reports this",
    default=False,
)
SESSION_COOKIE_SECURE: Final = Annotation(
    "session-cookie-secure",
    boolean,
    "`true`: the cookie always has the attribute Secure; `false`: only over HTTPS",
    default=False,
)
SESSION_COOKIE_PARTITIONED: Final = Annotation(
    "session-cookie-partitioned", boolean, "`true`, `false`: the attribute Partitioned", default=False
)
HEALTH_CHECK_PATH: Final = Annotation(
    "health-check-path",
    path,
    "HAProxy only: path that is requested from each endpoint; endpoints that do not answer 200-399 get no requests",
    default="",
    only_with="haproxy",
)
HEALTH_CHECK_INTERVAL: Final = Annotation(
    "health-check-interval",
    integer(1, 3600),
    "HAProxy only: seconds between two checks",
    default=2,
    only_with="haproxy",
)
SLOW_START: Final = Annotation(
    "slow-start",
    integer(0, 3600),
    "HAProxy only: seconds until an endpoint that is healthy again gets its full share; needs `health-check-path`",
    default=0,
    only_with="haproxy",
)
MAX_CONNECTIONS: Final = Annotation(
    "max-connections",
    integer(1, 1_000_000),
    "HAProxy only: maximum number of concurrent requests to an endpoint; others wait in a queue, for"
    " `proxy-connect-timeout` at most",
    default=0,
    only_with="haproxy",
)
RETRY_ON: Final = Annotation(
    "retry-on",
    words(*_CAUSES),
    "HAProxy only, in place of `proxy-next-upstream`: " + ", ".join(f"`{cause}`" for cause in _CAUSES),
    default=NO_NAMES,
    only_with="haproxy",
)
