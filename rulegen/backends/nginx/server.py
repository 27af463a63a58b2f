"""Server blocks: the file of a host."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rulegen.backends.nginx.locations.expressions import bounded
from rulegen.backends.nginx.locations.headers import loop_guard
from rulegen.backends.nginx.locations.limits import limit_mark, limit_zones
from rulegen.backends.nginx.locations.location import LocationText
from rulegen.backends.nginx.locations.proxying import resolver_of
from rulegen.backends.nginx.names import HTTP2_IS_DIRECTIVE
from rulegen.backends.nginx.texts import written
from rulegen.backends.nginx.upstream import server_upstreams, sticky_maps, upstream
from rulegen.languages.nginx.tree import Directive, template
from rulegen.model.ingress.ir import ClientCertificate
from rulegen.model.ingress.values import regex

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from rulegen.languages.nginx.tree import Node, Word
    from rulegen.model.ingress.defaults import HttpDefaults
    from rulegen.model.ingress.ir import ClientAuth, Server, Upstream
    from rulegen.model.ingress.values.settings import Settings

OTHER_HOSTS: Final = "_"
"""Conventional `server_name` of the default server; it is no valid host name."""


def host_nodes(server: Server, defaults: HttpDefaults, upstreams: Iterable[Upstream]) -> tuple[Node, ...]:
    """Return the content of a host's file.

    Args:
        server: The host.
        defaults: Defaults of all hosts.
        upstreams: Upstreams that only this host uses.
    """
    sticky = {member.name: member for member in upstreams if member.sticky is not None}
    texts = [LocationText(location, server, defaults, sticky) for location in server.locations]
    maps: list[Node] = [node for text in texts for node in text.maps()]
    for ingress, limits in server.limits:
        maps += limit_zones(limit_mark(ingress, limits), limits)
    for member in upstreams:
        maps.append(upstream(member, defaults.settings))
        if member.sticky is not None:
            maps += sticky_maps(member, member.sticky)
            maps += server_upstreams(member, defaults.settings) if member.sticky.is_persistent else ()
    nodes = [*dict.fromkeys(maps), _server(server, defaults, texts)]
    if server.redirects_from:
        nodes.append(_redirecting(server, defaults))
    return tuple(nodes)


def _server(server: Server, defaults: HttpDefaults, texts: Sequence[LocationText]) -> Directive:
    block: list[Node] = list(_listens(defaults, is_default=not server.host))
    names = [_name(host) for host in (server.host, *server.aliases)]
    block.append(Directive("server_name", tuple(names)))
    block += _tls(server, defaults)
    if not server.host:  # HSTS is only for hosts that an Ingress names
        block.append(Directive("set", ("$is_other_host", "1")))
    if len(server.ingresses) == 1 and defaults.settings.logs_ingress:
        block.append(Directive("set", ("$ingress", str(server.ingresses[0]))))
    block += _checks(server, defaults)
    if server.app_root:
        answer = Directive("return", ("302", template("$pass_access_scheme://$this_host%s", server.app_root)))
        block.append(Directive("if", ("(", "$uri", "=", "/", ")"), (answer,)))
    if not server.host and not any(location.path == "/healthz" for location in server.locations):
        healthy = (Directive("access_log", ("off",)), Directive("return", ("200",)))
        block.append(Directive("location", ("=", "/healthz"), healthy))
    hidden: dict[tuple[Word, ...], Directive] = {}
    previous: LocationText | None = None
    for text in texts:
        block.append(text.directive(previous))
        hidden.update((sibling.args, sibling) for sibling in text.siblings())
        previous = text
    block += hidden.values()
    return Directive("server", (), tuple(block))


def _listens(defaults: HttpDefaults, *, is_default: bool) -> Iterator[Node]:
    """Yield the `listen` directives. nginx wants socket options once for an address: they are in the default server."""
    settings, host = defaults.settings, defaults.host
    for address in addresses(defaults):
        for port, is_tls in ((host.http_port, False), (host.https_port, True)):
            options: list[str] = []
            if is_default:
                options.append("default_server")
                options += ["ssl"] * is_tls + ["http2"] * (
                    is_tls and settings.use_http2 and HTTP2_IS_DIRECTIVE not in host.traits
                )
                options += ["proxy_protocol"] * settings.use_proxy_protocol
                options += ["reuseport"] * settings.reuse_port + ["backlog=4096"]
                options += ["ipv6only=on"] * address.startswith("[")
            where = f"{address}:{port}" if address else str(port)
            yield Directive("listen", (where, *options))


def addresses(defaults: HttpDefaults) -> list[str]:
    """Return the addresses to listen on: IPv6 addresses in brackets; an empty text means all IPv4 addresses."""
    if bound := defaults.settings.bind_address:
        texts = [f"[{address}]" if ":" in address else address for address in bound]
        return [text for text in texts if defaults.has_ipv6 or not text.startswith("[")]
    return ["", "[::]"] if defaults.has_ipv6 else [""]


def _name(host: str) -> str:
    if not host:
        return OTHER_HOSTS
    if host.startswith("*."):
        # A wildcard of nginx matches any number of labels; a wildcard of an Ingress matches one.
        return f"~^[\\w-]+\\.{regex.escape(host[2:])}$"
    return host


def _tls(server: Server, defaults: HttpDefaults) -> Iterator[Node]:
    """Yield the TLS directives of a host. Without a certificate, nginx uses the one of the default server."""
    if server.rejects_tls:
        yield Directive("ssl_reject_handshake", ("on",))
        return
    certificate = server.certificate
    if not server.host and not certificate:
        certificate = defaults.default_certificate
        if defaults.settings.ssl_reject_handshake:
            yield Directive("ssl_reject_handshake", ("on",))
            return
    client = server.client_auth
    if not certificate and (client is not None or server.ciphers or defaults.names_certificates):
        certificate = defaults.default_certificate
    yield from _certificate(certificate)
    if server.certificate and server.responder_port:
        yield Directive("ssl_stapling", ("on",))
        yield from resolver_of(defaults, server.responder_port)
    if server.ciphers:
        yield Directive("ssl_ciphers", (server.ciphers,))
    if server.prefer_server_ciphers is not None:
        yield Directive("ssl_prefer_server_ciphers", ("on" if server.prefer_server_ciphers else "off",))
    if client is not None and client.ca:
        yield from _client_certificate(client)


def _certificate(path: str) -> Iterator[Node]:
    if path:
        yield Directive("ssl_certificate", (path,))
        yield Directive("ssl_certificate_key", (path,))


_VERIFY: Final = {
    ClientCertificate.REQUIRED: "on",
    ClientCertificate.OPTIONAL: "optional",
    ClientCertificate.UNVERIFIED: "optional_no_ca",
    ClientCertificate.NONE: "off",
}


def _client_certificate(client: ClientAuth) -> Iterator[Node]:
    yield Directive("ssl_client_certificate", (client.ca,))
    if client.revoked:
        yield Directive("ssl_crl", (client.revoked,))
    yield Directive("ssl_verify_client", (_VERIFY[client.certificate],))
    yield Directive("ssl_verify_depth", (str(client.depth),))
    if client.error_page:
        yield Directive("error_page", ("495", "496", "=", written(client.error_page)))


def _checks(server: Server, defaults: HttpDefaults) -> Iterator[Node]:
    """Yield the checks for all requests to the host."""
    yield loop_guard()
    client = server.client_auth
    if client is not None and not client.ca:
        yield Directive("return", ("403",))
    elif client is not None and client.match:
        refused = Directive("return", ("403",))
        yield Directive("if", ("(", "$ssl_client_s_dn", "!~", bounded(client.match), ")"), (refused,))
    yield from _blocked(defaults.settings)


def _blocked(settings: Settings) -> Iterator[Node]:
    """Yield the checks that reject blocked clients, for every host."""
    for setting, name in ((settings.block_user_agents, "blocked_agent"), (settings.block_referers, "blocked_referer")):
        if setting:
            yield Directive("if", ("(", f"${name}", ")"), (Directive("return", ("403",)),))


def _redirecting(server: Server, defaults: HttpDefaults) -> Directive:
    """Return the server that redirects the name with or without `www.` to this host."""
    block: list[Node] = list(_listens(defaults, is_default=False))
    block.append(Directive("server_name", (server.redirects_from,)))
    if server.rejects_tls:
        block.append(Directive("ssl_reject_handshake", ("on",)))
    else:
        default = defaults.default_certificate if defaults.names_certificates else ""
        block += _certificate(server.certificate or default)
    block += _blocked(defaults.settings)
    code = str(defaults.settings.http_redirect_code)
    host = defaults.host
    ports = [(host.http_port, 80, "http"), (host.https_port, 443, "https")]
    if all(port == usual for port, usual, _ in ports):
        target = template("$pass_access_scheme://%s$redirect_uri", server.host)
        block.append(Directive("return", (code, target)))
        return Directive("server", (), tuple(block))
    for port, usual, scheme in ports:
        suffix = "" if port == usual else f":{port}"
        target = template("$scheme://%s$redirect_uri", f"{server.host}{suffix}")
        block.append(Directive("if", ("(", "$scheme", "=", scheme, ")"), (Directive("return", (code, target)),)))
    return Directive("server", (), tuple(block))
