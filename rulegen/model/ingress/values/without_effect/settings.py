"""ConfigMap keys of all releases of ingress-nginx that have no effect in rulegen, each with the reason."""

from __future__ import annotations

from typing import Final

from rulegen.model.ingress.values.without_effect.names import OFF, NameKind, NoEffect, by_name

_ON: Final = ("1", "t", "T", "true", "TRUE", "True")
_SNIPPET: Final = "raw configuration is never copied; the administrator can change a copy of nginx_templates/"
_MODULE: Final = "it needs a module that standard nginx packages do not have"
_TRACING: Final = "requests are not traced; a header such as traceparent passes through nginx"
_HASH: Final = "the sizes of hash tables are computed from the names"
_STREAM: Final = "nginx here serves HTTP only, no TCP and UDP ports"
_STATUS: Final = "there is no status page on these ports: its socket is for root only"
_LOGS: Final = "logs are files of the folder of nginx: logs/access.log and logs/error.log"
_SYSLOG: Final = "nothing is sent to a syslog server; let a log collector read logs/access.log"
_GEOIP: Final = "countries of clients are not looked up: it needs a module and its databases"
_FIELDS: Final = "nginx has dropped it; large-client-header-buffers applies to HTTP/2 too"
_LIMITS: Final = "ingress-nginx removed limits over all nodes in 1.12; use limit-rps or limit-rpm, for each node"
_VTS: Final = "counters of requests are not kept; use the access log"
_PASSIVE: Final = "nginx itself leaves out a server that fails, for a short time"


def _done(reason: str, *names: str, fulfilled_by: tuple[str, ...] = ()) -> list[NoEffect]:
    return [NoEffect(name, NameKind.DONE, reason, fulfilled_by) for name in names]


def _missing(reason: str, *names: str, fulfilled_by: tuple[str, ...] = ()) -> list[NoEffect]:
    return [NoEffect(name, NameKind.MISSING, reason, fulfilled_by) for name in names]


def _replaced(reason: str, *names: str) -> list[NoEffect]:
    return [NoEffect(name, NameKind.REPLACED, reason) for name in names]


def _protection(reason: str, *names: str, fulfilled_by: tuple[str, ...] = ()) -> list[NoEffect]:
    return [NoEffect(name, NameKind.PROTECTION, reason, fulfilled_by) for name in names]


