"""Which directives rulegen may write, where each may stand, and how nginx reads its arguments.

A list of allowed directives, not of forbidden ones: a directive that is not listed here is rejected before nginx reads
it. So no value of an object can become a directive that runs code (`ssl_engine`, `perl`, Lua), that serves the host's
files (`alias`, `root`, `autoindex`, `dav_methods`) or that reads a file from elsewhere. `load_module` takes the modules
of a list only.

Source: nginx's documentation of each directive ("Context:") and its own tables (ngx_http_*_module.c) of 1.22.
"""

from __future__ import annotations

import enum
import re
from typing import TYPE_CHECKING, Final

from rulegen.languages.nginx.sockets import SIGNIN_SOCKET

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence


class Reading(enum.Enum):
    """How nginx reads one argument."""

    TEXT = "text with variables"
    """A dollar sign starts a variable, so a literal one must be written as `${dollar}`."""
    LITERAL = "literal"
    """A name, a path of a URL or a regular expression: a dollar sign is a character like others."""
    NAME = "name of a variable"
    """One variable, as `$name`: nginx takes no braces there."""
    WORD = "word"
    """A number, a size, a file of ours or a word of nginx: a dollar sign is not allowed there."""


BLOCKS: Final = {
    ("main", "events"): "events",
    ("main", "http"): "http",
    ("http", "upstream"): "upstream",
    ("http", "server"): "server",
    ("http", "map"): "map",
    ("http", "geo"): "geo",
    ("http", "split_clients"): "split_clients",
    ("http", "types"): "types",
    ("server", "types"): "types",
    ("location", "types"): "types",
    ("server", "location"): "location",
    ("location", "location"): "location",
    ("server", "if"): "server_if",
    ("location", "if"): "location_if",
    ("location", "limit_except"): "limit_except",
}
"""The context inside a block, by the context it stands in and its name."""

ENTRY_BLOCKS: Final = frozenset({"map", "geo", "split_clients"})
"""Blocks whose lines are entries, not directives."""

MAX_LOCATION: Final = 255
"""Bytes of a location's path: nginx keeps its length in one byte, and a longer one would match other paths than its own
(measured with 1.22: a prefix of 512 bytes matches everything). A regular expression may be longer."""

NO_FILE: Final = "//rulegen/none"
"""A path below the folder of nginx where no file is: `try_files` answers with the status behind it."""

CACHE_FOLDER: Final = "run/auth"
"""The folder of answers of auth servers that nginx keeps, below its own."""

_HTTP: Final = "http server location"

