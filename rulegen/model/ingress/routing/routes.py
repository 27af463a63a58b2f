"""Assigns routes to the paths of hosts: the target of each path, and the share of its canaries."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from msgspec import Struct, field

from rulegen.kube.objects.names import ObjectName
from rulegen.kube.objects.structs import ServiceBackendPort
from rulegen.model.ingress.ir import (
    Canary,
    FixedResponse,
    Location,
    LocationPolicy,
    MatchKind,
    ServiceWithoutEndpoints,
    ToName,
)
from rulegen.model.ingress.policy.binding import bound, check_length, names_location
from rulegen.model.ingress.policy.policies import errors_of, port_of, without_auth
from rulegen.model.ingress.reasons import Reason, Verdict
from rulegen.model.ingress.routing.paths import BARE, HostPath, Paths
from rulegen.model.ingress.routing.route import PathKind, PathMatch
from rulegen.model.ingress.upstreams.services import NOT_FOUND, UNAVAILABLE, Targets, UpstreamOptions, transport_of
from rulegen.model.ingress.values import readers, regex
from rulegen.model.ingress.values.annotations import access, balancing, routing, tls
from rulegen.model.ingress.values.texts import NO_TEXT, Subject

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rulegen.model.ingress.ir import Target
    from rulegen.model.ingress.routing.ingresses import ResolvedIngress
    from rulegen.model.ingress.routing.route import Route, WeightedBackend
    from rulegen.model.ingress.values.annotations.annotation import Annotation
    from rulegen.model.ingress.values.settings import Settings


_MORE_THAN_PATH: Final = "matches by method, header or query are not supported: this route is left out"
_OF_NAME: Final = "the Service is an ExternalName: requests go to the addresses of its name in turn"
_CHOOSING: Final[tuple[Annotation[Any], ...]] = (
    balancing.AFFINITY,
    balancing.UPSTREAM_HASH_BY,
    balancing.LOAD_BALANCE,
)
_NOT_THE_OTHER: Final = "; the later port with this name or number gets none, as in ingress-nginx"
_ROOT: Final = PathMatch(PathKind.PREFIX, "/")
_NO_NAMESPACES: Final[frozenset[str]] = frozenset()
_ANY_HOST: Final = "with the request's host, a client could choose the server"


class Routing(Struct):
    """The routes of all hosts. Ingresses must be added oldest first, and canaries after all others.

    Attributes:
        paths: Paths by host.
        fallbacks: Location by host, for requests that no path matches.
        owners: Ingresses with a rule for the host, by host.
        canaries: Canaries by host, of the namespace of its oldest Ingress.
        reasons: Reports about what is not served as specified.
        default_backend: Target of requests that no Ingress matches; None for 404.
        closers: Why paths are closed, by host and namespace; an empty namespace stands for all.
        expressions: Namespaces whose paths of a host are expressions because of Ingresses that are not served, by host.
    """

    targets: Targets
    settings: Settings
    paths: dict[str, Paths] = field(default_factory=dict)
    fallbacks: dict[str, Location] = field(default_factory=dict)
    owners: dict[str, dict[ObjectName, ResolvedIngress]] = field(default_factory=dict)
    canaries: dict[str, list[ResolvedIngress]] = field(default_factory=dict)
    reasons: list[Reason] = field(default_factory=list)
    default_backend: Target | None = None
    closers: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    expressions: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def host(self, host: str) -> Paths:
        """Return the paths of a host."""
        known = self.paths.get(host)
        if known is None:
            using = self.expressions.get(host, _NO_NAMESPACES) if self.expressions else _NO_NAMESPACES
            known = self.paths[host] = Paths(host, is_regex=bool(using), using=using)
        return known

    def add(self, owner: ResolvedIngress) -> None:
        """Add the routes of an object."""
        options = upstream_options(owner, self.settings)
        for route in owner.routes:
            for host in route.hosts or ("",):
                if not route.hosts and self._is_caught(owner, route):
                    continue
                paths = self.host(host)
                self.owners.setdefault(host, {}).setdefault(owner.name, owner)
                for match in route.matches:
                    if match.is_path_alone:
                        paths.add(self._path(owner, options, route, match.path, host))
                    else:
                        self.reasons.append(owner.reason(Verdict.UNSUPPORTED, route.field, _MORE_THAN_PATH))
                if not route.matches and route.backends:
                    self._set_fallback(owner, options, route, host)

    def _set_fallback(self, owner: ResolvedIngress, options: UpstreamOptions, route: Route, host: str) -> None:
        """Set the location for other paths of a host, unless an older Ingress has set it."""
        known = self.fallbacks.get(host)
        if known is None:
            self.fallbacks[host] = self._fallback(owner, options, route, host)
        elif known.ingress != owner.name:
            where = f"paths of host {host}" if host else "hosts"
            message = f"requests for other {where} go to the default backend of the older Ingress {known.ingress}"
            self.reasons.append(owner.reason(Verdict.LOST, route.field, message))

    def _is_caught(self, owner: ResolvedIngress, route: Route) -> bool:
        """Whether an older Ingress without rules has the requests for other hosts; if not, `owner` gets them.

        As in ingress-nginx, the default backend of an Ingress with rules, even an older one, does not.
        """
        known = self.fallbacks.get("")
        if known is None or known.ingress is None:
            return False
        older = self.owners[""][known.ingress]
        is_caught = not older.ingress.spec.rules
        loser, winner = (owner, f"the older Ingress {older.name}") if is_caught else (older, f"Ingress {owner.name}")
        message = f"requests for other hosts go to the default backend of {winner}"
        self.reasons.append(loser.reason(Verdict.LOST, route.field, message))
        if not is_caught:
            del self.fallbacks[""]
        return is_caught

    def rest(self, host: str, default: Target | None) -> Location:
        """Return the location for requests that no path of a host matches.

        The policy of the host's oldest Ingress applies there too, for example its redirect to HTTPS and its access
        control.

        Args:
            host: The host.
            default: Target if the host has no Ingress; None for 404.
        """
        if host in self.fallbacks:
            return self.fallbacks[host]
        unmatched = Location(kind=MatchKind.PREFIX, path="/", target=default or NOT_FOUND, policy=BARE)
        owner = next(iter(self.owners.get(host, {}).values()), None)
        if not host or owner is None:
            return unmatched
        target = self.default_backend or NOT_FOUND
        policy = owner.policy
        if self._needs_no_auth(_ROOT):
            policy = without_auth(policy)
        closed = self._closed(owner, host, policy)
        if closed is not None:
            return unmatched._replace(target=UNAVAILABLE, policy=closed, ingress=owner.name, source="/")
        policy = self._bound(owner, _without_backend(policy), "/")
        if policy.is_closed:
            target = UNAVAILABLE
        return unmatched._replace(target=target, policy=policy, ingress=owner.name, source="/")

    def is_guest(self, owner: ResolvedIngress, host: str) -> bool:
        """Whether the host belongs to another namespace, that of its oldest Ingress."""
        return next(iter(self.owners[host])).namespace != owner.name.namespace

    def of_first_port(self, name: ObjectName) -> tuple[Target | None, str]:
        """Return the target for a Service's first port; if unusable, None or a fixed response, and the reason."""
        service = self.targets.services.get(name)
        if service is None or not service.service.spec.ports:
            return None, f"Service {name} does not exist"
        port = service.service.spec.ports[0]
        return self.targets.of_service(name, ServiceBackendPort(name=port.name, number=port.port))

    def _path(
        self, owner: ResolvedIngress, options: UpstreamOptions, route: Route, path: PathMatch, host: str
    ) -> HostPath:
        target, policy = self._target(owner, options, route.backends[0], host, path)
        self._report_auth(owner, route, path)
        if policy.rewrite_target and policy.rewrite_target == path.value:
            policy = replace(policy, rewrite_target="", forwarded_prefix=NO_TEXT)
        return HostPath(
            source=route.source,
            path=path.value,
            is_exact=path.kind.is_exact,
            is_regex=path.kind.is_expression,
            target=target,
            policy=policy,
            field=route.field,
            canaries=tuple(self._shares(owner, route, target, policy)) if len(route.backends) > 1 else (),
        )

    def _shares(self, owner: ResolvedIngress, route: Route, main: Target, policy: LocationPolicy) -> Iterator[Canary]:
        """Yield the shares of all backends after the first, each as a percentage of what the previous ones leave."""
        left = sum(backend.weight for backend in route.backends)
        for backend in route.backends[1:]:
            target: Target = UNAVAILABLE
            why = f"a backend of kind {readers.quoted(backend.kind)} is not supported"
            if backend.service is not None and backend.port is not None:
                options = UpstreamOptions(transport=transport_of(policy, self.settings))
                target, why = self.targets.of_service(backend.service, backend.port, options)
            if not isinstance(target, FixedResponse) and not isinstance(main, FixedResponse):
                if backend.weight:
                    yield Canary(target=target, ingress=owner.name, share=100.0 * backend.weight / left)
                left -= backend.weight
            else:
                message = f"{why or 'it is no Service with endpoints'}: the other backends get its requests"
                self.reasons.append(owner.reason(Verdict.UNAVAILABLE, backend.field, message))

    def _fallback(self, owner: ResolvedIngress, options: UpstreamOptions, route: Route, host: str) -> Location:
        target, policy = self._target(owner, options, route.backends[0], host, _ROOT)
        return Location(
            kind=MatchKind.PREFIX,
            path="/",
            target=target,
            policy=replace(policy, rewrite_target=""),
            ingress=owner.name,
            rule=route.field,
            source="/",
        )

    def _target(
        self, owner: ResolvedIngress, options: UpstreamOptions, backend: WeightedBackend, host: str, match: PathMatch
    ) -> tuple[Target, LocationPolicy]:
        """Return the target of a path and its policy; `options` is the result of `upstream_options`."""
        policy, path = owner.policy, match.value
        if self._needs_no_auth(match):
            policy = without_auth(policy)
        if (closed := self._closed(owner, host, policy)) is not None:
            return UNAVAILABLE, closed
        if backend.service is None or backend.port is None:
            message = f"a backend of kind {readers.quoted(backend.kind)} is not supported: 404"
            self.reasons.append(owner.reason(Verdict.UNAVAILABLE, backend.field, message))
            policy = self._bound(owner, policy, path)
            return UNAVAILABLE if policy.is_closed else NOT_FOUND, policy
        name = backend.service
        whose = ServiceWithoutEndpoints(name.name, port_of(backend.port))
        policy = self._bound(owner, policy, path, whose.name, whose.port)
        if policy.is_closed:
            return UNAVAILABLE, policy
        if options.sticky:
            options = options._replace(host=host)
        target, why = self.targets.of_service(name, backend.port, options)
        self.report_port(owner, backend)
        if isinstance(target, ToName):
            _report_balancing(owner)
        if refused := self.targets.refused_endpoints(name, backend.port):
            self.reasons.append(owner.reason(Verdict.REFUSED, backend.field, f"Service {name}: {refused}"))
        stand_in = self._stand_in(owner)
        if why:
            if stand_in is not None:
                target, policy = stand_in, replace(policy, stands_in_for=whose)
            answer = (
                f"its requests are answered with {target.status}"
                if isinstance(target, FixedResponse)
                else "the default backend answers"
            )
            self.reasons.append(owner.reason(Verdict.UNAVAILABLE, backend.field, f"{why}: {answer}"))
        elif isinstance(target, FixedResponse) or policy.redirect is not None:
            return target, policy
        errors = errors_of(owner.annotations, self.settings, policy, (stand_in, self.default_backend), whose)
        return target, policy if errors is None else replace(policy, errors=errors)

    def report_port(self, owner: ResolvedIngress, backend: WeightedBackend) -> None:
        """Report a backend that names the `targetPort` of a port; as in ingress-nginx, that port gets its requests."""
        if backend.service is None or backend.port is None:
            return
        which, is_ambiguous = self.targets.unusual_port(backend.service, backend.port)
        if which:
            verdict = Verdict.IGNORED if is_ambiguous else Verdict.NOTE
            message = f"{which}, which gets the requests{_NOT_THE_OTHER * is_ambiguous}"
            self.reasons.append(owner.reason(verdict, backend.field, message))

    def _needs_no_auth(self, path: PathMatch) -> bool:
        """Whether a setting lets everybody have a path: all that it matches begins as the setting says."""
        if not path.kind.is_expression:
            return path.value.startswith(self.settings.no_auth_locations)
        return any(regex.begins_with(path.value, known) for known in self.settings.no_auth_locations)

    def _report_auth(self, owner: ResolvedIngress, route: Route, path: PathMatch) -> None:
        """Report an expression that matches more than the paths that need no authentication."""
        if not path.kind.is_expression or not path.value.startswith(self.settings.no_auth_locations):
            return
        if owner.policy != without_auth(owner.policy) and not self._needs_no_auth(path):
            message = (
                "the expression also matches paths outside of no-auth-locations: authentication applies to all of them"
            )
            self.reasons.append(owner.reason(Verdict.IGNORED, f"{route.field}.path", message))

    def _bound(
        self, owner: ResolvedIngress, policy: LocationPolicy, path: str, service: str = "", port: str = ""
    ) -> LocationPolicy:
        """Return a policy with values for the variables of a location; closed if a text becomes too long for nginx."""
        if not (owner.names_location and names_location(policy)):
            return policy
        policy = bound(policy, _of_location(owner, path, service, port))
        try:
            check_length(policy)
        except ValueError as error:
            self.reasons.append(owner.reason(Verdict.CLOSED, "", f"with the values of its variables, {error}"))
            return LocationPolicy(is_closed=True, global_auth=False)
        return policy

    def _closer(self, owner: ResolvedIngress, host: str) -> str:
        """Return why another Ingress closes this Ingress's paths of a host; empty if none does."""
        closers = self.closers.get(host, {})
        return closers.get("") or closers.get(owner.name.namespace, "")

    def _closed(self, owner: ResolvedIngress, host: str, policy: LocationPolicy) -> LocationPolicy | None:
        """Return the policy of an Ingress whose paths of a host are closed; None if they are served."""
        if owner.is_closed:
            return owner.policy
        if self.closers and (why := self._closer(owner, host)):
            self.reasons.append(owner.reason(Verdict.CLOSED, "", f"{host or 'the default server'} is closed: {why}"))
            return LocationPolicy(is_closed=True, global_auth=False)
        if owner.client_auth is not None and self.is_guest(owner, host):
            name = host or "the default server"
            message = f"client certificates apply to a whole host, and {name} belongs to another namespace"
            owner.annotations.report(Verdict.CLOSED, tls.AUTH_TLS_SECRET, message)
            return LocationPolicy(is_closed=True)
        auth = policy.external_auth
        if auth is not None and auth.url.name.literal is None and (not host or readers.may_be_address(host)):
            message = f"{host} ends in a number: the request's host may be an address" if host else _ANY_HOST
            owner.annotations.close(access.AUTH_URL, message)
            return LocationPolicy(is_closed=True)
        return None

    def _stand_in(self, owner: ResolvedIngress) -> Target | None:
        """Return the target of the annotation default-backend; None if there is none."""
        name = owner.annotations.values[routing.DEFAULT_BACKEND]
        if not name:
            return None
        target, why = self.of_first_port(ObjectName(owner.name.namespace, name))
        if why:
            owner.annotations.report(Verdict.IGNORED, routing.DEFAULT_BACKEND, why)
            return None
        return target


