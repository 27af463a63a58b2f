"""Ingresses to the L7 model: every decision about HTTP, taken once."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from rulegen.kube.objects.names import ObjectKey, ObjectName
from rulegen.model.forbidden import KUBERNETES
from rulegen.model.ingress.defaults import HttpDefaults
from rulegen.model.ingress.ir import IngressModel, Location, MatchKind, Server, ToName, ToUpstream
from rulegen.model.ingress.limits import NamespaceLimits
from rulegen.model.ingress.policy.authentication import global_auth
from rulegen.model.ingress.reasons import Reason, Verdict
from rulegen.model.ingress.routing.aliases import with_other_names
from rulegen.model.ingress.routing.certificates import Certificates
from rulegen.model.ingress.routing.ingresses import INGRESS, ResolvedIngress, in_order, oldest, read_owner
from rulegen.model.ingress.routing.paths import BARE
from rulegen.model.ingress.routing.routes import Routing
from rulegen.model.ingress.unread import missing, recalled
from rulegen.model.ingress.upstreams.referenced_objects import Referred
from rulegen.model.ingress.upstreams.services import NOT_FOUND, Targets
from rulegen.model.ingress.values.annotations.routing import APP_ROOT
from rulegen.model.ingress.values.annotations.tls import SSL_CIPHERS, SSL_PREFER_SERVER_CIPHERS
from rulegen.model.ingress.values.configmap import settings_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from rulegen.kube.snapshot.world import ClusterSnapshot
    from rulegen.model.ingress.ir import Target
    from rulegen.model.ingress.options import IngressOptions

_WHOLE_HOST: Final = (APP_ROOT, SSL_CIPHERS, SSL_PREFER_SERVER_CIPHERS)


def resolve_ingress(world: ClusterSnapshot, options: IngressOptions) -> IngressModel:
    """Return the L7 model of one node.

    Raises:
        MissingError: An object that the options or the settings name is not there.
        ConfigError: A setting that keeps somebody out cannot be read.
    """
    settings, reasons = settings_of(world, options.config_map, options.settings, has_ipv6=options.host.ipv6)
    if options.default_certificate is not None and options.default_certificate not in world.secrets:
        raise missing(world, "Secret", options.default_certificate, named_by="--default-ssl-certificate")
    reasons += recalled(world)
    forbidden = options.forbidden.with_objects(world.nodes.get(options.node), world.services.get(KUBERNETES))
    targets = Targets(
        services=world.services,
        forbidden=forbidden,
        settings=settings,
        families=options.families,
        refuses_names=options.refuses_names,
        resolves=bool(options.resolvers),
    )
    referred = Referred(
        secrets=world.secrets,
        config_maps=world.config_maps,
        targets=targets,
        settings=settings,
        unread=world.unread,
    )
    routing = Routing(targets, settings)
    default = _default_backend(routing, options, reasons)
    routing.default_backend = default
    owners = list(_owners(world, options, referred, reasons))
    for owner in owners:
        if not owner.is_canary:
            routing.add(owner)
    for owner in owners:
        if owner.is_canary:
            routing.add_canary(owner)
    certificates = Certificates(referred, options.now)
    servers = _servers(routing, certificates, default, reasons)
    defaults = HttpDefaults(
        settings=settings,
        host=options.host,
        names_port=options.host.names_port if options.resolvers and _asks_names(servers, default) else 0,
        default_certificate=certificates.default(options),
        names_certificates=settings.ssl_reject_handshake or _has_own_tls(servers[""]),
    )
    reasons += routing.reasons + certificates.reasons
    reasons += [reason for paths in routing.paths.values() for reason in paths.reasons]
    reasons += [reason for owner in owners for reason in owner.annotations.reasons]
    reasons += [Reason(None, Verdict.NOTE, where, message) for where, message in targets.refused.items()]
    used = _used(servers.values(), default)
    return IngressModel(
        defaults=defaults,
        servers=MappingProxyType(servers),
        upstreams=MappingProxyType({name: one for name, one in sorted(targets.upstreams.items()) if name in used}),
        secrets=MappingProxyType(dict(sorted(referred.files.items()))),
        reasons=tuple(sorted(set(reasons))),
        resolvers=options.resolvers,
        forbidden=forbidden,
    )


def _asks_names(servers: Mapping[str, Server], default: Target | None) -> bool:
    """Whether nginx resolves any name while it serves."""
    if isinstance(default, ToName):
        return True
    for server in servers.values():
        if server.responder_port:
            return True
        for location in server.locations:
            auth, errors = location.policy.external_auth, location.policy.errors
            targets = (location.target, errors.target if errors is not None else None)
            if any(isinstance(one, ToName) for one in targets) or (auth is not None and not auth.target):
                return True
    return False


def _owners(
    world: ClusterSnapshot, options: IngressOptions, referred: Referred, reasons: list[Reason]
) -> Iterator[ResolvedIngress]:
    """Yield the Ingresses of which something is served, oldest first."""
    everywhere = global_auth(referred.settings, referred.targets)
    limits = NamespaceLimits(options.most_hosts, options.prefix, world.secrets)
    for ingress in in_order(world.ingresses.values()):
        name = ObjectName(ingress.metadata.namespace, ingress.metadata.name)
        key = ObjectKey(INGRESS, name)
        refusal = options.selection.refusal(ingress, world)
        if refusal:
            reasons.append(Reason(key, Verdict.SKIPPED, "spec.ingressClassName", refusal))
        elif name in options.without:
            reasons.append(Reason(key, Verdict.QUARANTINED, "", options.without[name]))
        elif refusal := limits.refusal(ingress):
            reasons.append(Reason(key, Verdict.OVER_LIMIT, "", refusal))
        else:
            owner, why = read_owner(ingress, options.prefix, referred, everywhere)
            reasons += why
            if owner is not None:
                yield owner


def _default_backend(routing: Routing, options: IngressOptions, reasons: list[Reason]) -> Target | None:
    if options.default_backend is None:
        return None
    target, why = routing.of_first_port(options.default_backend)
    if why:
        where = f"default backend {options.default_backend}"
        reasons.append(Reason(None, Verdict.NOTE, where, f"{why}: {'503' if target else '404'} is answered instead"))
    return target


def _servers(
    routing: Routing, certificates: Certificates, default: Target | None, reasons: list[Reason]
) -> dict[str, Server]:
    """Return the servers by host, the one of every other name among them."""
    nobody = Location(kind=MatchKind.PREFIX, path="/", target=default or NOT_FOUND, policy=BARE)
    routing.host("")
    servers: dict[str, Server] = {}
    for host in sorted(routing.paths):
        paths, owners = routing.paths[host], list(routing.owners.get(host, {}).values())
        if paths.is_regex:
            reasons += _of_expressions(host, owners)
        tls = certificates.of_host(host, owners)
        own = _at_home(routing, host, owners)
        servers[host] = Server(
            host=host,
            locations=paths.locations(routing.fallbacks.get(host, nobody)),
            certificate=tls.certificate,
            has_tls=tls.is_wanted,
            rejects_tls=tls.is_unread,
            responder_port=tls.responder_port if routing.targets.resolves else 0,
            client_auth=next((one.client_auth for one in own if one.client_auth is not None), None),
            app_root=next((one.policy.app_root for one in own if one.policy.app_root), ""),
            ciphers=oldest(own, SSL_CIPHERS) or "",
            prefer_server_ciphers=oldest(own, SSL_PREFER_SERVER_CIPHERS),
            ingresses=tuple(one.name for one in owners),
            is_regex=paths.is_regex,
        )
    return with_other_names(servers, {host: owners.values() for host, owners in routing.owners.items()})


def _has_own_tls(server: Server) -> bool:
    """Whether a server's TLS is another than what holds for all."""
    return bool(
        server.certificate
        or server.rejects_tls
        or server.client_auth is not None
        or server.ciphers
        or server.prefer_server_ciphers is not None
    )