_PLACES: Final = (
    ("main", "error_log events http include pcre_jit pid user worker_cpu_affinity worker_priority worker_processes"),
    ("main", "load_module"),
    ("main", "worker_rlimit_nofile worker_shutdown_timeout"),
    ("events", "accept_mutex accept_mutex_delay multi_accept use worker_connections"),
    ("http", "geo include limit_conn_zone limit_req_zone log_format map server split_clients upstream"),
    ("http", "proxy_cache_path"),
    ("http", "map_hash_bucket_size map_hash_max_size server_names_hash_bucket_size server_names_hash_max_size"),
    ("http", "variables_hash_bucket_size variables_hash_max_size"),
    ("upstream", "hash ip_hash keepalive keepalive_time least_conn random server zone"),
    ("upstream http server location", "keepalive_requests keepalive_timeout"),
    ("http server", "client_header_buffer_size client_header_timeout connection_pool_size ignore_invalid_headers"),
    ("http server", "large_client_header_buffers merge_slashes request_pool_size underscores_in_headers"),
    ("http server", "http2 http2_chunk_size http2_max_concurrent_streams"),
    ("http server", "ssl_buffer_size ssl_certificate ssl_certificate_key ssl_ciphers ssl_client_certificate ssl_crl"),
    ("http server", "ssl_dhparam ssl_early_data ssl_ecdh_curve ssl_prefer_server_ciphers ssl_protocols"),
    ("http server", "ssl_reject_handshake ssl_session_cache ssl_session_ticket_key ssl_session_tickets"),
    ("http server", "ssl_session_timeout ssl_stapling ssl_stapling_verify ssl_trusted_certificate"),
    ("http server", "ssl_verify_client ssl_verify_depth"),
    ("server", "listen server_name"),
    ("server location", "if location stub_status"),
    ("server server_if location location_if", "break return rewrite set"),
    (f"{_HTTP} server_if location_if", "rewrite_log uninitialized_variable_warn"),
    (f"{_HTTP} location_if", "access_log add_header error_page expires gzip limit_rate limit_rate_after"),
    (
        _HTTP,
        "absolute_redirect client_body_buffer_size client_body_timeout client_max_body_size default_type error_log",
    ),
    (_HTTP, "chunked_transfer_encoding client_body_temp_path etag if_modified_since keepalive_disable keepalive_time"),
    (_HTTP, "gzip_buffers gzip_comp_level gzip_disable gzip_http_version gzip_min_length gzip_proxied gzip_types"),
    (_HTTP, "gzip_vary lingering_close lingering_time lingering_timeout log_not_found log_subrequest"),
    (_HTTP, "limit_conn limit_conn_dry_run limit_conn_log_level limit_conn_status"),
    (_HTTP, "limit_req limit_req_dry_run limit_req_log_level limit_req_status mirror mirror_request_body"),
    (_HTTP, "port_in_redirect postpone_output real_ip_header real_ip_recursive set_real_ip_from"),
    (_HTTP, "recursive_error_pages reset_timedout_connection resolver resolver_timeout satisfy send_timeout sendfile"),
    (_HTTP, "server_name_in_redirect server_tokens sub_filter sub_filter_last_modified sub_filter_once"),
    (_HTTP, "sub_filter_types tcp_nodelay tcp_nopush types types_hash_bucket_size types_hash_max_size"),
    (f"{_HTTP} limit_except", "allow auth_basic auth_basic_user_file deny"),
    (_HTTP, "auth_request auth_request_set"),
    (f"{_HTTP} location_if", "more_clear_headers more_set_headers"),
    ("location", "internal limit_except try_files"),
    ("location location_if limit_except", "proxy_pass"),
    ("location location_if", "fastcgi_pass grpc_pass"),
    (_HTTP, "proxy_bind proxy_buffer_size proxy_buffering proxy_buffers proxy_busy_buffers_size"),
    (_HTTP, "proxy_cache proxy_cache_bypass proxy_cache_key proxy_cache_valid proxy_no_cache"),
    (_HTTP, "proxy_connect_timeout proxy_cookie_domain proxy_cookie_flags proxy_cookie_path"),
    (_HTTP, "proxy_headers_hash_bucket_size proxy_headers_hash_max_size proxy_hide_header proxy_http_version"),
    (_HTTP, "proxy_ignore_client_abort proxy_ignore_headers proxy_intercept_errors proxy_limit_rate"),
    (_HTTP, "proxy_max_temp_file_size proxy_method proxy_next_upstream proxy_next_upstream_timeout"),
    (_HTTP, "proxy_next_upstream_tries proxy_pass_header proxy_pass_request_body proxy_pass_request_headers"),
    (_HTTP, "proxy_read_timeout proxy_redirect proxy_request_buffering proxy_send_timeout proxy_set_body"),
    (_HTTP, "proxy_set_header proxy_socket_keepalive proxy_ssl_certificate proxy_ssl_certificate_key"),
    (_HTTP, "proxy_ssl_ciphers proxy_ssl_name proxy_ssl_protocols proxy_ssl_server_name proxy_ssl_session_reuse"),
    (_HTTP, "grpc_ssl_crl proxy_ssl_crl"),
    (_HTTP, "proxy_ssl_trusted_certificate proxy_ssl_verify proxy_ssl_verify_depth proxy_temp_file_write_size"),
    (_HTTP, "fastcgi_temp_path proxy_temp_path scgi_temp_path uwsgi_temp_path"),
    (_HTTP, "grpc_buffer_size grpc_connect_timeout grpc_hide_header grpc_ignore_headers grpc_intercept_errors"),
    (_HTTP, "grpc_next_upstream grpc_next_upstream_timeout grpc_next_upstream_tries grpc_pass_header"),
    (_HTTP, "grpc_read_timeout grpc_send_timeout grpc_set_header grpc_socket_keepalive grpc_ssl_certificate"),
    (_HTTP, "grpc_ssl_certificate_key grpc_ssl_ciphers grpc_ssl_name grpc_ssl_protocols grpc_ssl_server_name"),
    (_HTTP, "grpc_ssl_session_reuse grpc_ssl_trusted_certificate grpc_ssl_verify grpc_ssl_verify_depth"),
    (_HTTP, "fastcgi_buffer_size fastcgi_buffering fastcgi_buffers fastcgi_busy_buffers_size"),
    (_HTTP, "fastcgi_connect_timeout fastcgi_hide_header fastcgi_ignore_headers fastcgi_index"),
    (_HTTP, "fastcgi_intercept_errors fastcgi_keep_conn"),
    (_HTTP, "fastcgi_max_temp_file_size fastcgi_next_upstream fastcgi_next_upstream_timeout"),
    (_HTTP, "fastcgi_next_upstream_tries fastcgi_param fastcgi_pass_header fastcgi_read_timeout"),
    (_HTTP, "fastcgi_request_buffering fastcgi_send_timeout fastcgi_split_path_info"),
)
"""Where which directives may stand: contexts, directives."""


