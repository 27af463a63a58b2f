"""The policy of an Ingress: its annotations, and the objects that they name, as decisions."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from rulegen.errors import ConfigError
from rulegen.kube.world import ObjectName
from rulegen.model.ingress import values
from rulegen.model.ingress.annotations import RULES
from rulegen.model.ingress.certificates import (
    UnusableSecretError,
    read_authorities,
    read_certificate,
    read_passwords,
)
from rulegen.model.ingress.ir import (
    BasicAuth,
    ClientAuth,
    Cors,
    ErrorPages,
    ExternalAuth,
    Limits,
    Policy,
    ProxySSL,
    SecretFile,
    Sticky,
    ToName,
    ToUpstream,
    Verdict,
)
from rulegen.model.ingress.targets import Wish

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rulegen.kube.objects import ConfigMap, Secret, ServiceBackendPort
    from rulegen.model.ingress.annotations import Annotations
    from rulegen.model.ingress.ir import Target
    from rulegen.model.ingress.settings import Settings
    from rulegen.model.ingress.targets import Targets
    from rulegen.model.ingress.values import Url

CORS_METHODS: Final = "GET, PUT, POST, DELETE, PATCH, OPTIONS"
CORS_HEADERS: Final = (
    "DNT,Keep-Alive,User-Agent,X-Requested-With,If-Modified-Since,Cache-Control,Content-Type,Range,Authorization"
)
CORS_MAX_AGE_S: Final = 1728000
MAX_HEADERS: Final = 50


@dataclass(slots=True)
class Referred:
    """The objects that annotations name, and the files that they become.

    Attributes:
        files: Secret files by path, as far as they were asked for.
    """

    secrets: Mapping[ObjectName, Secret]
    config_maps: Mapping[ObjectName, ConfigMap]
    targets: Targets
    settings: Settings
    files: dict[str, SecretFile] = field(default_factory=dict)

    def own(self, namespace: str, told: tuple[str, str]) -> ObjectName:
        """Return the name of an object that an Ingress of a namespace may use.

        Raises:
            ValueError: It is of another namespace.
        """
        if told[0] not in ("", namespace):
            raise ValueError(f"{told[0]}/{told[1]} is not of this namespace")
        return ObjectName(namespace, told[1])

    def secret(self, name: ObjectName) -> Secret:
        """Return a Secret.

        Raises:
            ValueError: It is not there.
        """
        found = self.secrets.get(name)
        if found is None:
            raise ValueError(f"Secret {name} is not there")
        return found

    def config_map(self, name: ObjectName) -> ConfigMap:
        """Return a ConfigMap.

        Raises:
            ValueError: It is not there.
        """
        found = self.config_maps.get(name)
        if found is None:
            raise ValueError(f"ConfigMap {name} is not there")
        return found

    def headers(self, name: ObjectName) -> tuple[tuple[str, str], ...]:
        """Return the headers that a ConfigMap holds, in order of name.

        Raises:
            ValueError: It is not there, or one of them is none.
        """
        found = self.config_map(name)
        if len(found.data) > MAX_HEADERS:
            raise ValueError(f"ConfigMap {name} holds more than {MAX_HEADERS} headers")
        try:
            return tuple(
                (values.settable_header(key), values.header_text(text)) for key, text in sorted(found.data.items())
            )
        except ValueError as error:
            raise ValueError(f"ConfigMap {name}: {error}") from None

    def keep(self, path: str, content: bytes, *, for_workers: bool = False) -> str:
        """Have the configuration hold a file; return its path."""
        self.files[path] = SecretFile(content=content, for_workers=for_workers)
        return path


def policy_of(namespace: str, told: Annotations, referred: Referred) -> Policy:
    """Return the policy that the annotations of an Ingress make; what cannot be had is noted in `told`."""
    found, settings = told.found, referred.settings
    redirect = _redirect(found)
    protocol = _protocol(told)
    _tell_idle(told)
    return Policy(
        ssl_redirect=found.get("ssl-redirect", settings.ssl_redirect),
        force_ssl_redirect=found.get("force-ssl-redirect", settings.force_ssl_redirect),
        preserve_trailing_slash=found.get("preserve-trailing-slash", settings.preserve_trailing_slash),
        redirect=redirect,
        relative_redirects=found.get("relative-redirects", False),
        rewrite_target=found.get("rewrite-target", ""),
        use_regex=found.get("use-regex", False) or bool(found.get("rewrite-target")),
        app_root=found.get("app-root", ""),
        basic_auth=_basic_auth(namespace, told, referred),
        external_auth=_external_auth(namespace, told, referred),
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
        proxy=_proxy(found, settings),
        body_size=found.get("proxy-body-size"),
        body_buffer_size=found.get("client-body-buffer-size"),
        proxy_ssl=_proxy_ssl(namespace, told, referred),
        cookie_domain=found.get("proxy-cookie-domain"),
        cookie_path=found.get("proxy-cookie-path"),
        redirect_rewrite=_redirect_rewrite(found),
        scripts=_scripts(namespace, told, referred),
        script_index=found.get("fastcgi-index", ""),
        access_log=found.get("enable-access-log", True),
        rewrite_log=found.get("enable-rewrite-log", False),
        sticky=_sticky(told),
    )


def client_auth_of(namespace: str, told: Annotations, referred: Referred) -> ClientAuth | None:
    """Return how clients must show a certificate; one without a CA lets nobody in."""
    found = told.found
    if "auth-tls-secret" not in found and not told.failed & {"auth-tls-secret"}:
        return None
    ca = ""
    if "auth-tls-secret" in found:
        try:
            path, content = read_authorities(referred.secret(referred.own(namespace, found["auth-tls-secret"])))
            ca = referred.keep(path, content)
        except ValueError as error:
            told.close("auth-tls-secret", f"{error}: nobody is let in")
    return ClientAuth(
        ca=ca,
        verify=found.get("auth-tls-verify-client", "on"),
        depth=found.get("auth-tls-verify-depth", 1),
        match=found.get("auth-tls-match-cn", ""),
        error_page=found.get("auth-tls-error-page", ""),
        pass_certificate=found.get("auth-tls-pass-certificate-to-upstream", False),
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


def _basic_auth(namespace: str, told: Annotations, referred: Referred) -> BasicAuth | None:
    found = told.found
    if "auth-type" not in found:
        return None
    if "auth-secret" not in found:
        told.close("auth-type", "there is no auth-secret beside it")
        return None
    try:
        secret = referred.secret(referred.own(namespace, found["auth-secret"]))
        path, content = read_passwords(secret, found.get("auth-secret-type", "auth-file"))
    except UnusableSecretError as error:
        told.close("auth-secret", f"Secret {namespace}/{found['auth-secret'][1]} cannot be used: {error}")
        return None
    except ValueError as error:
        told.close("auth-secret", str(error))
        return None
    return BasicAuth(realm=found.get("auth-realm", ""), file=referred.keep(path, content, for_workers=True))


def _external_auth(namespace: str, told: Annotations, referred: Referred) -> ExternalAuth | None:
    found = told.found
    if "auth-url" not in found:
        return None
    url: Url = found["auth-url"]
    try:
        target = auth_target(url, referred.targets)
        headers: tuple[tuple[str, str], ...] = ()
        if "auth-proxy-set-headers" in found:
            headers = referred.headers(referred.own(namespace, found["auth-proxy-set-headers"]))
    except ValueError as error:
        told.close("auth-url", str(error))
        return None
    signin: Url | None = found.get("auth-signin")
    return ExternalAuth(
        url=url,
        target=target,
        method=found.get("auth-method", ""),
        signin=signin.text if signin else "",
        redirect_param=found.get("auth-signin-redirect-param", "rd"),
        response_headers=found.get("auth-response-headers", ()),
        request_redirect=found.get("auth-request-redirect", ""),
        always_set_cookie=found.get("auth-always-set-cookie", False),
        set_headers=headers,
    )


def global_auth(settings: Settings, targets: Targets) -> ExternalAuth | None:
    """Return the server that is asked about requests of all Ingresses that do not opt out; None for none.

    Raises:
        ConfigError: A setting of it cannot be read: then it would let in whom it was to keep out.
    """
    if not settings.global_auth_url:
        return None
    try:
        url = RULES["auth-url"].read(settings.global_auth_url)
        signin = RULES["auth-signin"].read(settings.global_auth_signin) if settings.global_auth_signin else None
        if url.host.startswith("$"):
            raise ConfigError("global-auth-url: the request's host would let any client choose who is asked")
        redirect = settings.global_auth_request_redirect
        return ExternalAuth(
            url=url,
            target=auth_target(url, targets),
            method=settings.global_auth_method,
            signin=signin.text if signin else "",
            redirect_param=values.header_name(settings.global_auth_signin_redirect_param),
            response_headers=values.header_names(settings.global_auth_response_headers),
            request_redirect=RULES["auth-request-redirect"].read(redirect) if redirect else "",
            always_set_cookie=settings.global_auth_always_set_cookie,
        )
    except ValueError as error:
        raise ConfigError(f"global-auth-*: {error}") from None


def auth_target(url: Url, targets: Targets) -> str:
    """Return the upstream of the Service that a URL names; empty where nginx must resolve the name.

    Raises:
        ValueError: The host is the node's own, or nothing can resolve it.
    """
    if values.is_private_to_node(url.host):
        raise ValueError(f"{values.quoted(url.host)} is the node itself: an auth server is never there")
    is_tls = url.scheme == "https"
    inside = targets.of_host(url.host, url.port or (443 if is_tls else 80), Wish(transport="HTTPS" if is_tls else ""))
    if isinstance(inside, ToUpstream):
        return inside.upstream
    if inside is not None and not isinstance(inside, ToName):
        raise ValueError(f"{values.quoted(url.host)} has no endpoints that are ready")
    if not targets.resolves and not values.re.match(r"[0-9.]+\Z|\[", url.host):
        raise ValueError(f"there is no name server to resolve {values.quoted(url.host)} with")
    return ""


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


def _proxy(found: Mapping[str, Any], settings: Settings) -> dict[str, str]:
    """Return the directives of the proxy module that differ from what holds for all, checked with each other."""
    directives: dict[str, str] = {}
    for name in ("connect-timeout", "send-timeout", "read-timeout"):
        if f"proxy-{name}" in found:
            directives[name.replace("-", "_")] = f"{found[f'proxy-{name}']}s"
    for name in ("buffering", "request-buffering", "http-version"):
        if f"proxy-{name}" in found:
            directives[name.replace("-", "_")] = found[f"proxy-{name}"]
    if "proxy-max-temp-file-size" in found or "proxy-buffer-size" in found:
        most = found.get("proxy-max-temp-file-size", settings.proxy_max_temp_file_size)
        one, _, _ = buffers(found.get("proxy-buffer-size", settings.proxy_buffer_size), 2, 0)
        directives["max_temp_file_size"] = values.spell_size(values.temporary_file_size(most, one))
    _buffers(found, settings, directives)
    if "proxy-next-upstream" in found:
        directives["next_upstream"] = " ".join(found["proxy-next-upstream"])
    if "proxy-next-upstream-tries" in found:
        directives["next_upstream_tries"] = str(found["proxy-next-upstream-tries"])
    if "proxy-next-upstream-timeout" in found or "proxy-read-timeout" in found:
        read = found.get("proxy-read-timeout", settings.proxy_read_timeout)
        limit = found.get("proxy-next-upstream-timeout", settings.proxy_next_upstream_timeout)
        directives["next_upstream_timeout"] = f"{limit or read}s"
    return directives


def _buffers(found: Mapping[str, Any], settings: Settings, directives: dict[str, str]) -> None:
    """Add the sizes of buffers; nginx refuses some that contradict each other, so they are fitted to each other."""
    if not any(f"proxy-{name}" in found for name in ("buffer-size", "buffers-number", "busy-buffers-size")):
        return
    one, many, busy = buffers(
        found.get("proxy-buffer-size", settings.proxy_buffer_size),
        found.get("proxy-buffers-number", settings.proxy_buffers_number),
        found.get("proxy-busy-buffers-size", 0),
    )
    directives["buffer_size"] = values.spell_size(one)
    directives["buffers"] = f"{many} {values.spell_size(one)}"
    directives["busy_buffers_size"] = values.spell_size(busy)


def buffers(one: int, many: int, busy: int) -> tuple[int, int, int]:
    """Return size and number of buffers and the size of busy ones, such that nginx takes them together.

    Busy ones must hold two buffers and leave one free (ngx_http_upstream.c); a page is the least size.
    """
    one = max(one, 1024)
    most = (many - 1) * one
    return one, many, min(max(busy, one * 2 if most >= one * 2 else one), most)


def _proxy_ssl(namespace: str, told: Annotations, referred: Referred) -> ProxySSL | None:
    found = told.found
    if not any(name.startswith("proxy-ssl-") for name in found):
        return None
    certificate = ca = ""
    if "proxy-ssl-secret" in found:
        try:
            secret = referred.secret(referred.own(namespace, found["proxy-ssl-secret"]))
            pair = read_certificate(secret)
            certificate = referred.keep(pair.path, pair.content)
            path, content = read_authorities(secret)
            ca = referred.keep(path, content)
        except ValueError as error:
            told.close("proxy-ssl-secret", str(error))
            return None
    verify = found.get("proxy-ssl-verify", "off") == "on"
    if verify and not ca:
        told.close("proxy-ssl-verify", "there is no proxy-ssl-secret with the CA to verify with")
        return None
    return ProxySSL(
        certificate=certificate,
        ca=ca,
        verify=verify,
        verify_depth=found.get("proxy-ssl-verify-depth", 1),
        ciphers=found.get("proxy-ssl-ciphers", ""),
        protocols=found.get("proxy-ssl-protocols", ""),
        name=found.get("proxy-ssl-name", ""),
        server_name=found.get("proxy-ssl-server-name", "off") == "on",
    )


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
        told.close("fastcgi-params-configmap", str(error))
        return {}


def _parameter(text: str) -> str:
    if not values.re.match(r"[A-Z][A-Z0-9_]{0,63}\Z", text):
        raise ValueError(f"{values.quoted(text)} is not the name of a parameter such as SCRIPT_FILENAME")
    return text


def _parameter_text(text: str) -> str:
    values.check_variables(text, ("fastcgi_script_name", "document_root", "request_uri", "query_string", "uri"))
    return values.header_text(text)


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
