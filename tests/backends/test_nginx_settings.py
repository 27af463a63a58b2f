"""Keys of the ConfigMap, as nginx gets them: by default, and as they are set."""

from __future__ import annotations

import re

import pytest

from rulegen.model.ingress.reasons import Verdict
from tests.rights import needs_nginx
from tests.strategies.ingresses import (
    WEB,
    certificate,
    compiled,
    file_of,
    ingress,
    key_pem,
    refusal,
    rule,
    secret,
    settings_map,
    text_of,
    tls,
)
from tests.strategies.ingresses import site as site_of


def directives(name: str, **settings: str) -> set[str]:
    """Return what a directive says in all files; a keyword is a key, `_` for `-`."""
    files = compiled(*WEB, site_of(), settings_map(**settings)).configuration.files
    return {match[1] for text in files.values() for match in re.finditer(rf"^\s*{name} ([^;]*);", text, re.MULTILINE)}


@pytest.mark.parametrize(
    ("key", "text", "name", "default", "expected"),
    [
        ("worker-shutdown-timeout", "5m30s", "worker_shutdown_timeout", {"240s"}, {"330s"}),
        ("worker-processes", "3", "worker_processes", {"1"}, {"3"}),  # the default of these tests
        ("worker-processes", "auto", "worker_processes", {"1"}, {"auto"}),
        ("max-worker-open-files", "2048", "worker_rlimit_nofile", {"1048576"}, {"2048"}),
        ("max-worker-open-files", "0", "worker_rlimit_nofile", {"1048576"}, {"1048576"}),
        ("max-worker-connections", "4096", "worker_connections", {"16384"}, {"4096"}),
        ("max-worker-connections", "0", "worker_connections", {"16384"}, {"16384"}),
        ("keep-alive", "5", "keepalive_timeout", {"75s"}, {"5s"}),
        ("keep-alive-requests", "7", "keepalive_requests", {"1000"}, {"7"}),
        ("client-header-timeout", "5", "client_header_timeout", {"60s"}, {"5s"}),
        ("client-body-timeout", "5", "client_body_timeout", {"60s"}, {"5s"}),
        ("client-header-buffer-size", "2k", "client_header_buffer_size", {"1k"}, {"2k"}),
        ("large-client-header-buffers", "2 16k", "large_client_header_buffers", {"4 8k"}, {"2 16k"}),
        ("ssl-protocols", "SSLv3 TLSv1.2", "ssl_protocols", {"TLSv1.2 TLSv1.3"}, {"TLSv1.2"}),
        ("ssl-session-cache", "false", "ssl_session_cache", {"shared:tls10m:10m"}, {"off"}),
        ("ssl-session-cache-size", "5m", "ssl_session_cache", {"shared:tls10m:10m"}, {"shared:tls5m:5m"}),
        ("ssl-session-timeout", "1d", "ssl_session_timeout", {"600s"}, {"86400s"}),
        ("worker-cpu-affinity", "auto 01", "worker_cpu_affinity", set(), {"auto 01"}),
        ("enable-multi-accept", "false", "multi_accept", {"on"}, {"off"}),
        ("http2-max-concurrent-streams", "64", "http2_max_concurrent_streams", set(), {"64"}),  # nginx's own: 128
        ("ignore-invalid-headers", "false", "ignore_invalid_headers", {"on"}, {"off"}),
        ("enable-underscores-in-headers", "true", "underscores_in_headers", {"off"}, {"on"}),
        ("error-log-level", "warn", "error_log", {"logs/error.log notice"}, {"logs/error.log warn"}),
        ("ssl-ecdh-curve", "X25519:P-256", "ssl_ecdh_curve", {"auto"}, {"X25519:P-256"}),
        ("ssl-session-tickets", "true", "ssl_session_tickets", {"off"}, {"on"}),
        ("ssl-buffer-size", "8k", "ssl_buffer_size", {"4k"}, {"8k"}),
        ("ssl-early-data", "true", "ssl_early_data", {"off"}, {"on"}),
        ("default-type", "text/plain", "default_type", {"text/html"}, {"text/plain"}),
        ("grpc-buffer-size-kb", "16", "grpc_buffer_size", {"4k"}, {"16k"}),
        ("use-port-in-redirects", "true", "port_in_redirect", {"off"}, {"on"}),
        ("disable-access-log", "true", "access_log", {"logs/access.log upstreaminfo if=$loggable", "off"}, {"off"}),
    ],
)
def test_a_key_becomes_this_directive(key, text, name, default, expected):
    assert directives(name) == default
    assert directives(name, **{key.replace("-", "_"): text}) == expected


NAMES = (
    "args binary_remote_addr body_bytes_sent bytes_sent connection connection_requests content_length"
    " content_type gzip_ratio host hostname http_host https is_args limit_conn_status limit_req_status msec pid"
    " pipe proxy_host proxy_port proxy_protocol_addr proxy_protocol_port proxy_protocol_server_addr"
    " proxy_protocol_server_port realip_remote_addr realip_remote_port remote_addr remote_port remote_user request"
    " request_completion request_id request_length request_method request_time request_uri scheme server_addr"
    " server_name server_port server_protocol ssl_cipher ssl_client_fingerprint ssl_client_i_dn ssl_client_s_dn"
    " ssl_client_serial ssl_client_verify ssl_early_data ssl_protocol ssl_session_id ssl_session_reused status"
    " tcpinfo_rtt time_iso8601 time_local upstream_addr upstream_bytes_received upstream_bytes_sent"
    " upstream_cache_status upstream_connect_time upstream_header_time upstream_response_length"
    " upstream_response_time upstream_status uri"
)
"""Variables of nginx that mean the same in a log format of ingress-nginx."""


