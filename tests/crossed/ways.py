"""The ways that a request can take to a backend, and what the model says of it there."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rulegen.kube.objects import structs as k
from rulegen.model.ingress.ir import ErrorPages, IngressModel, Location, LocationPolicy, MatchKind, Server, ToUpstream
from rulegen.model.ingress.resolve import resolve_ingress
from tests.strategies.ingresses import (
    API,
    NAMED,
    SETTINGS,
    WEB,
    backend,
    endpoints,
    ingress,
    options,
    path,
    rule,
    secret,
    service,
    settings_map,
    tls,
    world,
)

GROUND = (
    *WEB,
    *API,
    *NAMED,
    secret("user-map", alice=b"{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ="),
    service("empty"),
    endpoints("empty", ()),
    service("named", type="ExternalName", external_name="backend.example.com", cluster_ip=""),
)
HOSTS = ("own", "wildcard", "none")
PATHS = ("prefix", "exact", "expressions", "default", "rest")
BACKENDS = {"pods": "web", "nobody": "empty", "name": "named"}
AUTHS: Mapping[str, Mapping[str, str]] = {
    "nobody": {},
    "basic": {"auth-type": "basic", "auth-secret": "users"},
    "asked": {"auth-url": "http://api.default.svc.cluster.local/"},
}
SHARE = {"canary": "true", "canary-weight": "30"}
LATER = "2026-02-01T00:00:00Z"


@dataclass(frozen=True)
class Way:
    """One way; the first value of each is the plain one.

    Attributes:
        host: The rule's own name, `*.` one, or none.
        path: Prefix, exact, a prefix on a host where another Ingress makes expressions of all, the Ingress's default
            backend alone, or beside a path.
        backend: Who is behind it: pods, nobody, a name outside of the cluster.
        has_canary: Whether another Ingress gets a share.
        auth: Who is asked about the client.
        is_tls: Whether the Ingress has a certificate.
    """

    host: str = "own"
    path: str = "prefix"
    backend: str = "pods"
    has_canary: bool = False
    auth: str = "nobody"
    is_tls: bool = False

    def name_of(self, site: str) -> str:
        """Return the host of a site's rule."""
        return {"own": f"{site}.site.test", "wildcard": f"*.{site}.site.test", "none": ""}[self.host]

    def ingresses(self, site: str, annotations: Mapping[str, str], share: Mapping[str, str]) -> Iterator[k.Ingress]:
        """Yield the Ingresses of a site, the one with the annotations first; `share` is the canary's."""
        host, to = self.name_of(site), BACKENDS[self.backend]
        given = {
            "annotations": annotations,
            "tls": [tls("cert", *filter(None, (host,)))] if self.is_tls else [],
        }
        if self.path == "default":
            yield ingress(site, k.IngressRule(host=host), default=backend(to), **given)
            return
        own = path("/app", "Exact" if self.path == "exact" else "Prefix", to)
        if self.path == "rest":
            yield ingress(site, rule(host, path("/app")), default=backend(to), **given)
            return
        yield ingress(site, rule(host, own), **given)
        if self.path == "expressions":
            others = {"use-regex": "true"}
            yield ingress(f"{site}-x", rule(host, path("/else[0-9]")), annotations=others, created=LATER)
        if self.has_canary:
            canary = path("/app", own.path_type, "api")
            yield ingress(f"{site}-c", rule(host, canary), annotations=share, created=LATER)

    @property
    def asked(self) -> str:
        """The path of a request that takes this way."""
        return "/other" if self.path in {"default", "rest"} else "/app"


def all_ways() -> Iterator[Way]:
    """Yield every way.

    A canary needs a path to share and somebody to share it with; a certificate is the host's, however it is called.
    """
    for way in itertools.starmap(Way, itertools.product(HOSTS, PATHS, BACKENDS, (False, True), AUTHS, (False, True))):
        can_share = way.backend == "pods" and way.path not in {"default", "rest"}
        if (can_share or not way.has_canary) and (way.host == "own" or not way.is_tls):
            yield way


Answer = Mapping[str, Any]
"""What the model says where a request of a way ends up, by field."""


def differences(answer: Answer, other: Answer) -> dict[str, Any]:
    """Return the fields of the first that are different from the other's."""
    return {key: value for key, value in answer.items() if other[key] != value}


def answers(
    way: Way, sites: Sequence[Mapping[str, str]], settings: Mapping[str, str], share: Mapping[str, str] = SHARE
) -> list[Answer]:
    """Return what sites with these annotations answer, each by itself; those without host one after the other."""
    if way.host == "none":
        return [_answers(way, [site], settings, share)[0] for site in sites]
    return _answers(way, sites, settings, share)


def _answers(
    way: Way, sites: Sequence[Mapping[str, str]], settings: Mapping[str, str], share: Mapping[str, str]
) -> list[Answer]:
    names = [f"n{number}" for number in range(len(sites))]
    objects = [made for name, site in zip(names, sites, strict=True) for made in way.ingresses(name, site, share)]
    also = [settings_map(**settings)] if settings else []
    chosen = options(config_map=SETTINGS) if settings else options()
    model = resolve_ingress(world(*GROUND, *also, *objects), chosen)
    return [_answer(model, model.servers[way.name_of(name)], way.asked) for name in names]


def answering(server: Server, asked: str) -> Location:
    """Return the location that nginx picks for a path: the exact one, else the first expression, else the longest."""
    for location in server.locations:
        if location.kind is MatchKind.EXACT and location.path == asked:
            return location
    for location in server.locations:
        ignores = re.IGNORECASE if location.kind is MatchKind.REGEX else 0
        if location.kind in {MatchKind.REGEX, MatchKind.REGEX_CASED} and re.search(location.path, asked, ignores):
            return location
    prefixes = [each for each in server.locations if each.kind is MatchKind.PREFIX and asked.startswith(each.path)]
    return max(prefixes, key=lambda location: len(location.path))


def _answer(model: IngressModel, server: Server, asked: str) -> Answer:
    location = answering(server, asked)
    facts = {f"policy.{name}": value for name, value in _fields(location.policy).items()}
    if location.policy.errors is not None:
        whose = {"target", "service", "port"}
        facts["policy.errors"] = {
            key: value for key, value in _fields(location.policy.errors).items() if key not in whose
        }
    facts |= {f"server.{key}": getattr(server, key) for key in ("client_auth", "app_root", "ciphers")}
    facts["server.prefer_server_ciphers"] = server.prefer_server_ciphers
    facts["server.aliases"], facts["server.redirects"] = bool(server.aliases), bool(server.redirects_from)
    facts["target"] = location.target
    if isinstance(location.target, ToUpstream):
        facts["target"] = "an upstream"
        upstream = model.upstreams[location.target.upstream]
        facts |= {f"upstream.{key}": getattr(upstream, key) for key in ("balance", "hash_key", "sticky", "servers")}
    else:
        facts |= dict.fromkeys(("upstream.balance", "upstream.hash_key", "upstream.sticky", "upstream.servers"))
    facts["canaries"] = tuple(
        (
            dataclasses.replace(canary, target=ToUpstream(""), ingress=None),
            model.upstreams[canary.target.upstream].sticky,
        )  # type: ignore[arg-type]
        for canary in location.canaries
        if isinstance(canary.target, ToUpstream)
    )
    return facts


def _fields(policy: LocationPolicy | ErrorPages) -> dict[str, Any]:
    return {entry.name: getattr(policy, entry.name) for entry in dataclasses.fields(policy)}
