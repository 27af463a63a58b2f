"""Headers of requests and responses, CORS among them."""

from __future__ import annotations

from typing import Final

from rulegen.model.ingress.values import readers
from rulegen.model.ingress.values.annotations.annotation import CLOSE, Annotation
from rulegen.model.ingress.values.empty import unless_empty
from rulegen.model.ingress.values.readers import boolean, choice, quoted
from rulegen.model.ingress.values.setting import PartialValueError
from rulegen.model.ingress.values.texts import IN_HOSTS, Text, literal, read_text

_ANY_ORIGIN: Final[tuple[str, ...]] = ("*",)
_WITHOUT_SCHEME: Final = ("*", "null")
CORS_METHODS: Final = "GET, PUT, POST, DELETE, PATCH, OPTIONS"
CORS_HEADERS: Final = (
    "DNT,Keep-Alive,User-Agent,X-Requested-With,If-Modified-Since,Cache-Control,Content-Type,Range,Authorization"
)
CORS_MAX_AGE_S: Final = 1728000


_METHOD: Final = readers.re.compile(r"(?:[A-Za-z][A-Za-z-]{0,39}|\*)\Z")


def _exposed(text: str) -> str:
    items = readers.items(text.replace(" ", ","))
    names = dict.fromkeys(item if item == "*" else readers.header_name(item) for item in items)
    return readers.writable(", ".join(names))


def _allowed(text: str) -> str:
    # Browsers read `*` literally in requests with credentials, which are the default.
    return CORS_HEADERS if text == "*" else readers.writable(", ".join(readers.header_names(text.replace(" ", ","))))


def _methods(text: str) -> str:
    methods = tuple(dict.fromkeys(readers.items(text.replace(" ", ","))))
    if not 1 <= len(methods) <= 50 or not all(_METHOD.match(method) for method in methods):
        raise ValueError(f"{quoted(text)} is not a list of methods such as GET, PROPFIND")
    return ", ".join(methods)


def _origins(text: str) -> tuple[str, ...]:
    """Return the origins of a list.

    Raises:
        PartialValueError: Some of them have no scheme, so no browser sends them. The others are allowed.
    """
    origins = dict.fromkeys(_origin(part) for part in readers.items(text))
    if not 1 <= len(origins) <= 100:
        raise ValueError(f"{quoted(text)} is not a list of 1 to 100 origins")
    usable = tuple(origin for origin in origins if "://" in origin or origin in _WITHOUT_SCHEME)
    without = [origin for origin in origins if origin not in usable]
    if without and not usable:
        raise ValueError(f"{quoted(without[0])} has no scheme such as https://")
    if without and "*" not in usable:
        raise PartialValueError(usable, f"{quoted(without[0])} has no scheme such as https://: it is not allowed")
    return usable


def _origin(text: str) -> str:
    known = readers.re.match(r"(?:([a-z][a-z0-9+.-]{0,20})://)?(\*\.)?([A-Za-z0-9.-]{1,253})(?::([0-9]{1,5}))?\Z", text)
    if text in _WITHOUT_SCHEME or (known and readers.is_host(known[3]) and int(known[4] or 1) in range(1, 65536)):
        return text
    raise ValueError(f"{quoted(text)} is not an origin such as https://app.example.com:8080 or https://*.example.com")


def _vhost(text: str) -> Text:
    if "$" not in text and "_" not in text:
        return literal(readers.host_and_port(text))
    if not readers.re.match(r"[A-Za-z0-9._:\[\]${}-]{1,500}\Z", text):
        raise ValueError(f"{quoted(text)} is not the name of a host")
    return read_text(text, IN_HOSTS, captures=True)


def _prefix(text: str) -> Text:
    if "$" not in text:
        return literal(readers.path(text))
    if not readers.re.match(r"(?!//)[/$][A-Za-z0-9._~!&'()*+,;=:@%/${}-]{0,1000}\Z", text):
        raise ValueError(f"{quoted(text)} is not a path such as /app/$1")
    return read_text(text, IN_HOSTS, captures=True)


ENABLE_CORS: Final = Annotation("enable-cors", boolean, "`true`, `false`", default=False)
CORS_ALLOW_ORIGIN: Final = Annotation(
    "cors-allow-origin",
    unless_empty(_origins),
    "origins with a scheme, also `https://*.name`; an invalid one disables CORS",
    default=_ANY_ORIGIN,
)
CORS_ALLOW_METHODS: Final = Annotation("cors-allow-methods", unless_empty(_methods), "methods", default=CORS_METHODS)
CORS_ALLOW_HEADERS: Final = Annotation(
    "cors-allow-headers", unless_empty(_allowed), "headers; `*`: the default list", default=CORS_HEADERS
)
CORS_EXPOSE_HEADERS: Final = Annotation("cors-expose-headers", unless_empty(_exposed), "headers, or `*`", default="")
CORS_ALLOW_CREDENTIALS: Final = Annotation("cors-allow-credentials", boolean, "`true`, `false`", default=True)
CORS_MAX_AGE: Final = Annotation(
    "cors-max-age", readers.whole_number(-2_147_483_647, 2_147_483_647), "seconds", default=CORS_MAX_AGE_S
)
CUSTOM_HEADERS: Final = Annotation(
    "custom-headers",
    readers.reference,
    "ConfigMap with headers that `global-allowed-response-headers` allows; closed if it is missing or has others",
    CLOSE,
    refers_to="ConfigMap",
)
UPSTREAM_VHOST: Final = Annotation(
    "upstream-vhost",
    _vhost,
    "the header Host for the backend; names of hosts, headers, namespace and Service as variables; captures",
    default=Text(),
)
X_FORWARDED_PREFIX: Final = Annotation(
    "x-forwarded-prefix",
    _prefix,
    "path, with captures and the same variables; only together with `rewrite-target`",
    default=Text(),
)
CONNECTION_PROXY_HEADER: Final = Annotation(
    "connection-proxy-header",
    choice("keep-alive", "close", "upgrade", "Upgrade"),
    "`keep-alive`, `close`, `upgrade`",
    default="",
)
