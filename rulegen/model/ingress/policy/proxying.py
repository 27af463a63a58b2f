"""Converts annotations to options of connections to backends: time limits, buffers, retries, TLS."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from rulegen.model.ingress.proxying import Proxying, ProxySSL
from rulegen.model.ingress.reasons import Verdict
from rulegen.model.ingress.upstreams.certificates import (
    holds_authorities,
    holds_certificate,
    read_authorities,
    read_certificate,
)
from rulegen.model.ingress.upstreams.revocations import EMPTY_REVOCATIONS, has_empty_revocations, read_revocations
from rulegen.model.ingress.values.annotations import backend, tls
from rulegen.model.ingress.values.annotations.table import declared_in

if TYPE_CHECKING:
    from rulegen.model.ingress.upstreams.referenced_objects import Referred
    from rulegen.model.ingress.values.annotations.annotation import Annotation, AnnotationValues
    from rulegen.model.ingress.values.annotations.reading import Annotations

_PROXYING: Final = frozenset(known for known in declared_in(backend).values() if known.name.startswith("proxy-"))
_AS_FOR_ALL: Final = Proxying()
_BACKEND_TLS: Final = frozenset(
    annotation for annotation in declared_in(tls).values() if annotation.name.startswith("proxy-ssl-")
)


def proxying(values: AnnotationValues) -> Proxying:
    """Return the options of connections to backends; None in a field without annotation."""
    if _PROXYING.isdisjoint(values):
        return _AS_FOR_ALL
    return Proxying(
        connect_timeout_s=values[backend.PROXY_CONNECT_TIMEOUT],
        send_timeout_s=values[backend.PROXY_SEND_TIMEOUT],
        read_timeout_s=values[backend.PROXY_READ_TIMEOUT],
        buffers_answers=_switch(values, backend.PROXY_BUFFERING),
        buffers_requests=_switch(values, backend.PROXY_REQUEST_BUFFERING),
        http_version=values[backend.PROXY_HTTP_VERSION],
        buffer_size=values[backend.PROXY_BUFFER_SIZE],
        buffers_number=values[backend.PROXY_BUFFERS_NUMBER],
        busy_buffers_size=values[backend.PROXY_BUSY_BUFFERS_SIZE],
        temporary_file_size=values[backend.PROXY_MAX_TEMP_FILE_SIZE],
        retry_on=values[backend.PROXY_NEXT_UPSTREAM],
        retry_tries=values[backend.PROXY_NEXT_UPSTREAM_TRIES],
        retry_timeout_s=values[backend.PROXY_NEXT_UPSTREAM_TIMEOUT],
    )


def _switch(values: AnnotationValues, annotation: Annotation[Any]) -> bool | None:
    return values[annotation] == "on" if annotation in values else None


def backend_tls(namespace: str, annotations: Annotations, referred: Referred) -> ProxySSL | None:
    """Return the options of TLS to backends; None for none. If they are unusable, the Ingress is closed."""
    values = annotations.values
    if _BACKEND_TLS.isdisjoint(values):
        return None
    certificate = ca = revoked = ""
    if (reference := values[tls.PROXY_SSL_SECRET]) is not None:
        try:
            secret = referred.secret(referred.own(namespace, reference))
            has_certificate, has_authorities = holds_certificate(secret), holds_authorities(secret)
            if has_certificate or not has_authorities:
                pair = read_certificate(secret)
                certificate = referred.keep(pair.path, pair.content)
            if has_authorities:
                ca = referred.keep(*read_authorities(secret))
            if (lists := read_revocations(secret)) is not None:
                revoked = referred.keep(*lists)
            elif has_empty_revocations(secret):
                annotations.report(Verdict.NOTE, tls.PROXY_SSL_SECRET, EMPTY_REVOCATIONS)
        except ValueError as error:
            annotations.close(tls.PROXY_SSL_SECRET, error)
            return None
    verify = values[tls.PROXY_SSL_VERIFY] == "on"
    if verify and not ca:
        annotations.close(tls.PROXY_SSL_VERIFY, "it needs proxy-ssl-secret with the CA certificate")
        return None
    return ProxySSL(
        certificate=certificate,
        ca=ca,
        revoked=revoked if verify else "",
        verify=verify,
        verify_depth=values[tls.PROXY_SSL_VERIFY_DEPTH],
        ciphers=values[tls.PROXY_SSL_CIPHERS],
        protocols=values[tls.PROXY_SSL_PROTOCOLS],
        name=values[tls.PROXY_SSL_NAME],
        server_name=values[tls.PROXY_SSL_SERVER_NAME] == "on",
    )
