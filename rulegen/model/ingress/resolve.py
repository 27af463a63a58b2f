"""Resolves Ingresses to the Ingress model, and repeats only those decisions whose inputs have changed.

Hosts that share Ingresses are decided together (`rulegen.model.ingress.host_groups`). This module decides what concerns
all of them: which Ingresses are served, the settings, additional names, and the whole model.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from operator import attrgetter
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from msgspec import structs

from rulegen.kube.snapshot.addresses import ServiceAddresses
from rulegen.model.forbidden import KUBERNETES
from rulegen.model.ingress.admission.admission import Admission, admitted
from rulegen.model.ingress.defaults import HttpDefaults
from rulegen.model.ingress.host_groups import CommonDecisions, Lookups, decide_group, refusals
from rulegen.model.ingress.ir import IngressModel, ToName, ToUpstream
from rulegen.model.ingress.policy.global_auth import global_auth, with_auth_faults
from rulegen.model.ingress.reasons import Reason, Verdict
from rulegen.model.ingress.routing.aliases import with_other_names
from rulegen.model.ingress.routing.certificates import Certificates, with_wildcard_certificates
from rulegen.model.ingress.routing.routes import Routing
from rulegen.model.ingress.unread import missing, recalled
from rulegen.model.ingress.upstreams.reads import RecordedMapping, ServiceReads
from rulegen.model.ingress.upstreams.referenced_objects import Referred
from rulegen.model.ingress.values.configmap import settings_of
from rulegen.model.ingress.values.setting import SettingGuard

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from rulegen.kube.objects.names import ObjectName
    from rulegen.kube.snapshot.world import ClusterSnapshot, ServiceInput
    from rulegen.model.ingress.host_groups import GroupDecisions, HostGroup
    from rulegen.model.ingress.ir import SecretFile, Server, Target, Upstream
    from rulegen.model.ingress.options import IngressOptions
    from rulegen.model.ingress.routing.ingresses import ResolvedIngress
    from rulegen.model.ingress.upstreams.services import Targets
    from rulegen.model.ingress.values.configmap import ResolvedSettings


_NO_PAGES: Final = (
    "only answers of Ingresses with the annotation default-backend are replaced; give --default-backend-service to"
    " replace those of all"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class IngressDecisions:
    """The Ingress model, and what is needed to update it after a change.

    Attributes:
        reads: The Services and addresses that it was made of.
        settings: The last valid settings; None if there were none.
        groups: By the name of the oldest Ingress; the group without any under None.
    """

    model: IngressModel
    reads: ServiceReads
    settings: ResolvedSettings | None
    common: CommonDecisions
    admission: Admission
    groups: Mapping[ObjectName | None, GroupDecisions]
    lookups: Lookups


def resolve_ingress(world: ClusterSnapshot, options: IngressOptions) -> IngressModel:
    """Return the Ingress model of one node; see `decide_ingress`."""
    return decide_ingress(world, options).model


def decide_ingress(
    world: ClusterSnapshot, options: IngressOptions, before: IngressDecisions | None = None
) -> IngressDecisions:
    """Return the Ingress model of one node.

    Args:
        world: The snapshot.
        options: The options.
        before: The last decisions, of any snapshot. Those that are still valid are reused.

    Raises:
        MissingError: An object that the options or the settings refer to does not exist.
        ConfigError: The settings contain only listen addresses that this host cannot have.
    """
    read = _settings(world, options)
    good = before.settings if before is not None else None
    usable = read.or_before(good)
    settings, guards, reasons = usable.settings, usable.guards, [*usable.reasons]
    if options.default_certificate is not None and options.default_certificate not in world.secrets:
        raise missing(world, "Secret", options.default_certificate, named_by="--default-ssl-certificate")
    reasons += [*options.reports, *recalled(world)]
    services = RecordedMapping(world.services)
    lookups = Lookups(world, _addresses(world), options.now)
    common = CommonDecisions(
        settings=settings,
        guards=guards,
        forbidden=options.forbidden.with_objects(world.nodes.get(options.node), services.get(KUBERNETES)),
        families=tuple(options.families),
        refuses_names=options.refuses_names,
        resolves=bool(options.resolvers),
        prefix=options.prefix,
        default_backend=None,
        global_auth=None,
        reports_expiry=options.now is not None,
    )
    if before is not None:
        _take_over(lookups, before, is_same=_judges_alike(common, before.common))
    targets = lookups.targets(common, services)
    common = replace(common, default_backend=_default_backend(Routing(targets, settings), options, reasons))
    common = _with_global_auth(common, targets, options, reasons)
    admission = admitted(world, options, before.admission if before is not None else None)
    groups = _decided_groups(admission.groups, common, lookups, before)
    reasons += [*admission.reasons, *refusals(targets)]
    model = _whole(list(groups.values()), common, lookups, targets, options, admission.reserved, reasons)
    return IngressDecisions(
        model=model,
        reads=_reads(groups.values(), services, lookups),
        settings=good if read.faults else read,
        common=common,
        admission=admission,
        groups=groups,
        lookups=lookups,
    )


def _settings(world: ClusterSnapshot, options: IngressOptions) -> ResolvedSettings:
    host = options.host
    read = settings_of(world, options.config_map, options.settings, has_ipv6=host.ipv6, sets_server=host.sets_server)
    return with_auth_faults(read)


def _addresses(world: ClusterSnapshot) -> ServiceAddresses:
    if world.addresses is not None:
        return world.addresses
    return ServiceAddresses.of_services((name, known.service) for name, known in world.services.items())


def _judges_alike(common: CommonDecisions, before: CommonDecisions) -> bool:
    """Whether the same rules decide which endpoints are usable."""
    return (common.forbidden, common.families) == (before.forbidden, before.families)


def _take_over(lookups: Lookups, before: IngressDecisions, *, is_same: bool) -> None:
    """Reuse endpoints and certificates whose sources have not changed."""
    services, secrets, addresses = lookups.world.services, lookups.world.secrets, lookups.addresses
    then = before.lookups
    lookups.certificates = {name: known for name, known in then.certificates.items() if secrets.get(name) is known[0]}
    if not is_same:
        return
    lookups.endpoints = {name: known for name, known in then.endpoints.items() if services.get(name) is known.source}
    if addresses is then.addresses:
        return
    changed = addresses.changed_since(then.addresses)
    lookups.endpoints = {
        name: known for name, known in lookups.endpoints.items() if changed.isdisjoint(known.addresses)
    }


def _default_backend(routing: Routing, options: IngressOptions, reasons: list[Reason]) -> Target | None:
    if options.default_backend is None:
        if routing.settings.custom_http_errors:
            where = f"ConfigMap {options.config_map}" if options.config_map else "settings"
            reasons.append(Reason(None, Verdict.NOTE, where, f"data.custom-http-errors: {_NO_PAGES}"))
        return None
    target, why = routing.of_first_port(options.default_backend)
    if why:
        where = f"default backend {options.default_backend}"
        reasons.append(Reason(None, Verdict.UNAVAILABLE, where, f"{why}: requests are answered with 404"))
        return None
    return target


def _with_global_auth(
    common: CommonDecisions, targets: Targets, options: IngressOptions, reasons: list[Reason]
) -> CommonDecisions:
    """Return the decisions with the auth server for all Ingresses. If it is unusable, these Ingresses are closed."""
    guard = SettingGuard.WITHOUT_AUTH
    if guard in common.guards:  # closed already
        return common
    try:
        return replace(common, global_auth=global_auth(common.settings, targets))
    except ValueError as error:
        where = f"ConfigMap {options.config_map}" if options.config_map is not None else "settings"
        reasons.append(Reason(None, Verdict.CLOSED, where, f"data.global-auth-{error}: {guard.value}"))
        return replace(common, guards=common.guards | {guard})


def _decided_groups(
    groups: Sequence[HostGroup],
    common: CommonDecisions,
    lookups: Lookups,
    before: IngressDecisions | None,
) -> dict[ObjectName | None, GroupDecisions]:
    """Return the decisions about all groups; those with unchanged inputs are reused."""
    known = before.groups if before is not None and before.common == common else {}
    changed = _changed_services(before, lookups) if before is not None and known else None
    decided: dict[ObjectName | None, GroupDecisions] = {}
    for group in groups:
        key = group.name
        earlier = known.get(key)
        if earlier is not None and changed is not None and earlier.inputs.group == group:
            is_same = not earlier.inputs.may_differ(changed, lookups.now)
        else:
            is_same = earlier is not None and earlier.inputs.are_unchanged(group, lookups)
        decided[key] = earlier if earlier is not None and is_same else decide_group(group, common, lookups)
    return decided


def _changed_services(before: IngressDecisions, lookups: Lookups) -> set[ObjectName] | None:
    """Return the Services that changed, or whose endpoints did; None if any other input changed too."""
    world, then = lookups.world, before.lookups
    if (world.secrets, world.config_maps, world.unread) != (
        then.world.secrets,
        then.world.config_maps,
        then.world.unread,
    ):
        return None
    services, earlier = world.services, then.world.services
    changed = {name for name in before.reads.services if services.get(name) is not earlier.get(name)}
    changed.update(name for name, known in then.endpoints.items() if lookups.endpoints.get(name) is not known)
    return changed


def _whole(
    groups: Sequence[GroupDecisions],
    common: CommonDecisions,
    lookups: Lookups,
    targets: Targets,
    options: IngressOptions,
    reserved: Mapping[str, tuple[str, str, str]],
    reasons: list[Reason],
) -> IngressModel:
    """Return the model that consists of these groups."""
    all_reasons = set(reasons)
    for group in groups:
        if group.reasons:
            all_reasons.update(group.reasons)
    servers = {server.host: server for group in groups for server in group.servers}
    servers = _with_other_names(
        with_wildcard_certificates(dict(sorted(servers.items()))), groups, reserved, all_reasons
    )
    files = dict(file for group in groups for file in group.files)
    certificate = _default_certificate(common, lookups, options, files, all_reasons)
    needs_resolver = isinstance(common.default_backend, ToName) or any(group.needs_resolver for group in groups)
    defaults = HttpDefaults(
        settings=common.settings,
        host=options.host,
        names_port=options.host.names_port if options.resolvers and needs_resolver else 0,
        default_certificate=certificate,
        names_certificates=common.settings.ssl_reject_handshake or _has_own_tls(servers[""]),
    )
    return IngressModel(
        defaults=defaults,
        servers=MappingProxyType(servers),
        upstreams=MappingProxyType(_upstreams(groups, common, targets)),
        secrets=MappingProxyType(dict(sorted(files.items()))),
        reasons=tuple(sorted(all_reasons, key=attrgetter("rank"))),
        resolvers=options.resolvers,
        forbidden=common.forbidden,
    )


def _with_other_names(
    servers: dict[str, Server],
    groups: Sequence[GroupDecisions],
    reserved: Mapping[str, tuple[str, str, str]],
    reasons: set[Reason],
) -> dict[str, Server]:
    """Return the servers with additional names; report which Ingresses do not get a name that they request."""
    owners: dict[str, list[ResolvedIngress]] = {}
    for group in groups:
        for host, ingress in group.name_requests:
            # Reports about names depend on all hosts, so they must not become part of the group's decisions.
            annotations = structs.replace(ingress.annotations, reasons=[])
            owners.setdefault(host, []).append(structs.replace(ingress, annotations=annotations))
    if not owners:
        return servers
    replaced = dict(known for group in groups for known in group.replaced)
    named = with_other_names(servers, owners, reserved, replaced, reasons)
    for ingresses in owners.values():
        for ingress in ingresses:
            reasons.update(ingress.annotations.reasons)
    return named


def _default_certificate(
    common: CommonDecisions,
    lookups: Lookups,
    options: IngressOptions,
    files: dict[str, SecretFile],
    reasons: set[Reason],
) -> str:
    """Return the path of the default certificate, and add its file."""
    world = lookups.world
    referred = Referred(
        secrets=world.secrets,
        config_maps=world.config_maps,
        targets=lookups.targets(common, world.services),
        settings=common.settings,
        unread=world.unread,
    )
    certificates = Certificates(referred, options.now, parsed=lookups.certificates)
    path = certificates.default(options)
    files.update(referred.files)
    reasons.update(certificates.reasons)
    return path


def _has_own_tls(server: Server) -> bool:
    """Whether a server's TLS differs from the defaults."""
    return bool(
        server.certificate
        or server.rejects_tls
        or server.client_auth is not None
        or server.ciphers
        or server.prefer_server_ciphers is not None
    )


def _upstreams(groups: Iterable[GroupDecisions], common: CommonDecisions, targets: Targets) -> dict[str, Upstream]:
    """Return the upstreams that are referred to, sorted by name."""
    made, used = dict(targets.upstreams), set[str]()
    if isinstance(common.default_backend, ToUpstream):
        used.add(common.default_backend.upstream)
    for group in groups:
        used.update(group.used)
        for upstream in group.upstreams:
            made.setdefault(upstream.name, upstream)
    return {name: made[name] for name in sorted(used)}


def _reads(
    groups: Iterable[GroupDecisions], services: RecordedMapping[ObjectName, ServiceInput], lookups: Lookups
) -> ServiceReads:
    names = {name for group in groups for name, _ in group.inputs.services}
    names.update(services.answers)
    lookups.endpoints = {name: known for name, known in lookups.endpoints.items() if name in names}
    addresses = frozenset(address for known in lookups.endpoints.values() for address in known.addresses)
    return ServiceReads(frozenset(names), addresses)
