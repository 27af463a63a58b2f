"""Converts the annotations of an Ingress, and the objects that they refer to, to its policy."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Final

from rulegen.model.ingress.ir import Cors, ErrorPages, FixedResponse, Limits, LocationPolicy, Sticky
from rulegen.model.ingress.policy.authentication import basic_auth, external_auth
from rulegen.model.ingress.policy.mirroring import mirror_of
from rulegen.model.ingress.policy.proxying import backend_tls, proxying
from rulegen.model.ingress.proxying import NO_OPTIONS, ServerOptions
from rulegen.model.ingress.reasons import Verdict
from rulegen.model.ingress.upstreams.referenced_objects import MAX_HEADERS
from rulegen.model.ingress.values import readers
from rulegen.model.ingress.values.annotations import access, backend, balancing, headers, logs, routing, tls
from rulegen.model.ingress.values.annotations.table import declared_in
from rulegen.model.ingress.values.rewrites import redirect_rewrite
from rulegen.model.ingress.values.texts import OF_REQUEST, Subject, Text, read_text

if TYPE_CHECKING:
    from rulegen.kube.objects.structs import ServiceBackendPort
    from rulegen.model.ingress.ir import ServiceWithoutEndpoints, Target
    from rulegen.model.ingress.upstreams.referenced_objects import Referred
    from rulegen.model.ingress.values.annotations.annotation import AnnotationValues
    from rulegen.model.ingress.values.annotations.reading import Annotations
    from rulegen.model.ingress.values.settings import Settings
    from rulegen.net import Network


_LIMITS: Final = frozenset(
    annotation for annotation in declared_in(access).values() if annotation.name.startswith("limit-")
)
_UNLIMITED: Final = Limits()
_PARAMETERS: Final = OF_REQUEST | {Subject.SCRIPT, Subject.SCRIPTS}
"""Allowed in FastCGI parameters."""


def policy_of(namespace: str, annotations: Annotations, referred: Referred) -> LocationPolicy:
    """Return the policy of an Ingress; what cannot be used is reported in `annotations`."""
    values, settings = annotations.values, referred.settings
    if not values:  # most Ingresses have none
        return unannotated(settings)
    return LocationPolicy(
        ssl_redirect=values.value_or(tls.SSL_REDIRECT, settings.ssl_redirect),
        force_ssl_redirect=values.value_or(tls.FORCE_SSL_REDIRECT, settings.force_ssl_redirect),
        preserve_trailing_slash=values.value_or(tls.PRESERVE_TRAILING_SLASH, settings.preserve_trailing_slash),
        redirect=_redirect(values),
        relative_redirects=values.value_or(routing.RELATIVE_REDIRECTS, settings.relative_redirects),
        ports_in_redirects=values[tls.USE_PORT_IN_REDIRECTS],
        rewrite_target=values[routing.REWRITE_TARGET],
        use_regex=values[routing.USE_REGEX],
        app_root=values[routing.APP_ROOT],
        basic_auth=basic_auth(namespace, annotations, referred),
        external_auth=external_auth(namespace, annotations, referred),
        global_auth=values[access.ENABLE_GLOBAL_AUTH],
        satisfy_any=values[access.SATISFY] == "any",
        allow=_either(values[access.ALLOWLIST_SOURCE_RANGE], values[access.WHITELIST_SOURCE_RANGE]),
        deny=values[access.DENYLIST_SOURCE_RANGE],
        limits=_limits(annotations, settings),
        cors=_cors(annotations),
        headers=_custom_headers(namespace, annotations, referred),
        upstream_vhost=values[headers.UPSTREAM_VHOST],
        forwarded_prefix=_forwarded_prefix(annotations),
        connection_header=values[headers.CONNECTION_PROXY_HEADER],
        protocol=values[backend.BACKEND_PROTOCOL],
        proxying=proxying(values),
        body_size=values[backend.PROXY_BODY_SIZE],
        body_buffer_size=values[backend.CLIENT_BODY_BUFFER_SIZE],
        proxy_ssl=backend_tls(namespace, annotations, referred),
        cookie_domain=values.value_or(backend.PROXY_COOKIE_DOMAIN, settings.proxy_cookie_domain),
        cookie_path=values.value_or(backend.PROXY_COOKIE_PATH, settings.proxy_cookie_path),
        redirect_rewrite=redirect_rewrite(
            values.value_or(backend.PROXY_REDIRECT_FROM, settings.proxy_redirect_from),
            values.value_or(backend.PROXY_REDIRECT_TO, settings.proxy_redirect_to),
        ),
        scripts=_scripts(namespace, annotations, referred),
        script_index=values[backend.FASTCGI_INDEX],
        access_log=values[logs.ENABLE_ACCESS_LOG],
        rewrite_log=values[logs.ENABLE_REWRITE_LOG],
        sticky=_sticky(annotations),
        mirror=mirror_of(annotations, referred.targets),
        servers=_servers(values),
    )


def _servers(values: AnnotationValues) -> ServerOptions:
    options = ServerOptions(
        check_path=values[balancing.HEALTH_CHECK_PATH],
        check_interval_s=values[balancing.HEALTH_CHECK_INTERVAL],
        slow_start_s=values[balancing.SLOW_START],
        max_connections=values[balancing.MAX_CONNECTIONS],
        retry_on=values[balancing.RETRY_ON],
    )
    return NO_OPTIONS if options == NO_OPTIONS else options


def unannotated(settings: Settings) -> LocationPolicy:
    """Return the policy of an Ingress without annotations."""
    return _plain(
        settings.ssl_redirect,
        settings.force_ssl_redirect,
        settings.preserve_trailing_slash,
        settings.proxy_cookie_domain,
        settings.proxy_cookie_path,
        redirect_rewrite(settings.proxy_redirect_from, settings.proxy_redirect_to),
    )


@cache
def _plain(
    ssl_redirect: bool,  # noqa: FBT001 - hashed by position
    force_ssl_redirect: bool,  # noqa: FBT001
    preserve_trailing_slash: bool,  # noqa: FBT001
    cookie_domain: tuple[str, str] | None,
    cookie_path: tuple[str, str] | None,
    rewrite: tuple[str, str] | None,
) -> LocationPolicy:
    """Return a policy with only these values; it is cached, because most Ingresses share it."""
    return LocationPolicy(
        ssl_redirect=ssl_redirect,
        force_ssl_redirect=force_ssl_redirect,
        preserve_trailing_slash=preserve_trailing_slash,
        cookie_domain=cookie_domain,
        cookie_path=cookie_path,
        redirect_rewrite=rewrite,
    )


def without_auth(policy: LocationPolicy) -> LocationPolicy:
    """Return a policy without password and without auth server."""
    auth = policy.external_auth
    if auth is None and policy.basic_auth is None:
        return policy
    unproven = auth.response_headers if auth is not None else ()
    return replace(policy, basic_auth=None, external_auth=None, unproven_headers=unproven)


def errors_of(
    annotations: Annotations,
    settings: Settings,
    policy: LocationPolicy,
    backends: tuple[Target | None, Target | None],
    whose: ServiceWithoutEndpoints,
) -> ErrorPages | None:
    """Return the error pages of a location; None for none.

    Args:
        annotations: Annotations of the Ingress.
        settings: Settings of all hosts.
        policy: Policy of the location.
        backends: The default backend of the Ingress, and that of all Ingresses; None for none.
        whose: The Service and port of the location.
    """
    values = annotations.values
    own, common = backends
    codes = values[routing.CUSTOM_HTTP_ERRORS]
    target = own or common
    if codes is None:
        if policy.external_auth is not None and policy.external_auth.signin:
            return None  # as in ingress-nginx, the sign-in page is then the only error page
        codes, target = settings.custom_http_errors, common or own
    if not codes:
        return None
    if target is None or isinstance(target, FixedResponse):
        if routing.CUSTOM_HTTP_ERRORS in values:
            annotations.report(
                Verdict.IGNORED, routing.CUSTOM_HTTP_ERRORS, "there is no default backend that answers instead"
            )
        return None
    buffers = policy.proxying.buffers_requests
    is_buffered = settings.proxy_request_buffering == "on" if buffers is None else buffers
    return ErrorPages(
        codes=codes,
        target=target,
        service=whose.name,
        port=whose.port,
        of_backends=not values.value_or(
            routing.DISABLE_PROXY_INTERCEPT_ERRORS, settings.disable_proxy_intercept_errors
        ),
        passes_body=is_buffered and not policy.protocol.startswith("GRPC"),
    )


def _either(networks: tuple[Network, ...] | None, other: tuple[Network, ...] | None) -> tuple[Network, ...]:
    """Return the value of an annotation with two names; the first name has priority."""
    return networks if networks is not None else other or ()


def _redirect(values: AnnotationValues) -> tuple[int, Text] | None:
    if url := values[routing.TEMPORAL_REDIRECT]:
        return values[routing.TEMPORAL_REDIRECT_CODE], url
    if url := values[routing.PERMANENT_REDIRECT]:
        return values[routing.PERMANENT_REDIRECT_CODE], url
    return None


def _limits(annotations: Annotations, settings: Settings) -> Limits:
    values = annotations.values
    if _LIMITS.isdisjoint(values):
        return _UNLIMITED
    for annotation in (access.LIMIT_RPS, access.LIMIT_RPM, access.LIMIT_CONNECTIONS):
        if annotation in values and not values[annotation]:
            annotations.report(Verdict.NOTE, annotation, "it means no limit")
    rate = values[access.LIMIT_RATE]
    is_buffered = values.value_or(backend.PROXY_BUFFERING, settings.proxy_buffering) == "on"
    if rate and not is_buffered and _redirect(values) is None:
        message = "it has no effect without proxy-buffering: set that to on"
        annotations.report(Verdict.IGNORED, access.LIMIT_RATE, message)
    return Limits(
        rps=values[access.LIMIT_RPS],
        rpm=values[access.LIMIT_RPM],
        connections=values[access.LIMIT_CONNECTIONS],
        rate=rate,
        rate_after=values[access.LIMIT_RATE_AFTER],
        burst_multiplier=values[access.LIMIT_BURST_MULTIPLIER],
        exempt=_either(values[access.LIMIT_ALLOWLIST], values[access.LIMIT_WHITELIST]),
    )


def _cors(annotations: Annotations) -> Cors | None:
    values = annotations.values
    if not values[headers.ENABLE_CORS] or headers.CORS_ALLOW_ORIGIN in annotations.failed:
        return None
    origins = values[headers.CORS_ALLOW_ORIGIN]
    return Cors(
        origins=tuple(origin for origin in origins if origin != "*"),
        any_origin="*" in origins,
        methods=values[headers.CORS_ALLOW_METHODS],
        headers=values[headers.CORS_ALLOW_HEADERS],
        credentials=values[headers.CORS_ALLOW_CREDENTIALS],
        max_age_s=values[headers.CORS_MAX_AGE],
        expose=values[headers.CORS_EXPOSE_HEADERS],
    )


def _custom_headers(namespace: str, annotations: Annotations, referred: Referred) -> tuple[tuple[str, str], ...]:
    reference = annotations.values[headers.CUSTOM_HEADERS]
    if reference is None:
        return ()
    try:
        pairs = referred.headers(referred.own(namespace, reference))
    except ValueError as error:  # these headers may protect browsers, for example against framing
        annotations.close(headers.CUSTOM_HEADERS, error)
        return ()
    allowed = {name.lower() for name in referred.settings.global_allowed_response_headers}
    refused = [name for name, _ in pairs if name.lower() not in allowed]
    if refused:
        message = f"global-allowed-response-headers of the ConfigMap does not allow {', '.join(refused[:5])}"
        annotations.close(headers.CUSTOM_HEADERS, message)
        return ()
    return pairs


def _forwarded_prefix(annotations: Annotations) -> Text:
    prefix = annotations.values[headers.X_FORWARDED_PREFIX]
    return prefix if routing.REWRITE_TARGET in annotations.values else Text()


def _scripts(namespace: str, annotations: Annotations, referred: Referred) -> dict[str, Text]:
    reference = annotations.values[backend.FASTCGI_PARAMS_CONFIGMAP]
    if reference is None:
        return {}
    try:
        parameters = sorted(referred.config_map(referred.own(namespace, reference)).data.items())[:MAX_HEADERS]
        return {_parameter(key): _parameter_text(text) for key, text in parameters}
    except ValueError as error:
        annotations.close(backend.FASTCGI_PARAMS_CONFIGMAP, error)
        return {}


def _parameter(text: str) -> str:
    if not readers.re.match(r"[A-Z][A-Z0-9_]{0,63}\Z", text):
        raise ValueError(f"{readers.quoted(text)} is not the name of a parameter such as SCRIPT_FILENAME")
    return text


def _parameter_text(text: str) -> Text:
    return read_text(readers.header_text(text), _PARAMETERS)


def _sticky(annotations: Annotations) -> Sticky | None:
    values = annotations.values
    if values[balancing.AFFINITY] != "cookie":
        return None
    if values[routing.USE_REGEX] and not values[balancing.SESSION_COOKIE_PATH]:
        message = "the paths are expressions: without session-cookie-path, the cookie is for all paths of the host"
        annotations.report(Verdict.NOTE, balancing.AFFINITY, message)
    attributes = []
    if domain := values[balancing.SESSION_COOKIE_DOMAIN]:
        attributes.append(f"Domain={domain}")
    age_s = values.value_or(balancing.SESSION_COOKIE_MAX_AGE, values[balancing.SESSION_COOKIE_EXPIRES] or None)
    if age_s is not None:
        attributes.append(f"Max-Age={age_s}")
    attributes.append("HttpOnly")
    site = values[balancing.SESSION_COOKIE_SAMESITE]
    is_conditional = site == "None" and values[balancing.SESSION_COOKIE_CONDITIONAL_SAMESITE_NONE]
    if site and not is_conditional:
        attributes.append(f"SameSite={site}")
    if values[balancing.SESSION_COOKIE_PARTITIONED]:
        attributes.append("Partitioned")
    return Sticky(
        cookie=values[balancing.SESSION_COOKIE_NAME],
        attributes="; ".join(attributes),
        path=values[balancing.SESSION_COOKIE_PATH],
        is_secure=values[balancing.SESSION_COOKIE_SECURE] or None,
        is_persistent=values[balancing.AFFINITY_MODE] == "persistent",
        is_none_conditional=is_conditional,
    )


def port_of(port: ServiceBackendPort) -> str:
    """Return the name of a port, or its number if it has no name."""
    return port.name or str(port.number)
