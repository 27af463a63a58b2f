"""Directives for the connection to backends, for nginx's modules proxy, grpc and fastcgi."""

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
"""Scheme of the address in `proxy_pass` and `grpc_pass` by protocol; `fastcgi_pass` has none."""

_NOT_FOR_FASTCGI: Final = frozenset({"http_502", "http_504"})
_GRPC_NAMES: Final = frozenset(
    {"connect_timeout", "send_timeout", "read_timeout", "buffer_size", "next_upstream", "next_upstream_tries"}
    | {"next_upstream_timeout"}
)


NAMES_OF_OWN_PORTS, NAMES_OF_OTHER_PORTS = "127.0.0.1", "127.0.0.2"
"""Addresses of the resolver process.

At the first, a name may resolve to this node; it is used only for nginx's own ports, where loops are detected.
"""


def resolver(defaults: HttpDefaults, *servers: str) -> Directive:
    """Return the directive `resolver` for these servers."""
    asks_ipv6 = defaults.has_ipv6 and not defaults.settings.disable_ipv6_dns
    return Directive("resolver", (*servers, "valid=30s", *(() if asks_ipv6 else ("ipv6=off",))))


def resolver_of(defaults: HttpDefaults, port: int) -> Iterator[Node]:
    """Yield the `resolver` of a location that needs another one than all others; see `NAMES_OF_OWN_PORTS`."""
    if defaults.names_port and port not in {defaults.host.http_port, defaults.host.https_port}:
        yield resolver(defaults, f"{NAMES_OF_OTHER_PORTS}:{defaults.names_port}")


def module_of(protocol: str) -> str:
    """Return the nginx module for a protocol."""
    return {"GRPC": "grpc", "GRPCS": "grpc", "FCGI": "fastcgi"}.get(protocol, "proxy")


def tuning(policy: LocationPolicy, module: str, settings: Settings) -> Iterator[Node]:
    """Yield the directives of a location for its backend, as far as the nginx module supports them."""
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
    """Yield the directives without the prefix of their module, each with its arguments."""
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
        most = _or_default(proxying.temporary_file_size, settings.proxy_max_temp_file_size)
        size, _, _ = fitted_buffers(_or_default(proxying.buffer_size, settings.proxy_buffer_size), 2, 0)
        yield "max_temp_file_size", (spell_size(temporary_file_size(most, size)),)
    for name, text in buffers_of(proxying, settings).items():
        yield name, tuple(text.split())
    if proxying.retry_on is not None:
        yield "next_upstream", (*proxying.retry_on, *["non_idempotent"] * settings.retry_non_idempotent)
    if proxying.retry_tries is not None:
        yield "next_upstream_tries", (str(proxying.retry_tries),)
    if proxying.retry_timeout_s is not None or proxying.read_timeout_s is not None:
        limit_s = _or_default(proxying.retry_timeout_s, settings.proxy_next_upstream_timeout)
        yield (
            "next_upstream_timeout",
            (f"{limit_s or _or_default(proxying.read_timeout_s, settings.proxy_read_timeout)}s",),
        )


def buffers_of(proxying: Proxying, settings: Settings) -> dict[str, str]:
    """Return the directives for buffer sizes, by name without the prefix of their module; empty if all are defaults."""
    if proxying.buffer_size is None and proxying.buffers_number is None and proxying.busy_buffers_size is None:
        return {}
    size, number, busy = fitted_buffers(
        _or_default(proxying.buffer_size, settings.proxy_buffer_size),
        _or_default(proxying.buffers_number, settings.proxy_buffers_number),
        proxying.busy_buffers_size or 0,
    )
    return {
        "buffer_size": spell_size(size),
        "buffers": f"{number} {spell_size(size)}",
        "busy_buffers_size": spell_size(busy),
    }


def fitted_buffers(size: int, number: int, busy: int) -> tuple[int, int, int]:
    """Return number and sizes of buffers, adjusted so that nginx accepts them together; sizes in bytes.

    Busy buffers must hold at least one buffer of each kind and leave one buffer free (ngx_http_upstream.c).
    """
    size = max(size, 1024)
    most = (number - 1) * size
    return size, number, min(max(busy, size * 2 if most >= size * 2 else size), most)


def temporary_file_size(most: int, buffer: int) -> int:
    """Return `max_temp_file_size`: 0 for no file, else at least the size of one buffer, which nginx requires."""
    return max(most, buffer) if most else 0


def _or_default(given: int | None, otherwise: int) -> int:
    return otherwise if given is None else given


def backend_tls(ssl: ProxySSL, module: str) -> Iterator[Node]:
    """Yield the directives for TLS to a backend."""
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
    """Return the conditions for trying the next server, without duplicates and without those that the module lacks."""
    known = dict.fromkeys(words)
    return tuple(word for word in known if module != "fastcgi" or word not in _NOT_FOR_FASTCGI) or ("off",)
