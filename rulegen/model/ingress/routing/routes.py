"""Rules of Ingresses to routes of hosts: where each path's requests go, and which share of them to a canary."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final

from rulegen.kube.objects.names import ObjectName
from rulegen.kube.objects.structs import ServiceBackendPort
from rulegen.model.ingress.ir import Canary, FixedResponse, Location, LocationPolicy, MatchKind, ToUpstream
from rulegen.model.ingress.policy.policies import errors_of, port_of
from rulegen.model.ingress.reasons import Reason, Verdict
from rulegen.model.ingress.routing.paths import Paths, Route
from rulegen.model.ingress.upstreams.services import NOT_FOUND, UNAVAILABLE, Targets, UpstreamOptions, transport_of
from rulegen.model.ingress.values import readers
from rulegen.model.ingress.values.annotations import access, balancing, routing, tls

if TYPE_CHECKING:
    from rulegen.kube.objects.structs import HTTPIngressPath, IngressBackend
    from rulegen.model.ingress.ir import Target
    from rulegen.model.ingress.routing.ingresses import ResolvedIngress
    from rulegen.model.ingress.values.settings import Settings


_ANY_HOST: Final = "with the request's host, a client could choose the server"


@dataclass(slots=True)
class Routing:
    """The routes of all hosts; Ingresses are to be added oldest first, canaries behind all others.

    Attributes:
        paths: By host.
        fallbacks: By host, who answers what no path of it matches.
        owners: By host, the Ingresses that have a rule for it.
        reasons: What is not served as it was written.
        default_backend: Who answers what nobody asked for; None for 404.
    """

    targets: Targets
    settings: Settings
    paths: dict[str, Paths] = field(default_factory=dict)
    fallbacks: dict[str, Location] = field(default_factory=dict)
    owners: dict[str, dict[ObjectName, ResolvedIngress]] = field(default_factory=dict)
    reasons: list[Reason] = field(default_factory=list)
    default_backend: Target | None = None

    def host(self, host: str) -> Paths:
        """Return the paths of a host."""
        return self.paths.setdefault(host, Paths(host))

    def add(self, owner: ResolvedIngress) -> None:
        """Add the rules of an Ingress."""
        spec = owner.ingress.spec
        default = spec.default_backend
        for index, rule in enumerate(spec.rules):
            paths = self.host(rule.host)
            self.owners.setdefault(rule.host, {}).setdefault(owner.name, owner)
            for number, path in enumerate(rule.http.paths if rule.http else ()):
                paths.add(self._route(owner, path, rule.host, f"spec.rules[{index}].http.paths[{number}]"))
            if default is not None and rule.host not in self.fallbacks:
                self.fallbacks[rule.host] = self._fallback(owner, default, rule.host)
        if default is None or spec.rules:
            return
        if "" in self.fallbacks:
            older = self.fallbacks[""].ingress
            message = f"requests for other hosts go to the default backend of the older Ingress {older}"
            self.reasons.append(owner.reason(Verdict.LOST, "spec.defaultBackend", message))
            return
        self.host("")
        self.owners.setdefault("", {}).setdefault(owner.name, owner)
        self.fallbacks[""] = self._fallback(owner, default, "")

    def add_canary(self, owner: ResolvedIngress) -> None:
        """Give the paths of a canary their share of those of the main Ingress."""
        for index, rule in enumerate(owner.ingress.spec.rules):
            for number, path in enumerate(rule.http.paths if rule.http else ()):
                message = self._attach(owner, rule.host, path)
                if message:
                    where = f"spec.rules[{index}].http.paths[{number}]"
                    self.reasons.append(owner.reason(Verdict.IGNORED, where, message))

    def is_guest(self, owner: ResolvedIngress, host: str) -> bool:
        """Whether a host was another namespace's first, so that this Ingress has no say about the whole of it."""
        return next(iter(self.owners[host])).namespace != owner.name.namespace

    def of_first_port(self, name: ObjectName) -> tuple[Target | None, str]:
        """Return where requests to a Service's first port go; None, or an answer of our own, and why."""
        told = self.targets.services.get(name)
        if told is None or not told.service.spec.ports:
            return None, f"Service {name} does not exist"
        port = told.service.spec.ports[0]
        return self.targets.of_service(name, ServiceBackendPort(name=port.name, number=port.port))

    def _route(self, owner: ResolvedIngress, path: HTTPIngressPath, host: str, where: str) -> Route:
        target, policy = self._target(owner, path.backend, host, f"{where}.backend")
        return Route(
            ingress=owner.name,
            path=path.path or "/",
            is_exact=path.path_type == "Exact",
            is_regex=owner.policy.use_regex,
            target=target,
            policy=policy,
            rule=where,
        )

    def _fallback(self, owner: ResolvedIngress, backend: IngressBackend, host: str) -> Location:
        target, policy = self._target(owner, backend, host, "spec.defaultBackend")
        return Location(
            kind=MatchKind.PREFIX,
            path="/",
            target=target,
            policy=replace(policy, rewrite_target=""),
            ingress=owner.name,
            rule="spec.defaultBackend",
            source="/",
        )

    def _target(
        self, owner: ResolvedIngress, backend: IngressBackend, host: str, where: str
    ) -> tuple[Target, LocationPolicy]:
        """Return where a path's requests go, and the policy that they have there."""
        policy, values = owner.policy, owner.annotations.values
        if owner.is_closed:
            return UNAVAILABLE, policy
        if owner.client_auth is not None and self.is_guest(owner, host):
            message = (
                f"clients are asked for certificates of a whole host: {host or 'every other'} is not this namespace's"
            )
            owner.annotations.report(Verdict.CLOSED, tls.AUTH_TLS_SECRET, message)
            return UNAVAILABLE, LocationPolicy(is_closed=True)
        auth = policy.external_auth
        if auth is not None and auth.url.host.startswith("$") and (not host or readers.may_be_address(host)):
            message = f"{host} ends in a number: the request's host may be an address" if host else _ANY_HOST
            owner.annotations.close(access.AUTH_URL, message)
            return UNAVAILABLE, LocationPolicy(is_closed=True)
        if backend.service is None:
            kind = backend.resource.kind if backend.resource else "nothing"
            message = f"a backend of kind {readers.quoted(kind)} is not supported: 404"
            self.reasons.append(owner.reason(Verdict.UNAVAILABLE, where, message))
            return NOT_FOUND, policy
        name = ObjectName(owner.name.namespace, backend.service.name)
        wish = UpstreamOptions(
            balance=values[balancing.LOAD_BALANCE],
            hash_key=values[balancing.UPSTREAM_HASH_BY],
            sticky=policy.sticky,
            service_upstream=values[routing.SERVICE_UPSTREAM],
            transport=transport_of(policy),
            host=host if policy.sticky else None,
        )
        target, why = self.targets.of_service(name, backend.service.port, wish)
        if refused := self.targets.refused_endpoints(name, backend.service.port):
            self.reasons.append(owner.reason(Verdict.REFUSED, where, f"Service {name}: {refused}"))
        stand_in = self._stand_in(owner)
        if why:
            target = stand_in or target
            answer = (
                f"its requests are answered with {target.status}"
                if isinstance(target, FixedResponse)
                else "another answers"
            )
            self.reasons.append(owner.reason(Verdict.UNAVAILABLE, where, f"{why}: {answer}"))
        elif isinstance(target, FixedResponse) or policy.redirect is not None:
            return target, policy
        return target, self._with_errors(owner, stand_in, name.name, port_of(backend.service.port))

    def _with_errors(self, owner: ResolvedIngress, stand_in: Target | None, service: str, port: str) -> LocationPolicy:
        """Return the policy with the answers that are replaced by those of the default backend."""
        default = stand_in or self.default_backend or NOT_FOUND
        errors = errors_of(owner.annotations, self.settings, default, service, port)
        if errors is None:
            return owner.policy
        if isinstance(errors.target, FixedResponse):
            owner.annotations.report(
                Verdict.IGNORED, routing.CUSTOM_HTTP_ERRORS, "there is no default backend for them"
            )
            return owner.policy
        return replace(owner.policy, errors=errors)

    def _stand_in(self, owner: ResolvedIngress) -> Target | None:
        """Return the target of the annotation default-backend."""
        name = owner.annotations.values[routing.DEFAULT_BACKEND]
        if not name:
            return None
        target, why = self.of_first_port(ObjectName(owner.name.namespace, name))
        if why:
            owner.annotations.report(Verdict.IGNORED, routing.DEFAULT_BACKEND, why)
            return None
        return target

    def _attach(self, owner: ResolvedIngress, host: str, path: HTTPIngressPath) -> str:
        """Give a path its canary; return why it cannot have it."""
        paths = self.paths.get(host)
        main = paths.find(path.path or "/", is_exact=path.path_type == "Exact") if paths else None
        if paths is None or main is None:
            return "a canary of no other Ingress: none has this host, path and type"
        if main.ingress.namespace != owner.name.namespace:
            return f"the main Ingress {main.ingress} is of another namespace: its requests are not to be had"
        if owner.is_closed or path.backend.service is None:
            return "the canary cannot be served"
        name = ObjectName(owner.name.namespace, path.backend.service.name)
        # The main location speaks to the canary as it does to its own backend.
        wish = UpstreamOptions(transport=transport_of(main.policy))
        target, why = self.targets.of_service(name, path.backend.service.port, wish)
        if why or not isinstance(target, ToUpstream):
            return f"{why or 'the canary is not a Service with endpoints'}: all requests go to the main Ingress"
        if not isinstance(main.target, ToUpstream):
            return f"the main Ingress {main.ingress} cannot share its requests"
        paths.replace(replace(main, canaries=(*main.canaries, _canary(owner, target))))
        return ""


def _canary(owner: ResolvedIngress, target: ToUpstream) -> Canary:
    values = owner.annotations.values
    value, pattern = values[routing.CANARY_BY_HEADER_VALUE], values[routing.CANARY_BY_HEADER_PATTERN]
    return Canary(
        target=target.upstream,
        ingress=owner.name,
        header=values[routing.CANARY_BY_HEADER],
        header_value=value,
        header_pattern="" if value else pattern,
        is_header_unreadable=not value and routing.CANARY_BY_HEADER_PATTERN in owner.annotations.failed,
        cookie=values[routing.CANARY_BY_COOKIE],
        share=min(100.0, 100.0 * values[routing.CANARY_WEIGHT] / values[routing.CANARY_WEIGHT_TOTAL]),
    )
