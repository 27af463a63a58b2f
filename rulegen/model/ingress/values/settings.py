"""What holds for all hosts: the keys of ingress-nginx's ConfigMap, typed, with its defaults."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from rulegen.model.ingress.values import readers
from rulegen.model.ingress.values.readers import boolean, choice, integer, items, seconds, size
from rulegen.net import Network, parse_address

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


LOG_FORMAT: Final = (
    '$remote_addr - $remote_user [$time_local] "$request" $status $body_bytes_sent "$http_referer" "$http_user_agent"'
    " $request_length $request_time [$proxy_upstream_name] [$proxy_alternative_upstream_name] $upstream_addr"
    " $upstream_response_length $upstream_response_time $upstream_status $req_id"
)
_LOG_VARIABLES: Final = (
    "args arg_ binary_remote_addr body_bytes_sent bytes_sent connection connection_requests content_length"
    " content_type cookie_ gzip_ratio host hostname http_ https ingress_name is_args msec namespace pipe"
    " proxy_add_x_forwarded_for proxy_alternative_upstream_name proxy_host proxy_port proxy_protocol_addr"
    " proxy_upstream_name query_string realip_remote_addr realip_remote_port remote_addr remote_port remote_user"
    " req_id request request_completion request_id request_length request_method request_time request_uri scheme"
    " sent_http_ server_addr server_name server_port server_protocol service_name service_port ssl_cipher"
    " ssl_client_s_dn ssl_client_verify ssl_protocol ssl_server_name ssl_session_reused status the_real_ip"
    " time_iso8601 time_local tcpinfo_rtt upstream_addr upstream_bytes_received upstream_bytes_sent"
    " upstream_cache_status upstream_connect_time upstream_header_time upstream_http_ upstream_response_length"
    " upstream_response_time upstream_status uri"
)
LOG_VARIABLES: Final = frozenset(_LOG_VARIABLES.split())
CIPHERS: Final = (
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:"
    "ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305:"
    "DHE-RSA-AES128-GCM-SHA256:DHE-RSA-AES256-GCM-SHA384"
)
CURVES: Final = frozenset(
    {"X25519", "X448", "P-256", "P-384", "P-521", "prime256v1", "secp384r1", "secp521r1", "ffdhe2048", "ffdhe3072"}
)
GZIP_TYPES: Final = (
    "application/atom+xml",
    "application/javascript",
    "application/json",
    "application/rss+xml",
    "application/vnd.ms-fontobject",
    "application/x-font-ttf",
    "application/x-javascript",
    "application/x-web-app-manifest+json",
    "application/xhtml+xml",
    "application/xml",
    "font/opentype",
    "image/svg+xml",
    "image/x-icon",
    "text/css",
    "text/javascript",
    "text/plain",
    "text/x-component",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Settings for all hosts; times in seconds, sizes in bytes. Names are those of the keys, with `_` for `-`.

    Attributes:
        user: Who nginx's workers run as, and their group; empty for whoever starts them.
        http2_is_directive: Whether nginx (1.25.1 and later) switches HTTP/2 on by a directive, not for each address.
        names_port: Where a process of ours answers nginx for names, but for what none may lead to; 0 where nginx itself
            asks name servers.
        default_certificate: Path of the certificate for hosts without one.
        names_certificates: Whether each host names its certificate, the default one too, as nginx refuses some that do
            not, or would give them what the server of every other name has for itself.
    """

    # who and where
    http_port: int = 80
    https_port: int = 443
    bind_address: tuple[str, ...] = ()
    disable_ipv6: bool = False
    reuse_port: bool = True
    user: str = "www-data"
    names_port: int = 0
    # workers
    worker_processes: str = "auto"
    max_worker_connections: int = 16384
    max_worker_open_files: int = 0
    worker_shutdown_timeout: int = 240
    # clients
    keep_alive: int = 75
    keep_alive_requests: int = 1000
    client_header_timeout: int = 60
    client_body_timeout: int = 60
    client_header_buffer_size: int = 1 << 10
    large_client_header_buffers: tuple[int, int] = (4, 8 << 10)
    client_body_buffer_size: int = 8 << 10
    proxy_body_size: int = 1 << 20
    ignore_invalid_headers: bool = True
    enable_underscores_in_headers: bool = False
    server_tokens: bool = False
    use_proxy_protocol: bool = False
    use_http2: bool = True
    http2_max_concurrent_streams: int = 128
    http2_is_directive: bool = False
    # who the client is
    use_forwarded_headers: bool = False
    enable_real_ip: bool = False
    proxy_real_ip_cidr: tuple[Network, ...] = (readers.network("0.0.0.0/0"), readers.network("::/0"))
    forwarded_for_header: str = "X-Forwarded-For"
    compute_full_forwarded_for: bool = False
    generate_request_id: bool = True
    proxy_add_original_uri_header: bool = False
    # backends
    proxy_connect_timeout: int = 5
    proxy_send_timeout: int = 60
    proxy_read_timeout: int = 60
    proxy_buffering: str = "off"
    proxy_request_buffering: str = "on"
    proxy_buffer_size: int = 4 << 10
    proxy_buffers_number: int = 4
    proxy_busy_buffers_size: int = 8 << 10
    proxy_max_temp_file_size: int = 1 << 30
    proxy_next_upstream: tuple[str, ...] = ("error", "timeout")
    proxy_next_upstream_tries: int = 3
    proxy_next_upstream_timeout: int = 0
    retry_non_idempotent: bool = False
    proxy_http_version: str = "1.1"
    proxy_cookie_domain: str = "off"
    proxy_cookie_path: str = "off"
    upstream_keepalive_connections: int = 32
    upstream_keepalive_time: int = 3600
    upstream_keepalive_timeout: int = 60
    upstream_keepalive_requests: int = 1000
    load_balance: str = "round_robin"
    service_upstream: bool = False
    allow_backend_server_header: bool = False
    # TLS
    ssl_redirect: bool = True
    force_ssl_redirect: bool = False
    http_redirect_code: int = 308
    no_tls_redirect_locations: tuple[str, ...] = ("/.well-known/acme-challenge",)
    use_port_in_redirects: bool = False
    preserve_trailing_slash: bool = False
    hsts: bool = True
    hsts_max_age: int = 31536000
    hsts_include_subdomains: bool = True
    hsts_preload: bool = False
    ssl_protocols: tuple[str, ...] = ("TLSv1.2", "TLSv1.3")
    ssl_ciphers: str = CIPHERS
    ssl_prefer_server_ciphers: bool = True
    ssl_ecdh_curve: str = "auto"
    ssl_session_cache: bool = True
    ssl_session_cache_size: int = 10 << 20
    ssl_session_tickets: bool = False
    ssl_session_timeout: int = 600
    ssl_buffer_size: int = 4 << 10
    ssl_reject_handshake: bool = False
    enable_ocsp: bool = False
    # answers
    use_gzip: bool = False
    gzip_level: int = 1
    gzip_min_length: int = 256
    gzip_types: tuple[str, ...] = GZIP_TYPES
    hide_headers: tuple[str, ...] = ()
    add_headers: tuple[tuple[str, str], ...] = ()
    proxy_set_headers: tuple[tuple[str, str], ...] = ()
    global_allowed_response_headers: tuple[str, ...] = ()
    custom_http_errors: tuple[int, ...] = ()
    limit_rate: int = 0
    limit_rate_after: int = 0
    limit_req_status_code: int = 503
    limit_conn_status_code: int = 503
    # who may
    whitelist_source_range: tuple[Network, ...] = ()
    denylist_source_range: tuple[Network, ...] = ()
    block_cidrs: tuple[Network, ...] = ()
    block_user_agents: tuple[str, ...] = ()
    block_referers: tuple[str, ...] = ()
    global_auth_url: str = ""
    global_auth_method: str = ""
    global_auth_signin: str = ""
    global_auth_signin_redirect_param: str = "rd"
    global_auth_response_headers: str = ""
    global_auth_request_redirect: str = ""
    global_auth_always_set_cookie: bool = False
    no_auth_locations: tuple[str, ...] = ("/.well-known/acme-challenge",)
    # logs
    disable_access_log: bool = False
    log_format_upstream: str = LOG_FORMAT
    log_format_escape: str = "default"
    skip_access_log_urls: tuple[str, ...] = ()
    error_log_level: str = "notice"
    # not of the ConfigMap
    default_certificate: str = ""
    names_certificates: bool = False

    @property
    def logs_ingress(self) -> bool:
        """Whether a line of the log names the Ingress, so that each server must say which it is."""
        return not self.disable_access_log and _names_ingress(self.log_format_upstream)


