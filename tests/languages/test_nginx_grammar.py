"""What may be written: nothing that nginx takes elsewhere only, nothing that runs code or opens the host's files."""

from __future__ import annotations

import itertools

import crossplane.analyzer as oracle
import pytest

from rulegen.languages.nginx.grammar import ALLOWED, BLOCKS, ENTRY_BLOCKS, Reading, reading, refusal

CONTEXTS = {
    "main": oracle.NGX_MAIN_CONF,
    "events": oracle.NGX_EVENT_CONF,
    "http": oracle.NGX_HTTP_MAIN_CONF,
    "upstream": oracle.NGX_HTTP_UPS_CONF,
    "server": oracle.NGX_HTTP_SRV_CONF,
    "location": oracle.NGX_HTTP_LOC_CONF,
    "server_if": oracle.NGX_HTTP_SIF_CONF,
    "location_if": oracle.NGX_HTTP_LIF_CONF,
    "limit_except": oracle.NGX_HTTP_LMT_CONF,
}
NEWER = {"http2", "keepalive_time", "proxy_cookie_flags", "ssl_reject_handshake"}
NEWER |= {"more_clear_headers", "more_set_headers"}
"""Directives that the oracle does not know: of a newer nginx, or of the module headers-more."""
NEVER = (
    "alias root autoindex dav_methods dav_access ssl_engine env working_directory perl perl_set",
    "perl_modules content_by_lua_block access_by_lua_file js_include js_content secure_link ssl_password_file",
    "try_files index random_index ssi xslt_stylesheet memcached_pass scgi_pass uwsgi_pass proxy_store",
    "proxy_cache_path create_full_put_path disable_symlinks mail stream lock_file google_perftools_profiles",
    "debug_points open_file_cache body gzip_static gunzip flv mp4 geoip_country userid",
)


@pytest.mark.parametrize("context", sorted({context for context, _ in ALLOWED}))
def test_nginx_knows_each_directive_where_it_is_allowed(context: str):
    anywhere = oracle.NGX_MAIN_CONF | oracle.NGX_HTTP_MAIN_CONF if context in {"main", "http"} else 0
    for name in sorted(name for place, name in ALLOWED if place == context and name not in NEWER):
        masks = oracle.DIRECTIVES.get(name)
        assert masks is not None, name
        assert any(mask & (CONTEXTS[context] | (anywhere if name == "include" else 0)) for mask in masks), name
        has_block = [bool(mask & oracle.NGX_CONF_BLOCK) for mask in masks if mask & CONTEXTS[context]]
        assert not has_block or ((context, name) in BLOCKS) in has_block, name


@pytest.mark.parametrize("name", " ".join(NEVER).split())
def test_what_runs_code_or_serves_files_is_allowed_nowhere(name: str):
    for context, block in itertools.product({*CONTEXTS, *BLOCKS.values()}, (True, False)):
        assert refusal(context, name, ("x",), block=block)


def test_blocks_are_allowed_in_place_and_lead_to_known_contexts():
    assert set(BLOCKS) <= ALLOWED
    contexts = {context for context, _ in ALLOWED} | ENTRY_BLOCKS | {"types"}
    assert set(BLOCKS.values()) <= contexts


