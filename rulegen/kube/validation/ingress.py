"""Validates Ingresses and IngressClasses as the API server does; also rejects bytes that no web server accepts.

Sources: the Ingress concept page of Kubernetes, KEP-1453 (path types), the API conventions for names.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from msgspec.structs import replace

from rulegen.kube.syntax import is_label, is_port_name, is_subdomain
from rulegen.kube.validation.findings import family_of_text
from rulegen.text import quoted

if TYPE_CHECKING:
    from rulegen.kube.objects.structs import (
        HTTPIngressPath,
        Ingress,
        IngressBackend,
        IngressClass,
        IngressRule,
        IngressServiceBackend,
        IngressTLS,
        TypedReference,
    )
    from rulegen.kube.validation.findings import Findings

PATH_TYPES: Final = ("Exact", "Prefix", "ImplementationSpecific")
FREE_PATH: Final = "ImplementationSpecific"
MAX_HOST: Final = 253
MAX_PATH_BYTES: Final = 2000
"""Maximum length of a path: a word of nginx has at most 4,096 bytes, and each byte of the path may need a backslash."""
MAX_CONTROLLER: Final = 250

_UNCLEAR: Final = re.compile(r"//|/\.{1,2}/|%2[fF]|/\.{1,2}\Z")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")
_SEGMENT: Final = re.compile(r"(?!\.{1,2}\Z)[^\x00-\x1f\x7f/%]{1,253}\Z")
_CONTROLLER_PATH: Final = re.compile(r"[A-Za-z0-9/\-._~%!$&'()*+,;=:]+\Z")


def check_ingress(ingress: Ingress, findings: Findings) -> Ingress:
    """Return the Ingress with `/` for empty paths; record all faults."""
    spec = ingress.spec
    if spec.ingress_class_name is not None:
        findings.subdomain("spec.ingressClassName", spec.ingress_class_name)
    if spec.default_backend is not None:
        _check_backend(spec.default_backend, "spec.defaultBackend", findings)
    elif not spec.rules:
        findings.fault("spec", "neither rules nor a default backend")
    for index, tls in enumerate(spec.tls):
        _check_tls(tls, f"spec.tls[{index}]", findings)
    rules = tuple(_checked_rule(rule, f"spec.rules[{index}]", findings) for index, rule in enumerate(spec.rules))
    if all(new is old for new, old in zip(rules, spec.rules, strict=True)):
        return ingress
    return replace(ingress, spec=replace(spec, rules=rules))


def check_ingress_class(ingress_class: IngressClass, findings: Findings) -> IngressClass:
    """Return the IngressClass; record all faults."""
    controller = ingress_class.spec.controller
    domain, slash, path = controller.partition("/")
    if len(controller) > MAX_CONTROLLER:
        findings.fault("spec.controller", f"{quoted(controller)} has more than {MAX_CONTROLLER} characters")
    elif not slash or not is_subdomain(domain) or not _CONTROLLER_PATH.match(path):
        findings.fault("spec.controller", f"{quoted(controller)} is not a controller name such as example.com/ingress")
    return ingress_class


def is_host(text: str) -> bool:
    """Return whether `text` is a host of a rule: a DNS name in lower case, optionally after `*.`; not an IP address."""
    return _is_name(text) and (not text[-1].isdigit() or family_of_text(text) is None)


def _is_name(text: str) -> bool:
    return is_subdomain(text.removeprefix("*.")) and len(text) <= MAX_HOST


def _check_tls(tls: IngressTLS, path: str, findings: Findings) -> None:
    for index, host in enumerate(tls.hosts):
        if not _is_name(host):  # IPv4 addresses are accepted here, as in the API: no rule can have such a host
            _check_host(f"{path}.hosts[{index}]", host, findings)
    if tls.secret_name and not is_subdomain(tls.secret_name):
        findings.subdomain(f"{path}.secretName", tls.secret_name)


def _check_host(path: str, host: str, findings: Findings) -> None:
    if is_host(host):
        return
    if family_of_text(host) is not None:
        findings.fault(path, f"{quoted(host)} is an IP address; a host is a DNS name")
    else:
        expected = 'a-z, 0-9, and "-" and "." inside, at most 253 characters, optionally after "*."'
        findings.fault(path, f"{quoted(host)} is not a valid host: {expected}")


def _checked_rule(rule: IngressRule, path: str, findings: Findings) -> IngressRule:
    if rule.host:
        _check_host(f"{path}.host", rule.host, findings)
    http = rule.http
    if http is None:
        return rule
    if not http.paths:
        findings.fault(f"{path}.http.paths", "missing: http has at least one path")
    paths = tuple(
        _checked_path(http_path, f"{path}.http.paths[{i}]", findings) for i, http_path in enumerate(http.paths)
    )
    if all(new is old for new, old in zip(paths, http.paths, strict=True)):
        return rule
    return replace(rule, http=replace(http, paths=paths))


def _checked_path(http_path: HTTPIngressPath, here: str, findings: Findings) -> HTTPIngressPath:
    text, kind = http_path.path, http_path.path_type
    if kind is None:
        findings.fault(f"{here}.pathType", f"missing: one of {', '.join(PATH_TYPES)}")
    else:
        findings.choice(f"{here}.pathType", kind, PATH_TYPES)
    if text:
        _check_path_text(text, f"{here}.path", findings, is_free=kind == FREE_PATH)
    elif kind == FREE_PATH:
        http_path = replace(http_path, path="/")
    elif kind in PATH_TYPES:
        findings.fault(f"{here}.path", 'missing: a path begins with "/"')
    _check_backend(http_path.backend, f"{here}.backend", findings)
    return http_path


def _check_path_text(text: str, path: str, findings: Findings, *, is_free: bool) -> None:
    if not text.startswith("/"):
        findings.fault(path, f'{quoted(text)} does not begin with "/"')
    if _CONTROL.search(text):
        findings.fault(path, f"{quoted(text)} has control characters in it")
    if not is_free and (unclear := _UNCLEAR.search(text)):
        findings.fault(
            path,
            f"{quoted(text)} has {quoted(unclear[0])} in it: proxies resolve this in the path of a request, so no"
            " request matches",
        )
    findings.text(path, text, MAX_PATH_BYTES)


def _check_backend(backend: IngressBackend, path: str, findings: Findings) -> None:
    service, resource = backend.service, backend.resource
    if service is None and resource is None:
        findings.fault(path, "missing: a backend needs a Service")
    if service is not None and resource is not None:
        findings.fault(path, "has both a Service and a resource")
    if service is not None:
        _check_service(service, f"{path}.service", findings)
    if resource is not None:
        _check_resource(resource, f"{path}.resource", findings)


def _check_service(service: IngressServiceBackend, path: str, findings: Findings) -> None:
    if not service.name:
        findings.fault(f"{path}.name", "missing")
    elif not is_label(service.name):
        findings.label(f"{path}.name", service.name)
    port = service.port
    if port.name and port.number:
        findings.fault(f"{path}.port", "has both a name and a number")
    elif not port.name and not port.number:
        findings.fault(f"{path}.port", "missing: the name or the number of a port")
    if port.name and not is_port_name(port.name):
        findings.fault(f"{path}.port.name", f"{quoted(port.name)} is not the name of a port")
    if port.number:
        findings.port(f"{path}.port.number", port.number)


def _check_resource(resource: TypedReference, path: str, findings: Findings) -> None:
    if resource.api_group:
        findings.subdomain(f"{path}.apiGroup", resource.api_group)
    for field, text in (("kind", resource.kind), ("name", resource.name)):
        if not _SEGMENT.match(text):
            message = (
                f'{quoted(text)} is not a valid name: no "/" and no "%" in it, at most 253 characters'
                if text
                else "missing"
            )
            findings.fault(f"{path}.{field}", message)
        else:
            findings.text(f"{path}.{field}", text, 4 * 253)