def _contexts() -> Iterator[tuple[str, str]]:
    for places, names in _PLACES:
        for name in names.split():
            for place in places.split():
                yield place, name


ALLOWED: Final = frozenset(_contexts())
"""Every pair of context and directive that may be written."""

_TEXT, _LITERAL, _WORD = Reading.TEXT, Reading.LITERAL, Reading.WORD

_READ: Final = (
    ((_LITERAL, _TEXT), "add_header auth_request_set fastcgi_param grpc_set_header proxy_set_header rewrite set"),
    ((_TEXT, _LITERAL), "map split_clients"),
    ((_WORD, _TEXT), "access_log log_format"),
    ((_TEXT,), "auth_basic auth_basic_user_file error_page expires fastcgi_pass grpc_pass grpc_ssl_certificate"),
    ((_TEXT,), "grpc_ssl_certificate_key grpc_ssl_name hash limit_conn_zone limit_rate limit_rate_after"),
    ((_TEXT,), "more_set_headers proxy_cache_bypass proxy_cache_key proxy_no_cache"),
    ((_TEXT,), "limit_req_zone proxy_bind proxy_cookie_domain proxy_cookie_flags proxy_cookie_path proxy_limit_rate"),
    ((_TEXT,), "proxy_method proxy_pass proxy_redirect proxy_set_body proxy_ssl_certificate"),
    ((_TEXT,), "proxy_ssl_certificate_key proxy_ssl_name return ssl_certificate ssl_certificate_key sub_filter"),
    ((_LITERAL,), "allow auth_request deny fastcgi_hide_header fastcgi_index fastcgi_pass_header"),
    ((_LITERAL,), "fastcgi_split_path_info geo grpc_hide_header grpc_pass_header limit_except listen location mirror"),
    ((_LITERAL,), "gzip_disable"),
    ((_LITERAL,), "proxy_hide_header proxy_pass_header resolver server server_name set_real_ip_from upstream"),
)
"""How arguments are read, in their order, the last for all that follow; what is not named takes words only."""

_READINGS: Final = {name: readings for readings, names in _READ for name in names.split()}
_REGEX_AFTER_TILDE: Final = frozenset(
    {"proxy_cookie_domain", "proxy_cookie_flags", "proxy_cookie_path", "proxy_redirect"}
)
_NAMES_A_FILE: Final = (
    "access_log auth_basic_user_file client_body_temp_path error_log fastcgi_temp_path grpc_ssl_certificate",
    "grpc_ssl_certificate_key grpc_ssl_trusted_certificate include pid proxy_ssl_certificate",
    "proxy_ssl_certificate_key proxy_ssl_trusted_certificate proxy_temp_path scgi_temp_path ssl_certificate",
    "ssl_certificate_key ssl_client_certificate ssl_crl ssl_dhparam ssl_session_ticket_key ssl_trusted_certificate",
    "grpc_ssl_crl proxy_ssl_crl uwsgi_temp_path",
)
_FILES: Final = frozenset(" ".join(_NAMES_A_FILE).split())
_OUR_FILE: Final = re.compile(r"(?!.*\.\.)[A-Za-z0-9_][A-Za-z0-9_./*-]*\Z")
_LOG: Final = re.compile(r"(?:/dev/std(?:out|err)|syslog:[^\x00-\x20/]+)\Z")
_MODULE_FILE: Final = re.compile(r"/(?!.*\.\.)[A-Za-z0-9_./+-]+/ngx_http_headers_more_filter_module\.so\Z")
"""Shared objects that nginx may load: only modules that add directives of the list above."""
_PEERS: Final = frozenset({"fastcgi_pass", "grpc_pass", "proxy_pass", "server"})
_SOCKET_FILE: Final = re.compile(r"(?:\w+://)?unix:", re.IGNORECASE)
IGNORING: Final = frozenset({"proxy_ignore_headers", "grpc_ignore_headers", "fastcgi_ignore_headers"})
"""Directives with names of headers that nginx does not obey if a backend answers with them."""
INTERNAL_REDIRECT: Final = "X-Accel-Redirect"
"""The header by which a backend would have nginx answer from any location, an internal one of another Ingress too."""
_NAMED_LOCATION: Final = re.compile(r"@[A-Za-z0-9_-]+\Z")
_STATUS: Final = re.compile(r"=[1-5][0-9][0-9]\Z")
_MEDIA_TYPE: Final = re.compile(r"[\w.+-]+/[\w.+-]+\Z", re.ASCII)


