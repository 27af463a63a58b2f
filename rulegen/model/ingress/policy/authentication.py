"""Who may: passwords, another server that is asked, and certificates of clients. What cannot be had closes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rulegen.errors import ConfigError
from rulegen.model.ingress.ir import BasicAuth, ClientAuth, ExternalAuth, ToUpstream
from rulegen.model.ingress.unread import UnreadError
from rulegen.model.ingress.upstreams.certificates import UnusableSecretError, read_authorities, read_passwords
from rulegen.model.ingress.upstreams.services import UpstreamOptions
from rulegen.model.ingress.values import readers
from rulegen.model.ingress.values.annotations import RULES

if TYPE_CHECKING:
    from rulegen.model.ingress.upstreams.referenced_objects import Referred
    from rulegen.model.ingress.upstreams.services import Targets
    from rulegen.model.ingress.values.annotations import Annotations
    from rulegen.model.ingress.values.readers import Url
    from rulegen.model.ingress.values.settings import Settings


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
        except UnreadError as error:
            told.close("auth-tls-secret", error)
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


def basic_auth(namespace: str, told: Annotations, referred: Referred) -> BasicAuth | None:
    """Return whether a password is asked for; without the file that it needs, nobody may."""
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
        told.close("auth-secret", error)
        return None
    return BasicAuth(realm=found.get("auth-realm", ""), file=referred.keep(path, content, for_workers=True))


def external_auth(namespace: str, told: Annotations, referred: Referred) -> ExternalAuth | None:
    """Return the server that is asked about each request of an Ingress."""
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
        told.close("auth-url", error)
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
            redirect_param=readers.header_name(settings.global_auth_signin_redirect_param),
            response_headers=readers.settable_headers(settings.global_auth_response_headers),
            request_redirect=RULES["auth-request-redirect"].read(redirect) if redirect else "",
            always_set_cookie=settings.global_auth_always_set_cookie,
        )
    except ValueError as error:
        raise ConfigError(f"global-auth-*: {error}") from None


def auth_target(url: Url, targets: Targets) -> str:
    """Return the upstream of the Service that a URL names; empty where nginx must resolve the name.

    Raises:
        ValueError: No Ingress may name the host, or nothing can resolve it.
    """
    if readers.is_private_to_node(url.host):
        raise ValueError(f"{readers.quoted(url.host)} is the node itself: an auth server is never there")
    is_tls = url.scheme == "https"
    port = url.port or (443 if is_tls else 80)
    if why := targets.refusal_of_host(url.host, port):
        raise ValueError(f"{why}: an auth server is never there")
    # The name is part of how TLS is spoken: a connection that was made with another must not serve.
    wish = UpstreamOptions(transport=f"HTTPS {url.host}" if is_tls else "")
    inside = targets.of_host(url.host, port, wish)
    if inside is not None:
        target, why = inside
        if isinstance(target, ToUpstream):
            return target.upstream
        raise ValueError(why)
    if not targets.resolves and not readers.re.match(r"[0-9.]+\Z|\[", url.host):
        raise ValueError(f"there is no name server to resolve {readers.quoted(url.host)} with")
    return ""
