"""Ingresses to the L7 model: every decision about HTTP, taken once."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from rulegen.errors import ConfigError
from rulegen.kube.world import ObjectName
from rulegen.model.ingress import regex, values
from rulegen.model.ingress.annotations import DEFAULT_PREFIX, Annotations, Onset, read_annotations
from rulegen.model.ingress.certificates import Certificate, UnusableSecretError, read_certificate
from rulegen.model.ingress.classes import Selection
from rulegen.model.ingress.hosts import BARE, Paths, Route
from rulegen.model.ingress.ir import (
    Answer,
    Canary,
    IngressModel,
    Location,
    MatchKind,
    Policy,
    Reason,
    SecretFile,
    Server,
    ToUpstream,
    Verdict,
)
from rulegen.model.ingress.policies import (
    Referred,
    client_auth_of,
    errors_of,
    global_auth,
    policy_of,
    port_of,
)
from rulegen.model.ingress.settings import Settings, read_settings
from rulegen.model.ingress.targets import NOT_FOUND, UNAVAILABLE, Targets, Wish

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from rulegen.kube.objects import Ingress, IngressBackend
    from rulegen.kube.world import World
    from rulegen.model.ingress.ir import ClientAuth, Target
    from rulegen.net import Family

YOUNGEST: Final = "~"
"""Sorts behind every time: an Ingress without one is not there yet, as the API server gives each its time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class IngressOptions:
    """What is wanted of the ingress of this node.

    Attributes:
        settings: Before the ConfigMap has its say.
        config_map: The ConfigMap with settings; None for none.
        default_certificate: Secret of the certificate for hosts that have none; None for one that is made up.
        made_up_certificate: Path and content of that one.
        default_backend: Service and port that answers what nobody asked for; None for 404.
        refuses_names: Whether ExternalName Services are refused.
        resolvers: Name servers.
        families: Which endpoints can be reached.
        without: Ingresses that are in quarantine, each with the reason.
    """

    selection: Selection = field(default_factory=Selection)
    prefix: str = DEFAULT_PREFIX
    settings: Settings = field(default_factory=Settings)
    config_map: ObjectName | None = None
    default_certificate: ObjectName | None = None
    made_up_certificate: SecretFile | None = None
    default_backend: ObjectName | None = None
    refuses_names: bool = False
    resolvers: tuple[str, ...] = ()
    families: Sequence[Family] = ()
    without: Mapping[ObjectName, str] = field(default_factory=lambda: MappingProxyType({}))


MAX_PATH: Final = 250
"""Bytes of a path; nginx keeps the length of a location in one byte (ngx_http_core_module.h)."""

DEFAULT_CERTIFICATE: Final = "secrets/00000000000000000000000000000000.pem"
"""Where the certificate for hosts without one lies."""


def resolve_ingress(world: World, options: IngressOptions) -> IngressModel:
    """Return the L7 model of one node.

    Raises:
        ConfigError: A setting that keeps somebody out cannot be read.
    """
    return _Resolution(world, options).model()


def in_order(ingresses: Iterable[Ingress]) -> list[Ingress]:
    """Return Ingresses oldest first; of the same age by namespace and name."""
    return sorted(
        ingresses,
        key=lambda one: (
            one.metadata.creation_timestamp or YOUNGEST,
            one.metadata.namespace,
            one.metadata.name,
        ),
    )


@dataclass(slots=True)
class _Told:
    """An Ingress that is ours, with what its annotations come to."""

    name: ObjectName
    ingress: Ingress
    annotations: Annotations
    policy: Policy
    is_canary: bool
    client_auth: ClientAuth | None = None

    @property
    def is_closed(self) -> bool:
        return self.annotations.onset is not Onset.IGNORE


