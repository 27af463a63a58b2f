"""How HAProxy applies each annotation and each setting: one declaration for each; source of docs/haproxy.md."""

from __future__ import annotations

import enum
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

from rulegen.model.ingress.values.annotations.table import not_obeyed_by

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


class Obeyed(enum.Enum):
    """How HAProxy applies an annotation, a setting, or a field of the model."""

    AS_NGINX = "as with nginx"
    OTHERWISE = "otherwise"
    NOT = "not"
    CLOSES = "not: paths are closed"


class Obedience(NamedTuple):
    """How HAProxy applies an annotation or a setting, and the differences."""

    how: Obeyed
    words: str = ""


_STREAMS: Final = (
    "HAProxy passes bodies on as they come, through buffers of 32 KB in memory; nothing is written to disk"
)
_HEADS: Final = "the head of a request may have 32 KB, and its headers 28 KB"
_ONE_FOR_ALL: Final = "a reload gives every host the same"
_LOG: Final = "logs go to /dev/log, in HAProxy's own format for HTTP"
_ERRORS: Final = "answers are not replaced by those of a Service"
_RATE: Final = "HAProxy 2.6 does not limit how fast an answer is sent"
_AUTH_CONNECTIONS: Final = "HAProxy decides how many connections to auth servers stay open, and for how long"
_MIRROR: Final = "mirror-target mirror-host mirror-request-body"
_COOKIE: Final = "in each affinity mode, the cookie names the server: a client moves only when its server ends"
_TUNNEL: Final = "one time limit applies to reading and writing"


def _rows(how: Obeyed, words: str, names: str) -> dict[str, Obedience]:
    return {name: Obedience(how, words) for name in names.split()}


def _table(*parts: Iterable[tuple[str, Obedience]] | Mapping[str, Obedience]) -> Mapping[str, Obedience]:
    table: dict[str, Obedience] = {}
    for part in parts:
        for name, row in dict(part).items():
            if name in table:
                raise ValueError(f"{name} is declared twice")
            table[name] = row
    return MappingProxyType(table)


