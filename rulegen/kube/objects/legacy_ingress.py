"""Converts Ingresses of networking.k8s.io/v1beta1 and extensions/v1beta1 to v1.

API servers since 1.22 do not serve these versions, but charts and repositories still contain them. The differences: a
backend has the fields `serviceName` and `servicePort` (a number or the name of a port), `spec.backend` is the default
backend, and a path without a type is ImplementationSpecific.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from rulegen.errors import Fault, Rejected
from rulegen.kube.objects.structs import (
    HTTPIngressPath,
    HTTPIngressRuleValue,
    Ingress,
    IngressBackend,
    IngressRule,
    IngressServiceBackend,
    IngressSpec,
    IngressTLS,
    IntOrString,
    Object,
    ObjectMeta,
    ServiceBackendPort,
    TypedReference,
)

LEGACY_VERSIONS: Final = ("networking.k8s.io/v1beta1", "extensions/v1beta1")

_OLD_ENDS: Final = {
    ".service.port.number": ".servicePort",
    ".service.port.name": ".servicePort",
    ".service.port": ".servicePort",
    ".service.name": ".serviceName",
}


class LegacyBackend(Object, frozen=True):
    """spec.backend, and backend of a path."""

    service_name: str = ""
    service_port: IntOrString = 0
    resource: TypedReference | None = None


class LegacyPath(Object, frozen=True):
    """spec.rules[].http.paths[]."""

    path: str = ""
    path_type: str | None = None
    backend: LegacyBackend = LegacyBackend()


class LegacyRuleValue(Object, frozen=True):
    """spec.rules[].http."""

    paths: tuple[LegacyPath, ...] = ()


class LegacyRule(Object, frozen=True):
    """spec.rules[]."""

    host: str = ""
    http: LegacyRuleValue | None = None


class LegacySpec(Object, frozen=True):
    """spec."""

    ingress_class_name: str | None = None
    backend: LegacyBackend | None = None
    tls: tuple[IngressTLS, ...] = ()
    rules: tuple[LegacyRule, ...] = ()


class LegacyIngress(Object, frozen=True):
    """Ingress of one of the `LEGACY_VERSIONS`."""

    metadata: ObjectMeta
    spec: LegacySpec = LegacySpec()


def modern(ingress: LegacyIngress) -> Ingress:
    """Return the Ingress as v1, without validating it."""
    spec = ingress.spec
    return Ingress(
        metadata=ingress.metadata,
        spec=IngressSpec(
            ingress_class_name=spec.ingress_class_name,
            default_backend=None if spec.backend is None else _backend(spec.backend),
            tls=spec.tls,
            rules=tuple(IngressRule(host=rule.host, http=_paths(rule.http)) for rule in spec.rules),
        ),
    )


def with_old_paths(rejected: Rejected) -> Rejected:
    """Return a rejection of a converted Ingress with the paths of the old version."""
    return replace(rejected, faults=tuple(Fault(_old_path(fault.path), fault.message) for fault in rejected.faults))


def _paths(value: LegacyRuleValue | None) -> HTTPIngressRuleValue | None:
    if value is None:
        return None
    return HTTPIngressRuleValue(
        paths=tuple(
            HTTPIngressPath(
                path=path.path, path_type=path.path_type or "ImplementationSpecific", backend=_backend(path.backend)
            )
            for path in value.paths
        )
    )


def _backend(old: LegacyBackend) -> IngressBackend:
    if not old.service_name and not old.service_port:
        return IngressBackend(resource=old.resource)
    port = old.service_port
    backend_port = ServiceBackendPort(name=port) if isinstance(port, str) else ServiceBackendPort(number=port)
    return IngressBackend(
        service=IngressServiceBackend(name=old.service_name, port=backend_port), resource=old.resource
    )


def _old_path(path: str) -> str:
    if not path.startswith("spec."):
        return path
    for new, old in _OLD_ENDS.items():
        if path.endswith(new):
            path = path.removesuffix(new) + old
            break
    return path.replace("spec.defaultBackend", "spec.backend", 1)
