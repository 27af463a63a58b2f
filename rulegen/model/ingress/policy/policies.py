"""The policy of an Ingress: its annotations, and the objects that they name, as decisions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from rulegen.model.ingress.ir import Cors, ErrorPages, Limits, LocationPolicy, Sticky
from rulegen.model.ingress.policy.authentication import basic_auth, external_auth
from rulegen.model.ingress.policy.proxying import backend_tls, tuning
from rulegen.model.ingress.reasons import Verdict
from rulegen.model.ingress.unread import AbsentError
from rulegen.model.ingress.upstreams.referenced_objects import MAX_HEADERS
from rulegen.model.ingress.values import readers

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rulegen.kube.objects.structs import ServiceBackendPort
    from rulegen.model.ingress.ir import Target
    from rulegen.model.ingress.upstreams.referenced_objects import Referred
    from rulegen.model.ingress.values.annotations import Annotations
    from rulegen.model.ingress.values.settings import Settings

CORS_METHODS: Final = "GET, PUT, POST, DELETE, PATCH, OPTIONS"
CORS_HEADERS: Final = (
    "DNT,Keep-Alive,User-Agent,X-Requested-With,If-Modified-Since,Cache-Control,Content-Type,Range,Authorization"
)
CORS_MAX_AGE_S: Final = 1728000


def policy_of(namespace: str, told: Annotations, referred: Referred) -> LocationPolicy:
    """Return the policy that the annotations of an Ingress make; what cannot be had is noted in `told`."""
    found, settings = told.found, referred.settings
    redirect = _redirect(found)
    protocol = _protocol(told)
    _tell_idle(told)
    return LocationPolicy(
        ssl_redirect=found.get("ssl-redirect", settings.ssl_redirect),
        force_ssl_redirect=found.get("force-ssl-redirect", settings.force_ssl_redirect),
        preserve_trailing_slash=found.get("preserve-trailing-slash", settings.preserve_trailing_slash),
        redirect=redirect,
        relative_redirects=found.get("relative-redirects", False),
        rewrite_target=found.get("rewrite-target", ""),
        use_regex=found.get("use-regex", False) or bool(found.get("rewrite-target")),
        app_root=found.get("app-root", ""),
        basic_auth=basic_auth(namespace, told, referred),
        external_auth=external_auth(namespace, told, referred),
        global_auth=found.get("enable-global-auth", True),
        satisfy_any=found.get("satisfy") == "any",
        allow=found.get("allowlist-source-range", found.get("whitelist-source-range", ())),
        deny=found.get("denylist-source-range", ()),
        limits=_limits(told, settings),
        cors=_cors(told),
        headers=_custom_headers(namespace, told, referred),
        upstream_vhost=found.get("upstream-vhost", ""),
        forwarded_prefix=_forwarded_prefix(told),
        connection_header=found.get("connection-proxy-header", ""),
        protocol=protocol,
        proxy=tuning(found, settings),
        body_size=found.get("proxy-body-size"),
        body_buffer_size=found.get("client-body-buffer-size"),
        proxy_ssl=backend_tls(namespace, told, referred),
        cookie_domain=found.get("proxy-cookie-domain"),
        cookie_path=found.get("proxy-cookie-path"),
        redirect_rewrite=_redirect_rewrite(found),
        scripts=_scripts(namespace, told, referred),
        script_index=found.get("fastcgi-index", ""),
        access_log=found.get("enable-access-log", True),
        rewrite_log=found.get("enable-rewrite-log", False),
        sticky=_sticky(told),
    )


def errors_of(told: Annotations, settings: Settings, target: Target, service: str, port: str) -> ErrorPages | None:
    """Return which answers are replaced by those of the default backend that `target` is."""
    codes = told.found.get("custom-http-errors", settings.custom_http_errors)
    if not codes or told.found.get("disable-proxy-intercept-errors", False):
        return None
    return ErrorPages(codes=tuple(codes), target=target, service=service, port=port)


def _redirect(found: Mapping[str, Any]) -> tuple[int, str] | None:
    if url := found.get("temporal-redirect"):
        return found.get("temporal-redirect-code", 302), url
    if url := found.get("permanent-redirect"):
        return found.get("permanent-redirect-code", 301), url
    return None


def _protocol(told: Annotations) -> str:
    protocol: str = told.found.get("backend-protocol", "HTTP")
    return protocol


_LEANS_ON: Final = {
    "auth-secret": "auth-type",
    "auth-realm": "auth-type",
    "auth-signin": "auth-url",
    "auth-response-headers": "auth-url",
    "auth-tls-verify-client": "auth-tls-secret",
    "auth-tls-match-cn": "auth-tls-secret",
    "auth-tls-error-page": "auth-tls-secret",
    "satisfy": "auth-type, auth-url or whitelist-source-range",
}
"""Annotations that do nothing, and so protect nothing, without another beside them."""


def _tell_idle(told: Annotations) -> None:
    """Tell of annotations that have no effect, above all where a user may think that they protect."""
    for name, needed in _LEANS_ON.items():
        if name in told.found and not any(other in told.found for other in needed.replace(" or", ",").split(", ")):
            told.tell(Verdict.IGNORED, name, f"it does nothing (and protects nothing) without {needed}")
    if "auth-cache-key" in told.found:
        told.tell(Verdict.UNSUPPORTED, "auth-cache-key", "the auth server is asked each time: its answers are not kept")


def _limits(told: Annotations, settings: Settings) -> Limits:
    found = told.found
    if found.get("limit-rate") and found.get("proxy-buffering", settings.proxy_buffering) == "off":
        told.tell(Verdict.NOTE, "limit-rate", "slows nothing down without proxy-buffering: set that to on")
    return Limits(
        rps=found.get("limit-rps", 0),
        rpm=found.get("limit-rpm", 0),
        connections=found.get("limit-connections", 0),
        rate=found.get("limit-rate", 0),
        rate_after=found.get("limit-rate-after", 0),
        burst_multiplier=found.get("limit-burst-multiplier", 5),
        exempt=found.get("limit-allowlist", found.get("limit-whitelist", ())),
    )


def _cors(told: Annotations) -> Cors | None:
    found = told.found
    if not found.get("enable-cors", False) or "cors-allow-origin" in told.failed:
        return None
    origins = found.get("cors-allow-origin", ("*",))
    return Cors(
        origins=tuple(origin for origin in origins if origin != "*"),
        any_origin="*" in origins,
        methods=found.get("cors-allow-methods", CORS_METHODS),
        headers=found.get("cors-allow-headers", CORS_HEADERS),
        credentials=found.get("cors-allow-credentials", True),
        max_age_s=found.get("cors-max-age", CORS_MAX_AGE_S),
        expose=found.get("cors-expose-headers", ""),
    )


def _custom_headers(namespace: str, told: Annotations, referred: Referred) -> tuple[tuple[str, str], ...]:
    if "custom-headers" not in told.found:
        return ()
    try:
        headers = referred.headers(referred.own(namespace, told.found["custom-headers"]))
    except AbsentError as error:  # they may be what keeps a browser from doing harm
        told.close("custom-headers", error)
        return ()
    except ValueError as error:
        told.tell(Verdict.IGNORED, "custom-headers", str(error))
        return ()
    allowed = {name.lower() for name in referred.settings.global_allowed_response_headers}
    refused = [name for name, _ in headers if name.lower() not in allowed]
    if refused:
        shown = ", ".join(refused[:5])
        told.tell(Verdict.IGNORED, "custom-headers", f"not in global-allowed-response-headers: {shown}")
        return ()
    return headers


def _forwarded_prefix(told: Annotations) -> str:
    prefix: str = told.found.get("x-forwarded-prefix", "")
    if prefix and "rewrite-target" not in told.found:
        told.tell(Verdict.IGNORED, "x-forwarded-prefix", "means something only beside rewrite-target")
        return ""
    return prefix


def _redirect_rewrite(found: Mapping[str, Any]) -> tuple[str, str] | None:
    before, after = found.get("proxy-redirect-from"), found.get("proxy-redirect-to")
    # nginx's default would put back the path for the address of the upstream, which no backend knows.
    if before in (None, "off", "default"):
        return None
    return (before, after) if after and after not in ("off", "default") else None


def _scripts(namespace: str, told: Annotations, referred: Referred) -> dict[str, str]:
    if "fastcgi-params-configmap" not in told.found:
        return {}
    try:
        name = referred.own(namespace, told.found["fastcgi-params-configmap"])
        told_parameters = sorted(referred.config_map(name).data.items())[:MAX_HEADERS]
        return {_parameter(key): _parameter_text(text) for key, text in told_parameters}
    except ValueError as error:
        told.close("fastcgi-params-configmap", error)
        return {}


def _parameter(text: str) -> str:
    if not readers.re.match(r"[A-Z][A-Z0-9_]{0,63}\Z", text):
        raise ValueError(f"{readers.quoted(text)} is not the name of a parameter such as SCRIPT_FILENAME")
    return text


def _parameter_text(text: str) -> str:
    readers.check_variables(text, ("fastcgi_script_name", "document_root", "request_uri", "query_string", "uri"))
    return readers.header_text(text)


def _sticky(told: Annotations) -> Sticky | None:
    found = told.found
    if found.get("affinity") != "cookie":
        return None
    if found.get("session-cookie-change-on-failure"):
        told.tell(Verdict.NOTE, "session-cookie-change-on-failure", "the cookie stays, another server answers")
    attributes = []
    if domain := found.get("session-cookie-domain"):
        attributes.append(f"Domain={domain}")
    age = found.get("session-cookie-max-age") or found.get("session-cookie-expires")
    if age:
        attributes.append(f"Max-Age={age}")
    attributes.append("HttpOnly")
    if site := found.get("session-cookie-samesite"):
        attributes.append(f"SameSite={site}")
    return Sticky(
        cookie=found.get("session-cookie-name", "INGRESSCOOKIE"),
        attributes="; ".join(attributes),
        path=found.get("session-cookie-path", ""),
        is_secure=found.get("session-cookie-secure"),
        is_persistent=found.get("affinity-mode") == "persistent",
    )


def port_of(port: ServiceBackendPort) -> str:
    """Return the port as people write it: its name or its number."""
    return port.name or str(port.number)