ANNOTATIONS: Final = _table(
    _rows(
        Obeyed.AS_NGINX,
        "",
        """
        use-regex rewrite-target app-root permanent-redirect permanent-redirect-code temporal-redirect
        temporal-redirect-code relative-redirects server-alias from-to-www-redirect default-backend service-upstream
        canary canary-by-header canary-by-header-value canary-by-header-pattern canary-by-cookie canary-weight
        canary-weight-total ssl-redirect force-ssl-redirect preserve-trailing-slash use-port-in-redirects ssl-ciphers
        auth-tls-secret auth-tls-verify-client auth-tls-match-cn auth-tls-error-page
        auth-tls-pass-certificate-to-upstream proxy-ssl-secret proxy-ssl-ciphers proxy-ssl-name proxy-ssl-server-name
        proxy-ssl-verify auth-type auth-secret auth-secret-type auth-realm auth-url auth-signin
        auth-signin-redirect-param auth-response-headers auth-proxy-set-headers auth-request-redirect
        auth-always-set-cookie auth-cache-key auth-cache-duration enable-global-auth whitelist-source-range
        allowlist-source-range denylist-source-range satisfy limit-connections limit-whitelist limit-allowlist
        enable-cors cors-allow-origin cors-allow-methods cors-allow-headers cors-expose-headers cors-allow-credentials
        cors-max-age custom-headers upstream-vhost x-forwarded-prefix proxy-connect-timeout proxy-read-timeout
        proxy-redirect-from proxy-redirect-to proxy-cookie-domain proxy-cookie-path fastcgi-index
        fastcgi-params-configmap
        load-balance affinity
        session-cookie-name session-cookie-path session-cookie-domain session-cookie-expires session-cookie-max-age
        session-cookie-samesite session-cookie-secure session-cookie-partitioned
        """,
    ),
    _rows(
        Obeyed.OTHERWISE,
        "HAProxy only",
        " ".join(not_obeyed_by("nginx")),
    ),
    _rows(Obeyed.OTHERWISE, "GET, HEAD, POST, PUT or DELETE; with another one, the path is closed", "auth-method"),
    _rows(Obeyed.OTHERWISE, _AUTH_CONNECTIONS, "auth-keepalive auth-keepalive-requests auth-keepalive-timeout"),
    _rows(Obeyed.OTHERWISE, "all versions from the lowest to the highest of the list", "proxy-ssl-protocols"),
    _rows(
        Obeyed.OTHERWISE,
        "requests are counted over a sliding period, not with nginx's leaky bucket",
        "limit-rps limit-rpm limit-burst-multiplier",
    ),
    _rows(Obeyed.OTHERWISE, "with AUTO_HTTP, the path is closed", "backend-protocol"),
    _rows(
        Obeyed.OTHERWISE,
        "a request with a body of unknown length gets 411; no limit with gRPC",
        "proxy-body-size",
    ),
    _rows(Obeyed.OTHERWISE, _TUNNEL, "proxy-send-timeout"),
    _rows(
        Obeyed.OTHERWISE,
        _STREAMS,
        """
        client-body-buffer-size proxy-buffering proxy-request-buffering proxy-buffer-size proxy-buffers-number
        proxy-busy-buffers-size proxy-max-temp-file-size
        """,
    ),
    _rows(
        Obeyed.OTHERWISE,
        "if an endpoint does not answer in time, the request is not sent to another one",
        "proxy-next-upstream",
    ),
    _rows(Obeyed.OTHERWISE, "number of further tries after the first; at most 100", "proxy-next-upstream-tries"),
    _rows(
        Obeyed.OTHERWISE,
        "the total time is limited by the number of tries and the time limit of each try",
        "proxy-next-upstream-timeout",
    ),
    _rows(Obeyed.OTHERWISE, "always HTTP/1.1, and HTTP/2 for gRPC", "proxy-http-version"),
    _rows(
        Obeyed.OTHERWISE,
        "if the key is neither `$request_uri` nor the client's address, backends get the key in `X-Rulegen-Key`",
        "upstream-hash-by",
    ),
    _rows(Obeyed.OTHERWISE, _COOKIE, "affinity-mode session-cookie-change-on-failure"),
    _rows(Obeyed.OTHERWISE, "the cookie does not keep a client at a canary", "affinity-canary-behavior"),
    _rows(
        Obeyed.OTHERWISE,
        "`SameSite=None` is also sent to browsers that reject it",
        "session-cookie-conditional-samesite-none",
    ),
    _rows(Obeyed.OTHERWISE, _LOG, "enable-access-log"),
    _rows(Obeyed.NOT, _ERRORS, "custom-http-errors disable-proxy-intercept-errors"),
    _rows(Obeyed.NOT, _RATE, "limit-rate limit-rate-after"),
    _rows(Obeyed.NOT, "all hosts have the same preference", "ssl-prefer-server-ciphers"),
    _rows(
        Obeyed.NOT, "longer chains from the same authority are accepted", "auth-tls-verify-depth proxy-ssl-verify-depth"
    ),
    _rows(Obeyed.NOT, "HAProxy writes this header itself", "connection-proxy-header"),
    _rows(
        Obeyed.OTHERWISE,
        "only requests with GET, HEAD, POST, PUT or DELETE, and with bodies of up to 32 KB, are copied",
        _MIRROR,
    ),
    _rows(Obeyed.NOT, "HAProxy logs no rewrites", "enable-rewrite-log"),
)
"""By name, without prefix."""

