"""The annotations of an Ingress: which there are, how each is read, and what follows where it cannot be read."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from difflib import get_close_matches
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from rulegen.model.ingress.reasons import Reason, Verdict
from rulegen.model.ingress.unread import UnreadError
from rulegen.model.ingress.values import readers, regex
from rulegen.model.ingress.values.readers import boolean, choice, integer, quoted, seconds, size
from rulegen.model.ingress.values.settings import NEXT_UPSTREAM, PROTOCOLS

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

DEFAULT_PREFIX: Final = "nginx.ingress.kubernetes.io"
SERVICE_PREFIX: Final = "rulegen.io/"
MAX_UNKNOWN: Final = 50
"""Annotations of one Ingress that nobody knows and that are told one by one."""

SAFE_VARIABLES: Final = ("args", "host", "http_host", "is_args", "query_string", "request_uri", "scheme")
"""Variables that a redirect may hold: what the client sent as its URL, and nothing that it keeps to itself."""
AUTH_VARIABLES: Final = (*SAFE_VARIABLES, "escaped_request_uri", "server_name", "best_http_host", "pass_access_scheme")
HASH_VARIABLES: Final = (
    "arg_",
    "args",
    "binary_remote_addr",
    "cookie_",
    "host",
    "http_",
    "query_string",
    "remote_addr",
    "remote_port",
    "request_uri",
    "scheme",
    "server_name",
    "uri",
)


class Onset(enum.Enum):
    """What follows from a value that cannot be read."""

    IGNORE = Verdict.IGNORED
    CLOSE = Verdict.CLOSED
    REJECT = Verdict.REJECTED


class AnnotationRule(NamedTuple):
    """How one annotation is read."""

    read: Callable[[str], Any]
    onset: Onset = Onset.IGNORE


def _redirect(text: str) -> str:
    if text.startswith("/") and not text.startswith("//"):
        readers.check_variables(text, SAFE_VARIABLES)
        if not readers.re.match(r"[A-Za-z0-9._~:/?#@!&'()*+,;=%${}-]{1,2000}\Z", text):
            raise ValueError(f"{quoted(text)} is not a path such as /new")
        return text
    return readers.url(*SAFE_VARIABLES)(text).text


def _rewrite(text: str) -> str:
    if not readers.re.match(r"(?:/|\$[1-9])[A-Za-z0-9._~!&()*+,=:@%/?$-]{0,1000}\Z", text) or text.startswith("//"):
        raise ValueError(f"{quoted(text)} is not a path such as /app/$1")
    rest = readers.re.sub(r"\$[1-9](?![0-9A-Za-z_])", "", text)
    if "$" in rest:
        raise ValueError(f"{quoted(text)}: of variables only the captures $1 to $9 may be used")
    return text


def _tuple_of_two(reader: Callable[[str], str]) -> Callable[[str], tuple[str, str] | None]:
    def read(text: str) -> tuple[str, str] | None:
        if text in {"off", "default"}:
            return None
        parts = text.split()
        if len(parts) != 2:
            raise ValueError(f'{quoted(text)} is neither "off" nor two words: what is replaced, and by what')
        return reader(parts[0]), reader(parts[1])

    return read


def _cookie_path(text: str) -> str:
    if not readers.re.match(r"/[A-Za-z0-9._~!&'()*+,=:@%/-]{0,500}\Z", text):
        raise ValueError(f"{quoted(text)} is not a path such as /app")
    return text


def _own_path(text: str) -> str:
    """Return the path of a cookie of our own; a semicolon in it would begin another attribute (RFC 6265)."""
    if ";" in text:
        raise ValueError(f"{quoted(text)} is not a path such as /app")
    return _cookie_path(text)


def _redirect_part(text: str) -> str:
    if text in {"off", "default"}:
        return text
    return _cookie_path(text) if text.startswith("/") else readers.url()(text).text


def _cookie_domain(text: str) -> str:
    return readers.host(text.removeprefix("."))


def _proxy_protocols(text: str) -> str:
    return " ".join(choice("SSLv2", "SSLv3", *PROTOCOLS)(word) for word in text.split())


def _header_list(text: str) -> str:
    return readers.writable(", ".join(readers.header_names(text))) if text != "*" else text


def _methods(text: str) -> str:
    known = choice("*", "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE")
    return ", ".join(dict.fromkeys(known(part) for part in readers.items(text)))


def _origins(text: str) -> tuple[str, ...]:
    found = tuple(dict.fromkeys(_origin(part) for part in readers.items(text)))
    if not 1 <= len(found) <= 100:
        raise ValueError(f"{quoted(text)} is not a list of 1 to 100 origins")
    return found


def _origin(text: str) -> str:
    known = readers.re.match(r"(?:([a-z][a-z0-9+.-]{0,20})://)?(\*\.)?([A-Za-z0-9.-]{1,253})(?::([0-9]{1,5}))?\Z", text)
    if text in {"*", "null"} or (known and readers.is_host(known[3]) and int(known[4] or 1) in range(1, 65536)):
        return text
    raise ValueError(f"{quoted(text)} is not an origin such as https://app.example.com:8080 or https://*.example.com")


def _client_subject(text: str) -> str:
    """Return what a client's subject must match: `CN=` and an expression, all of it an expression."""
    if not text.startswith("CN="):
        raise ValueError(f"{quoted(text)} does not begin with CN=")
    return regex.check(text)


