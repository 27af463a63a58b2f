"""Servers of a backend: how a server is chosen, and the protocol of the connection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rulegen.backends.haproxy.names import ADDRESSES, mark
from rulegen.backends.haproxy.texts import written
from rulegen.languages.haproxy.text import UnwritableError, format_sections
from rulegen.languages.haproxy.tree import ConfigSection, is_set, log_format, negated, sample, statement
from rulegen.model.ingress.ir import Balance
from rulegen.model.ingress.values.texts import Reference, Subject

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from rulegen.languages.haproxy.tree import ConfigLine, Word
    from rulegen.model.ingress.ir import IngressModel, LocationPolicy, Sticky, ToName, Upstream
    from rulegen.model.ingress.proxying import ProxySSL, ServerOptions
    from rulegen.model.ingress.values.settings import Settings

PROTOCOLS: Final = frozenset({"HTTP", "HTTPS", "GRPC", "GRPCS", "FCGI"})
"""The protocols for connections of HAProxy to backends."""
ANY_ADDRESS: Final = "0.0.0.0"  # noqa: S104 - HAProxy connects to the address that was resolved
_KEY: Final = "X-Rulegen-Key"
"""The header with the key by which a server is chosen: HAProxy 2.6 hashes only headers. Backends get it too."""
_CHOSEN: Final = "txn.server_cookie"
_VERSIONS: Final = ("TLSv1.0", "TLSv1.1", "TLSv1.2", "TLSv1.3")
_PROTO: Final = {"GRPC": "h2", "FCGI": "fcgi"}
_METHODS: Final = {
    Balance.ROUND_ROBIN: ("roundrobin",),
    Balance.LEAST_CONNECTIONS: ("leastconn",),
    Balance.BETTER_OF_TWO: ("random(2)",),
    Balance.CLIENT_ADDRESS: ("source",),
}


def server_lines(upstream: Upstream, policy: LocationPolicy, settings: Settings) -> Iterator[ConfigLine]:
    """Yield the lines of a backend that choose a server, and one for each server.

    Raises:
        UnwritableError: HAProxy has no words for how one is chosen.
    """
    yield from _balance(upstream)
    if upstream.sticky is not None:
        yield from _cookie(upstream.sticky)
    options = [*_options(policy), *_pool(upstream, settings)]
    for address in upstream.servers:
        yield _server(address, options)
    if upstream.backup:
        yield _server(upstream.backup, [*options, "backup"])


def moved_servers(
    upstreams: Iterable[Upstream], chosen: Mapping[str, Mapping[str, LocationPolicy]], settings: Settings
) -> dict[str, str]:
    """Return the servers of the backends of upstreams, by backend, as text.

    Args:
        upstreams: The upstreams with their present servers.
        chosen: The backends of each upstream, each with its policy.
        settings: The settings.

    Raises:
        UnwritableError: HAProxy cannot be given a value of them.
    """
    texts: dict[str, str] = {}
    for upstream in upstreams:
        for backend, policy in chosen.get(upstream.name, {}).items():
            lines = server_lines(upstream, policy, settings)
            servers = tuple(line for line in lines if line.words[0] == "server")
            texts[backend] = format_sections([ConfigSection("backend", backend, servers)])
    return texts


def resolving_lines(target: ToName, model: IngressModel) -> Iterator[ConfigLine]:
    """Yield the lines that resolve the name of an ExternalName Service for each request.

    The name stands in a map, by backend. Answers of the DNS resolver are reused for five seconds.

    Raises:
        UnwritableError: There is no name server.
    """
    if not model.resolvers:
        raise UnwritableError("HAProxy has no name server for the name of an ExternalName Service")
    host = model.defaults.host
    resolvers = "own" if target.port in {host.http_port, host.https_port} else "other"
    address = sample("var", "txn.address")
    name = sample("var", "txn.backend").then("map_str", ADDRESSES)
    yield statement("http-request", f"do-resolve(txn.address,{resolvers},ipv4)", name)
    yield statement("http-request", "return", "status", "502", when=negated(is_set(address)))
    yield statement("http-request", "set-dst", address)


def check_lines(options: ServerOptions) -> Iterator[ConfigLine]:
    """Yield the lines for health checks of servers."""
    if options.check_path:
        yield statement("option", "httpchk")
        yield statement("http-check", "send", "meth", "GET", "uri", options.check_path)
        yield statement("http-check", "expect", "status", "200-399")


def _server(address: str, options: Sequence[Word]) -> ConfigLine:
    """Return the line of a server. Its name has a digest of the options, which HAProxy does not report at run time."""
    return statement("server", f"s{mark(address)}.{mark(*options)[:8]}", address, *options)


def _balance(upstream: Upstream) -> Iterator[ConfigLine]:
    if upstream.balance is not Balance.HASH or upstream.sticky is not None:
        yield statement("balance", *_METHODS.get(upstream.balance, ("roundrobin",)))
    elif upstream.hash_key.parts == (Reference(Subject.REQUEST_URI),):
        yield statement("balance", "uri", "whole")
    elif upstream.hash_key.parts == (Reference(Subject.CLIENT_ADDRESS),):
        yield statement("balance", "source")
    else:
        yield statement("http-request", "set-header", _KEY, written(upstream.hash_key))
        yield statement("balance", f"hdr({_KEY})")
    if upstream.balance in {Balance.HASH, Balance.CLIENT_ADDRESS}:
        yield statement("hash-type", "consistent")


def _cookie(sticky: Sticky) -> Iterator[ConfigLine]:
    """Yield how a client stays at its server; HAProxy gives no cookie of its own to servers added at run time."""
    cookie = sample("req.cook", sticky.cookie)
    chosen = sample("var", _CHOSEN)
    yield statement("http-request", f"set-var({_CHOSEN})", cookie)
    yield statement("use-server", log_format(chosen), when=is_set(chosen))
    attributes = [text for text in sticky.attributes.split("; ") if text]
    attributes += ["SameSite=None"] if sticky.is_none_conditional else []
    attributes += [f"Path={sticky.path}"] if sticky.path else []
    attributes += ["Secure"] if sticky.is_secure else []
    value = log_format(f"{sticky.cookie}=", sample("srv_name"), "".join(f"; {text}" for text in attributes))
    same = ("!{", sample("srv_name").then("strcmp", _CHOSEN), "eq", "0", "}")
    yield statement("http-response", "add-header", "Set-Cookie", value, when=same)


def _pool(upstream: Upstream, settings: Settings) -> list[Word]:
    if not upstream.keepalive:
        return ["pool-max-conn", "0"]
    return [
        "pool-max-conn",
        str(upstream.keepalive),
        "pool-purge-delay",
        f"{settings.upstream_keepalive_timeout}s",
    ]


def _options(policy: LocationPolicy) -> list[Word]:
    protocol = policy.protocol
    if protocol not in PROTOCOLS:
        raise UnwritableError(f"HAProxy does not support {protocol} for backends here")
    words: list[Word] = ["proto", _PROTO[protocol]] if protocol in _PROTO else []
    if protocol in {"HTTPS", "GRPCS"}:
        words = ["ssl", *(["alpn", "h2"] if protocol == "GRPCS" else [])]
        words += ["verify", "none"] if policy.proxy_ssl is None else _tls(policy.proxy_ssl)
    servers = policy.servers
    if servers.check_path:
        words += ["check", "inter", f"{servers.check_interval_s}s"]
        words += ["slowstart", f"{servers.slow_start_s}s"] if servers.slow_start_s else []
    if servers.max_connections:
        words += ["maxconn", str(servers.max_connections)]
    return words


def _tls(ssl: ProxySSL) -> list[Word]:
    if ssl.verify and not (ssl.ca and ssl.name):
        raise UnwritableError("HAProxy verifies a backend by a CA and a name, and one of them is missing")
    words: list[Word] = ["ciphers", ssl.ciphers] if ssl.ciphers else []
    if ssl.protocols:
        versions = [
            name
            for name in _VERSIONS
            if name.removesuffix(".0") in ssl.protocols.split() or name in ssl.protocols.split()
        ]
        if not versions:
            raise UnwritableError("HAProxy has none of the protocols of TLS for the backend")
        words += ["ssl-min-ver", versions[0], "ssl-max-ver", versions[-1]]
    if ssl.certificate:
        words += ["crt", ssl.certificate]
    if ssl.verify:
        words += ["verify", "required", "ca-file", ssl.ca, "verifyhost", ssl.name]
        words += ["crl-file", ssl.revoked] if ssl.revoked else []
    else:
        words += ["verify", "none"]
    if ssl.server_name:
        words += ["sni", sample("str", ssl.name) if ssl.name else sample("var", "txn.host")]
    return words