def _of_expressions(host: str, owners: Sequence[ResolvedIngress]) -> Iterator[Reason]:
    """Yield for each Ingress that its paths are expressions, and because of whom: some of its own namespace."""
    causes: dict[str, list[str]] = {}
    for one in owners:
        if one.policy.use_regex:
            causes.setdefault(one.name.namespace, []).append(str(one.name))
    for one in owners:
        if whose := causes.get(one.name.namespace):
            message = f"all paths of host {host or '(every)'} are expressions that ignore case, because of "
            yield one.reason(Verdict.NOTE, "", message + ", ".join(whose))


def _at_home(routing: Routing, host: str, owners: Iterable[ResolvedIngress]) -> list[ResolvedIngress]:
    """Return the Ingresses that have a say about a whole host: those of the namespace that had it first."""
    found = []
    for one in owners:
        if not routing.is_guest(one, host):
            found.append(one)
            continue
        for annotation in _WHOLE_HOST:
            if annotation in one.annotations.values:
                message = f"it is about a whole host, and {host or 'every other'} is another namespace's"
                one.annotations.report(Verdict.LOST, annotation, message)
    return found


def _used(servers: Iterable[Server], default: Target | None) -> set[str]:
    """Return the names of the upstreams that anything refers to."""
    used = {default.upstream} if isinstance(default, ToUpstream) else set()
    for server in servers:
        for location in server.locations:
            if isinstance(location.target, ToUpstream):
                used.add(location.target.upstream)
            used.update(canary.target for canary in location.canaries)
            auth, errors = location.policy.external_auth, location.policy.errors
            if auth is not None and auth.target:
                used.add(auth.target)
            if errors is not None and isinstance(errors.target, ToUpstream):
                used.add(errors.target.upstream)
    return used
