"""How backends are spoken with: times, sizes that nginx takes together, TLS."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rulegen.model.ingress.ir import ProxySSL
from rulegen.model.ingress.upstreams.certificates import (
    holds_authorities,
    holds_certificate,
    read_authorities,
    read_certificate,
)
from rulegen.model.ingress.values import readers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rulegen.model.ingress.upstreams.referenced_objects import Referred
    from rulegen.model.ingress.values.annotations import Annotations
    from rulegen.model.ingress.values.settings import Settings


def tuning(found: Mapping[str, Any], settings: Settings) -> dict[str, str]:
    """Return the directives of the proxy module that differ from what holds for all, checked with each other."""
    directives: dict[str, str] = {}
    for name in ("connect-timeout", "send-timeout", "read-timeout"):
        if f"proxy-{name}" in found:
            directives[name.replace("-", "_")] = f"{found[f'proxy-{name}']}s"
    for name in ("buffering", "request-buffering", "http-version"):
        if f"proxy-{name}" in found:
            directives[name.replace("-", "_")] = found[f"proxy-{name}"]
    if "proxy-max-temp-file-size" in found or "proxy-buffer-size" in found:
        most = found.get("proxy-max-temp-file-size", settings.proxy_max_temp_file_size)
        one, _, _ = buffers(found.get("proxy-buffer-size", settings.proxy_buffer_size), 2, 0)
        directives["max_temp_file_size"] = readers.spell_size(readers.temporary_file_size(most, one))
    _buffers(found, settings, directives)
    if "proxy-next-upstream" in found:
        words = (*found["proxy-next-upstream"], *["non_idempotent"] * settings.retry_non_idempotent)
        directives["next_upstream"] = " ".join(words)
    if "proxy-next-upstream-tries" in found:
        directives["next_upstream_tries"] = str(found["proxy-next-upstream-tries"])
    if "proxy-next-upstream-timeout" in found or "proxy-read-timeout" in found:
        read = found.get("proxy-read-timeout", settings.proxy_read_timeout)
        limit = found.get("proxy-next-upstream-timeout", settings.proxy_next_upstream_timeout)
        directives["next_upstream_timeout"] = f"{limit or read}s"
    return directives


def _buffers(found: Mapping[str, Any], settings: Settings, directives: dict[str, str]) -> None:
    """Add the sizes of buffers; nginx refuses some that contradict each other, so they are fitted to each other."""
    if not any(f"proxy-{name}" in found for name in ("buffer-size", "buffers-number", "busy-buffers-size")):
        return
    one, many, busy = buffers(
        found.get("proxy-buffer-size", settings.proxy_buffer_size),
        found.get("proxy-buffers-number", settings.proxy_buffers_number),
        found.get("proxy-busy-buffers-size", 0),
    )
    directives["buffer_size"] = readers.spell_size(one)
    directives["buffers"] = f"{many} {readers.spell_size(one)}"
    directives["busy_buffers_size"] = readers.spell_size(busy)


def buffers(one: int, many: int, busy: int) -> tuple[int, int, int]:
    """Return size and number of buffers and the size of busy ones, such that nginx takes them together.

    Busy ones must hold two buffers and leave one free (ngx_http_upstream.c); a page is the least size.
    """
    one = max(one, 1024)
    most = (many - 1) * one
    return one, many, min(max(busy, one * 2 if most >= one * 2 else one), most)


def backend_tls(namespace: str, told: Annotations, referred: Referred) -> ProxySSL | None:
    """Return how TLS is spoken with backends; where what it needs cannot be had, nothing is passed on."""
    found = told.found
    if not any(name.startswith("proxy-ssl-") for name in found):
        return None
    certificate = ca = ""
    if "proxy-ssl-secret" in found:
        try:
            secret = referred.secret(referred.own(namespace, found["proxy-ssl-secret"]))
            has_certificate, has_authorities = holds_certificate(secret), holds_authorities(secret)
            if has_certificate or not has_authorities:
                pair = read_certificate(secret)
                certificate = referred.keep(pair.path, pair.content)
            if has_authorities:
                ca = referred.keep(*read_authorities(secret))
        except ValueError as error:
            told.close("proxy-ssl-secret", error)
            return None
    verify = found.get("proxy-ssl-verify", "off") == "on"
    if verify and not ca:
        told.close("proxy-ssl-verify", "there is no proxy-ssl-secret with the CA to verify with")
        return None
    return ProxySSL(
        certificate=certificate,
        ca=ca,
        verify=verify,
        verify_depth=found.get("proxy-ssl-verify-depth", 1),
        ciphers=found.get("proxy-ssl-ciphers", ""),
        protocols=found.get("proxy-ssl-protocols", ""),
        name=found.get("proxy-ssl-name", ""),
        server_name=found.get("proxy-ssl-server-name", "off") == "on",
    )
