"""Custom error pages: another backend replaces error responses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rulegen.backends.nginx.locations.headers import proxy_headers
from rulegen.backends.nginx.locations.proxying import resolver_of
from rulegen.backends.nginx.names import mark
from rulegen.languages.nginx.tree import Directive, template, variable
from rulegen.model.ingress.ir import ToName, ToUpstream

if TYPE_CHECKING:
    from rulegen.kube.objects.names import ObjectName
    from rulegen.languages.nginx.tree import Node, Word
    from rulegen.model.ingress.defaults import HttpDefaults
    from rulegen.model.ingress.ir import ErrorPages

UNAVAILABLE: Final = 503
"""Status of a response for a Service without endpoints."""
_BODY_UNREAD: Final = frozenset({400, 408, 413, 414, 431})
"""Statuses with which nginx responds before it has read the request's body.

nginx must not read such a body for the error page: it may be too large or arrive too slowly.
"""


def error_headers(code: int, ingress: ObjectName | None, service: str, port: str) -> list[tuple[str, Word]]:
    """Return the headers that name the failed Service and the status for a default backend, as in ingress-nginx."""
    return [
        ("X-Code", str(code)),
        ("X-Format", variable("http_accept")),
        ("X-Original-URI", variable("request_uri")),
        ("X-Namespace", ingress.namespace if ingress else ""),
        ("X-Ingress-Name", ingress.name if ingress else ""),
        ("X-Service-Name", service),
        ("X-Service-Port", port),
    ]


def error_name(errors: ErrorPages, ingress: ObjectName | None, code: int) -> str:
    """Return the name of the location that requests the error page of a status."""
    return f"@e{code}_{mark(ingress, errors.target, errors.service, errors.port)}"


def error_location(errors: ErrorPages, ingress: ObjectName | None, code: int, defaults: HttpDefaults) -> Directive:
    """Return the location that requests the error page of a status from the default backend."""
    headers = error_headers(code, ingress, errors.service, errors.port)
    block: list[Node] = [Directive("internal")]
    address: Word
    if isinstance(errors.target, ToName):
        block.append(Directive("set", ("$external", f"{errors.target.host}:{errors.target.port}")))
        block += resolver_of(defaults, errors.target.port)
        address = template("http://$external")
    else:
        address = f"http://{errors.target.upstream if isinstance(errors.target, ToUpstream) else ''}"
    block.append(Directive("rewrite", ("^", "/", "break")))
    block += proxy_headers(defaults.settings, headers)
    if not errors.passes_body or code in _BODY_UNREAD:
        block.append(Directive("proxy_pass_request_body", ("off",)))
        block += [Directive("proxy_set_header", (name, "")) for name in ("Content-Length", "Transfer-Encoding")]
    block.append(Directive("proxy_pass", (address,)))
    return Directive("location", (error_name(errors, ingress, code),), tuple(block))
