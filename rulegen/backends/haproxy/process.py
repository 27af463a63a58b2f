"""The sections `global` and `defaults`, which apply to the whole program."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rulegen.backends.haproxy.answers import compression_lines, log_lines
from rulegen.backends.haproxy.names import LUA, RESOLVERS, SERVED, SERVED_SOCKET, SOCKET
from rulegen.languages.haproxy.tree import ConfigSection, sample, statement

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rulegen.languages.haproxy.tree import ConfigLine
    from rulegen.model.ingress.defaults import HttpDefaults
    from rulegen.model.ingress.ir import IngressModel
    from rulegen.model.ingress.values.settings import Settings

_DNS_PORT = 53
_SESSION = 250
"""Bytes of a session of TLS that is kept."""
_LUA_MEGABYTES = 256
"""The memory for answers of auth servers and mirrors, which may never end; a request without memory gets 500."""
_BUFFER = 32768
"""Bytes of a buffer, which holds a request's whole head, and a path whose every byte is encoded."""


def global_section(defaults: HttpDefaults, *, served: bool, resumes: bool) -> ConfigSection:
    """Return the section `global`.

    Args:
        defaults: What holds for all.
        served: Whether it is for an HAProxy that rulegen runs: the socket of its worker is in its folder `run`.
        resumes: Whether sessions of TLS are resumed; a session with a client's certificate could be resumed with
            another host.
    """
    return ConfigSection("global", "", tuple(_global(defaults, served=served, resumes=resumes)))


def described(section: ConfigSection, structure: str, digest: str) -> ConfigSection:
    """Return the section `global` with the digest that a worker answers.

    Args:
        section: The section.
        structure: The digest of what only a reload changes.
        digest: The digest of the configuration, which is set again after each change at run time.
    """
    own = (statement("description", structure), statement("set-var", SERVED, sample("str", digest)))
    return section._replace(statements=(*section.statements, *own))


def _global(defaults: HttpDefaults, *, served: bool, resumes: bool) -> Iterator[ConfigLine]:
    settings = defaults.settings
    if defaults.host.user:
        user, _, group = defaults.host.user.partition(" ")
        yield statement("user", user)
        if group:
            yield statement("group", group)
    address = SERVED_SOCKET if served else SOCKET
    yield statement("stats", "socket", address, "level", "admin", "mode", "600", "expose-fd", "listeners")
    yield statement("lua-load", LUA)
    yield statement("tune.lua.maxmem", str(_LUA_MEGABYTES))
    if settings.worker_processes != "auto":
        yield statement("nbthread", settings.worker_processes)
    # Where the host allows fewer descriptors, HAProxy serves fewer connections instead of none.
    yield statement("no", "strict-limits")
    yield statement("maxconn", str(settings.max_worker_connections))
    yield statement("hard-stop-after", f"{settings.worker_shutdown_timeout}s")
    yield statement("httpclient.ssl.verify", "none")  # as nginx, an auth server is not verified
    yield statement("tune.bufsize", str(_BUFFER))
    yield statement("tune.maxrewrite", "4096")
    yield statement("tune.ssl.default-dh-param", "2048")
    entries = settings.ssl_session_cache_size // _SESSION if settings.ssl_session_cache and resumes else 0
    yield statement("tune.ssl.cachesize", str(entries))
    yield statement("tune.ssl.lifetime", f"{settings.ssl_session_timeout}s")
    yield statement("tune.ssl.maxrecord", str(min(settings.ssl_buffer_size, 16384)))
    yield statement("tune.comp.maxlevel", str(settings.gzip_level))
    yield statement("tune.h2.max-concurrent-streams", str(settings.http2_max_concurrent_streams))
    yield statement("ssl-default-bind-ciphers", settings.ssl_ciphers)


def resolver_sections(model: IngressModel) -> Iterator[ConfigSection]:
    """Yield the name servers for ExternalName Services: the DNS resolver of rulegen, or else those of the node."""
    port = model.defaults.host.names_port
    for name, address in RESOLVERS.items() if model.resolvers else ():
        servers = [f"{address}:{port}"] if port else [socket_address(each, _DNS_PORT) for each in model.resolvers]
        lines = [statement("nameserver", f"n{number}", server) for number, server in enumerate(servers)]
        lines += [statement("resolve_retries", "2"), statement("timeout", "resolve", "1s")]
        lines += [statement("timeout", "retry", "1500ms"), statement("hold", "valid", "5s")]
        lines += [statement("hold", cause, "1s") for cause in ("nx", "other", "refused", "timeout", "obsolete")]
        yield ConfigSection("resolvers", name, tuple(lines))


def socket_address(address: str, port: int) -> str:
    """Return an address with a port."""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def default_section(settings: Settings) -> ConfigSection:
    """Return the section `defaults`."""
    return ConfigSection("defaults", "", tuple(_defaults(settings)))


def _defaults(settings: Settings) -> Iterator[ConfigLine]:
    yield statement("mode", "http")
    for name, limit_s in (
        ("connect", settings.proxy_connect_timeout),
        ("client", settings.client_body_timeout),
        ("server", settings.proxy_read_timeout),
        ("tunnel", settings.proxy_read_timeout),
        ("http-request", settings.client_header_timeout),
        ("http-keep-alive", settings.keep_alive),
        ("queue", settings.proxy_connect_timeout),
    ):
        yield statement("timeout", name, f"{limit_s or 1}s")
    yield statement("option", "http-keep-alive")
    yield from compression_lines(settings)
    yield from log_lines(settings)
    yield from retry_lines(settings.proxy_next_upstream, settings.proxy_next_upstream_tries)


def retry_lines(causes: tuple[str, ...], tries: int) -> Iterator[ConfigLine]:
    """Yield the lines for retries: after which failures another server is tried, and how often.

    A backend that has taken too long is not asked again: with nginx, the time for all tries is that for one answer.
    """
    words = {"error": "conn-failure empty-response", "invalid_header": "junk-response", "http_429": "429"}
    words |= {f"http_{code}": str(code) for code in (403, 404, 500, 502, 503, 504)}
    chosen = [word for cause in dict.fromkeys(causes) for word in words.get(cause, "").split()]
    if not chosen or tries == 1:
        yield statement("retries", "0")
        return
    yield statement("retries", str(min(tries - 1, 100) if tries else 10))
    yield statement("option", "redispatch", "1")
    yield statement("retry-on", *(word for word in chosen if word != "429"))
