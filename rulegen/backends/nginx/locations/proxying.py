"""How nginx speaks with backends: the modules that do, and their directives."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rulegen.languages.nginx.tree import Directive
from rulegen.model.ingress.values.readers import spell_size

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from rulegen.languages.nginx.tree import Node
    from rulegen.model.ingress.defaults import HttpDefaults
    from rulegen.model.ingress.ir import LocationPolicy
    from rulegen.model.ingress.proxying import Proxying, ProxySSL
    from rulegen.model.ingress.values.settings import Settings

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
    asks_ipv6 = defaults.has_ipv6 and not defaults.settings.disable_ipv6_dns
    return Directive("resolver", (*servers, "valid=30s", *(() if asks_ipv6 else ("ipv6=off",))))


def resolver_of(defaults: HttpDefaults, port: int) -> Iterator[Node]:
    """Yield who is asked for a name that requests are passed to, where it is not the same as for all."""
    if defaults.names_port and port not in {defaults.host.http_port, defaults.host.https_port}:
        yield resolver(defaults, f"{NAMES_OF_OTHER_PORTS}:{defaults.names_port}")


def module_of(protocol: str) -> str:
    """Return the module of nginx that speaks a protocol."""
    return {"GRPC": "grpc", "GRPCS": "grpc", "FCGI": "fastcgi"}.get(protocol, "proxy")


def tuning(policy: LocationPolicy, module: str, settings: Settings) -> Iterator[Node]:
    """Yield how a backend is spoken with, as far as one of nginx's modules can."""
    for name, words in _directives(policy.proxying, settings):
        if module == "grpc" and (name not in _GRPC_NAMES or (name == "buffer_size" and settings.grpc_buffer_size_kb)):
            continue
        if module == "fastcgi" and name == "http_version":
            continue
        yield Directive(f"{module}_{name}", next_upstream_words(module, words) if name == "next_upstream" else words)
    if module != "proxy":
        return
    if policy.redirect_rewrite is not None:
        yield Directive("proxy_redirect", policy.redirect_rewrite)
    for name, pair in (("domain", policy.cookie_domain), ("path", policy.cookie_path)):
        if pair is not None:
            yield Directive(f"proxy_cookie_{name}", pair)


def _directives(proxying: Proxying, settings: Settings) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield directives without their module's name, each with its words."""
    for name, limit_s in (
        ("connect_timeout", proxying.connect_timeout_s),
        ("send_timeout", proxying.send_timeout_s),
        ("read_timeout", proxying.read_timeout_s),
    ):
        if limit_s is not None:
            yield name, (f"{limit_s}s",)
    for name, is_on in (("buffering", proxying.buffers_answers), ("request_buffering", proxying.buffers_requests)):
        if is_on is not None:
            yield name, ("on" if is_on else "off",)
    if proxying.http_version is not None:
        yield "http_version", (proxying.http_version,)
    if proxying.temporary_file_size is not None or proxying.buffer_size is not None:
        most = _first(proxying.temporary_file_size, settings.proxy_max_temp_file_size)
        size, _, _ = fitted_buffers(_first(proxying.buffer_size, settings.proxy_buffer_size), 2, 0)
        yield "max_temp_file_size", (spell_size(temporary_file_size(most, size)),)
    for name, text in buffers_of(proxying, settings).items():
        yield name, tuple(text.split())
    if proxying.retry_on is not None:
        yield "next_upstream", (*proxying.retry_on, *["non_idempotent"] * settings.retry_non_idempotent)
    if proxying.retry_tries is not None:
        yield "next_upstream_tries", (str(proxying.retry_tries),)
    if proxying.retry_timeout_s is not None or proxying.read_timeout_s is not None:
        limit_s = _first(proxying.retry_timeout_s, settings.proxy_next_upstream_timeout)
        yield "next_upstream_timeout", (f"{limit_s or _first(proxying.read_timeout_s, settings.proxy_read_timeout)}s",)


def buffers_of(proxying: Proxying, settings: Settings) -> dict[str, str]:
    """Return the directives for the sizes of buffers, by name without module; nginx rejects some that do not fit."""
    if proxying.buffer_size is None and proxying.buffers_number is None and proxying.busy_buffers_size is None:
        return {}
    size, number, busy = fitted_buffers(
        _first(proxying.buffer_size, settings.proxy_buffer_size),
        _first(proxying.buffers_number, settings.proxy_buffers_number),
        proxying.busy_buffers_size or 0,
    )
    return {
        "buffer_size": spell_size(size),
        "buffers": f"{number} {spell_size(size)}",
        "busy_buffers_size": spell_size(busy),
    }


def fitted_buffers(size: int, number: int, busy: int) -> tuple[int, int, int]:
    """Return size and number of buffers and the size of busy ones, such that nginx takes them together.

    Busy ones must hold two buffers and leave one free (ngx_http_upstream.c); a page is the least size.
    """
    size = max(size, 1024)
    most = (number - 1) * size
    return size, number, min(max(busy, size * 2 if most >= size * 2 else size), most)


def temporary_file_size(most: int, buffer: int) -> int:
    """Return how large a temporary file may be: 0 for none, else nginx wants it to hold a buffer."""
    return max(most, buffer) if most else 0


def _first(given: int | None, otherwise: int) -> int:
    return otherwise if given is None else given


def backend_tls(ssl: ProxySSL, module: str) -> Iterator[Node]:
    """Yield how TLS is spoken with a backend."""
    for name, value in (
        ("certificate", ssl.certificate),
        ("certificate_key", ssl.certificate),
        ("trusted_certificate", ssl.ca),
        ("crl", ssl.revoked),
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
