"""How nginx speaks with backends: the modules that do, and their directives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rulegen.languages.nginx.tree import Directive

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rulegen.languages.nginx.tree import Node
    from rulegen.model.ingress.defaults import HttpDefaults
    from rulegen.model.ingress.ir import LocationPolicy, ProxySSL

SCHEMES: Final = {"HTTP": "http", "HTTPS": "https", "AUTO_HTTP": "$scheme", "GRPC": "grpc", "GRPCS": "grpcs"}
"""What stands before an address, by protocol; FCGI has none."""

_NOT_FOR_FASTCGI: Final = frozenset({"http_502", "http_504"})
_GRPC_NAMES: Final = frozenset(
    {"connect_timeout", "send_timeout", "read_timeout", "buffer_size", "next_upstream", "next_upstream_tries"}
    | {"next_upstream_timeout"}
)


NAMES_OF_OWN_PORTS, NAMES_OF_OTHER_PORTS = "127.0.0.1", "127.0.0.2"
"""Where the process for names listens: a name may lead to this node at the ports of nginx alone, where loops end."""


def resolver(defaults: HttpDefaults, *servers: str) -> Directive:
    """Return who is asked for names."""
    return Directive("resolver", (*servers, "valid=30s", *(() if defaults.has_ipv6 else ("ipv6=off",))))


def resolver_of(defaults: HttpDefaults, port: int) -> Iterator[Node]:
    """Yield who is asked for a name that requests are passed to, where it is not the same as for all."""
    if defaults.names_port and port not in {defaults.host.http_port, defaults.host.https_port}:
        yield resolver(defaults, f"{NAMES_OF_OTHER_PORTS}:{defaults.names_port}")


def module_of(protocol: str) -> str:
    """Return the module of nginx that speaks a protocol."""
    return {"GRPC": "grpc", "GRPCS": "grpc", "FCGI": "fastcgi"}.get(protocol, "proxy")


def tuning(policy: LocationPolicy, module: str) -> Iterator[Node]:
    """Yield how a backend is spoken with, as far as one of nginx's modules can."""
    for name, value in policy.proxy.items():
        if module == "grpc" and name not in _GRPC_NAMES:
            continue
        if module == "fastcgi" and name == "http_version":
            continue
        words = tuple(value.split())
        if name == "next_upstream":
            words = next_upstream_words(module, words)
        yield Directive(f"{module}_{name}", words)
    if module != "proxy":
        return
    if policy.redirect_rewrite is not None:
        yield Directive("proxy_redirect", policy.redirect_rewrite)
    for name, pair in (("domain", policy.cookie_domain), ("path", policy.cookie_path)):
        if pair is not None:
            yield Directive(f"proxy_cookie_{name}", pair)


def backend_tls(ssl: ProxySSL, module: str) -> Iterator[Node]:
    """Yield how TLS is spoken with a backend."""
    for name, value in (
        ("certificate", ssl.certificate),
        ("certificate_key", ssl.certificate),
        ("trusted_certificate", ssl.ca),
        ("verify", "on" if ssl.verify else "off"),
        ("verify_depth", str(ssl.verify_depth)),
        ("ciphers", ssl.ciphers),
        ("name", ssl.name),
        ("server_name", "on" if ssl.server_name else "off"),
    ):
        if value:
            yield Directive(f"{module}_ssl_{name}", (value,))
    if ssl.protocols:
        yield Directive(f"{module}_ssl_protocols", tuple(ssl.protocols.split()))


def next_upstream_words(module: str, words: Iterable[str]) -> tuple[str, ...]:
    """Return what makes a module ask the next server: each word once, as far as the module has it."""
    known = dict.fromkeys(words)
    return tuple(word for word in known if module != "fastcgi" or word not in _NOT_FOR_FASTCGI) or ("off",)
