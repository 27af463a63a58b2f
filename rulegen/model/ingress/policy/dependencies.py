"""Dependencies between annotations: which ones need or override another one, declared once for each annotation.

An annotation whose prerequisite is not met has no effect; `idle` reports it.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from rulegen.model.ingress.values.annotations import access, backend, balancing, headers, logs, routing, tls

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from rulegen.model.ingress.values.annotations.annotation import Annotation
    from rulegen.model.ingress.values.annotations.reading import Annotations
    from rulegen.model.ingress.values.settings import Settings


class Prerequisite(NamedTuple):
    """A condition: an annotation applies.

    Attributes:
        annotation: The annotation.
        values: Values that meet the condition; empty for all values that do not switch it off.
        setting: Field of the settings that applies if an Ingress does not have the annotation.
    """

    annotation: Annotation[Any]
    values: tuple[Any, ...] = ()
    setting: str = ""

    def holds(self, annotations: Annotations, settings: Settings) -> bool:
        """Whether the condition is met. An invalid value meets it, because it is reported itself."""
        if self.annotation in annotations.failed:
            return True
        default = getattr(settings, self.setting) if self.setting else self.annotation.default
        value = annotations.values.value_or(self.annotation, default)
        return value in self.values if self.values else is_on(value)

    def __str__(self) -> str:
        values = f" ({', '.join(map(str, self.values))})" if self.values else ""
        return f"{self.annotation.name}{values}"


class Dependency(NamedTuple):
    """The conditions under which an annotation has an effect.

    Attributes:
        needs: One of these must be met; empty for none.
        settings: Fields of the settings, one of which may be set instead.
        yields_to: None of these may be met.
        needs_tls: Message if the Ingress has no `tls` section; empty if that does not matter.
    """

    needs: tuple[Prerequisite, ...] = ()
    settings: tuple[str, ...] = ()
    yields_to: tuple[Prerequisite, ...] = ()
    needs_tls: str = ""


def is_on(value: Any) -> bool:
    """Whether a value switches something on."""
    return bool(value) and value != "off"


def _of(*annotations: Annotation[Any]) -> tuple[Prerequisite, ...]:
    return tuple(map(Prerequisite, annotations))


REDIRECTS: Final = _of(routing.TEMPORAL_REDIRECT, routing.PERMANENT_REDIRECT)
"""Redirects that nginx sends before authentication and proxying."""

_NO_TLS: Final = (
    "the Ingress has no tls section: this annotation has an effect only if another Ingress of the host has one"
)
_DEFAULT_TLS: Final = (
    "the Ingress has no tls section: this annotation applies to connections with the default certificate,"
    " unless another Ingress of the host has one"
)
_NOT_REDIRECTED: Final = Dependency(yields_to=REDIRECTS)
_OF_PASSWORDS: Final = Dependency(_of(access.AUTH_TYPE))
_OF_AUTH_SERVER: Final = Dependency(_of(access.AUTH_URL))
_OF_CLIENT_CERTIFICATES: Final = Dependency(_of(tls.AUTH_TLS_SECRET))
_OF_REQUEST_LIMITS: Final = Dependency(_of(access.LIMIT_RPS, access.LIMIT_RPM))
_OF_LIMITS: Final = _of(access.LIMIT_RPS, access.LIMIT_RPM, access.LIMIT_CONNECTIONS)
_OF_CORS: Final = Dependency(_of(headers.ENABLE_CORS))
_OF_COOKIES: Final = Dependency(_of(balancing.AFFINITY))
_OF_CANARIES: Final = Dependency(_of(routing.CANARY))
_OF_BACKEND_TLS: Final = Dependency((Prerequisite(backend.BACKEND_PROTOCOL, ("HTTPS", "GRPCS", "AUTO_HTTP")),))
_OF_SCRIPTS: Final = Dependency((Prerequisite(backend.BACKEND_PROTOCOL, ("FCGI",)),))
_OF_BUFFERS: Final = Dependency(
    (Prerequisite(backend.PROXY_BUFFERING, setting="proxy_buffering"),), yields_to=REDIRECTS
)
_CLUSTER_IP: Final = Prerequisite(routing.SERVICE_UPSTREAM, setting="service_upstream")


def _rows(dependency: Dependency, *annotations: Annotation[Any]) -> Iterable[tuple[Annotation[Any], Dependency]]:
    return ((annotation, dependency) for annotation in annotations)


DEPENDENCIES: Final[Mapping[Annotation[Any], Dependency]] = MappingProxyType(
    dict(
        (
            *_rows(Dependency(yields_to=_of(routing.TEMPORAL_REDIRECT)), routing.PERMANENT_REDIRECT),
            *_rows(Dependency(_of(balancing.HEALTH_CHECK_PATH)), balancing.HEALTH_CHECK_INTERVAL, balancing.SLOW_START),
            *_rows(Dependency(_of(routing.PERMANENT_REDIRECT)), routing.PERMANENT_REDIRECT_CODE),
            *_rows(Dependency(_of(routing.TEMPORAL_REDIRECT)), routing.TEMPORAL_REDIRECT_CODE),
            *_rows(
                Dependency((Prerequisite(routing.CUSTOM_HTTP_ERRORS, setting="custom_http_errors"),)),
                routing.DISABLE_PROXY_INTERCEPT_ERRORS,
            ),
            *_rows(
                Dependency(_of(routing.CANARY_BY_HEADER, routing.CANARY_BY_COOKIE, routing.CANARY_WEIGHT)),
                routing.CANARY,
            ),
            *_rows(_OF_CANARIES, routing.CANARY_BY_HEADER, routing.CANARY_BY_COOKIE, routing.CANARY_WEIGHT),
            *_rows(Dependency(_of(routing.CANARY_BY_HEADER)), routing.CANARY_BY_HEADER_VALUE),
            *_rows(
                Dependency(_of(routing.CANARY_BY_HEADER), yields_to=_of(routing.CANARY_BY_HEADER_VALUE)),
                routing.CANARY_BY_HEADER_PATTERN,
            ),
            *_rows(Dependency(_of(routing.CANARY_WEIGHT)), routing.CANARY_WEIGHT_TOTAL),
            *_rows(Dependency(needs_tls=_NO_TLS), tls.SSL_REDIRECT),
            *_rows(
                Dependency((Prerequisite(tls.FORCE_SSL_REDIRECT, setting="force_ssl_redirect"),), needs_tls=_NO_TLS),
                tls.PRESERVE_TRAILING_SLASH,
            ),
            *_rows(Dependency(needs_tls=_DEFAULT_TLS), tls.SSL_CIPHERS, tls.SSL_PREFER_SERVER_CIPHERS),
            *_rows(
                _OF_CLIENT_CERTIFICATES,
                tls.AUTH_TLS_VERIFY_CLIENT,
                tls.AUTH_TLS_VERIFY_DEPTH,
                tls.AUTH_TLS_MATCH_CN,
                tls.AUTH_TLS_ERROR_PAGE,
                tls.AUTH_TLS_PASS_CERTIFICATE_TO_UPSTREAM,
            ),
            *_rows(
                _OF_BACKEND_TLS,
                tls.PROXY_SSL_SECRET,
                tls.PROXY_SSL_CIPHERS,
                tls.PROXY_SSL_PROTOCOLS,
                tls.PROXY_SSL_NAME,
                tls.PROXY_SSL_SERVER_NAME,
                tls.PROXY_SSL_VERIFY,
            ),
            *_rows(Dependency(_of(tls.PROXY_SSL_VERIFY)), tls.PROXY_SSL_VERIFY_DEPTH),
            *_rows(_NOT_REDIRECTED, access.AUTH_TYPE, access.AUTH_URL, access.DENYLIST_SOURCE_RANGE),
            *_rows(_NOT_REDIRECTED, access.ALLOWLIST_SOURCE_RANGE),
            *_rows(
                Dependency(yields_to=(Prerequisite(access.ALLOWLIST_SOURCE_RANGE), *REDIRECTS)),
                access.WHITELIST_SOURCE_RANGE,
            ),
            *_rows(_OF_PASSWORDS, access.AUTH_SECRET, access.AUTH_SECRET_TYPE, access.AUTH_REALM),
            *_rows(
                _OF_AUTH_SERVER,
                access.AUTH_METHOD,
                access.AUTH_SIGNIN,
                access.AUTH_RESPONSE_HEADERS,
                access.AUTH_PROXY_SET_HEADERS,
                access.AUTH_REQUEST_REDIRECT,
                access.AUTH_ALWAYS_SET_COOKIE,
                access.AUTH_CACHE_KEY,
            ),
            *_rows(Dependency(_of(access.AUTH_CACHE_KEY)), access.AUTH_CACHE_DURATION),
            *_rows(_OF_AUTH_SERVER, access.AUTH_KEEPALIVE),
            *_rows(
                Dependency(_of(access.AUTH_KEEPALIVE)), access.AUTH_KEEPALIVE_REQUESTS, access.AUTH_KEEPALIVE_TIMEOUT
            ),
            *_rows(Dependency(_of(access.AUTH_SIGNIN)), access.AUTH_SIGNIN_REDIRECT_PARAM),
            *_rows(Dependency(settings=("global_auth_url",)), access.ENABLE_GLOBAL_AUTH),
            *_rows(
                Dependency(
                    _of(
                        access.AUTH_TYPE, access.AUTH_URL, access.WHITELIST_SOURCE_RANGE, access.ALLOWLIST_SOURCE_RANGE
                    ),
                    settings=("global_auth_url", "whitelist_source_range"),
                ),
                access.SATISFY,
            ),
            *_rows(_NOT_REDIRECTED, access.LIMIT_RPS, access.LIMIT_RPM, access.LIMIT_CONNECTIONS, access.LIMIT_RATE),
            *_rows(_OF_REQUEST_LIMITS, access.LIMIT_BURST_MULTIPLIER),
            *_rows(Dependency(_of(access.LIMIT_RATE), settings=("limit_rate",)), access.LIMIT_RATE_AFTER),
            *_rows(Dependency(_OF_LIMITS), access.LIMIT_ALLOWLIST),
            *_rows(Dependency(_OF_LIMITS, yields_to=_of(access.LIMIT_ALLOWLIST)), access.LIMIT_WHITELIST),
            *_rows(
                _OF_CORS,
                headers.CORS_ALLOW_ORIGIN,
                headers.CORS_ALLOW_METHODS,
                headers.CORS_ALLOW_HEADERS,
                headers.CORS_EXPOSE_HEADERS,
                headers.CORS_ALLOW_CREDENTIALS,
                headers.CORS_MAX_AGE,
            ),
            *_rows(Dependency(_of(routing.REWRITE_TARGET)), headers.X_FORWARDED_PREFIX),
            *_rows(_NOT_REDIRECTED, headers.UPSTREAM_VHOST, headers.CONNECTION_PROXY_HEADER),
            *_rows(
                _NOT_REDIRECTED,
                backend.BACKEND_PROTOCOL,
                backend.PROXY_CONNECT_TIMEOUT,
                backend.PROXY_SEND_TIMEOUT,
                backend.PROXY_READ_TIMEOUT,
                backend.PROXY_BODY_SIZE,
                backend.CLIENT_BODY_BUFFER_SIZE,
                backend.PROXY_BUFFERING,
                backend.PROXY_REQUEST_BUFFERING,
                backend.PROXY_BUFFER_SIZE,
                backend.PROXY_NEXT_UPSTREAM,
                backend.PROXY_NEXT_UPSTREAM_TRIES,
                backend.PROXY_NEXT_UPSTREAM_TIMEOUT,
                backend.PROXY_HTTP_VERSION,
                backend.PROXY_COOKIE_DOMAIN,
                backend.PROXY_COOKIE_PATH,
            ),
            *_rows(
                _OF_BUFFERS,
                backend.PROXY_BUFFERS_NUMBER,
                backend.PROXY_BUSY_BUFFERS_SIZE,
                backend.PROXY_MAX_TEMP_FILE_SIZE,
            ),
            *_rows(
                Dependency((Prerequisite(backend.PROXY_REDIRECT_TO, setting="proxy_redirect_to"),)),
                backend.PROXY_REDIRECT_FROM,
            ),
            *_rows(
                Dependency((Prerequisite(backend.PROXY_REDIRECT_FROM, setting="proxy_redirect_from"),)),
                backend.PROXY_REDIRECT_TO,
            ),
            *_rows(_NOT_REDIRECTED, backend.MIRROR_TARGET),
            *_rows(Dependency(_of(backend.MIRROR_TARGET)), backend.MIRROR_HOST, backend.MIRROR_REQUEST_BODY),
            *_rows(_OF_SCRIPTS, backend.FASTCGI_INDEX, backend.FASTCGI_PARAMS_CONFIGMAP),
            *_rows(
                Dependency(yields_to=(*_of(balancing.AFFINITY, balancing.UPSTREAM_HASH_BY), _CLUSTER_IP, *REDIRECTS)),
                balancing.LOAD_BALANCE,
            ),
            *_rows(
                Dependency(yields_to=(Prerequisite(balancing.AFFINITY), _CLUSTER_IP, *REDIRECTS)),
                balancing.UPSTREAM_HASH_BY,
            ),
            *_rows(Dependency(yields_to=(_CLUSTER_IP, *REDIRECTS)), balancing.AFFINITY),
            *_rows(_OF_CANARIES, balancing.AFFINITY_CANARY_BEHAVIOR),
            *_rows(
                _OF_COOKIES,
                balancing.AFFINITY_MODE,
                balancing.SESSION_COOKIE_NAME,
                balancing.SESSION_COOKIE_PATH,
                balancing.SESSION_COOKIE_DOMAIN,
                balancing.SESSION_COOKIE_MAX_AGE,
                balancing.SESSION_COOKIE_SAMESITE,
                balancing.SESSION_COOKIE_CHANGE_ON_FAILURE,
                balancing.SESSION_COOKIE_SECURE,
                balancing.SESSION_COOKIE_PARTITIONED,
            ),
            *_rows(
                Dependency((Prerequisite(balancing.SESSION_COOKIE_SAMESITE, ("None",)),)),
                balancing.SESSION_COOKIE_CONDITIONAL_SAMESITE_NONE,
            ),
            *_rows(
                Dependency(_of(balancing.AFFINITY), yields_to=_of(balancing.SESSION_COOKIE_MAX_AGE)),
                balancing.SESSION_COOKIE_EXPIRES,
            ),
        )
    )
)
"""Dependencies by annotation; independent annotations are not listed."""

ALONE: Final[frozenset[Annotation[Any]]] = frozenset(
    (
        balancing.HEALTH_CHECK_PATH,
        balancing.MAX_CONNECTIONS,
        balancing.RETRY_ON,
        routing.USE_REGEX,
        routing.REWRITE_TARGET,  # beside a redirect, its path is an expression all the same
        routing.APP_ROOT,
        routing.TEMPORAL_REDIRECT,
        routing.RELATIVE_REDIRECTS,
        routing.SERVER_ALIAS,
        routing.FROM_TO_WWW_REDIRECT,
        routing.DEFAULT_BACKEND,
        routing.CUSTOM_HTTP_ERRORS,  # whether there is a default backend shows for each path
        routing.SERVICE_UPSTREAM,
        tls.FORCE_SSL_REDIRECT,
        tls.USE_PORT_IN_REDIRECTS,
        tls.AUTH_TLS_SECRET,
        headers.ENABLE_CORS,
        headers.CUSTOM_HEADERS,
        logs.ENABLE_ACCESS_LOG,
        logs.ENABLE_REWRITE_LOG,
    )
)
"""Annotations that always have an effect."""

OF_CANARIES: Final[frozenset[Annotation[Any]]] = frozenset(
    (
        *(known for known in DEPENDENCIES if known.name.startswith(("canary-", "auth-tls-"))),
        routing.CANARY,
        routing.SERVICE_UPSTREAM,
        tls.AUTH_TLS_SECRET,
        balancing.LOAD_BALANCE,
        balancing.UPSTREAM_HASH_BY,
        balancing.AFFINITY_CANARY_BEHAVIOR,
    )
)
"""Annotations that have an effect in a canary; the main Ingress decides everything else about its requests."""
