"""What HAProxy obeys of the model: for each field of a policy, of a host and of the settings, as with nginx or not.

What it does not obey is reported. Where it protects, the paths or the host are closed.
"""

from __future__ import annotations

import enum
from dataclasses import fields
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from rulegen.model.ingress.ir import Limits, LocationPolicy, Server
from rulegen.model.ingress.proxying import Proxying
from rulegen.model.ingress.values.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


class Obeyed(enum.Enum):
    """How HAProxy obeys a field."""

    AS_NGINX = "as with nginx"
    OTHERWISE = "otherwise"
    NOT = "not"
    CLOSES = "not: paths are closed"


_POLICY_NOT: Final = {
    "external_auth": (Obeyed.CLOSES, "HAProxy asks no auth server yet: the paths are closed"),
    "ports_in_redirects": (Obeyed.NOT, "redirects name no port with HAProxy"),
    "connection_header": (Obeyed.NOT, "HAProxy writes the header Connection itself"),
    "body_buffer_size": (Obeyed.NOT, "HAProxy writes no body to disk"),
    "cookie_domain": (Obeyed.NOT, "HAProxy changes no cookies of backends yet"),
    "cookie_path": (Obeyed.NOT, "HAProxy changes no cookies of backends yet"),
    "redirect_rewrite": (Obeyed.NOT, "HAProxy changes no redirects of backends yet"),
    "errors": (Obeyed.NOT, "HAProxy replaces no answers by those of a Service"),
    "stands_in_for": (Obeyed.NOT, "the default backend is not sent what it stands in for with HAProxy yet"),
    "scripts": (Obeyed.NOT, "HAProxy speaks no FastCGI yet"),
    "script_index": (Obeyed.NOT, "HAProxy speaks no FastCGI yet"),
    "access_log": (Obeyed.NOT, "HAProxy writes no access log yet"),
    "rewrite_log": (Obeyed.NOT, "HAProxy logs no rewrites"),
}
_POLICY_OTHERWISE: Final = frozenset({"limits", "body_size", "proxying", "sticky", "proxy_ssl", "protocol"})
POLICY: Final[Mapping[str, Obeyed]] = MappingProxyType(
    {
        field.name: _POLICY_NOT[field.name][0]
        if field.name in _POLICY_NOT
        else Obeyed.OTHERWISE
        if field.name in _POLICY_OTHERWISE
        else Obeyed.AS_NGINX
        for field in fields(LocationPolicy)
    }
)
"""How each field of a location's policy is obeyed."""

_PROXYING_NOT: Final = frozenset(
    {"send_timeout_s", "buffers_answers", "buffers_requests", "http_version", "buffer_size", "buffers_number"}
    | {"busy_buffers_size", "temporary_file_size", "retry_timeout_s"}
)
_LIMITS_NOT: Final = frozenset({"rate", "rate_after"})
_SERVER_NOT: Final = {
    "client_auth": (Obeyed.CLOSES, "HAProxy requests no certificates of clients yet: the host is closed"),
    "rejects_tls": (Obeyed.CLOSES, "its certificate could not be read yet: the host is closed"),
    "responder_port": (Obeyed.NOT, "HAProxy asks no OCSP responder"),
    "ciphers": (Obeyed.NOT, "all hosts have the same ciphers with HAProxy"),
    "prefer_server_ciphers": (Obeyed.NOT, "all hosts have the same ciphers with HAProxy"),
}
SETTINGS_NOT: Final = frozenset(
    {
        "worker_cpu_affinity", "enable_multi_accept", "max_worker_open_files", "reuse_port", "disable_ipv6_dns",
        "keep_alive_requests", "client_header_buffer_size", "large_client_header_buffers", "client_body_buffer_size",
        "ignore_invalid_headers", "server_tokens", "proxy_send_timeout", "proxy_buffering", "proxy_request_buffering",
        "proxy_buffer_size", "grpc_buffer_size_kb", "proxy_buffers_number", "proxy_busy_buffers_size",
        "proxy_max_temp_file_size", "proxy_next_upstream_timeout", "proxy_http_version", "upstream_keepalive_time",
        "upstream_keepalive_requests", "use_port_in_redirects", "ssl_ecdh_curve", "ssl_session_cache",
        "ssl_session_cache_size", "ssl_session_timeout", "ssl_early_data", "ssl_buffer_size", "enable_ocsp",
        "default_type", "use_gzip", "gzip_level", "gzip_min_length", "gzip_disable", "gzip_types",
        "custom_http_errors", "disable_proxy_intercept_errors", "limit_rate", "limit_rate_after",
        "disable_access_log", "disable_http_access_log", "enable_access_log_for_default_backend",
        "log_format_upstream", "log_format_escape_json", "log_format_escape_none", "skip_access_log_urls",
        "error_log_level",
    }
)  # fmt: skip
"""Settings that have no effect with HAProxy; none of them protects anything."""

_DEFAULT_POLICY: Final = LocationPolicy()
_DEFAULT_SERVER: Final = Server(host="")


def disobeyed_by_path(policy: LocationPolicy) -> Iterator[tuple[Obeyed, str]]:
    """Yield what a policy says that HAProxy does not obey, in words."""
    for name, (how, message) in _POLICY_NOT.items():
        if getattr(policy, name) != getattr(_DEFAULT_POLICY, name):
            yield how, message
    for name in sorted(_PROXYING_NOT):
        if getattr(policy.proxying, name) != getattr(Proxying(), name):
            yield Obeyed.NOT, f"{_words(name)} is not set for paths with HAProxy"
    for name in sorted(_LIMITS_NOT):
        if getattr(policy.limits, name) != getattr(Limits(), name):
            yield Obeyed.NOT, "HAProxy 2.6 does not limit how fast an answer is sent"
            break


def disobeyed_by_host(server: Server) -> Iterator[tuple[Obeyed, str]]:
    """Yield what is decided about a host that HAProxy does not obey, in words."""
    for name, (how, message) in _SERVER_NOT.items():
        if getattr(server, name) != getattr(_DEFAULT_SERVER, name):
            yield how, message


def disobeyed_settings(settings: Settings) -> Iterator[str]:
    """Yield the keys of the ConfigMap that are set and have no effect with HAProxy."""
    for name in sorted(SETTINGS_NOT):
        if getattr(settings, name) != getattr(Settings(), name):
            yield name.replace("_", "-")


def _words(name: str) -> str:
    return name.removesuffix("_s").replace("_", " ")