@pytest.mark.parametrize(
    ("context", "name", "args", "block", "says"),
    [
        ("location", "proxy_pass", ("http://u",), False, ""),
        ("location", "proxy_pass", ("http://unix:/var/run/docker.sock",), False, "socket"),
        ("location", "fastcgi_pass", ("unix:/run/php",), False, "socket"),
        ("upstream", "server", ("10.0.0.1:80", "backup"), False, ""),
        ("upstream", "server", ("UNIX:/run/x",), False, "socket"),
        ("upstream", "server", (), True, "takes no block"),
        ("http", "server", (), True, ""),
        ("http", "server", (), False, "takes a block"),
        ("server", "server", (), True, "not allowed in server"),
        ("server", "proxy_pass", ("http://u",), False, "not allowed in server"),
        ("", "return", ("200",), False, "not allowed"),
        ("location", "auth_basic", ("off",), False, "would switch authentication off"),
        ("location", "auth_basic", ("Off",), False, ""),
        ("http", "proxy_ignore_headers", ("X-Accel-Redirect",), False, ""),
        ("location", "proxy_ignore_headers", ("Set-Cookie", "X-Accel-Redirect"), False, ""),
        ("location", "proxy_ignore_headers", ("Set-Cookie",), False, "reach internal locations"),
        ("location", "grpc_ignore_headers", ("X-Accel-Buffering",), False, "reach internal locations"),
        ("location", "fastcgi_ignore_headers", ("Vary",), False, "reach internal locations"),
        ("main", "load_module", ("/usr/lib/nginx/modules/ngx_http_headers_more_filter_module.so",), False, ""),
        ("main", "load_module", ("/usr/lib/nginx/modules/ngx_http_lua_module.so",), False, "no module that"),
        ("main", "load_module", ("modules/ngx_http_headers_more_filter_module.so",), False, "no module that"),
        ("main", "load_module", ("/usr/../tmp/ngx_http_headers_more_filter_module.so",), False, "no module that"),
        ("main", "load_module", (), False, "no module that"),
        ("http", "load_module", ("/x/ngx_http_headers_more_filter_module.so",), False, "not allowed in http"),
        ("main", "include", ("hosts/*.conf",), False, ""),
        ("http", "include", ("/etc/passwd",), False, "not part of this configuration"),
        ("http", "include", ("hosts/../../x",), False, "not part of this configuration"),
        ("http", "include", (), False, "not part of this configuration"),
        ("server", "ssl_certificate", ("secrets/00.pem",), False, ""),
        ("server", "ssl_certificate", ("data:x",), False, "not part of this configuration"),
        ("server", "ssl_certificate_key", ("engine:x:y",), False, "not part of this configuration"),
        ("location", "auth_basic_user_file", ("/etc/shadow",), False, "not part of this configuration"),
        ("http", "access_log", ("off",), False, ""),
        ("http", "access_log", ("/dev/stdout", "main"), False, ""),
        ("http", "access_log", ("/etc/cron.d/x",), False, "not part of this configuration"),
        ("main", "error_log", ("stderr", "info"), False, ""),
        ("main", "error_log", ("syslog:server=10.0.0.1:514",), False, ""),
        ("main", "error_log", ("syslog:server=unix:/dev/log",), False, "not part of this configuration"),
        ("server", "location", ("/x y",), True, ""),
        ("server", "location", ("@named_1",), True, ""),
        ("server", "location", ("=", "/x"), True, ""),
        ("server", "location", ("~*", "^/x$"), True, ""),
        ("server", "location", (f"/{'x' * 254}",), True, ""),
        ("server", "location", (f"/{'x' * 255}",), True, "a location is"),
        ("server", "location", ("=", f"/{'é' * 128}"), True, "a location is"),
        ("server", "location", ("~", f"^/{'x' * 1000}"), True, ""),
        ("server", "location", ("=/x",), True, "a location is"),
        ("server", "location", ("~ ^/x",), True, "a location is"),
        ("server", "location", ("@named x",), True, "a location is"),
        ("server", "location", ("",), True, "a location is"),
        ("server", "location", ("=", "x"), True, "a location is"),
        ("server", "location", ("!", "/x"), True, "a location is"),
        ("server", "location", ("=", "/x", "y"), True, "a location is"),
        ("types", "text/html", ("html",), False, ""),
        ("types", "include", ("x",), False, "media type"),
    ],
)
def test_a_directive_is_refused_with_a_reason(context: str, name: str, args: tuple, block: bool, says: str):
    reported = refusal(context, name, args, block=block)
    assert (says in reported) if says else (reported == "")


@pytest.mark.parametrize(
    ("name", "args", "expected"),
    [
        ("return", ("200", "x"), "tt"),
        ("add_header", ("x", "y", "always"), "ltt"),
        ("set", ("$x", "y"), "lt"),
        ("map", ("x", "$y"), "tl"),
        ("rewrite", ("^/$", "/x", "last"), "ltt"),
        ("location", ("~", "^/$"), "ll"),
        ("if", ("(", "$x", "=", "y", ")"), "lnltl"),
        ("if", ("(", "$x", "~", "y$", ")"), "lnlll"),
        ("proxy_redirect", ("~^/$", "/x"), "lt"),
        ("proxy_redirect", ("/x", "/y"), "tt"),
        ("client_max_body_size", ("1m",), "w"),
        ("access_log", ("logs/a", "main", "if=x"), "wtt"),
    ],
)
def test_arguments_are_read_as_text_literally_or_as_words(name: str, args: tuple, expected: str):
    letters = {Reading.TEXT: "t", Reading.LITERAL: "l", Reading.WORD: "w", Reading.NAME: "n"}
    assert "".join(letters[reading(name, args, position)] for position in range(len(args))) == expected
