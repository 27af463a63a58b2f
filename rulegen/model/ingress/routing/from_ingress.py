"""Converts an Ingress to routes: its rules, and its default backend for all other requests to its hosts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rulegen.kube.objects.names import ObjectName
from rulegen.model.ingress.routing.route import PathKind, PathMatch, Route, RouteMatch, WeightedBackend

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rulegen.kube.objects.names import ObjectKey
    from rulegen.kube.objects.structs import HTTPIngressPath, Ingress, IngressBackend
    from rulegen.model.ingress.ir import LocationPolicy

DEFAULT_BACKEND = "spec.defaultBackend"


def routes_of(ingress: Ingress, source: ObjectKey, filters: LocationPolicy) -> Iterator[Route]:
    """Yield the routes of an Ingress in the order of its rules.

    Args:
        ingress: The Ingress.
        source: Its kind and name.
        filters: The policy of its annotations.
    """
    spec, namespace = ingress.spec, source.name.namespace
    default: tuple[WeightedBackend, ...] = ()
    if spec.default_backend is not None:
        default = (_backend(spec.default_backend, namespace, DEFAULT_BACKEND),)
    expressions = hosts_with_expressions(ingress, filters)
    for index, rule in enumerate(spec.rules):
        hosts = (rule.host,)
        for number, path in enumerate(rule.http.paths if rule.http else ()):
            field = f"spec.rules[{index}].http.paths[{number}]"
            yield Route(
                hosts=hosts,
                matches=(RouteMatch(_path(path, is_expression=rule.host in expressions)),),
                filters=filters,
                backends=(_backend(path.backend, namespace, f"{field}.backend"),),
                source=source,
                field=field,
            )
        yield Route(hosts=hosts, matches=(), filters=filters, backends=default, source=source, field=DEFAULT_BACKEND)
    if default and not spec.rules:
        yield Route(hosts=(), matches=(), filters=filters, backends=default, source=source, field=DEFAULT_BACKEND)


def hosts_with_expressions(ingress: Ingress, policy: LocationPolicy) -> set[str]:
    """Return the hosts on which the paths of an Ingress are expressions, because of use-regex or rewrite-target.

    A path that equals its rewrite target is not rewritten.
    """
    target = policy.rewrite_target
    if not (policy.use_regex or target):  # most Ingresses
        return set()
    return {
        rule.host
        for rule in ingress.spec.rules
        if policy.use_regex
        or (target and rule.http is not None and any((path.path or "/") != target for path in rule.http.paths))
    }


def _path(path: HTTPIngressPath, *, is_expression: bool) -> PathMatch:
    if path.path_type == "Exact":
        kind = PathKind.EXACT_EXPRESSION if is_expression else PathKind.EXACT
    else:
        kind = PathKind.EXPRESSION if is_expression else PathKind.PREFIX
    return PathMatch(kind, path.path or "/")


def _backend(backend: IngressBackend, namespace: str, field: str) -> WeightedBackend:
    if backend.service is None:
        kind = backend.resource.kind if backend.resource else "nothing"
        return WeightedBackend(None, None, field, kind=kind)
    return WeightedBackend(ObjectName(namespace, backend.service.name), backend.service.port, field)
