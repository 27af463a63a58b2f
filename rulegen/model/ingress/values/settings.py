"""Settings of all hosts: the typed keys of ingress-nginx's ConfigMap, with its defaults."""

from __future__ import annotations

from dataclasses import dataclass, fields
from functools import cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from rulegen.model.ingress.values import readers, regex
from rulegen.model.ingress.values.readers import boolean, choice, integer, seconds, size
from rulegen.model.ingress.values.rewrites import pair, redirect_part
from rulegen.model.ingress.values.risks import risk_level
from rulegen.model.ingress.values.setting import METADATA, Setting, SettingGuard, headers_of_map, setting, setting_of
from rulegen.model.ingress.values.setting_readers import (
    addresses,
    affinity,
    connections,
    curves,
    duration,
    header_buffers,
    log_format,
    mime_type,
    mime_types,
    networks_or_none,
    paths,
    patterns,
    protocols,
    snippet,
    words_of_list,
    workers,
)
from rulegen.model.ingress.values.snippets.judgement import SnippetPlace
from rulegen.model.ingress.values.texts import Subject, Text

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rulegen.model.ingress.values.snippets.judgement import Judgement
    from rulegen.net import Network

LOG_FORMAT: Final = (
    '$remote_addr - $remote_user [$time_local] "$request" $status $body_bytes_sent "$http_referer" "$http_user_agent"'
    " $request_length $request_time [$proxy_upstream_name] [$proxy_alternative_upstream_name] $upstream_addr"
    " $upstream_response_length $upstream_response_time $upstream_status $req_id"
)
CIPHERS: Final = (
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:"
    "ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305:"
    "DHE-RSA-AES128-GCM-SHA256:DHE-RSA-AES256-GCM-SHA384"
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
_HEADERS: Final = "another ConfigMap, `namespace/name`, whose keys are headers; their values may contain variables"
_AS_ANNOTATION: Final = "like the annotation without `global-`"
_GUARDING: Final = "never used; **closes all Ingresses** if it may refuse requests"
_METHOD: Final = choice("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_ON_OFF: Final = choice("on", "off")
_STATUS: Final = integer(400, 599)
_BALANCE: Final = choice("round_robin", "ewma", "least_conn", "ip_hash")
_LEVEL: Final = choice("debug", "info", "notice", "warn", "error", "crit", "alert", "emerg")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Settings of all hosts; times in seconds, sizes in bytes.

    A field is named like its key, with `_` instead of `-`.
    """

    # listen addresses
    bind_address: tuple[str, ...] = setting_of(
        addresses, (), "addresses to listen on; none: all", guards=SettingGuard.ALL
    )
    disable_ipv6: bool = setting(boolean, "false")
    disable_ipv6_dns: bool = setting(boolean, "false", "names are not resolved to IPv6 addresses")
    reuse_port: bool = setting(boolean, "true")
    # workers
    worker_processes: str = setting(workers, "auto", "number, or `auto`")
    max_worker_connections: int = setting(connections, "16384", other_name="worker-connections")
    worker_cpu_affinity: str = setting_of(affinity, "", "`auto`, or a mask of CPUs for each worker")
    enable_multi_accept: bool = setting(boolean, "true")
    max_worker_open_files: int = setting(integer(0, 10_000_000), "0", "0: 1048576")
    worker_shutdown_timeout: int = setting(duration, "240")
    # clients
    keep_alive: int = setting(seconds, "75")
    keep_alive_requests: int = setting(integer(1, 10_000_000), "1000")
    client_header_timeout: int = setting(seconds, "60")
    client_body_timeout: int = setting(seconds, "60")
    client_header_buffer_size: int = setting(size(1 << 20), "1k")
    large_client_header_buffers: tuple[int, int] = setting(header_buffers, "4 8k", "number and size")
    client_body_buffer_size: int = setting(size(64 << 20), "8k")
    proxy_body_size: int = setting(size(), "1m")
    ignore_invalid_headers: bool = setting(boolean, "true")
    enable_underscores_in_headers: bool = setting(boolean, "false")
    server_tokens: bool = setting(boolean, "false")
    use_proxy_protocol: bool = setting(boolean, "false", "on all ports; connections to port 443 count as HTTPS")
    use_http2: bool = setting(boolean, "true")
    http2_max_concurrent_streams: int = setting(integer(1, 10_000), "128")
    # client address
    use_forwarded_headers: bool = setting(boolean, "false")
    enable_real_ip: bool = setting(boolean, "false")
    proxy_real_ip_cidr: tuple[Network, ...] = setting(
        networks_or_none,
        "0.0.0.0/0",
        "networks of proxies that may set the client's address; the default has no IPv6; empty: none",
        guards=SettingGuard.ALL,
        may_be_empty=True,
    )
    forwarded_for_header: str = setting(readers.header_name, "X-Forwarded-For")
    forwarded_host_header: str = setting(
        readers.header_name, "X-Forwarded-Host", "needs `use-forwarded-headers`; the header with the host"
    )
    compute_full_forwarded_for: bool = setting(boolean, "false", "needs `use-forwarded-headers`")
    generate_request_id: bool = setting(boolean, "true")
    proxy_add_original_uri_header: bool = setting(boolean, "false")
    # backends
    proxy_connect_timeout: int = setting(seconds, "5")
    proxy_send_timeout: int = setting(seconds, "60")
    proxy_read_timeout: int = setting(seconds, "60")
    proxy_buffering: str = setting(_ON_OFF, "off")
    proxy_request_buffering: str = setting(_ON_OFF, "on")
    proxy_buffer_size: int = setting(size(16 << 20), "4k")
    grpc_buffer_size_kb: int = setting(
        integer(0, 1 << 14), "0", "for gRPC, instead of `proxy-buffer-size`; 0: the same size"
    )
    proxy_buffers_number: int = setting(integer(2, 1024), "4")
    proxy_busy_buffers_size: int = setting(size(64 << 20), "8k")
    proxy_max_temp_file_size: int = setting(size(), "1024m")
    proxy_next_upstream: tuple[str, ...] = setting(readers.next_upstream, "error timeout")
    proxy_next_upstream_tries: int = setting(integer(0, 1_000_000), "3", "0: no limit")
    proxy_next_upstream_timeout: int = setting(seconds, "0", "0: the read timeout")
    retry_non_idempotent: bool = setting(boolean, "false")
    proxy_http_version: str = setting(choice("1.0", "1.1"), "1.1")
    proxy_cookie_domain: tuple[str, str] | None = setting(pair(readers.cookie_domain), "off", "as the annotation")
    proxy_cookie_path: tuple[str, str] | None = setting(pair(readers.cookie_path), "off", "as the annotation")
    proxy_redirect_from: str = setting(redirect_part, "off", "as the annotation")
    proxy_redirect_to: str = setting(redirect_part, "off", "as the annotation")
    upstream_keepalive_connections: int = setting(
        integer(0, 10_000),
        "32",
        "idle connections, for each worker and Service; none to FastCGI, nor to backends that must close them"
        " (`proxy-http-version: 1.0`, `connection-proxy-header: close`)",
        other_name="upstream-keepalive-conns",
    )
    upstream_keepalive_time: int = setting(duration, "3600")
    upstream_keepalive_timeout: int = setting(seconds, "60")
    upstream_keepalive_requests: int = setting(integer(1, 10_000_000), "1000")
    load_balance: str = setting(_BALANCE, "round_robin", "as the annotation")
    service_upstream: bool = setting(boolean, "false", "ClusterIPs instead of pods")
    allow_backend_server_header: bool = setting(boolean, "false")
    # TLS
    ssl_redirect: bool = setting(boolean, "true")
    force_ssl_redirect: bool = setting(boolean, "false")
    http_redirect_code: int = setting(readers.choice_number(301, 302, 307, 308), "308", "301, 302, 307, 308")
    no_tls_redirect_locations: tuple[str, ...] = setting(
        paths, "/.well-known/acme-challenge", "paths that stay on HTTP; empty: none", may_be_empty=True
    )
    use_port_in_redirects: bool = setting(
        boolean, "false", "add nginx's port to redirects to HTTPS, and to redirects whose target is only a path"
    )
    relative_redirects: bool = setting(boolean, "false", "as the annotation")
    preserve_trailing_slash: bool = setting(boolean, "false")
    hsts: bool = setting(boolean, "true")
    hsts_max_age: int = setting(integer(0, 2_147_483_647), "31536000")
    hsts_include_subdomains: bool = setting(boolean, "true")
    hsts_preload: bool = setting(boolean, "false")
    ssl_protocols: tuple[str, ...] = setting(protocols, "TLSv1.2 TLSv1.3")
    ssl_ciphers: str = setting_of(readers.ciphers, CIPHERS)
    ssl_prefer_server_ciphers: bool = setting(boolean, "true")
    ssl_ecdh_curve: str = setting(curves, "auto")
    ssl_session_cache: bool = setting(boolean, "true")
    ssl_session_cache_size: int = setting(size(1 << 30, 64 << 10), "10m")
    ssl_session_tickets: bool = setting(boolean, "false")
    ssl_session_timeout: int = setting(duration, "600")
    ssl_early_data: bool = setting(boolean, "false", "TLS 1.3; such requests can be replayed")
    ssl_buffer_size: int = setting(size(1 << 20), "4k")
    ssl_reject_handshake: bool = setting(boolean, "false", "for server names that no Ingress has")
    enable_ocsp: bool = setting(
        boolean,
        "false",
        "for certificates whose OCSP responder has an `http://` URL with a host that"
        " [nginx may connect to](#what-nginx-connects-to)",
    )
    # responses
    default_type: str = setting(mime_type, "text/html", "the type of responses of nginx itself")
    use_gzip: bool = setting(boolean, "false")
    gzip_level: int = setting(integer(1, 9), "1")
    gzip_min_length: int = setting(integer(0, 1 << 30), "256")
    gzip_disable: str = setting_of(regex.check, "", "expression for browsers that get no compressed responses")
    gzip_types: tuple[str, ...] = setting(mime_types, " ".join(GZIP_TYPES))
    hide_headers: tuple[str, ...] = setting_of(readers.header_names, (), "headers of backends that clients do not get")
    add_headers: tuple[tuple[str, Text], ...] = headers_of_map(readers.answer_header_text, _HEADERS)
    proxy_set_headers: tuple[tuple[str, Text], ...] = headers_of_map(readers.request_header_text, _HEADERS)
    global_allowed_response_headers: tuple[str, ...] = setting_of(
        readers.header_names, (), "headers that `custom-headers` may set"
    )
    custom_http_errors: tuple[int, ...] = setting_of(readers.error_codes, (), "needs a default backend")
    disable_proxy_intercept_errors: bool = setting(boolean, "false", "replace only errors of nginx itself")
    limit_rate: int = setting(integer(0, 1 << 21), "0", "KiB a second for each answer; needs `proxy-buffering: on`")
    limit_rate_after: int = setting(integer(0, 1 << 21), "0", "KiB sent before `limit-rate` applies")
    limit_req_status_code: int = setting(_STATUS, "503")
    limit_conn_status_code: int = setting(_STATUS, "503")
    # access control
    whitelist_source_range: tuple[Network, ...] = setting_of(
        networks_or_none,
        (),
        "for Ingresses without a list of their own",
        guards=SettingGuard.WITHOUT_ALLOWED,
        other_name="allowlist-source-range",
    )
    denylist_source_range: tuple[Network, ...] = setting_of(
        networks_or_none, (), "the same", guards=SettingGuard.WITHOUT_DENIED
    )
    block_cidrs: tuple[Network, ...] = setting_of(
        networks_or_none,
        (),
        "for all hosts, in addition to the lists of Ingresses",
        guards=SettingGuard.ALL,
    )
    block_user_agents: tuple[str, ...] = setting_of(
        patterns, (), "texts, case-insensitive; expressions begin with `~` or `~*`", guards=SettingGuard.ALL
    )
    block_referers: tuple[str, ...] = setting_of(patterns, (), "the same", guards=SettingGuard.ALL)
    annotations_risk_level: str = setting(
        risk_level,
        "High",
        "Ingresses with annotations of a higher risk are rejected; for snippets, see [Snippets](#snippets)",
    )
    annotation_value_word_blocklist: tuple[str, ...] = setting_of(
        words_of_list, (), "Ingresses with an annotation that contains one of these texts are rejected"
    )
    enable_modsecurity: bool = setting(boolean, "false", "ModSecurity is not available: see `modsecurity-snippet`")
    http_snippet: Judgement = snippet(SnippetPlace.HTTP, _GUARDING)  # noqa: RUF009 - it is frozen
    server_snippet: Judgement = snippet(SnippetPlace.SERVER, _GUARDING)  # noqa: RUF009
    location_snippet: Judgement = snippet(SnippetPlace.LOCATION, _GUARDING)  # noqa: RUF009
    modsecurity_snippet: Judgement = snippet(  # noqa: RUF009
        SnippetPlace.MODSECURITY, "the same, with `enable-modsecurity`"
    )
    global_auth_url: str = setting_of(
        str.strip,
        "",
        "**an invalid value closes all Ingresses that need it**, also for the next four keys and `global-auth-cache-*`",
    )
    global_auth_signin: str = setting_of(str.strip, "", _AS_ANNOTATION)
    global_auth_signin_redirect_param: str = setting(str.strip, "rd", _AS_ANNOTATION)
    global_auth_response_headers: str = setting_of(str.strip, "", _AS_ANNOTATION)
    global_auth_request_redirect: str = setting_of(str.strip, "", _AS_ANNOTATION)
    global_auth_method: str = setting_of(_METHOD, "")
    global_auth_cache_key: str = setting_of(str.strip, "", _AS_ANNOTATION)
    global_auth_cache_duration: str = setting(str.strip, "200 202 401 5m", _AS_ANNOTATION)
    global_auth_snippet: Judgement = snippet(  # noqa: RUF009
        SnippetPlace.AUTH, "never used; **closes the same Ingresses** if it changes the request to the auth server"
    )
    global_auth_always_set_cookie: bool = setting(boolean, "false")
    no_auth_locations: tuple[str, ...] = setting(
        paths,
        "/.well-known/acme-challenge",
        "paths that need neither a password nor the auth server; empty: none",
        may_be_empty=True,
    )
    # logs
    disable_access_log: bool = setting(boolean, "false")
    disable_http_access_log: bool = setting(boolean, "false", "the same as `disable-access-log`")
    enable_access_log_for_default_backend: bool = setting(
        boolean, "false", "logs requests for hosts without an Ingress"
    )
    log_format_upstream: Text = setting(  # noqa: RUF009 - a field, as all of these
        log_format, LOG_FORMAT, "default: that of ingress-nginx; one line; `-` is logged for an unknown variable"
    )
    log_format_escape_json: bool = setting(boolean, "false", "characters in the log are escaped as in JSON")
    log_format_escape_none: bool = setting(
        boolean, "false", "characters in the log are not escaped; has priority over `log-format-escape-json`"
    )
    skip_access_log_urls: tuple[str, ...] = setting_of(
        patterns, (), "whole URIs with their query; expressions begin with `~` or `~*`"
    )
    error_log_level: str = setting(_LEVEL, "notice")

    @property
    def trusts_some(self) -> bool:
        """Whether headers about a client are used only from peers in the networks of proxy-real-ip-cidr.

        If these contain every IPv4 address, as by default, they are used from all peers, as with ingress-nginx. But
        each family is decided by its own networks: with `10.0.0.0/8,::/0`, few IPv4 peers are trusted.
        """
        uses_headers = self.use_forwarded_headers or self.use_proxy_protocol
        given = {network.version for network in self.proxy_real_ip_cidr}
        every = {network.version for network in self.proxy_real_ip_cidr if network.prefixlen == 0}
        return uses_headers and not (4 in every and given == every)

    @property
    def log_format_escape(self) -> str:
        """How characters in the access log are escaped: `default`, `json` or `none`, as in nginx's `log_format`."""
        if self.log_format_escape_none:
            return "none"
        return "json" if self.log_format_escape_json else "default"

    @property
    def logs_access(self) -> bool:
        """Whether an access log is written."""
        return not (self.disable_access_log or self.disable_http_access_log)

    @property
    def logs_ingress(self) -> bool:
        """Whether the access log or a header of all hosts contains the Ingress, so that each server must set it."""
        texts = [text for _, text in (*self.add_headers, *self.proxy_set_headers)]
        if self.logs_access:
            texts.append(self.log_format_upstream)
        return any(_names_ingress(text) for text in texts)


@cache
def _names_ingress(text: Text) -> bool:
    return not text.subjects.isdisjoint({Subject.NAMESPACE, Subject.INGRESS})


SETTINGS: Final[Mapping[str, Setting]] = MappingProxyType(
    {field.name.replace("_", "-"): field.metadata[METADATA] for field in fields(Settings)}
)
"""Declaration of each key of the ConfigMap."""
OTHER_NAMES: Final[Mapping[str, str]] = MappingProxyType(
    {known.other_name: key for key, known in SETTINGS.items() if known.other_name}
)
"""Alternative names of keys, each with the key."""