def _error_page(text: str) -> str:
    return _redirect(text)


def _hash_key(text: str) -> str:
    readers.check_variables(text, HASH_VARIABLES)
    if not readers.re.match(r"[A-Za-z0-9_${}:|.,-]{1,200}\Z", text) or "$" not in text:
        raise ValueError(f"{quoted(text)} is not a key such as $request_uri or $http_x_user")
    return text


def _cache_key(text: str) -> str:
    if not readers.re.match(r"[A-Za-z0-9_${}:|.,-]{1,500}\Z", text):
        raise ValueError(f"{quoted(text)} is not a key such as $remote_user$http_authorization")
    return text


def _protocol(text: str) -> str:
    return choice("HTTP", "HTTPS", "AUTO_HTTP", "GRPC", "GRPCS", "FCGI")(text.upper())


def _realm(text: str) -> str:
    if text == "off":
        raise ValueError('"off" would let everybody in: nginx takes it for a switch')
    if len(text) > 400:
        raise ValueError(f"{quoted(text)} is longer than 400 characters")
    return readers.header_text(text)


def _matched_text(text: str) -> str:
    """Return a text that becomes an expression, in which each character may take four."""
    if len(text) > 800:
        raise ValueError(f"{quoted(text)} is longer than 800 characters")
    return readers.header_text(text)


def _pattern(text: str) -> str:
    return regex.check(text)


