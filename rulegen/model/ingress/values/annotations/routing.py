"""Routing: rewrites, redirects, aliases, error pages and canaries."""

from __future__ import annotations

from typing import Final

from rulegen.model.ingress.values import readers, regex
from rulegen.model.ingress.values.annotations.annotation import NO_NAMES, REJECT, Annotation
from rulegen.model.ingress.values.annotations.redirects import redirect
from rulegen.model.ingress.values.empty import unless_empty
from rulegen.model.ingress.values.readers import boolean, integer, quoted, whole_number


def _rewrite(text: str) -> str:
    if not readers.re.match(r"(?:/|\$[1-9])[A-Za-z0-9._~!&()*+,=:@%/?$-]{0,1000}\Z", text) or text.startswith("//"):
        raise ValueError(f"{quoted(text)} is not a path such as /app/$1")
    rest = readers.re.sub(r"\$[1-9](?![0-9A-Za-z_])", "", text)
    if "$" in rest:
        raise ValueError(f"{quoted(text)}: only the captures $1 to $9 may be used as variables")
    return text


def _matched_text(text: str) -> str:
    """Return a text for use in an expression, where escaping makes it up to four times as long."""
    if len(text) > 800:
        raise ValueError(f"{quoted(text)} is longer than 800 characters")
    return readers.header_text(text)


_ANY_NUMBER: Final = whole_number(-2_147_483_647, 2_147_483_647)

USE_REGEX: Final = Annotation("use-regex", boolean, "`true`, `false`; for the whole host, see above", default=False)
REWRITE_TARGET: Final = Annotation(
    "rewrite-target", unless_empty(_rewrite), "path, with captures `$1`–`$9`; means use-regex", REJECT, default=""
)
APP_ROOT: Final = Annotation(
    "app-root", unless_empty(readers.path), "path; requests for `/` are redirected to it with 302", REJECT, default=""
)
PERMANENT_REDIRECT: Final = Annotation(
    "permanent-redirect", unless_empty(redirect), "path or URL; variables of the request's URL, captures", REJECT
)
PERMANENT_REDIRECT_CODE: Final = Annotation(
    "permanent-redirect-code", integer(300, 308), "300–308, default 301", default=301
)
TEMPORAL_REDIRECT: Final = Annotation(
    "temporal-redirect", unless_empty(redirect), "path or URL; variables of the request's URL, captures", REJECT
)
TEMPORAL_REDIRECT_CODE: Final = Annotation(
    "temporal-redirect-code", integer(300, 308), "300–308, default 302", default=302
)
RELATIVE_REDIRECTS: Final = Annotation("relative-redirects", boolean, "`true`, `false`")
SERVER_ALIAS: Final = Annotation(
    "server-alias",
    readers.hosts,
    "names, also `*.name`; no expressions; no name that is a host itself",
    default=NO_NAMES,
)
FROM_TO_WWW_REDIRECT: Final = Annotation("from-to-www-redirect", boolean, "`true`, `false`", default=False)
DEFAULT_BACKEND: Final = Annotation(
    "default-backend",
    readers.name,
    "a Service of the namespace; used if there are no endpoints, and for `custom-http-errors`",
    default="",
)
CUSTOM_HTTP_ERRORS: Final = Annotation(
    "custom-http-errors", readers.error_codes, "codes 300–599 except 499; needs a default backend"
)
DISABLE_PROXY_INTERCEPT_ERRORS: Final = Annotation(
    "disable-proxy-intercept-errors",
    boolean,
    "`true`, `false`; if `true`, only errors of nginx itself are replaced",
    default=False,
)
SERVICE_UPSTREAM: Final = Annotation("service-upstream", boolean, "`true`, `false`; the ClusterIP instead of the pods")
CANARY: Final = Annotation("canary", boolean, "`true`, `false`", REJECT, default=False)
CANARY_BY_HEADER: Final = Annotation(
    "canary-by-header",
    readers.header_name,
    "name of a header; its values `always` and `never` decide",
    REJECT,
    default="",
)
CANARY_BY_HEADER_VALUE: Final = Annotation(
    "canary-by-header-value", _matched_text, "the value that selects the canary", REJECT, default=""
)
CANARY_BY_HEADER_PATTERN: Final = Annotation(
    "canary-by-header-pattern",
    regex.check,
    "regular expression; if invalid, requests with the header go to the main Ingress",
    default="",
)
CANARY_BY_COOKIE: Final = Annotation(
    "canary-by-cookie",
    readers.cookie_name,
    "name of a cookie, case-insensitive; its values `always` and `never` decide",
    REJECT,
    default="",
)
CANARY_WEIGHT: Final = Annotation(
    "canary-weight",
    _ANY_NUMBER,
    "share of the total, in steps of 0.01 %; a smaller share above 0 counts as 0.01 %; 0 and less: no requests",
    REJECT,
    default=0,
)
CANARY_WEIGHT_TOTAL: Final = Annotation(
    "canary-weight-total", _ANY_NUMBER, "default: 100; less counts as 100", REJECT, default=100
)
