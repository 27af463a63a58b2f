"""Directives that apply to all hosts: the values of the template of `nginx.conf`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rulegen.backends.nginx.identity import identity_nodes
from rulegen.backends.nginx.locations.auth import CACHE_ZONE
from rulegen.backends.nginx.locations.headers import (
    answer_headers,
    fastcgi_parameters,
    grpc_headers,
    hidden_headers,
    hop_maps,
    proxy_headers,
    server_header,
)
from rulegen.backends.nginx.locations.location import spell_network
from rulegen.backends.nginx.locations.proxying import (
    NAMES_OF_OWN_PORTS,
    fitted_buffers,
    next_upstream_words,
    resolver,
    temporary_file_size,
)
from rulegen.backends.nginx.names import HTTP2_IS_DIRECTIVE, modules_of
from rulegen.backends.nginx.texts import maps, written_for_log
from rulegen.languages.nginx.facts import HEADERS_MORE
from rulegen.languages.nginx.grammar import CACHE_FOLDER, INTERNAL_REDIRECT
from rulegen.languages.nginx.sockets import STATUS_SOCKET
from rulegen.languages.nginx.tree import Directive, Entry, KeyKind, template, variable
from rulegen.model.ingress.values.readers import spell_size

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rulegen.languages.nginx.tree import Node
    from rulegen.model.ingress.defaults import HttpDefaults
    from rulegen.model.ingress.ir import IngressModel
    from rulegen.model.ingress.values.settings import Settings

_UNLIMITED: Final = 1048576
_NGINX_STREAMS: Final = 128
"""Defaults of nginx and of this configuration."""


def main_nodes(defaults: HttpDefaults) -> list[Node]:
    """Return the directives outside of all blocks."""
    nodes: list[Node] = []
    settings = defaults.settings
    modules = modules_of(defaults.host.traits)
    nodes += [Directive("load_module", (modules[name],)) for name in (HEADERS_MORE,) if modules.get(name)]
    if defaults.host.user:
        nodes.append(Directive("user", tuple(defaults.host.user.split())))
    nodes += [
        Directive("worker_processes", (settings.worker_processes,)),
        Directive("worker_rlimit_nofile", (str(settings.max_worker_open_files or _UNLIMITED),)),
        Directive("worker_shutdown_timeout", (f"{settings.worker_shutdown_timeout}s",)),
        Directive("pid", ("run/nginx.pid",)),
        Directive("error_log", ("logs/error.log", settings.error_log_level)),
    ]
    if settings.worker_cpu_affinity:
        nodes.append(Directive("worker_cpu_affinity", tuple(settings.worker_cpu_affinity.split())))
    return nodes


def events_nodes(settings: Settings) -> list[Node]:
    """Return the content of the block `events`."""
    return [
        Directive("worker_connections", (str(settings.max_worker_connections),)),
        Directive("multi_accept", (_on(settings.enable_multi_accept),)),
    ]


def http_nodes(model: IngressModel) -> list[Node]:
    """Return the content of the block `http`, without what the template itself contains."""
    settings = model.defaults.settings
    return [
        *_clients(model.defaults),
        *identity_nodes(model.defaults),
        *_proxy(settings),
        *_headers(model.defaults),
        *_tls(settings),
        *_gzip(settings),
        *_access(settings),
        *_log(settings),
        *_resolver(model),
        *_auth_cache(model),
    ]


def _auth_cache(model: IngressModel) -> Iterator[Node]:
    """Yield where the answers of auth servers are kept, if any are."""
    policies = (location.policy for server in model.servers.values() for location in server.locations)
    if any(policy.external_auth is not None and policy.external_auth.cache is not None for policy in policies):
        sizes = (f"keys_zone={CACHE_ZONE}:10m", "max_size=128m", "inactive=30m", "use_temp_path=off")
        yield Directive("proxy_cache_path", (CACHE_FOLDER, "levels=1:2", *sizes))


def status_server(digest: str) -> Directive:
    """Return the server that rulegen asks for the digest of the configuration and for nginx's connection counters.

    It listens on a unix socket that only rulegen on this node can open.
    """
    return Directive(
        "server",
        (),
        (
            Directive("listen", (f"unix:{STATUS_SOCKET}",)),
            Directive("access_log", ("off",)),
            Directive("location", ("=", "/digest"), (Directive("return", ("200", digest)),)),
            Directive("location", ("=", "/stub_status"), (Directive("stub_status"),)),
            Directive("location", ("/",), (Directive("return", ("404",)),)),
        ),
    )


def _power_of_two(least: int, needed: int) -> int:
    size = least
    while size < needed:
        size *= 2
    return size


def size_nodes(model: IngressModel) -> list[Node]:
    """Return the sizes of nginx's hash tables; nginx rejects a configuration whose names do not fit."""
    names = [name for server in model.servers.values() for name in (server.host, *server.aliases)]
    longest = max(map(len, names), default=0)
    locations = (location for server in model.servers.values() for location in server.locations if location.canaries)
    variables = sum(4 * (len(location.canaries) + 1) for location in locations)
    # Powers of two instead of exact sizes, so that one more host usually does not change the main file.
    sizes = {
        "server_names_hash_bucket_size": _power_of_two(128, longest + 32),
        "server_names_hash_max_size": _power_of_two(1024, 2 * len(names)),
        "map_hash_bucket_size": 256,
        "map_hash_max_size": 4096,
        "variables_hash_bucket_size": 256,
        "variables_hash_max_size": _power_of_two(4096, 2 * variables + 4 * len(names)),
        "proxy_headers_hash_max_size": 1024,
        "proxy_headers_hash_bucket_size": 256,
    }
    return [Directive(name, (str(size),)) for name, size in sizes.items()]


