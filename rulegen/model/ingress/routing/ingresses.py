"""The Ingresses that this node serves, with the policies of their annotations."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from msgspec import Struct

from rulegen.kube.objects.names import ObjectKey, ObjectName
from rulegen.model.ingress.closing import INGRESS, MAX_PATH, MAX_ROUTES, Guard, route_count
from rulegen.model.ingress.ir import LocationPolicy
from rulegen.model.ingress.policy.authentication import client_auth_of
from rulegen.model.ingress.policy.binding import names_location
from rulegen.model.ingress.policy.idle import report_idle
from rulegen.model.ingress.policy.policies import policy_of
from rulegen.model.ingress.policy.snippets import judge_snippets
from rulegen.model.ingress.reasons import Reason, Verdict
from rulegen.model.ingress.routing.from_ingress import hosts_with_expressions, routes_of
from rulegen.model.ingress.values import readers, regex
from rulegen.model.ingress.values.annotations import routing, tls
from rulegen.model.ingress.values.annotations.access import AUTH_URL
from rulegen.model.ingress.values.annotations.annotation import InvalidValue
from rulegen.model.ingress.values.annotations.reading import Annotations, read_annotations
from rulegen.model.ingress.values.risks import too_risky
from rulegen.model.ingress.values.setting import SettingGuard
from rulegen.model.ingress.values.texts import NO_TEXT

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from rulegen.kube.objects.structs import Ingress
    from rulegen.model.ingress.ir import ClientAuth, ExternalAuth
    from rulegen.model.ingress.routing.route import Route
    from rulegen.model.ingress.upstreams.referenced_objects import Referred
    from rulegen.model.ingress.values.annotations.annotation import Annotation
    from rulegen.model.ingress.values.settings import Settings

_NEEDS_RULES: Final[tuple[Annotation[Any], ...]] = (
    routing.APP_ROOT,
    routing.PERMANENT_REDIRECT,
    routing.REWRITE_TARGET,
    routing.TEMPORAL_REDIRECT,
    tls.FORCE_SSL_REDIRECT,
)


class ReadIngress(NamedTuple):
    """Result of reading an Ingress.

    Attributes:
        owner: The Ingress; None if nothing of it is served.
        reasons: Why nothing of it is served.
        guard: What it may keep requests from.
        is_canary: Whether it only gets a share of the requests of another Ingress.
        expressions: Hosts on which its paths are expressions.
        client_auth: Verification of client certificates.
        guard_without_client_auth: What it may keep requests from without this verification.
    """

    owner: ResolvedIngress | None
    reasons: Sequence[Reason] = ()
    guard: Guard = Guard.NOTHING
    is_canary: bool = False
    expressions: frozenset[str] = frozenset()
    client_auth: ClientAuth | None = None
    guard_without_client_auth: Guard = Guard.NOTHING


class ResolvedIngress(Struct):
    """An Ingress with its policy.

    Attributes:
        policy: How its requests are served.
        client_auth: Verification of client certificates, for the whole host.
        is_canary: Whether it only gets a share of the requests of another Ingress.
        is_closed_by_settings: Whether it is closed, because a setting that protects it is invalid.
        closes_hosts: Whether it has a snippet that may protect all paths of its hosts.
        names_location: Whether a text of the policy depends on the location. It is determined here once, not for each
            path: no path adds texts to the policy.
        is_replacement: Whether it is the closed replacement of an Ingress that is not served.
    """

    name: ObjectName
    ingress: Ingress
    annotations: Annotations
    policy: LocationPolicy
    is_canary: bool
    client_auth: ClientAuth | None = None
    is_closed_by_settings: bool = False
    closes_hosts: bool = False
    names_location: bool = False
    is_replacement: bool = False

    def __post_init__(self) -> None:
        """Look at the texts of the policy."""
        self.names_location = names_location(self.policy)

    @property
    def is_closed(self) -> bool:
        """Whether its paths are closed."""
        return self.is_closed_by_settings or self.annotations.outcome is not InvalidValue.IGNORE

    @property
    def routes(self) -> tuple[Route, ...]:
        """Its routes."""
        return tuple(routes_of(self.ingress, self.annotations.about, self.policy))

    def reason(self, verdict: Verdict, path: str, message: str) -> Reason:
        """Return a reason about it."""
        return Reason(self.annotations.about, verdict, path, message)


def read_owner(
    ingress: Ingress,
    prefix: str,
    referred: Referred,
    global_auth: ExternalAuth | None,
    guards: frozenset[SettingGuard] = frozenset(),
) -> ReadIngress:
    """Return an Ingress with its policy, or the reasons why nothing of it is served.

    Args:
        ingress: The Ingress.
        prefix: Prefix of annotations.
        referred: Objects that annotations refer to.
        global_auth: The auth server for all Ingresses that do not opt out; None for none.
        guards: The Ingresses that invalid settings close.
    """
    name = ObjectName(ingress.metadata.namespace, ingress.metadata.name)
    key = ObjectKey(INGRESS, name)
    texts = ingress.metadata.annotations
    annotations = read_annotations(key, texts, prefix)
    closes_hosts = bool(annotations.snippets) and judge_snippets(annotations, texts, referred.settings)
    closes_hosts = closes_hosts and not annotations.values[routing.CANARY]  # a canary's server-snippet has no effect
    policy = policy_of(name.namespace, annotations, referred)
    if annotations.values:
        report_idle(annotations, referred.settings, has_tls=bool(ingress.spec.tls))
    is_guarded = bool(guards) and _is_guarded(annotations, policy, guards)
    policy = _completed(policy, ingress, annotations, global_auth)
    client_auth = client_auth_of(name.namespace, annotations, referred)
    expressions = hosts_with_expressions(ingress, policy)
    paths = (*_forbidden(texts, prefix, referred.settings), *_faults(ingress, expressions))
    faults = [Reason(key, Verdict.REJECTED, path, message) for path, message in paths]
    guard = _guard(annotations, policy, closes_hosts=closes_hosts, is_guarded=is_guarded)
    result = ReadIngress(
        owner=None,
        reasons=[*faults, *annotations.reasons],
        guard=guard if client_auth is None else Guard.HOSTS,
        is_canary=annotations.values[routing.CANARY],
        expressions=frozenset(expressions),
        client_auth=client_auth,
        guard_without_client_auth=guard,
    )
    if faults or annotations.outcome is InvalidValue.REJECT:
        return result
    if is_guarded or annotations.outcome is InvalidValue.CLOSE:
        policy = LocationPolicy(is_closed=True, ssl_redirect=policy.ssl_redirect, global_auth=False)
    owner = ResolvedIngress(
        name,
        ingress,
        annotations,
        policy,
        annotations.values[routing.CANARY],
        client_auth,
        is_closed_by_settings=is_guarded,
        closes_hosts=closes_hosts,
    )
    return result._replace(owner=owner, reasons=())


def _completed(
    policy: LocationPolicy, ingress: Ingress, annotations: Annotations, global_auth: ExternalAuth | None
) -> LocationPolicy:
    """Return a policy with the auth server for all Ingresses, and without what has no effect for this Ingress."""
    if policy.global_auth and policy.external_auth is None and global_auth is not None:
        policy = replace(policy, external_auth=global_auth)
    return policy if ingress.spec.rules else _of_default_backend(policy, annotations)


def _guard(annotations: Annotations, policy: LocationPolicy, *, closes_hosts: bool, is_guarded: bool) -> Guard:
    """Return what an Ingress may keep requests from. A canary has no say about its requests, only about its hosts."""
    if closes_hosts:
        return Guard.HOSTS
    if annotations.values[routing.CANARY]:
        return Guard.NOTHING
    is_closed = is_guarded or any(reason.verdict in {Verdict.CLOSED, Verdict.WAITING} for reason in annotations.reasons)
    asks = policy.external_auth is not None or policy.basic_auth is not None
    if is_closed or asks or policy.allow or policy.deny or policy.limits.is_any:
        return Guard.PATHS
    return Guard.NOTHING


def _is_guarded(annotations: Annotations, policy: LocationPolicy, guards: frozenset[SettingGuard]) -> bool:
    """Whether an invalid setting closes an Ingress, which has no annotation that replaces the setting."""
    return (
        SettingGuard.ALL in guards
        or (SettingGuard.WITHOUT_ALLOWED in guards and not policy.allow)
        or (SettingGuard.WITHOUT_DENIED in guards and not policy.deny)
        or (
            SettingGuard.WITHOUT_AUTH in guards
            and policy.global_auth
            and policy.external_auth is None
            and AUTH_URL not in annotations.values
        )
    )


def _forbidden(texts: Mapping[str, str], prefix: str, settings: Settings) -> Iterable[tuple[str, str]]:
    """Yield the annotations that the settings forbid, each with the reason."""
    words, level = settings.annotation_value_word_blocklist, settings.annotations_risk_level
    if not words and level == "High":  # no supported annotation has a higher risk
        return
    start = f"{prefix}/"
    ours = {key.removeprefix(start): text for key, text in sorted(texts.items()) if key.startswith(start)}
    for name, risk in too_risky(ours, level).items():
        message = f"its risk is {risk}, and annotations-risk-level of the ConfigMap is {level}"
        yield f'metadata.annotations["{start}{readers.printable(name)}"]', message
    for name, text in ours.items():
        for word in words:
            if word in text:
                message = f"it contains {readers.quoted(word)}, which annotation-value-word-blocklist forbids"
                yield f'metadata.annotations["{start}{readers.printable(name)}"]', message
                break


def _of_default_backend(policy: LocationPolicy, annotations: Annotations) -> LocationPolicy:
    """Return the policy of an Ingress without rules: as in ingress-nginx, without redirects and rewrites."""
    for annotation in _NEEDS_RULES:
        if annotations.values[annotation]:
            annotations.report(Verdict.IGNORED, annotation, "it has no effect for an Ingress without rules")
    return replace(
        policy,
        ssl_redirect=False,
        force_ssl_redirect=False,
        redirect=None,
        rewrite_target="",
        forwarded_prefix=NO_TEXT,
        app_root="",
        use_regex=False,
    )


def _faults(ingress: Ingress, expressions: set[str]) -> Iterable[tuple[str, str]]:
    routes = route_count(ingress)
    if routes > MAX_ROUTES:
        yield "spec", f"{routes} rules, paths and entries for TLS in one Ingress: at most {MAX_ROUTES}"
        return
    for index, rule in enumerate(ingress.spec.rules):
        for number, path in enumerate(rule.http.paths if rule.http else ()):
            if fault := _fault_of_path(path.path, is_expression=rule.host in expressions):
                yield f"spec.rules[{index}].http.paths[{number}].path", fault


def _fault_of_path(path: str, *, is_expression: bool) -> str:
    """Return why a path cannot be served; empty if it can."""
    if is_expression:
        try:
            regex.check(path or "/")
        except ValueError as error:
            return str(error)
        return ""
    if len(path.encode()) > MAX_PATH:
        return f"{readers.quoted(path)} is longer than {MAX_PATH} bytes, and nginx compares no more than these"
    if "//" in path:
        return f"{readers.quoted(path)}: nginx merges double slashes, so no request can match"
    return ""
