"""What HAProxy obeys of the model: for each field of a policy, of a host and of the settings, as with nginx or not.

What it does not obey is reported. Where it protects, the paths or the host are closed.
"""

from __future__ import annotations

import enum
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from rulegen.model.ingress.ir import (
    BasicAuth,
    Canary,
    Cors,
    FixedResponse,
    Limits,
    LocationPolicy,
    Server,
    Sticky,
    ToUpstream,
    Upstream,
)
from rulegen.model.ingress.proxying import Proxying, ProxySSL
from rulegen.model.ingress.values.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rulegen.model.ingress.ir import IngressModel, Location


class Obeyed(enum.Enum):
    """How HAProxy obeys a field."""

    AS_NGINX = "as with nginx"
    OTHERWISE = "otherwise"
    NOT = "not"
    CLOSES = "not: paths are closed"


_POLICY_NOT: Final = {
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
    "mirror": (Obeyed.NOT, "HAProxy sends no copies of requests to a mirror"),
}
_PROXYING_NOT: Final = frozenset(
    {"send_timeout_s", "buffers_answers", "buffers_requests", "http_version", "buffer_size", "buffers_number"}
    | {"busy_buffers_size", "temporary_file_size", "retry_timeout_s"}
)
_LIMITS_NOT: Final = frozenset({"rate", "rate_after"})
_SERVER_NOT: Final = {
    "rejects_tls": (Obeyed.CLOSES, "its certificate could not be read yet: the host is closed"),
    "responder_port": (Obeyed.NOT, "HAProxy asks no OCSP responder"),
    "prefer_server_ciphers": (Obeyed.NOT, "all hosts prefer the same ciphers with HAProxy"),
}
SETTINGS_NOT: Final = frozenset(
    {
        "worker_cpu_affinity", "enable_multi_accept", "max_worker_open_files", "reuse_port", "disable_ipv6_dns",
        "keep_alive_requests", "client_header_buffer_size", "large_client_header_buffers", "client_body_buffer_size",
        "ignore_invalid_headers", "server_tokens", "proxy_send_timeout", "proxy_buffering", "proxy_request_buffering",
        "proxy_buffer_size", "grpc_buffer_size_kb", "proxy_buffers_number", "proxy_busy_buffers_size",
        "proxy_cookie_domain", "proxy_cookie_path", "proxy_redirect_from", "proxy_redirect_to",
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

SETTINGS_OBEYED: Final = (
    "bind_address disable_ipv6 worker_processes max_worker_connections worker_shutdown_timeout keep_alive "
    "client_header_timeout client_body_timeout proxy_body_size enable_underscores_in_headers use_proxy_protocol "
    "use_http2 http2_max_concurrent_streams use_forwarded_headers enable_real_ip proxy_real_ip_cidr "
    "forwarded_for_header forwarded_host_header compute_full_forwarded_for generate_request_id "
    "proxy_add_original_uri_header proxy_connect_timeout proxy_read_timeout proxy_next_upstream "
    "proxy_next_upstream_tries retry_non_idempotent "
    "upstream_keepalive_connections upstream_keepalive_timeout load_balance service_upstream "
    "allow_backend_server_header ssl_redirect force_ssl_redirect http_redirect_code no_tls_redirect_locations "
    "relative_redirects preserve_trailing_slash hsts hsts_max_age hsts_include_subdomains hsts_preload "
    "ssl_protocols ssl_ciphers ssl_prefer_server_ciphers ssl_session_tickets ssl_reject_handshake hide_headers "
    "add_headers proxy_set_headers global_allowed_response_headers limit_req_status_code limit_conn_status_code "
    "whitelist_source_range denylist_source_range block_cidrs block_user_agents block_referers "
    "annotations_risk_level annotation_value_word_blocklist enable_modsecurity http_snippet server_snippet "
    "location_snippet modsecurity_snippet global_auth_url global_auth_signin global_auth_signin_redirect_param "
    "global_auth_response_headers global_auth_request_redirect global_auth_method global_auth_snippet "
    "global_auth_always_set_cookie global_auth_cache_key global_auth_cache_duration no_auth_locations"
)
"""Settings that have an effect with HAProxy, in its configuration or through the model."""

_AS_NGINX: Final = (
    (LocationPolicy, "is_closed ssl_redirect force_ssl_redirect preserve_trailing_slash redirect relative_redirects"),
    (LocationPolicy, "rewrite_target use_regex app_root basic_auth global_auth unproven_headers satisfy_any"),
    (LocationPolicy, "allow deny cors headers upstream_vhost forwarded_prefix external_auth"),
    (Proxying, "connect_timeout_s read_timeout_s"),
    (Limits, "rps rpm connections burst_multiplier exempt"),
    (Cors, "origins any_origin methods headers credentials max_age_s expose"),
    (BasicAuth, "realm file"),
    (ProxySSL, "certificate ca revoked verify name server_name"),
    (Sticky, "cookie attributes path is_secure"),
    (Canary, "target ingress header header_value header_pattern is_header_unreadable cookie share"),
    (Upstream, "name service servers backup balance sticky keepalive kept host"),
    (Server, "host aliases locations certificate has_tls ciphers app_root redirects_from ingresses limits is_regex"),
    (Settings, SETTINGS_OBEYED),
)
_OTHERWISE: Final = (
    (LocationPolicy, "limits body_size proxying sticky proxy_ssl protocol"),
    (Proxying, "retry_on retry_tries"),
    (ProxySSL, "verify_depth ciphers protocols"),
    (Sticky, "is_persistent is_none_conditional"),
    (Upstream, "hash_key"),
    (Server, "client_auth"),
)
"""What is served in another way, reported, or closed where HAProxy has no words for it; see docs/ingress.md."""


def _declared(kind: type) -> dict[str, Obeyed]:
    table = {name: Obeyed.AS_NGINX for owner, names in _AS_NGINX if owner is kind for name in names.split()}
    table |= {name: Obeyed.OTHERWISE for owner, names in _OTHERWISE if owner is kind for name in names.split()}
    reported = {LocationPolicy: _POLICY_NOT, Server: _SERVER_NOT}.get(kind, {})
    unused = {Proxying: _PROXYING_NOT, Limits: _LIMITS_NOT, Settings: SETTINGS_NOT}.get(kind, frozenset())
    return table | {name: how for name, (how, _) in reported.items()} | dict.fromkeys(unused, Obeyed.NOT)


DECLARED: Final[Mapping[type, Mapping[str, Obeyed]]] = MappingProxyType(
    {kind: MappingProxyType(_declared(kind)) for kind, _ in _AS_NGINX}
)
"""How each field of these parts of the model is obeyed. No field has a default: a new one must be declared here."""

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
    if policy.proxy_ssl is not None and policy.proxy_ssl.verify:
        yield Obeyed.NOT, "HAProxy does not limit the length of the certificate chains of backends"


def body_limit(policy: LocationPolicy, settings: Settings) -> int:
    """Return the most bytes that the body of a request to these paths may have; 0 for any number."""
    return settings.proxy_body_size if policy.body_size is None else policy.body_size


def disobeyed_by_location(location: Location, model: IngressModel) -> Iterator[tuple[Obeyed, str]]:
    """Yield how requests that are passed on are served in another way than with nginx, in words."""
    target, policy = location.target, location.policy
    if policy.redirect is not None or isinstance(target, FixedResponse):
        return
    sticky = model.upstreams[target.upstream].sticky if isinstance(target, ToUpstream) else None
    if sticky is not None and sticky.is_none_conditional:
        yield Obeyed.NOT, "with HAProxy, SameSite=None is also sent to browsers that reject it"
    if location.canaries and sticky is not None:
        yield Obeyed.NOT, "with HAProxy, a cookie for affinity does not keep a client at a canary, or away from it"
    if body_limit(policy, model.defaults.settings):
        if policy.protocol.startswith("GRPC"):
            yield Obeyed.NOT, "the limit on bodies has no effect with gRPC and HAProxy"
        else:
            yield Obeyed.OTHERWISE, "with HAProxy, a body whose length is not known beforehand is answered with 411"


def disobeyed_by_host(server: Server) -> Iterator[tuple[Obeyed, str]]:
    """Yield what is decided about a host that HAProxy does not obey, in words."""
    for name, (how, message) in _SERVER_NOT.items():
        if getattr(server, name) != getattr(_DEFAULT_SERVER, name):
            yield how, message
    if server.client_auth is not None:
        yield Obeyed.NOT, "HAProxy does not limit the length of certificate chains of clients"


def disobeyed_settings(settings: Settings) -> Iterator[str]:
    """Yield the keys of the ConfigMap that are set and have no effect with HAProxy."""
    for name in sorted(SETTINGS_NOT):
        if getattr(settings, name) != getattr(Settings(), name):
            yield name.replace("_", "-")


def _words(name: str) -> str:
    return name.removesuffix("_s").replace("_", " ")