def _clients(defaults: HttpDefaults) -> Iterator[Node]:
    settings = defaults.settings
    number, size = settings.large_client_header_buffers
    yield Directive("server_tokens", ("on" if settings.server_tokens else "off",))
    yield Directive("default_type", (settings.default_type,))
    yield Directive("keepalive_timeout", (f"{settings.keep_alive}s",))
    yield Directive("keepalive_requests", (str(settings.keep_alive_requests),))
    yield Directive("client_header_timeout", (f"{settings.client_header_timeout}s",))
    yield Directive("client_body_timeout", (f"{settings.client_body_timeout}s",))
    yield Directive("client_header_buffer_size", (spell_size(settings.client_header_buffer_size),))
    yield Directive("large_client_header_buffers", (str(number), spell_size(size)))
    yield Directive("client_body_buffer_size", (spell_size(settings.client_body_buffer_size),))
    yield Directive("client_max_body_size", (spell_size(settings.proxy_body_size),))
    yield Directive("port_in_redirect", (_on(settings.use_port_in_redirects),))
    yield Directive("ignore_invalid_headers", (_on(settings.ignore_invalid_headers),))
    yield Directive("underscores_in_headers", (_on(settings.enable_underscores_in_headers),))
    if settings.use_http2 and HTTP2_IS_DIRECTIVE in defaults.host.traits:
        yield Directive("http2", ("on",))
    if settings.http2_max_concurrent_streams != _NGINX_STREAMS:
        yield Directive("http2_max_concurrent_streams", (str(settings.http2_max_concurrent_streams),))
    if settings.limit_rate:
        yield Directive("limit_rate", (f"{settings.limit_rate}k",))
    if settings.limit_rate_after:
        yield Directive("limit_rate_after", (f"{settings.limit_rate_after}k",))
    yield Directive("limit_req_status", (str(settings.limit_req_status_code),))
    yield Directive("limit_conn_status", (str(settings.limit_conn_status_code),))


def _proxy(settings: Settings) -> Iterator[Node]:
    size, number, busy = fitted_buffers(
        settings.proxy_buffer_size, settings.proxy_buffers_number, settings.proxy_busy_buffers_size
    )
    next_upstream = [*settings.proxy_next_upstream, *["non_idempotent"] * settings.retry_non_idempotent]
    limit = settings.proxy_next_upstream_timeout or settings.proxy_read_timeout
    largest = temporary_file_size(settings.proxy_max_temp_file_size, size)
    for module in ("proxy", "grpc", "fastcgi"):
        # X-Accel-Redirect of a backend would send the request to another location, even to an internal one.
        yield Directive(f"{module}_ignore_headers", (INTERNAL_REDIRECT,))
        yield Directive(f"{module}_connect_timeout", (f"{settings.proxy_connect_timeout}s",))
        yield Directive(f"{module}_send_timeout", (f"{settings.proxy_send_timeout}s",))
        yield Directive(f"{module}_read_timeout", (f"{settings.proxy_read_timeout}s",))
        words = next_upstream_words(module, next_upstream)
        yield Directive(f"{module}_next_upstream", words)
        yield Directive(f"{module}_next_upstream_tries", (str(settings.proxy_next_upstream_tries),))
        # After the time limit of one backend, a request is not sent to another one.
        yield Directive(f"{module}_next_upstream_timeout", (f"{limit}s",))
        grpc_size = settings.grpc_buffer_size_kb << 10 if module == "grpc" else 0
        yield Directive(f"{module}_buffer_size", (spell_size(grpc_size or size),))
        if module == "grpc":
            continue
        yield Directive(f"{module}_buffering", (settings.proxy_buffering,))
        yield Directive(f"{module}_request_buffering", (settings.proxy_request_buffering,))
        yield Directive(f"{module}_buffers", (str(number), spell_size(size)))
        yield Directive(f"{module}_busy_buffers_size", (spell_size(busy),))
        yield Directive(f"{module}_max_temp_file_size", (spell_size(largest),))
    yield Directive("proxy_http_version", (settings.proxy_http_version,))
    yield Directive("proxy_redirect", ("off",))
    yield Directive("proxy_cookie_domain", ("off",))
    yield Directive("proxy_cookie_path", ("off",))


