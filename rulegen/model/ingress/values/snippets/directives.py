"""Directives in snippets: which of them may be left out, the effect of the others, and equivalent annotations.

Every directive that is not listed as harmless counts as protection: without it, a client might reach something that
the author of the snippet has closed.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


class KnownDirective(NamedTuple):
    """Effect of a directive, and equivalent annotations, as texts for a message; both may be empty."""

    does: str = ""
    instead: str = ""


def _named(*rows: tuple[str, str]) -> Mapping[str, KnownDirective]:
    """Return harmless directives by name, from rows of names and the equivalent annotation."""
    return MappingProxyType(
        {name: KnownDirective(instead=instead) for names, instead in rows for name in names.split()}
    )


def _doing(*rows: tuple[str, str, str]) -> Mapping[str, KnownDirective]:
    """Return protecting directives by name, from rows of names, their effect and the equivalent annotations."""
    return MappingProxyType(
        {name: KnownDirective(does, instead) for names, does, instead in rows for name in names.split()}
    )


_LIMITS: Final = "limit-rps, limit-rpm or limit-connections"

PROTECTING: Final = _doing(
    ("deny", "refuses addresses", "denylist-source-range"),
    ("allow", "admits addresses", "whitelist-source-range"),
    ("return", "answers instead of the backend", "for redirects: permanent-redirect, force-ssl-redirect"),
    ("rewrite", "changes the path that the backend sees", "rewrite-target or permanent-redirect"),
    ("auth_basic auth_basic_user_file", "requires a password", "auth-type and auth-secret"),
    ("auth_request auth_request_set", "asks an auth server", "auth-url and auth-response-headers"),
    ("satisfy", "combines access rules", "satisfy"),
    ("limit_req limit_req_status", "limits requests", _LIMITS),
    ("limit_conn limit_conn_status", "limits connections", _LIMITS),
    ("limit_except", "refuses methods", ""),
    ("internal", "refuses all requests of clients", ""),
    ("ssl_verify_client ssl_client_certificate ssl_verify_depth ssl_crl", "requires a certificate", "auth-tls-secret"),
    ("ssl_trusted_certificate", "verifies certificates", "auth-tls-secret"),
    ("ssl_protocols", "refuses versions of TLS", ""),
    ("ssl_ciphers", "refuses ciphers", "ssl-ciphers"),
    ("ssl_reject_handshake", "refuses TLS connections", ""),
    ("proxy_ssl_verify proxy_ssl_trusted_certificate", "verifies the backend", "proxy-ssl-verify, proxy-ssl-secret"),
    ("real_ip_header set_real_ip_from real_ip_recursive", "decides which address a client has", ""),
    ("modsecurity modsecurity_rules modsecurity_rules_file", "inspects requests", ""),
    ("limit_rate limit_rate_after", "limits the rate of answers", "limit-rate, limit-rate-after"),
    ("fastcgi_param", "sets a parameter of FastCGI", "fastcgi-params-configmap"),
    ("try_files root alias", "serves other content than the backend's", ""),
    ("proxy_pass grpc_pass fastcgi_pass", "sends requests to another backend", ""),
    ("secure_link secure_link_secret secure_link_md5", "requires signed links", ""),
    ("valid_referers", "tests the Referer", ""),
)
"""Directives that may keep a request from the backend."""

_TIMES: Final = "proxy-connect-timeout, proxy-send-timeout, proxy-read-timeout"
_BUFFERS: Final = "proxy-buffering, proxy-buffer-size, proxy-buffers-number, proxy-busy-buffers-size"
_SET_HEADERS: Final = "custom-headers"

_TUNING: Final = (
    ("client_max_body_size", "proxy-body-size"),
    ("client_body_buffer_size", "client-body-buffer-size"),
    ("client_body_timeout client_header_timeout send_timeout keepalive_timeout keepalive_requests", ""),
    ("client_header_buffer_size large_client_header_buffers lingering_close lingering_time lingering_timeout", ""),
    ("proxy_connect_timeout proxy_send_timeout proxy_read_timeout", _TIMES),
    ("grpc_connect_timeout grpc_send_timeout grpc_read_timeout", _TIMES),
    ("fastcgi_connect_timeout fastcgi_send_timeout fastcgi_read_timeout", _TIMES),
    ("proxy_buffering proxy_buffer_size proxy_buffers proxy_busy_buffers_size grpc_buffer_size", _BUFFERS),
    ("fastcgi_buffering fastcgi_buffer_size fastcgi_buffers fastcgi_busy_buffers_size", _BUFFERS),
    ("proxy_max_temp_file_size fastcgi_max_temp_file_size", "proxy-max-temp-file-size"),
    ("proxy_temp_file_write_size proxy_ignore_client_abort proxy_socket_keepalive proxy_limit_rate", ""),
    ("proxy_request_buffering fastcgi_request_buffering", "proxy-request-buffering"),
    ("proxy_next_upstream proxy_next_upstream_tries proxy_next_upstream_timeout", "proxy-next-upstream"),
    ("proxy_http_version", "proxy-http-version"),
    ("access_log", "enable-access-log"),
    ("error_log log_not_found log_subrequest rewrite_log uninitialized_variable_warn", ""),
    ("tcp_nodelay tcp_nopush sendfile sendfile_max_chunk aio directio output_buffers postpone_output", ""),
    ("reset_timedout_connection resolver resolver_timeout", ""),
)
"""Sizes, times and logs."""

HARMLESS: Final = _named(
    ("add_header add_trailer more_set_headers", _SET_HEADERS),
    ("more_clear_headers proxy_hide_header grpc_hide_header fastcgi_hide_header", "hide-headers of the ConfigMap"),
    ("proxy_pass_header grpc_pass_header proxy_ignore_headers", ""),
    ("proxy_set_header grpc_set_header", "proxy-set-headers of the ConfigMap, or upstream-vhost for Host"),
    ("proxy_cookie_path", "proxy-cookie-path"),
    ("proxy_cookie_domain", "proxy-cookie-domain"),
    ("proxy_cookie_flags proxy_headers_hash_max_size proxy_headers_hash_bucket_size", ""),
    ("proxy_redirect", "proxy-redirect-from, proxy-redirect-to"),
    ("expires etag if_modified_since charset charset_types override_charset source_charset default_type", ""),
    ("gzip gzip_types gzip_comp_level gzip_min_length gzip_proxied gzip_vary gzip_static gunzip", "use-gzip"),
    ("gzip_buffers gzip_disable gzip_http_version brotli brotli_types brotli_comp_level brotli_static", ""),
    ("sub_filter sub_filter_once sub_filter_types sub_filter_last_modified types chunked_transfer_encoding", ""),
    ("port_in_redirect absolute_redirect server_name_in_redirect", "relative-redirects"),
    ("server_tokens http2_push http2_push_preload http2_max_concurrent_streams", ""),
    ("ssl_session_timeout ssl_session_cache ssl_session_tickets ssl_buffer_size ssl_stapling", ""),
    ("ssl_prefer_server_ciphers", "ssl-prefer-server-ciphers"),
    ("error_page proxy_intercept_errors recursive_error_pages", "custom-http-errors"),
    ("proxy_ssl_server_name", "proxy-ssl-server-name"),
    ("proxy_ssl_name", "proxy-ssl-name"),
    ("proxy_ssl_session_reuse merge_slashes", ""),
    ("underscores_in_headers", "enable-underscores-in-headers of the ConfigMap"),
    ("ignore_invalid_headers", "ignore-invalid-headers of the ConfigMap"),
    ("more_set_input_headers", "proxy-set-headers of the ConfigMap"),
    ("proxy_cache proxy_cache_valid proxy_cache_key proxy_cache_bypass proxy_no_cache proxy_cache_use_stale", ""),
    ("proxy_cache_lock proxy_cache_lock_timeout proxy_cache_lock_age proxy_cache_methods proxy_cache_min_uses", ""),
    ("proxy_cache_revalidate proxy_cache_background_update", ""),
    ("set break", ""),
    ("opentelemetry opentelemetry_operation_name opentelemetry_propagate opentracing", ""),
    *_TUNING,
)
"""Harmless directives: without them, no additional request reaches the backend."""

_DEFINITIONS_NAMES: Final = (
    "map geo log_format split_clients limit_req_zone limit_conn_zone map_hash_bucket_size map_hash_max_size"
    " variables_hash_bucket_size variables_hash_max_size proxy_cache_path server_names_hash_bucket_size"
    " server_names_hash_max_size upstream lua_shared_dict lua_package_path more_set_headers"
)
DEFINITIONS: Final = frozenset(_DEFINITIONS_NAMES.split())
"""Directives of the block `http` that only define something for other directives."""

OF_AUTH_SUBREQUESTS: Final = _named(*_TUNING)
"""Directives that do not change the request to the auth server."""

_PROVING_NOTHING_NAMES: Final = (
    "accept accept-encoding accept-language cache-control connection host if-modified-since if-none-match origin"
    " proxy range referer te upgrade user-agent x-forwarded-for x-forwarded-host x-forwarded-port"
    " x-forwarded-proto x-forwarded-scheme x-original-forwarded-for x-real-ip x-request-id x-scheme"
)
_PROVING_NOTHING: Final = frozenset(_PROVING_NOTHING_NAMES.split())
"""Headers that do not prove a client's identity to a backend, or that rulegen itself sets."""
_PROOFS: Final = ("$remote_user", "$ssl_client_", "$auth_", "$upstream_http_", "$jwt_")
_SET_BY_NGINX_NAMES: Final = (
    "args limit_rate limit_rate_after host uri request_uri query_string document_root proxy_upstream_name"
    " proxy_alternative_upstream_name best_http_host namespace ingress_name service_name service_port"
    " location_path pass_access_scheme pass_server_port pass_port preserve_trailing_slash"
    " balancer_ewma_score global_rate_limit_exceeding the_real_ip"
)
_SET_BY_NGINX: Final = frozenset(_SET_BY_NGINX_NAMES.split())
_FAMILIES_OF_NGINX: Final = ("http_", "arg_", "cookie_", "proxy_", "auth_", "ssl_", "upstream_", "modsecurity", "lua_")
"""Prefixes of variables that nginx or ingress-nginx evaluate; setting them may change who is served."""


def says_who(name: str, words: Iterable[str]) -> bool:
    """Whether a directive sets a request header that may prove the identity of the client to a backend.

    Without the directive, a client could send such a header itself. All headers count, except those that prove nothing.
    """
    words = tuple(words)
    if name == "more_set_input_headers":
        headers = [word.partition(":")[0] for word in words]
    elif name in {"proxy_set_header", "grpc_set_header"}:
        headers = [*words[:1]]
    else:
        return False
    return any(header.strip().lower() not in _PROVING_NOTHING for header in headers) or any(map(_is_proof, words))


def sets_variable_of_nginx(name: str, words: Iterable[str]) -> bool:
    """Whether a directive sets a variable that nginx or ingress-nginx evaluate."""
    variable = next(iter(words), "").lower().lstrip("$").strip("{}")
    return name == "set" and (variable in _SET_BY_NGINX or variable.startswith(_FAMILIES_OF_NGINX))


def _is_proof(value: str) -> bool:
    return any(proof in value.lower().replace("${", "$") for proof in _PROOFS)