_CLOSE, _REJECT = Onset.CLOSE, Onset.REJECT
_METHOD = choice("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_LIMIT = integer(1, 1_000_000)

RULES: Final[Mapping[str, AnnotationRule]] = MappingProxyType(
    {
        # where requests go
        "use-regex": AnnotationRule(boolean),
        "rewrite-target": AnnotationRule(_rewrite, _REJECT),
        "app-root": AnnotationRule(readers.path, _REJECT),
        "permanent-redirect": AnnotationRule(_redirect, _REJECT),
        "permanent-redirect-code": AnnotationRule(readers.choice_number(301, 302, 303, 307, 308)),
        "temporal-redirect": AnnotationRule(_redirect, _REJECT),
        "temporal-redirect-code": AnnotationRule(readers.choice_number(301, 302, 303, 307, 308)),
        "relative-redirects": AnnotationRule(boolean),
        "server-alias": AnnotationRule(readers.hosts),
        "from-to-www-redirect": AnnotationRule(boolean),
        "default-backend": AnnotationRule(readers.name),
        "custom-http-errors": AnnotationRule(readers.error_codes),
        "disable-proxy-intercept-errors": AnnotationRule(boolean),
        "service-upstream": AnnotationRule(boolean),
        "canary": AnnotationRule(boolean, _REJECT),
        "canary-by-header": AnnotationRule(readers.header_name, _REJECT),
        "canary-by-header-value": AnnotationRule(_matched_text, _REJECT),
        "canary-by-header-pattern": AnnotationRule(_pattern),
        "canary-by-cookie": AnnotationRule(readers.cookie_name, _REJECT),
        "canary-weight": AnnotationRule(integer(0, 1_000_000), _REJECT),
        "canary-weight-total": AnnotationRule(integer(1, 1_000_000), _REJECT),
        # TLS
        "ssl-redirect": AnnotationRule(boolean),
        "force-ssl-redirect": AnnotationRule(boolean),
        "preserve-trailing-slash": AnnotationRule(boolean),
        "ssl-ciphers": AnnotationRule(readers.ciphers),
        "ssl-prefer-server-ciphers": AnnotationRule(boolean),
        "auth-tls-secret": AnnotationRule(readers.reference, _CLOSE),
        "auth-tls-verify-client": AnnotationRule(choice("on", "off", "optional", "optional_no_ca"), _CLOSE),
        "auth-tls-verify-depth": AnnotationRule(integer(0, 100), _CLOSE),
        "auth-tls-match-cn": AnnotationRule(_client_subject, _CLOSE),
        "auth-tls-error-page": AnnotationRule(_error_page, _CLOSE),
        "auth-tls-pass-certificate-to-upstream": AnnotationRule(boolean, _CLOSE),
        "proxy-ssl-secret": AnnotationRule(readers.reference, _CLOSE),
        "proxy-ssl-ciphers": AnnotationRule(readers.ciphers, _CLOSE),
        "proxy-ssl-protocols": AnnotationRule(_proxy_protocols, _CLOSE),
        "proxy-ssl-name": AnnotationRule(readers.plain_host, _CLOSE),
        "proxy-ssl-server-name": AnnotationRule(choice("on", "off"), _CLOSE),
        "proxy-ssl-verify": AnnotationRule(choice("on", "off"), _CLOSE),
        "proxy-ssl-verify-depth": AnnotationRule(integer(0, 100), _CLOSE),
        # who may
        "auth-type": AnnotationRule(choice("basic"), _CLOSE),
        "auth-secret": AnnotationRule(readers.reference, _CLOSE),
        "auth-secret-type": AnnotationRule(choice("auth-file", "auth-map"), _CLOSE),
        "auth-realm": AnnotationRule(_realm, _CLOSE),
        "auth-url": AnnotationRule(readers.url(*AUTH_VARIABLES), _CLOSE),
        "auth-method": AnnotationRule(_METHOD, _CLOSE),
        "auth-signin": AnnotationRule(readers.url(*AUTH_VARIABLES), _CLOSE),
        "auth-signin-redirect-param": AnnotationRule(readers.header_name, _CLOSE),
        "auth-response-headers": AnnotationRule(readers.settable_headers, _CLOSE),
        "auth-proxy-set-headers": AnnotationRule(readers.reference, _CLOSE),
        "auth-request-redirect": AnnotationRule(_redirect, _CLOSE),
        "auth-always-set-cookie": AnnotationRule(boolean, _CLOSE),
        "auth-cache-key": AnnotationRule(_cache_key, _CLOSE),
        "enable-global-auth": AnnotationRule(boolean, _CLOSE),
        "satisfy": AnnotationRule(choice("any", "all"), _CLOSE),
        "whitelist-source-range": AnnotationRule(readers.networks, _CLOSE),
        "allowlist-source-range": AnnotationRule(readers.networks, _CLOSE),
        "denylist-source-range": AnnotationRule(readers.networks, _CLOSE),
        "limit-rps": AnnotationRule(_LIMIT),
        "limit-rpm": AnnotationRule(_LIMIT),
        "limit-connections": AnnotationRule(integer(1, 65535)),
        "limit-burst-multiplier": AnnotationRule(integer(1, 1000)),
        "limit-rate": AnnotationRule(integer(0, 1 << 21)),
        "limit-rate-after": AnnotationRule(integer(0, 1 << 21)),
        "limit-whitelist": AnnotationRule(readers.networks),
        "limit-allowlist": AnnotationRule(readers.networks),
        # headers
        "enable-cors": AnnotationRule(boolean),
        "cors-allow-origin": AnnotationRule(_origins),
        "cors-allow-methods": AnnotationRule(_methods),
        "cors-allow-headers": AnnotationRule(_header_list),
        "cors-expose-headers": AnnotationRule(_header_list),
        "cors-allow-credentials": AnnotationRule(boolean),
        "cors-max-age": AnnotationRule(integer(0, 2_147_483_647)),
        "custom-headers": AnnotationRule(readers.reference),
        "upstream-vhost": AnnotationRule(readers.host_and_port),
        "x-forwarded-prefix": AnnotationRule(readers.path),
        "connection-proxy-header": AnnotationRule(choice("keep-alive", "close", "upgrade", "Upgrade")),
        # the backend
        "backend-protocol": AnnotationRule(_protocol),
        "proxy-connect-timeout": AnnotationRule(seconds),
        "proxy-send-timeout": AnnotationRule(seconds),
        "proxy-read-timeout": AnnotationRule(seconds),
        "proxy-body-size": AnnotationRule(size()),
        "client-body-buffer-size": AnnotationRule(size(64 << 20)),
        "proxy-buffering": AnnotationRule(choice("on", "off")),
        "proxy-request-buffering": AnnotationRule(choice("on", "off")),
        "proxy-buffer-size": AnnotationRule(size(16 << 20)),
        "proxy-buffers-number": AnnotationRule(integer(2, 1024)),
        "proxy-busy-buffers-size": AnnotationRule(size(64 << 20)),
        "proxy-max-temp-file-size": AnnotationRule(size()),
        "proxy-next-upstream": AnnotationRule(readers.words(*NEXT_UPSTREAM)),
        "proxy-next-upstream-tries": AnnotationRule(integer(0, 100)),
        "proxy-next-upstream-timeout": AnnotationRule(seconds),
        "proxy-http-version": AnnotationRule(choice("1.0", "1.1")),
        "proxy-redirect-from": AnnotationRule(_redirect_part),
        "proxy-redirect-to": AnnotationRule(_redirect_part),
        "proxy-cookie-domain": AnnotationRule(_tuple_of_two(_cookie_domain)),
        "proxy-cookie-path": AnnotationRule(_tuple_of_two(_cookie_path)),
        "fastcgi-index": AnnotationRule(lambda text: _cookie_path(f"/{text}")[1:]),
        "fastcgi-params-configmap": AnnotationRule(readers.reference, _CLOSE),
        # which of its servers
        "load-balance": AnnotationRule(choice("round_robin", "ewma", "least_conn", "ip_hash")),
        "upstream-hash-by": AnnotationRule(_hash_key),
        "affinity": AnnotationRule(choice("cookie")),
        "affinity-mode": AnnotationRule(choice("balanced", "persistent")),
        "session-cookie-name": AnnotationRule(readers.cookie_name),
        "session-cookie-path": AnnotationRule(_own_path),
        "session-cookie-domain": AnnotationRule(_cookie_domain),
        "session-cookie-expires": AnnotationRule(seconds),
        "session-cookie-max-age": AnnotationRule(integer(0, 2_147_483_647)),
        "session-cookie-samesite": AnnotationRule(choice("None", "Lax", "Strict")),
        "session-cookie-change-on-failure": AnnotationRule(boolean),
        "session-cookie-secure": AnnotationRule(boolean),
        # logs
        "enable-access-log": AnnotationRule(boolean),
        "enable-rewrite-log": AnnotationRule(boolean),
    }
)
"""Every annotation that means something here, without its prefix."""

_SNIPPET: Final = "raw configuration is never taken from an Ingress: what it does must be said by other annotations"
_MODULE: Final = "needs a module that a stock nginx does not have"
UNSUPPORTED: Final[Mapping[str, str]] = MappingProxyType(
    {
        "configuration-snippet": _SNIPPET,
        "server-snippet": _SNIPPET,
        "stream-snippet": _SNIPPET,
        "auth-snippet": _SNIPPET,
        "modsecurity-snippet": _SNIPPET,
        "enable-modsecurity": _MODULE,
        "enable-owasp-core-rules": _MODULE,
        "modsecurity-transaction-id": _MODULE,
        "enable-opentelemetry": _MODULE,
        "opentelemetry-trust-incoming-span": _MODULE,
        "opentelemetry-operation-name": _MODULE,
        "enable-opentracing": _MODULE,
        "ssl-passthrough": _MODULE,
        "mirror-target": "requests are not mirrored",
        "mirror-host": "requests are not mirrored",
        "mirror-request-body": "requests are not mirrored",
        "auth-cache-duration": "answers of the auth server are not cached: it is asked each time",
        "auth-keepalive": "the auth server is asked over a connection of its own each time",
        "auth-keepalive-share-vars": "the auth server is asked over a connection of its own each time",
        "auth-keepalive-requests": "the auth server is asked over a connection of its own each time",
        "auth-keepalive-timeout": "the auth server is asked over a connection of its own each time",
        "upstream-hash-by-subset": "the hash goes over all servers",
        "upstream-hash-by-subset-size": "the hash goes over all servers",
        "http2-push-preload": "browsers have dropped HTTP/2 push",
        "auth-tls-crl": "revocation lists are not read",
        "influxdb": _MODULE,
        "affinity-canary-behavior": "a client with a balanced cookie stays with the canary, or without it",
        "session-cookie-conditional-samesite-none": "no browser of today needs it",
    }
)
"""Annotations that are known and not obeyed, each with the reason."""

MUST_CLOSE: Final = frozenset({"enable-modsecurity", "enable-owasp-core-rules", "auth-snippet", "auth-tls-crl"})
"""Those of them that protect: a user must hear louder that they do nothing."""


@dataclass(slots=True)
class Annotations:
    """What the annotations of one Ingress come to.

    Attributes:
        found: Values by name.
        failed: Names of those that could not be read.
        onset: The gravest that follows from what could not be read.
        reasons: What could not be read or is not obeyed.
    """

    ingress: str
    prefix: str = DEFAULT_PREFIX
    found: dict[str, Any] = field(default_factory=dict)
    failed: set[str] = field(default_factory=set)
    onset: Onset = Onset.IGNORE
    reasons: list[Reason] = field(default_factory=list)

    def tell(self, verdict: Verdict, name: str, message: str) -> None:
        """Note something about one annotation."""
        path = f'metadata.annotations["{self.prefix}/{readers.printable(name)}"]'
        self.reasons.append(Reason(self.ingress, verdict, path, message))

    def close(self, name: str, why: str | ValueError) -> None:
        """Note that the Ingress must not be served because of one annotation, or of the object that it names."""
        self.tell(Verdict.WAITING if isinstance(why, UnreadError) else Verdict.CLOSED, name, str(why))
        if self.onset is Onset.IGNORE:
            self.onset = Onset.CLOSE


def read_annotations(ingress: str, told: Mapping[str, str], prefix: str) -> Annotations:
    """Return what annotations come to; those of other prefixes are not ours to look at."""
    result = Annotations(ingress, prefix)
    start = f"{prefix}/"
    names = [key.removeprefix(start) for key in sorted(told) if key.startswith(start)]
    for name in names:
        if name in RULES or name in UNSUPPORTED:
            _read(name, told[start + name], result)
    unknown = [name for name in names if name not in RULES and name not in UNSUPPORTED]
    for name in unknown[:MAX_UNKNOWN]:
        _unknown(name, result)
    if len(unknown) > MAX_UNKNOWN:
        more = len(unknown) - MAX_UNKNOWN
        result.tell(Verdict.UNSUPPORTED, unknown[MAX_UNKNOWN], f"this one and {more - 1} more are not known either")
    if start != SERVICE_PREFIX:
        _name_strays(told, result)
    return result


def _name_strays(told: Mapping[str, str], result: Annotations) -> None:
    """Note annotations with the prefix that rulegen's own annotations of a Service have: no Ingress is read by it."""
    strays = [key for key in sorted(told) if key[: len(SERVICE_PREFIX)].lower() == SERVICE_PREFIX]
    for key in strays[:MAX_UNKNOWN]:
        near = get_close_matches(key[len(SERVICE_PREFIX) :][:100], RULES, 1)
        meant = f'; is "{result.prefix}/{near[0]}" meant?' if near else ""
        path = f'metadata.annotations["{readers.printable(key)}"]'
        message = f"annotations of an Ingress begin with {result.prefix}/ here{meant}"
        result.reasons.append(Reason(result.ingress, Verdict.UNSUPPORTED, path, message))


def _read(name: str, text: str, result: Annotations) -> None:
    if name in UNSUPPORTED:
        protects = " (it protects nothing here!)" if name in MUST_CLOSE else ""
        result.tell(Verdict.UNSUPPORTED, name, UNSUPPORTED[name] + protects)
        return
    rule = RULES[name]
    try:
        result.found[name] = rule.read(_bounded(text))
    except ValueError as error:
        result.failed.add(name)
        result.tell(rule.onset.value, name, str(error))
        order = list(Onset)
        result.onset = max(result.onset, rule.onset, key=order.index)


def _bounded(text: str) -> str:
    if len(text.encode("utf-8", "replace")) > readers.MAX_VALUE:
        raise ValueError(f"longer than {readers.MAX_VALUE} bytes")
    return text.strip(" \t")


def _unknown(name: str, result: Annotations) -> None:
    near = get_close_matches(name[:100], [*RULES, *UNSUPPORTED], 1)
    meant = f'; is "{near[0]}" meant?' if near else ""
    result.tell(Verdict.UNSUPPORTED, name, f"no such annotation is known{meant}")