class _Resolution:
    """One run over all Ingresses, oldest first."""

    def __init__(self, world: World, options: IngressOptions) -> None:
        self._world, self._options = world, options
        self._reasons: list[Reason] = []
        self._settings = self._read_settings()
        self._targets = Targets(
            services=world.services,
            settings=self._settings,
            families=options.families,
            refuses_names=options.refuses_names,
            resolves=bool(options.resolvers),
        )
        self._referred = Referred(
            secrets=world.secrets, config_maps=world.config_maps, targets=self._targets, settings=self._settings
        )
        self._global_auth = global_auth(self._settings, self._targets)
        self._paths: dict[str, Paths] = {}
        self._fallbacks: dict[str, Location] = {}
        self._owners: dict[str, dict[ObjectName, _Told]] = {}
        self._certificates: dict[ObjectName, Certificate | str] = {}

    # -- settings ------------------------------------------------------------------------------------------------------

    def _read_settings(self) -> Settings:
        options = self._options
        settings = options.settings
        if options.config_map is None:
            return settings
        found = self._world.config_maps.get(options.config_map)
        where = f"ConfigMap {options.config_map}"
        if found is None:
            self._global(where, "is not there: the defaults hold")
            return settings
        read = read_settings(found.data, settings)
        if read.errors:
            raise ConfigError(f"{where}: {'; '.join(read.errors)}", hint="mend the ConfigMap: it keeps somebody out")
        for warning in read.warnings:
            self._global(where, warning)
        settings = read.settings
        for key, (namespace, name) in read.references.items():
            headers = self._world.config_maps.get(ObjectName(namespace or options.config_map.namespace, name))
            if headers is None:
                self._global(where, f"data.{key}: ConfigMap {name} is not there")
                continue
            pairs = []
            for header, text in sorted(headers.data.items()):
                try:
                    pairs.append((values.settable_header(header), values.header_text(text)))
                except ValueError as error:
                    self._global(where, f"data.{key}: {error}")
            if key == "add-headers":
                settings = replace(settings, add_headers=tuple(pairs))
            else:
                settings = replace(settings, proxy_set_headers=tuple(pairs))
        everybody = any(network.prefixlen == 0 for network in settings.proxy_real_ip_cidr)
        trusts = settings.use_forwarded_headers or settings.enable_real_ip or settings.use_proxy_protocol
        if trusts and everybody:
            self._global(where, "data.proxy-real-ip-cidr: everybody's word is taken for the client's address; name the"
                         " networks of your load balancers")  # fmt: skip
        return settings

    def _global(self, where: str, message: str) -> None:
        self._reasons.append(Reason("", Verdict.NOTE, where, message))

    # -- the model -----------------------------------------------------------------------------------------------------

    def model(self) -> IngressModel:
        default = self._default_backend()
        self._settings = replace(self._settings, default_backend=default)
        told = [one for ingress in in_order(self._world.ingresses.values()) if (one := self._read(ingress))]
        for one in told:
            if not one.is_canary:
                self._add_rules(one)
        for one in told:
            if one.is_canary:
                self._add_canary(one)
        fallback = Location(kind=MatchKind.PREFIX, path="/", target=default or NOT_FOUND, policy=BARE)
        self._paths.setdefault("", Paths(""))
        servers = {host: self._server(host, fallback) for host in sorted(self._paths)}
        servers = self._with_other_names(servers)
        for paths in self._paths.values():
            self._reasons += paths.reasons
        for one in told:
            self._reasons += one.annotations.reasons
        for where, message in self._targets.refused.items():
            self._global(where, message)
        certificate = self._default_certificate()
        used = _targets_of(servers.values(), default)
        return IngressModel(
            settings=replace(self._settings, default_certificate=certificate),
            servers=MappingProxyType(servers),
            upstreams=MappingProxyType({n: u for n, u in sorted(self._targets.upstreams.items()) if n in used}),
            secrets=MappingProxyType(dict(sorted(self._referred.files.items()))),
            reasons=tuple(sorted(set(self._reasons))),
            resolvers=self._options.resolvers,
        )

    def _default_backend(self) -> Target | None:
        name = self._options.default_backend
        if name is None:
            return None
        told = self._world.services.get(name)
        if told is None or not told.service.spec.ports:
            self._global(f"default backend {name}", "the Service is not there: 404 is answered instead")
            return None
        port = told.service.spec.ports[0]
        from rulegen.kube.objects import ServiceBackendPort  # noqa: PLC0415 - the one object that is made here

        target, why = self._targets.of_service(name, ServiceBackendPort(name=port.name, number=port.port))
        if why:
            self._global(f"default backend {name}", why)
        return target

    def _default_certificate(self) -> str:
        name = self._options.default_certificate
        if name is not None:
            found = self._certificate(name)
            if isinstance(found, Certificate):
                return self._referred.keep(found.path, found.content)
            self._global(f"default certificate {name}", f"{found}: a made-up one is used")
        if self._options.made_up_certificate is not None:
            self._referred.files[DEFAULT_CERTIFICATE] = self._options.made_up_certificate
        return DEFAULT_CERTIFICATE

    # -- one Ingress ---------------------------------------------------------------------------------------------------

    def _read(self, ingress: Ingress) -> _Told | None:
        name = ObjectName(ingress.metadata.namespace, ingress.metadata.name)
        refusal = self._options.selection.refusal(ingress, self._world.ingress_classes)
        if refusal:
            self._reasons.append(Reason(str(name), Verdict.SKIPPED, "spec.ingressClassName", refusal))
            return None
        if name in self._options.without:
            self._reasons.append(Reason(str(name), Verdict.QUARANTINED, "", self._options.without[name]))
            return None
        annotations = read_annotations(str(name), ingress.metadata.annotations, self._options.prefix)
        policy = policy_of(name.namespace, annotations, self._referred)
        if policy.global_auth and policy.external_auth is None:
            policy = replace(policy, external_auth=self._global_auth)
        client_auth = client_auth_of(name.namespace, annotations, self._referred)
        faults = list(_path_faults(ingress, is_regex=policy.use_regex))
        for path, message in faults:
            self._reasons.append(Reason(str(name), Verdict.REJECTED, path, message))
        if faults or annotations.onset is Onset.REJECT:
            self._reasons += annotations.reasons
            return None
        if annotations.onset is Onset.CLOSE:
            policy = Policy(is_closed=True, ssl_redirect=policy.ssl_redirect, global_auth=False)
        is_canary = bool(annotations.found.get("canary"))
        return _Told(name, ingress, annotations, policy, is_canary, client_auth)

    def _add_rules(self, told: _Told) -> None:
        spec = told.ingress.spec
        default = spec.default_backend
        for index, rule in enumerate(spec.rules):
            paths = self._paths.setdefault(rule.host, Paths(rule.host))
            self._owners.setdefault(rule.host, {}).setdefault(told.name, told)
            for number, path in enumerate(rule.http.paths if rule.http else ()):
                where = f"spec.rules[{index}].http.paths[{number}]"
                target, policy = self._target(told, path.backend, rule.host, f"{where}.backend")
                paths.add(
                    Route(
                        ingress=told.name,
                        path=path.path or "/",
                        is_exact=path.path_type == "Exact",
                        is_regex=told.policy.use_regex,
                        target=target,
                        policy=policy,
                        rule=where,
                    )
                )
            if default is not None and rule.host not in self._fallbacks:
                self._fallbacks[rule.host] = self._fallback(told, default, rule.host)
        if default is not None and not spec.rules and "" not in self._fallbacks:
            self._paths.setdefault("", Paths(""))
            self._owners.setdefault("", {}).setdefault(told.name, told)
            self._fallbacks[""] = self._fallback(told, default, "")
        elif default is not None and not spec.rules:
            older = self._fallbacks[""].ingress
            message = f"every other host has the default backend of the older Ingress {older}"
            self._reasons.append(Reason(str(told.name), Verdict.LOST, "spec.defaultBackend", message))

    def _fallback(self, told: _Told, backend: IngressBackend, host: str) -> Location:
        target, policy = self._target(told, backend, host, "spec.defaultBackend")
        return Location(
            kind=MatchKind.PREFIX,
            path="/",
            target=target,
            policy=replace(policy, rewrite_target=""),
            ingress=told.name,
            rule="spec.defaultBackend",
            source="/",
        )

    def _target(self, told: _Told, backend: IngressBackend, host: str, where: str) -> tuple[Target, Policy]:
        """Return where a path's requests go, and the policy that they have there."""
        if told.is_closed:
            return UNAVAILABLE, told.policy
        auth = told.policy.external_auth
        if auth is not None and auth.url.host.startswith("$") and not host:
            told.annotations.close("auth-url", "a URL with the request's host would let any client choose who is asked")
            return UNAVAILABLE, Policy(is_closed=True)
        if backend.service is None:
            kind = backend.resource.kind if backend.resource else "nothing"
            message = f"a backend of kind {values.quoted(kind)} is not supported: 404"
            self._reasons.append(Reason(str(told.name), Verdict.UNAVAILABLE, where, message))
            return NOT_FOUND, told.policy
        name = ObjectName(told.name.namespace, backend.service.name)
        found = told.annotations.found
        wish = Wish(
            balance=found.get("load-balance", ""),
            hash_key=found.get("upstream-hash-by", ""),
            sticky=told.policy.sticky,
            service_upstream=found.get("service-upstream", False),
            host=host if told.policy.sticky else "",
        )
        target, why = self._targets.of_service(name, backend.service.port, wish)
        policy = told.policy
        stand_in = self._stand_in(told)
        if why:
            self._reasons.append(Reason(str(told.name), Verdict.UNAVAILABLE, where, f"{why}: {_shown(target)}"))
            if stand_in is not None:
                target = stand_in
        elif isinstance(target, Answer) or policy.redirect is not None:
            return target, policy
        errors = errors_of(
            told.annotations,
            self._settings,
            stand_in or self._settings.default_backend or NOT_FOUND,
            name.name,
            port_of(backend.service.port),
        )
        if errors is not None and isinstance(errors.target, Answer):
            told.annotations.tell(Verdict.IGNORED, "custom-http-errors", "there is no default backend to answer them")
            errors = None
        return target, replace(policy, errors=errors) if errors else policy

    def _stand_in(self, told: _Told) -> Target | None:
        """Return the target of the annotation default-backend."""
        name = told.annotations.found.get("default-backend")
        if not name:
            return None
        service = self._world.services.get(ObjectName(told.name.namespace, name))
        if service is None or not service.service.spec.ports:
            told.annotations.tell(Verdict.IGNORED, "default-backend", f"Service {name} is not there")
            return None
        from rulegen.kube.objects import ServiceBackendPort  # noqa: PLC0415 - as above

        port = service.service.spec.ports[0]
        target, why = self._targets.of_service(
            ObjectName(told.name.namespace, name), ServiceBackendPort(name=port.name, number=port.port)
        )
        if why:
            told.annotations.tell(Verdict.IGNORED, "default-backend", why)
            return None
        return target

    # -- canaries ------------------------------------------------------------------------------------------------------

    def _add_canary(self, told: _Told) -> None:
        for index, rule in enumerate(told.ingress.spec.rules):
            for number, path in enumerate(rule.http.paths if rule.http else ()):
                where = f"spec.rules[{index}].http.paths[{number}]"
                message = self._attach(told, rule.host, path.path or "/", path.path_type == "Exact", path.backend)
                if message:
                    self._reasons.append(Reason(str(told.name), Verdict.IGNORED, where, message))

    def _attach(self, told: _Told, host: str, path: str, is_exact: bool, backend: IngressBackend) -> str:  # noqa: FBT001
        """Give a path its canary; return why it cannot have it."""
        paths = self._paths.get(host)
        main = paths.find(path, is_exact=is_exact) if paths else None
        if paths is None or main is None:
            return "a canary of no other Ingress: none has this host, path and type"
        if told.is_closed or backend.service is None:
            return "the canary cannot be served"
        name = ObjectName(told.name.namespace, backend.service.name)
        target, why = self._targets.of_service(name, backend.service.port)
        if why or not isinstance(target, ToUpstream):
            return f"{why or 'the canary is no Service with endpoints'}: all requests go to the main Ingress"
        if not isinstance(main.target, ToUpstream):
            return f"the main Ingress {main.ingress} has nothing to share requests with"
        found = told.annotations.found
        total = found.get("canary-weight-total", 100)
        pattern = found.get("canary-by-header-pattern", "")
        if "canary-by-header-pattern" in told.annotations.failed:
            pattern = r"[^\s\S]"  # a header that cannot be judged means the main Ingress
        canary = Canary(
            target=target.upstream,
            ingress=told.name,
            header=found.get("canary-by-header", ""),
            header_value=found.get("canary-by-header-value", ""),
            header_pattern="" if found.get("canary-by-header-value") else pattern,
            cookie=found.get("canary-by-cookie", ""),
            share=min(100.0, 100.0 * found.get("canary-weight", 0) / total),
        )
        paths.replace(replace(main, canaries=(*main.canaries, canary)))
        return ""

    # -- servers -------------------------------------------------------------------------------------------------------

    def _server(self, host: str, fallback: Location) -> Server:
        owners = list(self._owners.get(host, {}).values())
        paths = self._paths[host]
        if paths.is_regex:
            self._tell_regex(paths, owners)
        certificate, has_tls = self._tls(host, owners)
        client_auth = next((one.client_auth for one in owners if one.client_auth is not None), None)
        return Server(
            host=host,
            locations=paths.locations(self._fallbacks.get(host, fallback)),
            certificate=certificate,
            has_tls=has_tls,
            client_auth=client_auth,
            app_root=next((one.policy.app_root for one in owners if one.policy.app_root), ""),
            ciphers=_oldest(owners, "ssl-ciphers") or "",
            prefer_server_ciphers=_oldest(owners, "ssl-prefer-server-ciphers"),
            ingresses=tuple(one.name for one in owners),
            is_regex=paths.is_regex,
        )

    def _tell_regex(self, paths: Paths, owners: Sequence[_Told]) -> None:
        causes = ", ".join(str(one.name) for one in owners if one.policy.use_regex)
        for one in owners:
            message = (
                f"all paths of host {paths.host or '(every)'} are expressions that ignore case, because of {causes}"
            )
            self._reasons.append(Reason(str(one.name), Verdict.NOTE, "", message))

    def _tls(self, host: str, owners: Sequence[_Told]) -> tuple[str, bool]:
        """Return the path of a host's certificate, and whether TLS was asked for; the oldest Ingress decides."""
        for one in owners:
            entries = one.ingress.spec.tls
            if not entries:
                continue
            listed = [entry for entry in entries if host in entry.hosts]
            for entry in listed or entries:
                if not entry.secret_name:
                    continue
                name = ObjectName(one.name.namespace, entry.secret_name)
                found = self._certificate(name)
                is_fit = isinstance(found, Certificate) and (not host or found.covers(host))
                if is_fit and isinstance(found, Certificate):
                    return self._referred.keep(found.path, found.content), True
                if listed:
                    why = found if isinstance(found, str) else f"the certificate in Secret {name} is not for this name"
                    self._default_is_served(one, host, entries.index(entry), why)
                    return "", True
            return "", True
        return "", False

    def _default_is_served(self, told: _Told, host: str, index: int, why: str) -> None:
        message = f"{why}: {host or 'every other host'} is served with the default certificate"
        self._reasons.append(Reason(str(told.name), Verdict.DEFAULT_CERTIFICATE, f"spec.tls[{index}]", message))

    def _certificate(self, name: ObjectName) -> Certificate | str:
        """Return the certificate of a Secret, or why there is none."""
        known = self._certificates.get(name)
        if known is None:
            secret = self._world.secrets.get(name)
            if secret is None:
                known = f"Secret {name} is not there"
            else:
                try:
                    known = read_certificate(secret)
                except UnusableSecretError as error:
                    known = f"Secret {name} cannot be used: {error}"
            self._certificates[name] = known
        return known

    def _with_other_names(self, servers: dict[str, Server]) -> dict[str, Server]:
        """Return the servers with their aliases and redirected names; a name that is a host itself is never taken."""
        taken: dict[str, str] = dict.fromkeys(servers, "")
        ordered = sorted(
            ((one, host) for host, owners in self._owners.items() for one in owners.values() if host),
            key=lambda pair: (pair[0].ingress.metadata.creation_timestamp or YOUNGEST, pair[0].name, pair[1]),
        )
        for one, host in ordered:
            for alias in one.annotations.found.get("server-alias", ()):
                if alias in taken:
                    if taken[alias] != host:
                        one.annotations.tell(Verdict.LOST, "server-alias", f"{alias} is a host or alias of another")
                    continue
                taken[alias] = host
                servers[host] = replace(servers[host], aliases=(*servers[host].aliases, alias))
        for one, host in ordered:
            if one.annotations.found.get("from-to-www-redirect") and not host.startswith("*"):
                other = host.removeprefix("www.") if host.startswith("www.") else f"www.{host}"
                if other in taken:
                    if taken[other] != host:
                        message = f"{other} has an Ingress of its own"
                        one.annotations.tell(Verdict.IGNORED, "from-to-www-redirect", message)
                    continue
                taken[other] = host
                servers[host] = replace(servers[host], redirects_from=other)
        return servers


def _oldest(owners: Sequence[_Told], name: str) -> Any:
    """Return an annotation that holds for a whole host: of the oldest Ingress that has it; None for none."""
    return next((one.annotations.found[name] for one in owners if name in one.annotations.found), None)


def _path_faults(ingress: Ingress, *, is_regex: bool) -> Iterable[tuple[str, str]]:
    for index, rule in enumerate(ingress.spec.rules):
        for number, path in enumerate(rule.http.paths if rule.http else ()):
            where = f"spec.rules[{index}].http.paths[{number}].path"
            if is_regex:
                try:
                    regex.check(path.path or "/")
                except ValueError as error:
                    yield where, str(error)
            elif len(path.path.encode()) > MAX_PATH:
                yield where, f"{values.quoted(path.path)} is longer than {MAX_PATH} bytes, which nginx compares"
            elif "//" in path.path:
                yield where, f"{values.quoted(path.path)}: nginx makes one slash of two, so no request can match"


def _targets_of(servers: Iterable[Server], default: Target | None) -> set[str]:
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


def _shown(target: Target) -> str:
    return f"its requests are answered with {target.status}" if isinstance(target, Answer) else "another answers"