@cache
def _names_ingress(log_format: str) -> bool:
    return any(name in {"namespace", "ingress_name"} for _, name in readers.split_variables(log_format))


def _header_buffers(text: str) -> tuple[int, int]:
    parts = text.split()
    if len(parts) != 2:
        raise ValueError(f"{readers.quoted(text)} is not a number and a size such as 4 8k")
    return integer(1, 64)(parts[0]), size(1 << 20, 1 << 10)(parts[1])


def _workers(text: str) -> str:
    return text if text == "auto" else str(integer(1, 512)(text))


def _addresses(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(str(parse_address(part)) for part in items(text)))


def _paths(text: str) -> tuple[str, ...]:
    return tuple(readers.path(part) for part in items(text))


def _protocols(text: str) -> tuple[str, ...]:
    found = {choice("SSLv2", "SSLv3", *readers.PROTOCOLS)(word) for word in text.split()} - {"SSLv2", "SSLv3"}
    if not found:
        raise ValueError(f"{readers.quoted(text)} names no protocol that is fit for use")
    return tuple(protocol for protocol in readers.PROTOCOLS if protocol in found)


def _patterns(text: str) -> tuple[str, ...]:
    return tuple(_pattern(part) for part in items(text))


def _pattern(text: str) -> str:
    """Return an expression: a text stands for itself, one after `~` or `~*` is an expression."""
    from rulegen.model.ingress.values import regex  # noqa: PLC0415 - which needs nothing from here

    if text.startswith("~"):
        return "~*" * text.startswith("~*") + regex.check(text.removeprefix("~*").removeprefix("~"))
    if len(text) > 800:
        raise ValueError(f"{readers.quoted(text)} is longer than 800 characters")
    return f"^{regex.escape(readers.header_text(text))}$"