def _without_backend(policy: LocationPolicy) -> LocationPolicy:
    """Return a policy without the options that apply to single paths and their backends."""
    is_without = (
        policy.redirect is None
        and not policy.rewrite_target
        and not policy.forwarded_prefix
        and policy.protocol == "HTTP"
        and policy.proxy_ssl is None
        and policy.sticky is None
        and policy.mirror is None
    )
    if is_without:  # as for most Ingresses; a copy takes long, because a policy has many fields
        return policy
    return replace(
        policy,
        redirect=None,  # the redirect of a path does not apply to other paths
        rewrite_target="",
        forwarded_prefix=NO_TEXT,
        protocol="HTTP",
        proxy_ssl=None,
        sticky=None,
        mirror=None,
    )


def _report_balancing(owner: ResolvedIngress) -> None:
    """Report annotations that choose an endpoint: the engine chooses among the addresses of a name."""
    for annotation in _CHOOSING:
        if owner.annotations.values[annotation] not in {"", NO_TEXT, "round_robin"}:
            owner.annotations.report(Verdict.UNSUPPORTED, annotation, _OF_NAME)


def upstream_options(owner: ResolvedIngress, settings: Settings) -> UpstreamOptions:
    """Return the options of an Ingress for its upstreams; for session affinity, each path adds its host."""
    values, policy = owner.annotations.values, owner.policy
    return UpstreamOptions(
        balance=values[balancing.LOAD_BALANCE],
        hash_key=values[balancing.UPSTREAM_HASH_BY],
        sticky=policy.sticky,
        service_upstream=values[routing.SERVICE_UPSTREAM],
        transport=transport_of(policy, settings),
    )


def _of_location(owner: ResolvedIngress, path: str, service: str = "", port: str = "") -> dict[Subject, str]:
    return {
        Subject.NAMESPACE: owner.name.namespace,
        Subject.INGRESS: owner.name.name,
        Subject.SERVICE: service,
        Subject.SERVICE_PORT: port,
        Subject.INGRESS_PATH: path,
    }