def inside(context: str, name: str) -> str | None:
    """Return the context inside the block of a directive, or None for a directive that has no block."""
    return BLOCKS.get((context, name))


def reading(name: str, args: Sequence[object], position: int) -> Reading:
    """Return how nginx reads one argument of a directive.

    Args:
        name: The directive.
        args: All its arguments; only texts among them count.
        position: Which argument, from 0.
    """
    if name == "if":
        # ( $variable = text ): only what = and != compare with is a text with variables.
        if position == 1:
            return Reading.NAME
        return _TEXT if position and args[position - 1] in {"=", "!="} else _LITERAL
    if name in _REGEX_AFTER_TILDE and not position and isinstance(args[0], str) and args[0].startswith("~"):
        return _LITERAL
    readings = _READINGS.get(name)
    if readings is None:
        return _WORD
    return readings[position] if position < len(readings) else readings[-1]


def refusal(context: str, name: str, args: Sequence[str], *, block: bool) -> str:
    """Return why a directive may not be written, or an empty text.

    Args:
        context: Where it stands.
        name: The directive.
        args: Its arguments as nginx reads them.
        block: Whether it has a block.
    """
    if context == "types":
        return "" if _MEDIA_TYPE.match(name) and not block else f"{name[:40]!r} is not a media type"
    if (context, name) not in ALLOWED:
        return f"{name[:40]!r} is not allowed in {context}"
    if block is not ((context, name) in BLOCKS):
        return f"{name} in {context} takes {'no' if block else 'a'} block"
    if name in _FILES and not (args and _is_our_file(name, args[0])):
        return f"{name} refers to a file that is not part of this configuration"
    if name == "proxy_cache_path" and args[:1] not in ([CACHE_FOLDER], (CACHE_FOLDER,)):
        return "proxy_cache_path names another folder than that of answers of auth servers"
    if name == "load_module" and not (args and _MODULE_FILE.match(args[0])):
        return "load_module names no module that rulegen uses"
    if name in _PEERS and args and _SOCKET_FILE.match(args[0]) and args[0] != f"http://unix:{SIGNIN_SOCKET}:":
        return f"{name} names a socket of this host"
    if name in IGNORING and INTERNAL_REDIRECT not in args:
        return f"a list without {INTERNAL_REDIRECT} would let a backend reach internal locations"
    if name == "try_files" and not (len(args) == 2 and args[0] == NO_FILE and _STATUS.match(args[1])):
        return "try_files may only answer with a status"
    if name == "auth_basic" and args and args[0] == "off":
        return "a realm called off would switch authentication off"
    if name == "location" and not _is_location(args):
        return (
            f"a location is a path that begins with /, of at most {MAX_LOCATION} bytes, @ and a name, or ~ and a regex"
        )
    return ""


def _is_our_file(name: str, path: str) -> bool:
    # Words such as `off` and `stderr` look like files and are as harmless.
    return bool(_OUR_FILE.match(path)) or (name.endswith("_log") and bool(_LOG.match(path)))


def _is_location(args: Sequence[str]) -> bool:
    # nginx also takes a modifier that is glued to the path: such a path would mean something else than it says.
    match args:
        case [path]:
            return _is_path(path) or bool(_NAMED_LOCATION.match(path))
        case ["=" | "^~", path]:
            return _is_path(path)
        case ["~" | "~*", _]:
            return True
    return False


def _is_path(path: str) -> bool:
    return path.startswith("/") and len(path.encode(errors="surrogatepass")) <= MAX_LOCATION
