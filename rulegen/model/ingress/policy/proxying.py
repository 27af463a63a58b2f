"""How backends are spoken with: times, sizes that nginx takes together, TLS."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from rulegen.model.ingress.ir import ProxySSL
from rulegen.model.ingress.upstreams.certificates import (
    holds_authorities,
    holds_certificate,
    read_authorities,
    read_certificate,
)
from rulegen.model.ingress.values import readers
from rulegen.model.ingress.values.annotations import backend, tls
from rulegen.model.ingress.values.annotations.table import declared_in

if TYPE_CHECKING:
    from rulegen.model.ingress.upstreams.referenced_objects import Referred
    from rulegen.model.ingress.values.annotations.annotation import Annotation, AnnotationValues
    from rulegen.model.ingress.values.annotations.reading import Annotations
    from rulegen.model.ingress.values.settings import Settings


_BUFFERS: Final = (backend.PROXY_BUFFER_SIZE, backend.PROXY_BUFFERS_NUMBER, backend.PROXY_BUSY_BUFFERS_SIZE)
_TIMES: Final = (backend.PROXY_CONNECT_TIMEOUT, backend.PROXY_SEND_TIMEOUT, backend.PROXY_READ_TIMEOUT)
_BACKEND_TLS: Final = frozenset(
    annotation for annotation in declared_in(tls).values() if annotation.name.startswith("proxy-ssl-")
)
_WORDS: Final = (backend.PROXY_BUFFERING, backend.PROXY_REQUEST_BUFFERING, backend.PROXY_HTTP_VERSION)


def tuning(values: AnnotationValues, settings: Settings) -> dict[str, str]:
    """Return the directives of the proxy module that differ from what holds for all, checked with each other."""
    directives: dict[str, str] = {}
    for time in _TIMES:
        if (limit_s := values[time]) is not None:
            directives[_directive(time)] = f"{limit_s}s"
    for choice in _WORDS:
        if (word := values[choice]) is not None:
            directives[_directive(choice)] = word
    if backend.PROXY_MAX_TEMP_FILE_SIZE in values or backend.PROXY_BUFFER_SIZE in values:
        most = values.value_or(backend.PROXY_MAX_TEMP_FILE_SIZE, settings.proxy_max_temp_file_size)
        size, _, _ = buffers(values.value_or(backend.PROXY_BUFFER_SIZE, settings.proxy_buffer_size), 2, 0)
        directives["max_temp_file_size"] = readers.spell_size(readers.temporary_file_size(most, size))
    _add_buffers(values, settings, directives)
    if (failures := values[backend.PROXY_NEXT_UPSTREAM]) is not None:
        directives["next_upstream"] = " ".join((*failures, *["non_idempotent"] * settings.retry_non_idempotent))
    if (tries := values[backend.PROXY_NEXT_UPSTREAM_TRIES]) is not None:
        directives["next_upstream_tries"] = str(tries)
    if backend.PROXY_NEXT_UPSTREAM_TIMEOUT in values or backend.PROXY_READ_TIMEOUT in values:
        limit_s = values.value_or(backend.PROXY_NEXT_UPSTREAM_TIMEOUT, settings.proxy_next_upstream_timeout)
        read_s = values.value_or(backend.PROXY_READ_TIMEOUT, settings.proxy_read_timeout)
        directives["next_upstream_timeout"] = f"{limit_s or read_s}s"
    return directives


def _directive(annotation: Annotation[Any]) -> str:
    """Return the directive of an annotation, without the name of nginx's module."""
    return annotation.name.removeprefix("proxy-").replace("-", "_")


def _add_buffers(values: AnnotationValues, settings: Settings, directives: dict[str, str]) -> None:
    """Add the sizes of buffers; nginx refuses some that contradict each other, so they are fitted to each other."""
    if not any(annotation in values for annotation in _BUFFERS):
        return
    size, number, busy = buffers(
        values.value_or(backend.PROXY_BUFFER_SIZE, settings.proxy_buffer_size),
        values.value_or(backend.PROXY_BUFFERS_NUMBER, settings.proxy_buffers_number),
        values[backend.PROXY_BUSY_BUFFERS_SIZE],
    )
    directives["buffer_size"] = readers.spell_size(size)
    directives["buffers"] = f"{number} {readers.spell_size(size)}"
    directives["busy_buffers_size"] = readers.spell_size(busy)


def buffers(size: int, number: int, busy: int) -> tuple[int, int, int]:
    """Return size and number of buffers and the size of busy ones, such that nginx takes them together.

    Busy ones must hold two buffers and leave one free (ngx_http_upstream.c); a page is the least size.
    """
    size = max(size, 1024)
    most = (number - 1) * size
    return size, number, min(max(busy, size * 2 if most >= size * 2 else size), most)


def backend_tls(namespace: str, annotations: Annotations, referred: Referred) -> ProxySSL | None:
    """Return how TLS is spoken with backends; where what it needs cannot be had, nothing is passed on."""
    values = annotations.values
    if not any(annotation in _BACKEND_TLS for annotation in values):
        return None
    certificate = ca = ""
    if (reference := values[tls.PROXY_SSL_SECRET]) is not None:
        try:
            secret = referred.secret(referred.own(namespace, reference))
            has_certificate, has_authorities = holds_certificate(secret), holds_authorities(secret)
            if has_certificate or not has_authorities:
                pair = read_certificate(secret)
                certificate = referred.keep(pair.path, pair.content)
            if has_authorities:
                ca = referred.keep(*read_authorities(secret))
        except ValueError as error:
            annotations.close(tls.PROXY_SSL_SECRET, error)
            return None
    verify = values[tls.PROXY_SSL_VERIFY] == "on"
    if verify and not ca:
        annotations.close(tls.PROXY_SSL_VERIFY, "there is no proxy-ssl-secret with the CA to verify with")
        return None
    return ProxySSL(
        certificate=certificate,
        ca=ca,
        verify=verify,
        verify_depth=values[tls.PROXY_SSL_VERIFY_DEPTH],
        ciphers=values[tls.PROXY_SSL_CIPHERS],
        protocols=values[tls.PROXY_SSL_PROTOCOLS],
        name=values[tls.PROXY_SSL_NAME],
        server_name=values[tls.PROXY_SSL_SERVER_NAME] == "on",
    )