def _log_format(text: str) -> str:
    if not text.isprintable() or len(text.encode(errors="replace")) > 2000:
        raise ValueError(f"{readers.quoted(text)} is not a log format: one line of at most 2000 bytes")
    readers.check_variables(text, LOG_VARIABLES)
    return text


def _mime_types(text: str) -> tuple[str, ...]:
    found = tuple(dict.fromkeys(text.split()))
    for word in found:
        if word != "*" and not readers.re.match(r"[a-z0-9.+-]{1,60}/[a-z0-9.+-]{1,60}\Z", word):
            raise ValueError(f"{readers.quoted(word)} is not a MIME type")
    return tuple(word for word in found if word != "text/html")


def _curves(text: str) -> str:
    if text != "auto" and not set(text.split(":")) <= CURVES:
        raise ValueError(f"{readers.quoted(text)} is neither auto nor a list of curves such as X25519:P-256")
    return text


_ON_OFF = choice("on", "off")
_STATUS = integer(400, 599)

READERS: Final[Mapping[str, Callable[[str], Any]]] = MappingProxyType(
    {
        "bind-address": _addresses,
        "disable-ipv6": boolean,
        "reuse-port": boolean,
        "worker-processes": _workers,
        "max-worker-connections": lambda text: 16384 if text == "0" else integer(64, 1_000_000)(text),
        "max-worker-open-files": integer(0, 10_000_000),
        "worker-shutdown-timeout": seconds,
        "keep-alive": seconds,
        "keep-alive-requests": integer(1, 10_000_000),
        "client-header-timeout": seconds,
        "client-body-timeout": seconds,
        "client-header-buffer-size": size(1 << 20),
        "large-client-header-buffers": _header_buffers,
        "client-body-buffer-size": size(64 << 20),
        "proxy-body-size": size(),
        "ignore-invalid-headers": boolean,
        "enable-underscores-in-headers": boolean,
        "server-tokens": boolean,
        "use-proxy-protocol": boolean,
        "use-http2": boolean,
        "http2-max-concurrent-streams": integer(1, 10_000),
        "use-forwarded-headers": boolean,
        "enable-real-ip": boolean,
        "proxy-real-ip-cidr": readers.networks,
        "forwarded-for-header": readers.header_name,
        "compute-full-forwarded-for": boolean,
        "generate-request-id": boolean,
        "proxy-add-original-uri-header": boolean,
        "proxy-connect-timeout": seconds,
        "proxy-send-timeout": seconds,
        "proxy-read-timeout": seconds,
        "proxy-buffering": _ON_OFF,
        "proxy-request-buffering": _ON_OFF,
        "proxy-buffer-size": size(16 << 20),
        "proxy-buffers-number": integer(2, 1024),
        "proxy-busy-buffers-size": size(64 << 20),
        "proxy-max-temp-file-size": size(),
        "proxy-next-upstream": readers.next_upstream,
        "proxy-next-upstream-tries": integer(0, 100),
        "proxy-next-upstream-timeout": seconds,
        "retry-non-idempotent": boolean,
        "proxy-http-version": choice("1.0", "1.1"),
        "proxy-cookie-domain": choice("off"),
        "proxy-cookie-path": choice("off"),
        "upstream-keepalive-connections": integer(0, 10_000),
        "upstream-keepalive-time": seconds,
        "upstream-keepalive-timeout": seconds,
        "upstream-keepalive-requests": integer(1, 10_000_000),
        "load-balance": choice("round_robin", "ewma", "least_conn", "ip_hash"),
        "service-upstream": boolean,
        "allow-backend-server-header": boolean,
        "ssl-redirect": boolean,
        "force-ssl-redirect": boolean,
        "http-redirect-code": readers.choice_number(301, 302, 307, 308),
        "no-tls-redirect-locations": _paths,
        "use-port-in-redirects": boolean,
        "preserve-trailing-slash": boolean,
        "hsts": boolean,
        "hsts-max-age": integer(0, 2_147_483_647),
        "hsts-include-subdomains": boolean,
        "hsts-preload": boolean,
        "ssl-protocols": _protocols,
        "ssl-ciphers": readers.ciphers,
        "ssl-prefer-server-ciphers": boolean,
        "ssl-ecdh-curve": _curves,
        "ssl-session-cache": boolean,
        "ssl-session-cache-size": size(1 << 30, 64 << 10),
        "ssl-session-tickets": boolean,
        "ssl-session-timeout": seconds,
        "ssl-buffer-size": size(1 << 20),
        "ssl-reject-handshake": boolean,
        "enable-ocsp": boolean,
        "use-gzip": boolean,
        "gzip-level": integer(1, 9),
        "gzip-min-length": integer(0, 1 << 30),
        "gzip-types": _mime_types,
        "hide-headers": readers.header_names,
        "global-allowed-response-headers": readers.header_names,
        "custom-http-errors": readers.error_codes,
        "limit-rate": integer(0, 1 << 21),
        "limit-rate-after": integer(0, 1 << 21),
        "limit-req-status-code": _STATUS,
        "limit-conn-status-code": _STATUS,
        "whitelist-source-range": readers.networks,
        "denylist-source-range": readers.networks,
        "block-cidrs": readers.networks,
        "block-user-agents": _patterns,
        "block-referers": _patterns,
        "global-auth-method": choice("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"),
        "global-auth-always-set-cookie": boolean,
        "no-auth-locations": _paths,
        "disable-access-log": boolean,
        "log-format-upstream": _log_format,
        "skip-access-log-urls": _paths,
        "error-log-level": choice("debug", "info", "notice", "warn", "error", "crit", "alert", "emerg"),
    }
)
"""Keys of the ConfigMap, each with the reader of its value."""

