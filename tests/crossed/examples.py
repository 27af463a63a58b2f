"""For each annotation an example: a value that is not the default, with the annotations that it needs beside it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

_BASIC = {"auth-type": "basic", "auth-secret": "users"}
_ASKED = {"auth-url": "http://api.default.svc.cluster.local/"}
_CORS = {"enable-cors": "true"}
_STICKY = {"affinity": "cookie"}
_CLIENT = {"auth-tls-secret": "ca"}
_BACKEND_TLS = {"backend-protocol": "HTTPS", "proxy-ssl-secret": "upstream"}
_RATE = {"limit-rps": "5"}
_MIRRORED = {"mirror-target": "http://api.default.svc.cluster.local/copy"}
_REDIRECT = {"permanent-redirect": "https://new.test/"}


@dataclass(frozen=True, kw_only=True)
class Example:
    """An annotation with a value.

    Attributes:
        value: Its value.
        beside: Other annotations of the same Ingress.
        settings: Of the ConfigMap, for both that have the annotation and that have not.
    """

    value: str
    beside: Mapping[str, str] = field(default_factory=dict)
    settings: Mapping[str, str] = field(default_factory=dict)


def _each(beside: Mapping[str, str], **values: str) -> dict[str, Example]:
    return {name.replace("_", "-"): Example(value=value, beside=beside) for name, value in values.items()}


ACCESS = {
    "auth-type": Example(value="basic", beside={"auth-secret": "users"}),
    "auth-secret": Example(value="users", beside={"auth-type": "basic"}),
    "auth-secret-type": Example(value="auth-map", beside={"auth-type": "basic", "auth-secret": "user-map"}),
    "enable-global-auth": Example(value="false", settings={"global-auth-url": "http://auth.example.com/"}),
    "auth-signin-redirect-param": Example(value="to", beside={**_ASKED, "auth-signin": "https://login.test/"}),
    "satisfy": Example(value="any", beside={**_BASIC, "whitelist-source-range": "10.0.0.0/8"}),
    "limit-rate-after": Example(value="9", beside={"limit-rate": "5", "proxy-buffering": "on"}),
    **_each(_BASIC, auth_realm="a realm"),
    **_each({}, auth_url="http://api.default.svc.cluster.local/", denylist_source_range="10.0.0.0/8"),
    **_each({}, whitelist_source_range="10.0.0.0/8", allowlist_source_range="10.0.0.0/8"),
    **_each(
        _ASKED,
        auth_method="POST",
        auth_signin="https://login.test/",
        auth_response_headers="X-User",
        auth_proxy_set_headers="headers",
        auth_request_redirect="/back",
        auth_always_set_cookie="true",
        auth_cache_key="$http_authorization",
        auth_keepalive="7",
    ),
    **_each({**_ASKED, "auth-keepalive": "7"}, auth_keepalive_requests="70", auth_keepalive_timeout="700"),
    **_each({**_ASKED, "auth-cache-key": "$http_authorization"}, auth_cache_duration="200 1m"),
    **_each({}, limit_rps="5", limit_rpm="6", limit_connections="7"),
    **_each({"proxy-buffering": "on"}, limit_rate="5"),
    **_each(_RATE, limit_burst_multiplier="3", limit_whitelist="10.0.0.0/8", limit_allowlist="10.0.0.0/8"),
}
BACKEND = {
    **_each(
        {},
        backend_protocol="HTTPS",
        proxy_connect_timeout="11",
        proxy_send_timeout="12",
        proxy_read_timeout="13",
        proxy_body_size="3m",
        client_body_buffer_size="9k",
        proxy_buffering="on",
        proxy_request_buffering="off",
        proxy_buffer_size="16k",
        proxy_max_temp_file_size="5m",
        proxy_next_upstream="error http_502",
        proxy_next_upstream_tries="2",
        proxy_next_upstream_timeout="4",
        proxy_http_version="1.0",
        proxy_cookie_domain="a.test b.test",
        proxy_cookie_path="/a /b",
    ),
    **_each({"proxy-buffering": "on"}, proxy_buffers_number="9", proxy_busy_buffers_size="24k"),
    **_each({"proxy-redirect-to": "/to"}, proxy_redirect_from="/from"),
    **_each({}, mirror_target="http://api.default.svc.cluster.local/copy"),
    **_each(_MIRRORED, mirror_host="copy.test", mirror_request_body="off"),
    **_each({"proxy-redirect-from": "/from"}, proxy_redirect_to="/to"),
    **_each({"backend-protocol": "FCGI"}, fastcgi_index="index.php", fastcgi_params_configmap="parameters"),
}
BALANCING = {
    **_each({}, load_balance="least_conn", upstream_hash_by="$request_uri", affinity="cookie"),
    **_each(
        _STICKY,
        affinity_mode="persistent",
        session_cookie_name="SERVERID",
        session_cookie_path="/p",
        session_cookie_domain="site.test",
        session_cookie_expires="60",
        session_cookie_max_age="70",
        session_cookie_samesite="Lax",
        session_cookie_secure="true",
        session_cookie_partitioned="true",
    ),
    **_each({**_STICKY, "session-cookie-samesite": "None"}, session_cookie_conditional_samesite_none="true"),
}
HEADERS = {
    "enable-cors": Example(value="true"),
    "custom-headers": Example(value="headers", settings={"global-allowed-response-headers": "X-Own"}),
    **_each(
        _CORS,
        cors_allow_origin="https://a.test",
        cors_allow_methods="GET",
        cors_allow_headers="X-A",
        cors_expose_headers="X-B",
        cors_allow_credentials="false",
        cors_max_age="9",
    ),
    **_each({}, upstream_vhost="inner.test", connection_proxy_header="close"),
    **_each({"rewrite-target": "/new"}, x_forwarded_prefix="/before"),
}
ROUTING = {
    **_each({}, use_regex="true", rewrite_target="/new", app_root="/app", service_upstream="true"),
    **_each({}, permanent_redirect="https://new.test/", temporal_redirect="https://new.test/"),
    **_each({}, server_alias="other.test", from_to_www_redirect="true", default_backend="api"),
    **_each({"force-ssl-redirect": "true"}, use_port_in_redirects="true"),
    **_each(_REDIRECT, permanent_redirect_code="308", relative_redirects="true"),
    **_each({"temporal-redirect": "https://new.test/"}, temporal_redirect_code="307"),
    **_each({"default-backend": "api"}, custom_http_errors="404,503"),
    **_each({"default-backend": "api", "custom-http-errors": "404,503"}, disable_proxy_intercept_errors="true"),
}
TLS = {
    **_each({}, ssl_redirect="false", force_ssl_redirect="true", preserve_trailing_slash="true"),
    **_each({}, ssl_ciphers="AES256-SHA", ssl_prefer_server_ciphers="false", auth_tls_secret="ca"),
    **_each(
        _CLIENT,
        auth_tls_verify_client="optional",
        auth_tls_verify_depth="3",
        auth_tls_match_cn="CN=a",
        auth_tls_error_page="/no",
        auth_tls_pass_certificate_to_upstream="true",
    ),
    **_each(
        _BACKEND_TLS,
        proxy_ssl_ciphers="AES256-SHA",
        proxy_ssl_protocols="TLSv1.3",
        proxy_ssl_name="inner.test",
        proxy_ssl_server_name="on",
        proxy_ssl_verify="on",
        proxy_ssl_verify_depth="3",
    ),
    **_each({"backend-protocol": "HTTPS"}, proxy_ssl_secret="upstream"),
}
LOGS = _each({}, enable_access_log="false", enable_rewrite_log="true")

EXAMPLES: Mapping[str, Example] = {**ACCESS, **BACKEND, **BALANCING, **HEADERS, **ROUTING, **TLS, **LOGS}

CANARIES = {
    **_each({"canary": "true", "canary-weight": "0"}, canary_by_header="X-C", canary_by_cookie="c"),
    **_each({"canary": "true", "canary-by-header": "X-C"}, canary_by_header_value="v", canary_by_header_pattern="p+"),
    **_each({"canary": "true"}, canary_weight="30"),
    **_each({"canary": "true", "canary-weight": "30"}, canary_weight_total="1000"),
    **_each({"canary-weight": "30"}, canary="true"),
    **_each({"canary": "true", "canary-weight": "30"}, affinity_canary_behavior="legacy"),
}
"""Annotations of the Ingress beside another one with a cookie of its own, whose requests it gets a share of."""

WITHOUT_EFFECT = {
    "session-cookie-change-on-failure": "the cookie never changes; reported",
    **dict.fromkeys(
        ("health-check-path", "health-check-interval", "slow-start", "max-connections", "retry-on"),
        "only HAProxy obeys it; reported",
    ),
}
