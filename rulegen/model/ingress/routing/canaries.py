"""Adds canaries to the paths of their main Ingresses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from msgspec import structs

from rulegen.model.ingress.ir import Canary, FixedResponse, ToName, ToUpstream
from rulegen.model.ingress.policy.idle import report_of_canary
from rulegen.model.ingress.reasons import Verdict
from rulegen.model.ingress.routing.routes import upstream_options
from rulegen.model.ingress.upstreams.services import transport_of
from rulegen.model.ingress.values.annotations.balancing import AFFINITY_CANARY_BEHAVIOR
from rulegen.model.ingress.values.annotations.routing import (
    CANARY_BY_COOKIE,
    CANARY_BY_HEADER,
    CANARY_BY_HEADER_PATTERN,
    CANARY_BY_HEADER_VALUE,
    CANARY_WEIGHT,
    CANARY_WEIGHT_TOTAL,
)

if TYPE_CHECKING:
    from rulegen.kube.objects.names import ObjectName
    from rulegen.model.ingress.ir import LocationPolicy, Target
    from rulegen.model.ingress.routing.ingresses import ResolvedIngress
    from rulegen.model.ingress.routing.route import PathMatch, WeightedBackend
    from rulegen.model.ingress.routing.routes import Routing
    from rulegen.model.ingress.values.annotations.reading import Annotations

_NO_MAIN: Final = "no main Ingress has this host, path and type"
_NO_MAIN_WITHOUT_HOST: Final = "no main Ingress has a path without host, or a default backend without rules"
_OF_NAME: Final = "no cookie keeps clients at the canary or at the main Ingress, because one of them is an ExternalName"
_LEAST_TOTAL: Final = 100
_SMALL_TOTAL: Final = f"a total below {_LEAST_TOTAL} counts as {_LEAST_TOTAL}"


def add_canary(routing: Routing, owner: ResolvedIngress) -> None:
    """Add a canary to the paths of its main Ingress."""
    for route in owner.routes:
        for host in route.hosts:
            if host in routing.owners and not routing.is_guest(owner, host):
                routing.canaries.setdefault(host, []).append(owner)
        messages = [
            _attach(routing, owner, host, match.path, route.backends[0])
            for host in route.hosts
            for match in route.matches
        ]
        routing.reasons += [owner.reason(Verdict.IGNORED, route.field, message) for message in messages if message]
    default = next((route.backends[0] for route in owner.routes if route.backends and not route.matches), None)
    if default is not None:
        _attach_to_all(routing, owner, default)


def _attach(routing: Routing, owner: ResolvedIngress, host: str, path: PathMatch, backend: WeightedBackend) -> str:
    """Add a canary to a path; return the reason if that is not possible."""
    paths = routing.paths.get(host)
    main = paths.find(path.value, is_exact=path.kind.is_exact) if paths else None
    if paths is None or main is None:
        is_rest = path.value == "/" and not path.kind.is_exact
        return _attach_to_rest(routing, owner, host, backend) if is_rest else _NO_MAIN
    canary, why = _canary(routing, owner, backend, host, main.source.name, main.target, main.policy)
    if canary is not None:
        paths.replace(structs.replace(main, canaries=(*main.canaries, canary)))
    return why


def _attach_to_rest(routing: Routing, owner: ResolvedIngress, host: str, backend: WeightedBackend) -> str:
    """Add a canary to the default backend of a host; return the reason if that is not possible."""
    main = routing.fallbacks.get(host)
    if main is None or main.ingress is None:
        return _NO_MAIN
    canary, why = _canary(routing, owner, backend, host, main.ingress, main.target, main.policy)
    if canary is not None:
        routing.fallbacks[host] = main._replace(canaries=(*main.canaries, canary))
    return why


def _attach_to_all(routing: Routing, owner: ResolvedIngress, backend: WeightedBackend) -> None:
    """Add the default backend of a canary to all paths without host, as in ingress-nginx, and to all other requests.

    Only paths of its own namespace are meant. It is reported if there are none.
    """
    whys = []
    paths = routing.paths.get("")
    for main in [*paths] if paths else []:
        canary, why = _canary(routing, owner, backend, "", main.source.name, main.target, main.policy)
        if paths and canary is not None:
            paths.replace(structs.replace(main, canaries=(*main.canaries, canary)))
        whys.append(why)
    whys.append(_attach_to_rest(routing, owner, "", backend))
    if all(whys):
        why = next((why for why in whys if why != _NO_MAIN), _NO_MAIN_WITHOUT_HOST)
        routing.reasons.append(owner.reason(Verdict.IGNORED, backend.field, why))


def _canary(
    routing: Routing,
    owner: ResolvedIngress,
    backend: WeightedBackend,
    host: str,
    main: ObjectName,
    main_target: Target,
    policy: LocationPolicy,
) -> tuple[Canary | None, str]:
    """Return a canary of the main Ingress, or None and the reason."""
    if main.namespace != owner.name.namespace:
        return None, f"the main Ingress {main} belongs to another namespace, whose requests a canary cannot get"
    if owner.is_closed or backend.service is None or backend.port is None:
        return None, "the canary cannot be served"
    # Requests to the canary use the same protocol and session affinity as those to the main backend.
    options = upstream_options(owner, routing.settings)._replace(
        transport=transport_of(policy, routing.settings), sticky=None
    )
    is_sticky = policy.sticky is not None and isinstance(main_target, ToUpstream)
    if is_sticky and owner.annotations.values[AFFINITY_CANARY_BEHAVIOR] == "sticky":
        options = options._replace(sticky=policy.sticky, host=host)
    target, why = routing.targets.of_service(backend.service, backend.port, options)
    routing.report_port(owner, backend)
    if why or isinstance(target, FixedResponse):
        return None, f"{why or 'the canary is not a Service with endpoints'}: all requests go to the main Ingress"
    if isinstance(main_target, FixedResponse):
        return None, f"the main Ingress {main} cannot share its requests"
    if policy.sticky is not None and (isinstance(main_target, ToName) or isinstance(target, ToName)):
        routing.reasons.append(owner.reason(Verdict.UNSUPPORTED, backend.field, _OF_NAME))
    _report_numbers(owner.annotations)
    report_of_canary(owner.annotations, routing.owners[host][main].annotations)
    return _share(owner, target), ""


def _report_numbers(annotations: Annotations) -> None:
    """Report numbers that count as others."""
    if annotations.values[CANARY_WEIGHT_TOTAL] < _LEAST_TOTAL:
        annotations.report(Verdict.NOTE, CANARY_WEIGHT_TOTAL, _SMALL_TOTAL)
    if annotations.values[CANARY_WEIGHT] < 0:
        annotations.report(Verdict.NOTE, CANARY_WEIGHT, "a weight below 0 counts as 0")


def _share(owner: ResolvedIngress, target: ToUpstream | ToName) -> Canary:
    """Return the canary of an Ingress for a target."""
    values = owner.annotations.values
    total = max(values[CANARY_WEIGHT_TOTAL], _LEAST_TOTAL)
    value, pattern = values[CANARY_BY_HEADER_VALUE], values[CANARY_BY_HEADER_PATTERN]
    return Canary(
        target=target,
        ingress=owner.name,
        header=values[CANARY_BY_HEADER],
        header_value=value,
        header_pattern="" if value else pattern,
        is_header_unreadable=not value and CANARY_BY_HEADER_PATTERN in owner.annotations.failed,
        cookie=values[CANARY_BY_COOKIE],
        share=100.0 * min(max(values[CANARY_WEIGHT], 0), total) / total,
    )
