"""Answers of a backend that are replaced by those of another."""

from __future__ import annotations

from typing import TYPE_CHECKING

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


def error_name(errors: ErrorPages, ingress: ObjectName | None, code: int) -> str:
    """Return the name of the location that answers instead."""
    return f"@e{code}_{mark(ingress, errors.target, errors.service, errors.port)}"


def error_location(errors: ErrorPages, ingress: ObjectName | None, code: int, defaults: HttpDefaults) -> Directive:
    """Return that location: it asks the default backend, and tells it what went wrong."""
    headers: list[tuple[str, Word]] = [
        ("X-Code", str(code)),
        ("X-Format", variable("http_accept")),
        ("X-Original-URI", variable("request_uri")),
        ("X-Namespace", ingress.namespace if ingress else ""),
        ("X-Ingress-Name", ingress.name if ingress else ""),
        ("X-Service-Name", errors.service),
        ("X-Service-Port", errors.port),
    ]
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
    block += [Directive("proxy_method", ("GET",)), Directive("proxy_pass_request_body", ("off",))]
    block.append(Directive("proxy_set_header", ("Content-Length", "")))
    block.append(Directive("proxy_pass", (address,)))
    return Directive("location", (error_name(errors, ingress, code),), tuple(block))
