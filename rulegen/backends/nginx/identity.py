"""Variables for the request as the client sent it: its address, protocol, port, host and request ID.

A load balancer in front of nginx changes them, and sends the original ones in headers or in the PROXY protocol.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rulegen.backends.nginx.locations.location import spell_network
from rulegen.backends.nginx.names import header_variable
from rulegen.languages.nginx.tree import Directive, Entry, KeyKind, template, variable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rulegen.languages.nginx.tree import Node, Word
    from rulegen.model.ingress.defaults import HttpDefaults
    from rulegen.model.ingress.values.settings import Settings

_HTTPS_OUTSIDE: Final = "443"
"""The HTTPS port that clients use, whatever port nginx listens on."""


def identity_nodes(defaults: HttpDefaults) -> Iterator[Node]:
    """Yield the directives that set these variables."""
    settings = defaults.settings
    yield from _address(settings)
    yield from _trusted(settings)
    yield from _scheme(settings)
    yield from _port(settings, defaults.host.https_port)
    yield from _host(settings)
    yield from _forwarded_for(settings)
    request_id = variable("request_id") if settings.generate_request_id else ""
    yield _fallback("req_id", variable("http_x_request_id"), request_id)


def _address(settings: Settings) -> Iterator[Node]:
    """Yield the directives for the client's address, if a load balancer may send it."""
    if not (settings.use_proxy_protocol or settings.use_forwarded_headers or settings.enable_real_ip):
        return
    header = "proxy_protocol" if settings.use_proxy_protocol else settings.forwarded_for_header
    yield Directive("real_ip_header", (header,))
    if not settings.use_proxy_protocol:
        yield Directive("real_ip_recursive", ("on",))
    for network in settings.proxy_real_ip_cidr:
        yield Directive("set_real_ip_from", (spell_network(network),))


def _trusted(settings: Settings) -> Iterator[Node]:
    """Yield variables with what trusted peers send; they are empty for other peers."""
    if not settings.trusts_some:
        return
    entries: list[Node] = [Entry("default", "0", KeyKind.FIXED)]
    entries += [Entry(str(network), "1", KeyKind.FIXED) for network in settings.proxy_real_ip_cidr]
    yield Directive("geo", ("$realip_remote_addr", "$is_trusted"), tuple(entries))
    for name, source in _headers_of_peer(settings):
        believed = Entry(f"^1(?<believed_{name}>.*)$", variable(f"believed_{name}"), KeyKind.REGEX)
        parts = (Entry("default", "", KeyKind.FIXED), believed)
        yield Directive("map", (template("$is_trusted%s", variable(source)), f"$trusted_{name}"), parts)


def _headers_of_peer(settings: Settings) -> Iterator[tuple[str, str]]:
    """Yield what a load balancer sends about the client, each with the variable of nginx that contains it."""
    if settings.use_proxy_protocol:
        yield "proxy_port", "proxy_protocol_server_port"
    if settings.use_forwarded_headers:
        yield "scheme", "http_x_forwarded_proto"
        yield "port", "http_x_forwarded_port"
        yield "host", header_variable(settings.forwarded_host_header)
        yield "chain", header_variable(settings.forwarded_for_header)


def _sent(settings: Settings, name: str) -> Word:
    """Return the variable with what a trusted peer sent; its value is empty if the peer is not trusted."""
    return variable(f"trusted_{name}" if settings.trusts_some else dict(_headers_of_peer(settings))[name])


def _scheme(settings: Settings) -> Iterator[Node]:
    """Yield the protocol: X-Forwarded-Proto if it is used, else that of the connection.

    With the PROXY protocol, port 443 means HTTPS.
    """
    scheme: Word = variable("scheme")
    if settings.use_forwarded_headers:
        yield _fallback("received_scheme", _sent(settings, "scheme"), scheme)
        scheme = variable("received_scheme")
    if settings.use_proxy_protocol:
        entries = (Entry("default", scheme, KeyKind.FIXED), Entry(_HTTPS_OUTSIDE, "https"))
        yield Directive("map", (_sent(settings, "proxy_port"), "$pass_access_scheme"), entries)
    else:
        yield _constant("pass_access_scheme", scheme)


def _port(settings: Settings, https_port: int) -> Iterator[Node]:
    """Yield the port: X-Forwarded-Port if it is used, else that of the PROXY header or of the connection.

    nginx's own HTTPS port is 443 for clients.
    """
    port: Word = variable("server_port")
    if settings.use_proxy_protocol and settings.trusts_some:
        yield _fallback("proxied_port", _sent(settings, "proxy_port"), port)
        port = variable("proxied_port")
    elif settings.use_proxy_protocol:
        port = _sent(settings, "proxy_port")
    if settings.use_forwarded_headers:
        yield _fallback("received_port", _sent(settings, "port"), port)
        port = variable("received_port")
    entries = [Entry("default", port, KeyKind.FIXED)]
    if str(https_port) != _HTTPS_OUTSIDE:
        entries.append(Entry(str(https_port), _HTTPS_OUTSIDE))
    yield Directive("map", (port, "$pass_port"), tuple(entries))


def _host(settings: Settings) -> Iterator[Node]:
    """Yield the host: the one that the load balancer sends if it is used, else the header Host."""
    if not settings.use_forwarded_headers:
        yield _constant("best_http_host", variable("this_host"))
        yield _constant("redirect_host", variable("host"))
        return
    # The first host of a list is the one that the client requested. A redirect to HTTPS does not contain its port.
    for name, pattern in (("host", r"[^, ]+"), ("name", r"\[[^\]]*\]|[^,: ]+")):
        entry = Entry(f"^ *(?<first_{name}>{pattern})", variable(f"first_{name}"), KeyKind.REGEX)
        parts = (Entry("default", "", KeyKind.FIXED), entry)
        yield Directive("map", (_sent(settings, "host"), f"$forwarded_{name}"), parts)
    yield _fallback("best_http_host", variable("forwarded_host"), variable("this_host"))
    yield _fallback("redirect_host", variable("forwarded_name"), variable("host"))


def _forwarded_for(settings: Settings) -> Iterator[Node]:
    """Yield X-Forwarded-For for backends: the client's address, appended to the received header if that is trusted."""
    if not (settings.use_forwarded_headers and settings.compute_full_forwarded_for):
        yield _constant("forwarded_for", variable("remote_addr"))
        return
    # Append the address of the peer, whatever the client's address is; with PROXY, the address in the PROXY header.
    received = _sent(settings, "chain")
    peer = variable("remote_addr" if settings.use_proxy_protocol else "realip_remote_addr")
    entries = (Entry("default", template("%s, %s", received, peer), KeyKind.FIXED), Entry("", peer))
    yield Directive("map", (received, "$forwarded_for"), entries)


def _constant(name: str, value: Word) -> Directive:
    return Directive("map", (variable("host"), f"${name}"), (Entry("default", value, KeyKind.FIXED),))


def _fallback(name: str, source: Word, otherwise: Word) -> Directive:
    entries = (Entry("default", source, KeyKind.FIXED), Entry("", otherwise))
    return Directive("map", (source, f"${name}"), entries)