ALIASES: Final = MappingProxyType(
    {
        "worker-connections": "max-worker-connections",
        "upstream-keepalive-conns": "upstream-keepalive-connections",
        "allowlist-source-range": "whitelist-source-range",
    }
)
TEXTS: Final = (
    "global-auth-url",
    "global-auth-signin",
    "global-auth-signin-redirect-param",
    "global-auth-response-headers",
    "global-auth-request-redirect",
)
"""Keys whose values are read like the annotation of the same name, where they are used."""
REFERENCES: Final = ("add-headers", "proxy-set-headers")
"""Keys that name another ConfigMap, whose keys are headers."""
FAIL_CLOSED: Final = frozenset(
    {
        "whitelist-source-range",
        "denylist-source-range",
        "block-cidrs",
        "block-user-agents",
        "block-referers",
        "proxy-real-ip-cidr",
    }
)
"""Keys that keep somebody out: a value of these that cannot be read is an error, not a default."""


@dataclass(frozen=True, slots=True)
class SettingsRead:
    """Settings, and what is wrong with their source.

    Attributes:
        warnings: One line for each key that is not obeyed.
        references: Names of ConfigMaps by key, `namespace/name`.
    """

    settings: Settings
    warnings: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
    references: Mapping[str, tuple[str, str]] = field(default_factory=dict)


def read_settings(told: Mapping[str, str], base: Settings) -> SettingsRead:
    """Return the settings that the keys of a ConfigMap make of `base`."""
    found: dict[str, Any] = {}
    warnings: list[str] = []
    errors: list[str] = []
    references: dict[str, tuple[str, str]] = {}
    for key, text in sorted(told.items()):
        name = ALIASES.get(key, key)
        try:
            if name in READERS:
                found[name.replace("-", "_")] = READERS[name](text.strip())
            elif name in TEXTS:
                found[name.replace("-", "_")] = text.strip()
            elif name in REFERENCES:
                references[name] = readers.reference(text.strip())
            elif name in {"log-format-escape-json", "log-format-escape-none"}:
                if boolean(text):
                    found["log_format_escape"] = name.rpartition("-")[2]
            else:
                warnings.append(f"data.{readers.printable(key)}: not supported; it is ignored{_meant(key)}")
        except ValueError as error:
            where = errors if name in FAIL_CLOSED else warnings
            where.append(f"data.{key}: {error}; it is ignored" if where is warnings else f"data.{key}: {error}")
    settings = replace(base, **found)
    return SettingsRead(settings, tuple(warnings), tuple(errors), references)


def _meant(key: str) -> str:
    """Return the question whether the nearest key was meant; empty where none is near."""
    near = get_close_matches(key[:100].lower().replace("_", "-"), [*READERS, *TEXTS, *REFERENCES, *ALIASES], 1)
    return f'; is "{near[0]}" meant?' if near else ""