_OF_NGINX: Final = (
    *_done("nginx writes temporary files without threads", "enable-aio-write"),
    *_done(
        "old workers are always limited: at most four generations at a time", "enable-serial-reloads", fulfilled_by=_ON
    ),
    *_done(
        _HASH,
        "map-hash-bucket-size",
        "server-name-hash-max-size",
        "server-name-hash-bucket-size",
        "proxy-headers-hash-max-size",
        "proxy-headers-hash-bucket-size",
        "variables-hash-bucket-size",
        "variables-hash-max-size",
    ),
    *_done("nginx here has no Lua", "lua-shared-dicts", "plugins", fulfilled_by=("",)),
    *_done(_STATUS, "nginx-status-ipv4-whitelist", "nginx-status-ipv6-whitelist"),
    *_missing("no connection is logged in debug mode", "debug-connections", fulfilled_by=("",)),
    *_done(_FIELDS, "http2-max-field-size", "http2-max-header-size", fulfilled_by=("",)),
    *_done("nginx has dropped it; keep-alive-requests applies to HTTP/2 too", "http2-max-requests"),
    *_missing(_STREAM, *(f"proxy-stream-{name}" for name in ("timeout", "next-upstream", "responses"))),
    *_missing(_STREAM, "proxy-stream-next-upstream-timeout", "proxy-stream-next-upstream-tries", "log-format-stream"),
    *_missing("answers are compressed with gzip only", "enable-brotli", fulfilled_by=OFF),
    *_missing("answers are compressed with gzip only", "brotli-level", "brotli-min-length", "brotli-types"),
)
_OF_PROTECTION: Final = (
    *_protection(_MODULE, "enable-owasp-modsecurity-crs", fulfilled_by=OFF),
    *_protection(
        _SNIPPET,
        "main-snippet",
        "stream-snippet",
        fulfilled_by=("",),
    ),
    *_protection(
        "limits count each address of a client", "limit-conn-zone-variable", fulfilled_by=("$binary_remote_addr",)
    ),
    *_protection(_LIMITS, "global-rate-limit-memcached-host", fulfilled_by=("",)),
    *_protection(_LIMITS, "global-rate-limit-memcached-port", "global-rate-limit-status-code"),
    *_protection(
        _LIMITS,
        *(f"global-rate-limit-memcached-{name}" for name in ("connect-timeout", "max-idle-timeout", "pool-size")),
    ),
    *_missing("snippets of Ingresses are never accepted", "allow-snippet-annotations", fulfilled_by=OFF),
    *_missing(
        "Ingresses use Secrets and ConfigMaps of their own namespace only",
        "allow-cross-namespace-resources",
        fulfilled_by=OFF,
    ),
    *_done("paths may have any character, since each is quoted", "strict-validate-path-type", fulfilled_by=OFF),
)
_OF_TLS: Final = (
    *_missing("nginx chooses the parameters of Diffie-Hellman", "ssl-dh-param", fulfilled_by=("",)),
    *_missing(
        "each node makes its own keys for session tickets, so a ticket is valid on one node only",
        "ssl-session-ticket-key",
    ),
    *_done(
        "certificates for backends apply to the paths of their own Ingress", "proxy-ssl-location-only", fulfilled_by=_ON
    ),
    *_done("nginx accepts the connections itself, and waits client-header-timeout", "proxy-protocol-header-timeout"),
    *_missing(
        "with use-proxy-protocol, that protocol alone names the client",
        "forwarded-for-proxy-protocol-header",
    ),
)
_OF_LOGS: Final = (
    *_done(_LOGS, "access-log-path", "http-access-log-path", "error-log-path"),
    *_missing(_LOGS, "access-log-params", fulfilled_by=("",)),
    *_done(_STREAM, "stream-access-log-path", "disable-stream-access-log"),
    *_missing("requests to auth servers are not logged", "enable-auth-access-log", fulfilled_by=OFF),
    *_missing(_SYSLOG, "enable-syslog", fulfilled_by=OFF),
    *_missing(_SYSLOG, "syslog-host", fulfilled_by=("",)),
    *_missing(_SYSLOG, "syslog-port"),
    *_missing(_GEOIP, "use-geoip", "use-geoip2", fulfilled_by=OFF),
    *_missing(_GEOIP, "geoip2-autoreload-in-minutes", fulfilled_by=("0",)),
    *_missing(_TRACING, "enable-opentelemetry", fulfilled_by=OFF),
    *_missing(_TRACING, *(f"opentelemetry-{name}" for name in ("config", "operation-name", "trust-incoming-span"))),
    *_missing(_TRACING, "otlp-collector-host", "otlp-collector-port", "otel-service-name", "otel-sampler"),
    *_missing(_TRACING, "otel-sampler-ratio", "otel-sampler-parent-based", "otel-max-queuesize"),
    *_missing(_TRACING, "otel-schedule-delay-millis", "otel-max-export-batch-size"),
)
_OF_OLDER_RELEASES: Final = (
    *_replaced("use bind-address", "bind-address-ipv4", "bind-address-ipv6"),
    *_replaced("use proxy-body-size", "body-size"),
    *_replaced("use the annotation affinity", "enable-sticky-sessions"),
    *_replaced("TLS records have the size of ssl-buffer-size", "enable-dynamic-tls-records"),
    *_replaced(_PASSIVE, "upstream-max-fails", "upstream-fail-timeout"),
    *_replaced("no parameters are added to the address of the Service", "proxy-pass-params"),
    *_replaced(_VTS, "enable-vts-status", "vts-status-zone-size", "vts-default-filter-key", "vts-sum-key"),
    *_replaced(_TRACING, "enable-opentracing", "opentracing-operation-name", "opentracing-location-operation-name"),
    *_replaced(_TRACING, "opentracing-trust-incoming-span"),
    *_replaced(_TRACING, *(f"zipkin-{name}" for name in ("collector-host", "collector-port"))),
    *_replaced(_TRACING, *(f"zipkin-{name}" for name in ("service-name", "sample-rate"))),
    *_replaced(_TRACING, *(f"jaeger-{name}" for name in ("collector-host", "collector-port", "endpoint"))),
    *_replaced(_TRACING, *(f"jaeger-{name}" for name in ("service-name", "propagation-format", "sampler-type"))),
    *_replaced(_TRACING, *(f"jaeger-{name}" for name in ("sampler-param", "sampler-host", "sampler-port"))),
    *_replaced(_TRACING, *(f"jaeger-{name}" for name in ("trace-context-header-name", "debug-header"))),
    *_replaced(_TRACING, *(f"jaeger-{name}" for name in ("baggage-header", "trace-baggage-header-prefix"))),
    *_replaced(_TRACING, *(f"datadog-{name}" for name in ("collector-host", "collector-port", "service-name"))),
    *_replaced(_TRACING, *(f"datadog-{name}" for name in ("environment", "operation-name-override"))),
    *_replaced(_TRACING, *(f"datadog-{name}" for name in ("priority-sampling", "sample-rate"))),
)

WITHOUT_EFFECT: Final = by_name(*_OF_PROTECTION, *_OF_TLS, *_OF_NGINX, *_OF_LOGS, *_OF_OLDER_RELEASES)
"""By key: those that protect first, those of older releases last."""
