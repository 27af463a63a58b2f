"""Decides the servers of a group of hosts that share Ingresses.

The decisions about a group are reused until an object changes that was looked up for them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from msgspec import structs

from rulegen.kube.objects.names import ObjectKey, ObjectName
from rulegen.model.ingress.closing import UnservedIngress, wildcard_above
from rulegen.model.ingress.guarding import Owners
from rulegen.model.ingress.ir import ClientCertificate, FixedResponse, Server, ToName, ToUpstream
from rulegen.model.ingress.reasons import Reason, Verdict
from rulegen.model.ingress.routing.canaries import add_canary
from rulegen.model.ingress.routing.certificates import Certificates
from rulegen.model.ingress.routing.ingresses import read_owner
from rulegen.model.ingress.routing.routes import Routing
from rulegen.model.ingress.routing.whole_host import app_root_of_host, client_auth_of_host, of_oldest
from rulegen.model.ingress.upstreams.reads import RecordedMapping
from rulegen.model.ingress.upstreams.referenced_objects import Referred
from rulegen.model.ingress.upstreams.services import UNAVAILABLE, Targets
from rulegen.model.ingress.values.annotations.routing import APP_ROOT, FROM_TO_WWW_REDIRECT, SERVER_ALIAS
from rulegen.model.ingress.values.annotations.tls import AUTH_TLS_SECRET, SSL_CIPHERS, SSL_PREFER_SERVER_CIPHERS
from rulegen.model.ingress.values.setting import SettingGuard

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from collections.abc import Set as AbstractSet

    from rulegen.kube.objects.kinds import KubeObject
    from rulegen.kube.objects.structs import ConfigMap, Ingress, Secret
    from rulegen.kube.snapshot.addresses import ServiceAddresses
    from rulegen.kube.snapshot.world import ClusterSnapshot, ServiceInput
    from rulegen.model.forbidden import Forbidden
    from rulegen.model.ingress.guarding import Holding
    from rulegen.model.ingress.ir import ExternalAuth, Limits, SecretFile, Target, Upstream
    from rulegen.model.ingress.routing.ingresses import ReadIngress, ResolvedIngress
    from rulegen.model.ingress.routing.paths import Paths
    from rulegen.model.ingress.upstreams.certificates import Certificate
    from rulegen.model.ingress.upstreams.services import UsableEndpoints
    from rulegen.model.ingress.values.settings import Settings
    from rulegen.net import Family

_WHOLE_HOST: Final = (APP_ROOT, SSL_CIPHERS, SSL_PREFER_SERVER_CIPHERS)


@dataclass(frozen=True, slots=True, kw_only=True)
class CommonDecisions:
    """Inputs of the decisions about all hosts. If any of them changes, all groups are decided again.

    Attributes:
        resolves: Whether there is a name server.
        prefix: Prefix of annotations.
        default_backend: Target of requests that no Ingress matches; None for 404.
        global_auth: The auth server for all Ingresses that do not opt out; None for none.
        reports_expiry: Whether expired certificates are reported.
        guards: The Ingresses that invalid settings close.
    """

    settings: Settings
    forbidden: Forbidden
    families: tuple[Family, ...]
    refuses_names: bool
    resolves: bool
    prefix: str
    default_backend: Target | None
    global_auth: ExternalAuth | None
    reports_expiry: bool
    guards: frozenset[SettingGuard] = frozenset()


@dataclass(slots=True)
class Lookups:
    """Objects that groups look up, and results that all groups share.

    Attributes:
        addresses: The Services of each address.
        now: The time, to report expired certificates; None for no such reports.
        endpoints: Checked endpoints of Services.
        certificates: Certificate or fault of each Secret, with the Secret it was read from.
    """

    world: ClusterSnapshot
    addresses: ServiceAddresses
    now: dt.datetime | None
    endpoints: dict[ObjectName, UsableEndpoints] = field(default_factory=dict)
    certificates: dict[ObjectName, tuple[Secret, Certificate | str]] = field(default_factory=dict)

    def targets(self, common: CommonDecisions, services: Mapping[ObjectName, ServiceInput]) -> Targets:
        """Return an object that creates the upstreams of `services`."""
        return Targets(
            services=services,
            forbidden=common.forbidden,
            settings=common.settings,
            families=common.families,
            refuses_names=common.refuses_names,
            resolves=common.resolves,
            addresses=self.addresses,
            endpoints=self.endpoints,
        )


class HostGroup(NamedTuple):
    """Ingresses that share hosts with each other, and with no other Ingress.

    Attributes:
        ingresses: The Ingresses, oldest first.
        has_other_hosts: Whether the default server belongs to this group.
        left_out: Ingresses that are not served. Without a decision, the others would get their requests.
        overtaken: Hosts whose requests would go to the server of another name, such as a wildcard host.
    """

    ingresses: tuple[Ingress, ...]
    has_other_hosts: bool
    left_out: tuple[UnservedIngress, ...] = ()
    overtaken: frozenset[str] = frozenset()

    @property
    def name(self) -> ObjectName | None:
        """The name of its first Ingress; None for the group without any."""
        members = self.ingresses or tuple(known.ingress for known in self.left_out)
        return name_of(members[0]) if members else None


class GroupInputs(NamedTuple):
    """Inputs of the decisions about a group, without the common ones; None for an absent object.

    Attributes:
        endpoints: Checked endpoints of the Services; the check also depends on addresses of other Services.
        unread: Why it is unknown whether a Secret or ConfigMap exists; None if it is known.
        lapses: Certificates, each with the reason why clients reject it now; empty for none.
    """

    group: HostGroup
    services: tuple[tuple[ObjectName, ServiceInput | None], ...]
    endpoints: tuple[UsableEndpoints, ...]
    secrets: tuple[tuple[ObjectName, Secret | None], ...]
    config_maps: tuple[tuple[ObjectName, ConfigMap | None], ...]
    unread: tuple[tuple[ObjectKey, str | None], ...]
    lapses: tuple[tuple[Certificate, str], ...]

    def are_unchanged(self, group: HostGroup, lookups: Lookups) -> bool:
        """Whether the inputs are still the same. An unchanged object is the same Python object."""
        world, now = lookups.world, lookups.now
        if self.group != group or not (
            _hold(self.services, world.services)
            and _hold(self.secrets, world.secrets)
            and _hold(self.config_maps, world.config_maps)
        ):
            return False
        for known in self.endpoints:
            if lookups.endpoints.get(name_of(known.source.service)) is not known:
                return False
        for key, why in self.unread:
            if world.unread.get(key) != why:
                return False
        return now is None or all(known.lapse(now) == why for known, why in self.lapses)

    def may_differ(self, services: AbstractSet[ObjectName], now: dt.datetime | None) -> bool:
        """Whether a change of these Services, or the current time, may change a decision."""
        for name, _ in self.services:
            if name in services:
                return True
        return now is not None and any(known.lapse(now) != why for known, why in self.lapses)


def _hold(answers: tuple[tuple[ObjectName, object], ...], known: Mapping[ObjectName, object]) -> bool:
    """Whether lookups still return the same objects. A plain loop, because it runs for each host."""
    for name, answer in answers:  # noqa: SIM110
        if known.get(name) is not answer:
            return False
    return True


class GroupDecisions(NamedTuple):
    """The decisions about the hosts of one group.

    Attributes:
        servers: Servers sorted by host, without additional names.
        upstreams: Its upstreams.
        used: Names of the upstreams that it refers to.
        files: Files with content from Secrets, by path.
        needs_resolver: Whether the engine must resolve names for it.
        name_requests: Hosts and Ingresses that request additional names. Names are assigned for all hosts together.
        replaced: Hosts that have only closed replacements, each with the oldest of them.
    """

    inputs: GroupInputs
    servers: tuple[Server, ...]
    reasons: tuple[Reason, ...]
    upstreams: tuple[Upstream, ...]
    used: tuple[str, ...]
    files: tuple[tuple[str, SecretFile], ...]
    needs_resolver: bool
    name_requests: tuple[tuple[str, ResolvedIngress], ...]
    replaced: tuple[tuple[str, ResolvedIngress], ...]


def decide_group(group: HostGroup, common: CommonDecisions, lookups: Lookups) -> GroupDecisions:
    """Return the decisions about one group; see `rulegen.model.ingress.grouping`."""
    world = lookups.world
    services = RecordedMapping(world.services)
    secrets, config_maps = RecordedMapping(world.secrets), RecordedMapping(world.config_maps)
    unread = RecordedMapping(world.unread)
    targets = lookups.targets(common, services)
    referred = Referred(
        secrets=secrets, config_maps=config_maps, targets=targets, settings=common.settings, unread=unread
    )
    reasons: list[Reason] = []
    read = Owners(common.prefix)
    for ingress in group.ingresses:
        read.read(ingress, partial(_read_owner, common=common, referred=referred))
    unused = structs.replace(referred, files={})  # no server refers to these files
    for left_out in group.left_out:
        read.leave_out(left_out, partial(_read_owner, common=common, referred=unused))
    holding = read.hold(group.overtaken)
    owners = read.served
    reasons += read.reasons
    routing = _routed(owners, holding, common, targets)
    if group.has_other_hosts:
        routing.host("")
    certificates = Certificates(referred, lookups.now, parsed=lookups.certificates)
    servers = tuple(_servers(routing, certificates, common, holding.tls, reasons))
    reasons += routing.reasons + certificates.reasons
    for paths in routing.paths.values():
        reasons += paths.reasons
    for owner in owners:
        reasons += owner.annotations.reasons
    reasons += refusals(targets)
    inputs = GroupInputs(
        group=group,
        services=tuple(services.answers.items()),
        endpoints=tuple(known for name in services.answers if (known := lookups.endpoints.get(name)) is not None),
        secrets=tuple(secrets.answers.items()),
        config_maps=tuple(config_maps.answers.items()),
        unread=tuple(unread.answers.items()),
        lapses=certificates.lapses(),
    )
    used, needs_resolver = _named_by(servers)
    return GroupDecisions(
        inputs=inputs,
        servers=servers,
        reasons=tuple(reasons),
        upstreams=tuple(targets.upstreams.values()),
        used=used,
        files=tuple(referred.files.items()),
        needs_resolver=needs_resolver,
        name_requests=tuple(_name_requests(routing)),
        replaced=tuple(_replaced(routing)) if read.guarding else (),
    )


def refusals(targets: Targets) -> list[Reason]:
    """Return reports about fields of Services with addresses that nginx must not connect to."""
    return [Reason(None, Verdict.NOTE, where, message) for where, message in targets.refused.items()]


def name_of(known: KubeObject) -> ObjectName:
    """Return the name of an object."""
    return ObjectName(known.metadata.namespace, known.metadata.name)


def _read_owner(ingress: Ingress, *, common: CommonDecisions, referred: Referred) -> ReadIngress:
    return read_owner(ingress, common.prefix, referred, common.global_auth, common.guards)


def _routed(
    owners: Sequence[ResolvedIngress],
    holding: Holding,
    common: CommonDecisions,
    targets: Targets,
) -> Routing:
    routing = Routing(targets, common.settings)
    routing.default_backend = common.default_backend
    routing.closers, routing.expressions = holding.closers, holding.expressions
    for owner in owners:
        if not owner.is_canary:
            routing.add(owner)
    for owner in owners:
        if owner.is_canary:
            add_canary(routing, owner)
    return routing


def _servers(
    routing: Routing,
    certificates: Certificates,
    common: CommonDecisions,
    with_tls: frozenset[str],
    reasons: list[Reason],
) -> Iterator[Server]:
    """Yield the servers, sorted by host; those of `with_tls` have TLS, at least with the default certificate."""
    default = common.default_backend
    if default is not None and common.guards - {SettingGuard.WITHOUT_AUTH}:
        default = UNAVAILABLE
    limits = _limits(routing)
    for host in sorted(routing.paths):
        paths, owners = routing.paths[host], list(routing.owners.get(host, {}).values())
        is_regex = paths.is_regex
        if is_regex:
            reasons += _of_expressions(host, paths, owners)
        tls = certificates.of_host(host, owners)
        own = _deciding(routing, host, owners)
        canaries = routing.canaries.get(host, ())
        annotated = [owner for owner in own if owner.annotations.values]  # most have no annotations
        locations = paths.locations(routing.rest(host, default))
        server = Server(
            host=host,
            locations=locations,
            certificate=tls.certificate,
            has_tls=tls.is_wanted or host in with_tls or wildcard_above(host) in with_tls,
            rejects_tls=tls.is_unread,
            responder_port=tls.responder_port if routing.targets.resolves else 0,
            client_auth=client_auth_of_host((*own, *canaries), host),
            app_root=app_root_of_host(annotated, locations, host),
            ciphers=of_oldest(annotated, SSL_CIPHERS, host) or "",
            prefer_server_ciphers=of_oldest(annotated, SSL_PREFER_SERVER_CIPHERS, host),
            ingresses=tuple(owner.name for owner in owners),
            limits=tuple(limits.get(host, {}).items()),
            is_regex=is_regex,
        )
        _report_unverified(server, (*own, *canaries), common.settings)
        yield server


def _limits(routing: Routing) -> dict[str, dict[ObjectName, Limits]]:
    """Return limits by host; each Ingress is listed at its first host, because a limit counts all its hosts."""
    homes: dict[ObjectName, str] = {}
    limits: dict[str, dict[ObjectName, Limits]] = {}
    for host in sorted(routing.owners):
        for owner in routing.owners[host].values():
            if owner.policy.limits.is_any and homes.setdefault(owner.name, host) == host:
                limits.setdefault(host, {})[owner.name] = owner.policy.limits
    return limits


def _report_unverified(server: Server, owners: Iterable[ResolvedIngress], settings: Settings) -> None:
    """Report HTTP requests that need no client certificate although the host requires one, as in ingress-nginx."""
    auth = server.client_auth
    if auth is None or auth.certificate is not ClientCertificate.REQUIRED or not auth.ca:
        return
    passed_on = [
        location.policy
        for location in server.locations
        if not isinstance(location.target, FixedResponse)
        and location.policy.redirect is None
        and not location.source.startswith(settings.no_tls_redirect_locations)
    ]
    if not all(policy.redirects_to_https(has_tls=server.has_tls) for policy in passed_on):
        message = "requests over HTTP need no client certificate: redirect them with force-ssl-redirect"
    elif passed_on and settings.use_forwarded_headers:
        message = "requests over HTTP with the header X-Forwarded-Proto: https need no client certificate"
    else:
        return
    owner = next(owner for owner in owners if owner.client_auth is auth)
    owner.annotations.report(Verdict.NOTE, AUTH_TLS_SECRET, message)


def _of_expressions(host: str, paths: Paths, owners: Sequence[ResolvedIngress]) -> Iterator[Reason]:
    """Yield a report for each Ingress whose paths are expressions, with the Ingresses that cause this."""
    causes: dict[str, dict[str, None]] = {}
    for path in paths.expressions:
        causes.setdefault(path.namespace, {})[str(path.source.name)] = None
    for owner in owners:
        if whose := causes.get(owner.name.namespace):
            name = f"host {host}" if host else "the default server"
            message = f"all paths of {name} are case-insensitive regular expressions, because of {', '.join(whose)}"
            yield owner.reason(Verdict.NOTE, "", message)


def _deciding(routing: Routing, host: str, owners: Iterable[ResolvedIngress]) -> list[ResolvedIngress]:
    """Return the Ingresses that may decide for the whole host: those of the namespace that had it first."""
    own = []
    for owner in owners:
        if not routing.is_guest(owner, host):
            own.append(owner)
            continue
        for annotation in _WHOLE_HOST:
            if annotation in owner.annotations.values:
                message = f"it applies to a whole host, and {host or 'the default server'} belongs to another namespace"
                owner.annotations.report(Verdict.LOST, annotation, message)
    return own


def _named_by(servers: Iterable[Server]) -> tuple[tuple[str, ...], bool]:
    """Return the names of the upstreams that locations refer to, and whether the engine must resolve names."""
    used: set[str] = set()
    needs_resolver = False
    for server in servers:
        needs_resolver |= bool(server.responder_port)
        for location in server.locations:
            policy = location.policy
            targets = (location.target,) if policy.errors is None else (location.target, policy.errors.target)
            for target in targets:
                if isinstance(target, ToUpstream):
                    used.add(target.upstream)
                needs_resolver |= isinstance(target, ToName)
            for canary in location.canaries:
                needs_resolver |= isinstance(canary.target, ToName)
                if isinstance(canary.target, ToUpstream):
                    used.add(canary.target.upstream)
            if (auth := policy.external_auth) is not None:
                used.update((auth.target,) if auth.target else ())
                needs_resolver |= not auth.target
            if (mirror := policy.mirror) is not None:
                used.update((mirror.target,) if mirror.target else ())
                needs_resolver |= not mirror.target
    return tuple(sorted(used)), needs_resolver


def _name_requests(routing: Routing) -> Iterator[tuple[str, ResolvedIngress]]:
    for host, owners in routing.owners.items():
        for owner in owners.values():
            values = owner.annotations.values
            if values and (SERVER_ALIAS in values or FROM_TO_WWW_REDIRECT in values):
                yield host, owner


def _replaced(routing: Routing) -> Iterator[tuple[str, ResolvedIngress]]:
    for host, owners in routing.owners.items():
        if host and all(owner.is_replacement for owner in owners.values()):
            yield host, next(iter(owners.values()))