def test_a_log_format_keeps_the_names_of_nginx():
    names = NAMES.split()
    (text,) = directives("log_format", log_format_upstream=" ".join(f"${name}" for name in names))
    assert re.findall(r"\$\{(\w+)\}", text) == names


@pytest.mark.parametrize(
    ("keys", "escape"),
    [((), "default"), (("json",), "json"), (("none",), "none"), (("none", "json"), "none")],
)
def test_how_the_log_is_escaped(keys, escape):
    (text,) = directives("log_format", **{f"log_format_escape_{key}": "true" for key in keys})
    assert text.startswith(f"upstreaminfo escape={escape} ")


def test_what_is_compressed_and_how():
    given = {"gzip_level": "5", "gzip_min_length": "9", "gzip_types": "text/plain application/json"}
    for key, text in {"gzip": "on", **given}.items():
        name = key.replace("gzip_level", "gzip_comp_level")
        assert (directives(name, **given), directives(name, use_gzip="true", **given)) == (set(), {text})


def test_without_ipv6_nginx_listens_on_no_address_of_it():
    assert any(text.startswith("[::]:") for text in directives("listen"))
    assert not any("[" in text for text in directives("listen", disable_ipv6="true"))


def test_the_named_header_is_read_and_backends_get_the_usual_one():
    """The address of the connection is appended to what the named header has, which alone is trusted."""
    both = {"use_forwarded_headers": "true", "compute_full_forwarded_for": "true"}
    text = compiled(*WEB, site_of(), settings_map(forwarded_for_header="X-Client", **both)).configuration.files[
        "nginx.conf"
    ]
    assert "real_ip_header X-Client;" in text
    assert 'default "${http_x_client}, ${realip_remote_addr}";' in text
    assert "proxy_set_header X-Forwarded-For $forwarded_for;" in text
    assert "proxy_set_header X-Client" not in text


@needs_nginx
def test_nginx_knows_all_variables_of_a_log_format(tmp_path):
    every = settings_map(log_format_upstream=" ".join(f"${name}" for name in NAMES.split()))
    assert refusal(compiled(*WEB, site_of(), every).configuration, tmp_path / "nginx") == ""


@pytest.mark.parametrize("name", ["$nope", "${geoip2_city}", "$ssl_client_raw_cert", "$location_path", "$1"])
@needs_nginx
def test_an_unknown_variable_of_a_log_format_is_a_hyphen(name, tmp_path):
    """The rest of the format stays as it is written, for the program that reads the log."""
    format_of_ones_own = settings_map(log_format_upstream=f'{{"to": "$host", "x": "{name}", "as": $status}}')
    result = compiled(*WEB, site_of(), format_of_ones_own)
    (line,) = [line for line in result.configuration.files["nginx.conf"].splitlines() if "log_format" in line]
    assert line.endswith(r'"{\"to\": \"${host}\", \"x\": \"-\", \"as\": ${status}}";')
    (reason,) = [reason for reason in result.model.reasons if reason.about is None]
    assert reason.verdict is Verdict.IGNORED
    assert f'data.log-format-upstream: "{name}": ' in reason.message
    assert refusal(result.configuration, tmp_path / "nginx") == ""


def test_kept_answers_of_auth_servers_take_a_bounded_space():
    asked = site_of(auth_url="http://web.default.svc/", auth_cache_key="$http_authorization")
    text = compiled(*WEB, asked).configuration.files["nginx.conf"]
    (path,) = re.findall(r"proxy_cache_path (.*);", text)
    assert path.split()[-4:] == ["keys_zone=auth:10m", "max_size=128m", "inactive=30m", "use_temp_path=off"]


def test_an_expression_for_any_case_is_written_once():
    files = compiled(*WEB, site_of(), settings_map(block_user_agents="~*bot.*,curl")).configuration.files
    lines = {line.strip() for text in files.values() for line in text.splitlines()}
    assert {"~*bot.* 1;", '"~*^curl$" 1;'} <= lines


@pytest.mark.parametrize(("text", "count"), [("true", 4), ("false", 0)])
def test_each_worker_has_its_own_sockets_unless_switched_off(text, count):
    files = compiled(*WEB, site_of(), settings_map(reuse_port=text)).configuration.files
    assert "".join(files.values()).count("reuseport") == count
    assert directives("listen") > {"8080", "8443"}


def test_the_oldest_ingress_without_host_sets_the_default_server():
    both = [
        ingress("b", rule(""), annotations={"ssl-ciphers": "AES256-SHA"}, created="2026-01-02T00:00:00Z"),
        ingress("a", rule(""), annotations={"ssl-ciphers": "AES128-SHA"}, created="2026-01-01T00:00:00Z"),
    ]
    assert "ssl_ciphers AES128-SHA;" in text_of(compiled(*WEB, *both), "")
    assert "ssl_ciphers" not in text_of(compiled(*WEB), "")


def test_an_alias_has_the_certificate_of_its_host():
    made = compiled(
        *WEB,
        secret("cert", tls_crt=certificate("site.test"), tls_key=key_pem()),
        ingress("site", rule("site.test"), annotations={"server-alias": "other.test"}, tls=[tls("cert", "site.test")]),
    )
    text = text_of(made)
    assert "server_name site.test other.test;" in text
    assert "ssl_certificate secrets/" in text
    assert text.count("server {") == 1
    assert file_of("other.test") not in made.configuration.files


def test_rewrites_are_logged_on_request():
    assert "rewrite_log on;" in text_of(compiled(*WEB, site_of(enable_rewrite_log="true")))
    assert "rewrite_log" not in text_of(compiled(*WEB, site_of()))