def _headers(defaults: HttpDefaults) -> Iterator[Node]:
    settings = defaults.settings
    yield from hop_maps()
    yield from maps()
    yield from proxy_headers(settings)
    yield from grpc_headers(settings)
    yield from fastcgi_parameters()
    yield from hidden_headers(settings)
    yield from answer_headers(settings)
    if HEADERS_MORE in modules_of(defaults.host.traits):
        yield from server_header(settings)
    hsts = f"max-age={settings.hsts_max_age}"
    hsts += "; includeSubDomains" * settings.hsts_include_subdomains + "; preload" * settings.hsts_preload
    entries: list[Node] = [Entry("default", variable("upstream_http_strict_transport_security"), KeyKind.FIXED)]
    if settings.hsts:
        entries.append(Entry("on", hsts))
    yield Directive("map", (template("$https$is_other_host"), "$hsts"), tuple(entries))


def _tls(settings: Settings) -> Iterator[Node]:
    yield Directive("ssl_protocols", settings.ssl_protocols)
    yield Directive("ssl_ciphers", (settings.ssl_ciphers,))
    yield Directive("ssl_prefer_server_ciphers", (_on(settings.ssl_prefer_server_ciphers),))
    yield Directive("ssl_ecdh_curve", (settings.ssl_ecdh_curve,))
    yield Directive("ssl_session_tickets", (_on(settings.ssl_session_tickets),))
    yield Directive("ssl_session_timeout", (f"{settings.ssl_session_timeout}s",))
    if settings.ssl_session_cache:
        # nginx cannot resize a zone while it runs, so the size is part of the zone's name.
        size = spell_size(settings.ssl_session_cache_size)
        yield Directive("ssl_session_cache", (f"shared:tls{size}:{size}",))
    else:
        yield Directive("ssl_session_cache", ("off",))
    yield Directive("ssl_early_data", (_on(settings.ssl_early_data),))
    yield Directive("ssl_buffer_size", (spell_size(settings.ssl_buffer_size),))


def _gzip(settings: Settings) -> Iterator[Node]:
    if settings.use_gzip:
        yield Directive("gzip", ("on",))
        yield Directive("gzip_comp_level", (str(settings.gzip_level),))
        yield Directive("gzip_http_version", ("1.1",))
        if settings.gzip_disable:
            yield Directive("gzip_disable", (settings.gzip_disable,))
        yield Directive("gzip_min_length", (str(settings.gzip_min_length),))
        if settings.gzip_types:  # text/html is compressed in any case
            yield Directive("gzip_types", settings.gzip_types)
        yield Directive("gzip_proxied", ("any",))
        yield Directive("gzip_vary", ("on",))


def _access(settings: Settings) -> Iterator[Node]:
    """Yield the deny rules for all hosts. The locations contain allow lists, because an Ingress may replace them."""
    for network in settings.block_cidrs:
        yield Directive("deny", (spell_network(network),))
    if settings.block_cidrs:
        blocked: list[Node] = [Entry("default", "0", KeyKind.FIXED)]
        blocked += [Entry(str(network), "1", KeyKind.FIXED) for network in settings.block_cidrs]
        yield Directive("geo", ("$remote_addr", "$blocked_address"), tuple(blocked))
    for name, header, patterns in (
        ("blocked_agent", "http_user_agent", settings.block_user_agents),
        ("blocked_referer", "http_referer", settings.block_referers),
    ):
        entries: list[Node] = [Entry("default", "0", KeyKind.FIXED)]
        entries += [_matching(pattern, "1") for pattern in patterns]
        if patterns:
            yield Directive("map", (variable(header), f"${name}"), tuple(entries))


def _matching(pattern: str, value: str) -> Entry:
    """Return the map entry of a regular expression; a leading `~*` means that case is ignored."""
    kind = KeyKind.REGEX_ANY_CASE if pattern.startswith("~*") else KeyKind.REGEX
    return Entry(pattern.removeprefix("~*"), value, kind)


def _log(settings: Settings) -> Iterator[Node]:
    if not settings.logs_access:
        yield Directive("access_log", ("off",))
        return
    text = written_for_log(settings.log_format_upstream)
    yield Directive("log_format", ("upstreaminfo", f"escape={settings.log_format_escape}", text))
    entries: list[Node] = [Entry("default", "1", KeyKind.FIXED)]
    entries += [_matching(pattern, "0") for pattern in settings.skip_access_log_urls]
    yield Directive("map", (variable("request_uri"), "$loggable"), tuple(entries))
    yield Directive("access_log", ("logs/access.log", "upstreaminfo", template("if=$loggable")))


def _resolver(model: IngressModel) -> Iterator[Node]:
    defaults = model.defaults
    if defaults.names_port:
        yield resolver(defaults, f"{NAMES_OF_OWN_PORTS}:{defaults.names_port}")
        yield Directive("resolver_timeout", ("5s",))
    elif model.resolvers:
        yield resolver(defaults, *(f"[{address}]" if ":" in address else address for address in model.resolvers))
        yield Directive("resolver_timeout", ("5s",))


def _on(value: bool) -> str:  # noqa: FBT001 - the word for a truth
    return "on" if value else "off"