SETTINGS: Final = _table(
    _rows(
        Obeyed.AS_NGINX,
        "",
        """
        bind-address disable-ipv6 worker-shutdown-timeout keep-alive client-header-timeout client-body-timeout
        enable-underscores-in-headers use-proxy-protocol use-http2 http2-max-concurrent-streams use-forwarded-headers
        enable-real-ip proxy-real-ip-cidr forwarded-for-header forwarded-host-header compute-full-forwarded-for
        generate-request-id proxy-add-original-uri-header proxy-connect-timeout proxy-read-timeout
        retry-non-idempotent proxy-cookie-domain proxy-cookie-path proxy-redirect-from proxy-redirect-to
        upstream-keepalive-connections upstream-keepalive-timeout load-balance
        service-upstream
        allow-backend-server-header ssl-redirect force-ssl-redirect http-redirect-code no-tls-redirect-locations
        use-port-in-redirects relative-redirects preserve-trailing-slash hsts hsts-max-age hsts-include-subdomains
        hsts-preload ssl-ciphers ssl-prefer-server-ciphers ssl-ecdh-curve ssl-session-cache ssl-session-tickets
        ssl-session-timeout ssl-early-data ssl-reject-handshake use-gzip gzip-types gzip-disable hide-headers
        add-headers proxy-set-headers global-allowed-response-headers limit-req-status-code limit-conn-status-code
        whitelist-source-range denylist-source-range block-cidrs block-user-agents block-referers
        annotations-risk-level annotation-value-word-blocklist enable-modsecurity http-snippet server-snippet
        location-snippet modsecurity-snippet global-auth-url global-auth-signin global-auth-signin-redirect-param
        global-auth-response-headers global-auth-request-redirect global-auth-cache-key global-auth-cache-duration
        global-auth-snippet global-auth-always-set-cookie no-auth-locations
        """,
    ),
    _rows(Obeyed.OTHERWISE, "the number of threads of one process", "worker-processes"),
    _rows(Obeyed.OTHERWISE, "the maximum number of connections of the whole process", "max-worker-connections"),
    _rows(Obeyed.OTHERWISE, "HAProxy derives it from the number of connections", "max-worker-open-files"),
    _rows(Obeyed.OTHERWISE, "threads share the listeners", "reuse-port enable-multi-accept worker-cpu-affinity"),
    _rows(Obeyed.OTHERWISE, "IPv4 addresses are preferred", "disable-ipv6-dns"),
    _rows(Obeyed.OTHERWISE, _HEADS, "client-header-buffer-size large-client-header-buffers grpc-buffer-size-kb"),
    _rows(Obeyed.OTHERWISE, "an invalid header is answered with 400", "ignore-invalid-headers"),
    _rows(Obeyed.OTHERWISE, "HAProxy sends no header Server", "server-tokens"),
    _rows(
        Obeyed.OTHERWISE,
        _STREAMS,
        """
        client-body-buffer-size proxy-buffering proxy-request-buffering proxy-buffer-size proxy-buffers-number
        proxy-busy-buffers-size proxy-max-temp-file-size
        """,
    ),
    _rows(
        Obeyed.OTHERWISE,
        "a request with a body of unknown length gets 411; no limit with gRPC",
        "proxy-body-size",
    ),
    _rows(Obeyed.OTHERWISE, _TUNNEL, "proxy-send-timeout"),
    _rows(
        Obeyed.OTHERWISE,
        "if an endpoint does not answer in time, the request is not sent to another one",
        "proxy-next-upstream",
    ),
    _rows(Obeyed.OTHERWISE, "number of further tries after the first; at most 100", "proxy-next-upstream-tries"),
    _rows(
        Obeyed.OTHERWISE,
        "the total time is limited by the number of tries and the time limit of each try",
        "proxy-next-upstream-timeout",
    ),
    _rows(Obeyed.OTHERWISE, "always HTTP/1.1, and HTTP/2 for gRPC", "proxy-http-version"),
    _rows(Obeyed.OTHERWISE, "idle connections end by their time limit", "upstream-keepalive-time"),
    _rows(Obeyed.OTHERWISE, "all versions from the lowest to the highest of the list", "ssl-protocols"),
    _rows(Obeyed.OTHERWISE, "counted in sessions of 250 bytes", "ssl-session-cache-size"),
    _rows(Obeyed.OTHERWISE, "the maximum size of a record, up to 16 KB", "ssl-buffer-size"),
    _rows(Obeyed.OTHERWISE, "HAProxy uses a lower level if the CPU is busy", "gzip-level"),
    _rows(Obeyed.OTHERWISE, "answers of HAProxy itself are text/html or empty", "default-type"),
    _rows(Obeyed.OTHERWISE, "GET, HEAD, POST, PUT or DELETE; with another one, paths are closed", "global-auth-method"),
    _rows(
        Obeyed.OTHERWISE,
        _LOG,
        """
        disable-access-log disable-http-access-log enable-access-log-for-default-backend skip-access-log-urls
        log-format-escape-json log-format-escape-none
        """,
    ),
    _rows(Obeyed.OTHERWISE, "HAProxy reports warnings and alerts", "error-log-level"),
    _rows(Obeyed.NOT, "only time limits end the connections of clients", "keep-alive-requests"),
    _rows(Obeyed.NOT, "servers that are added at run time cannot have this limit", "upstream-keepalive-requests"),
    _rows(Obeyed.NOT, "HAProxy's own format is used", "log-format-upstream"),
    _rows(Obeyed.NOT, "short answers are compressed, too", "gzip-min-length"),
    _rows(Obeyed.NOT, "HAProxy asks no OCSP responder", "enable-ocsp"),
    _rows(Obeyed.NOT, _ERRORS, "custom-http-errors disable-proxy-intercept-errors"),
    _rows(Obeyed.NOT, _RATE, "limit-rate limit-rate-after"),
)
"""By key of the ConfigMap."""
