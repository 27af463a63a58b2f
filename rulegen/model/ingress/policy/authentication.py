"""Authentication by password, auth server or client certificate. If it is unusable, the Ingress is closed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rulegen.model.ingress.ir import BasicAuth, ClientAuth, ClientCertificate, ExternalAuth, ToUpstream
from rulegen.model.ingress.proxying import AuthCache, Keepalive
from rulegen.model.ingress.reasons import Verdict
from rulegen.model.ingress.unread import UnreadError
from rulegen.model.ingress.upstreams.certificates import (
    UnusableSecretError,
    read_authorities,
    read_passwords,
    slow_hash,
)
from rulegen.model.ingress.upstreams.revocations import EMPTY_REVOCATIONS, has_empty_revocations, read_revocations
from rulegen.model.ingress.upstreams.services import UpstreamOptions
from rulegen.model.ingress.values import readers
from rulegen.model.ingress.values.annotations import access, tls
from rulegen.model.ingress.values.annotations.signin import with_way_back
from rulegen.model.ingress.values.texts import Text

if TYPE_CHECKING:
    from rulegen.model.ingress.upstreams.referenced_objects import Referred
    from rulegen.model.ingress.upstreams.services import Targets
    from rulegen.model.ingress.values.annotations.reading import Annotations
    from rulegen.model.ingress.values.readers import Url

AUTH_SERVER: Final = "an auth server"
_CERTIFICATES: Final = {
    "on": ClientCertificate.REQUIRED,
    "optional": ClientCertificate.OPTIONAL,
    "optional_no_ca": ClientCertificate.UNVERIFIED,
    "off": ClientCertificate.NONE,
}
"""Meaning of the values of auth-tls-verify-client."""


def client_auth_of(namespace: str, annotations: Annotations, referred: Referred) -> ClientAuth | None:
    """Return the verification of client certificates; None for none. Without a usable CA, all clients are rejected."""
    values = annotations.values
    reference = values[tls.AUTH_TLS_SECRET]
    if reference is None and tls.AUTH_TLS_SECRET not in annotations.failed:
        return None
    ca = revoked = ""
    if reference is not None:
        try:
            secret = referred.secret(referred.own(namespace, reference))
            path, content = read_authorities(secret)
            if (lists := read_revocations(secret)) is not None:
                revoked = referred.keep(*lists)
            elif has_empty_revocations(secret):
                annotations.report(Verdict.NOTE, tls.AUTH_TLS_SECRET, EMPTY_REVOCATIONS)
            ca = referred.keep(path, content)
        except UnreadError as error:
            annotations.close(tls.AUTH_TLS_SECRET, error)
        except ValueError as error:
            annotations.close(tls.AUTH_TLS_SECRET, f"{error}: all requests are rejected")
    return ClientAuth(
        ca=ca,
        revoked=revoked,
        certificate=_CERTIFICATES[values[tls.AUTH_TLS_VERIFY_CLIENT]],
        depth=values[tls.AUTH_TLS_VERIFY_DEPTH],
        match=values[tls.AUTH_TLS_MATCH_CN],
        error_page=values[tls.AUTH_TLS_ERROR_PAGE],
        pass_certificate=values[tls.AUTH_TLS_PASS_CERTIFICATE_TO_UPSTREAM],
    )


def basic_auth(namespace: str, annotations: Annotations, referred: Referred) -> BasicAuth | None:
    """Return the basic authentication of an Ingress; None for none. Without a usable password file, it is closed."""
    values = annotations.values
    if values[access.AUTH_TYPE] is None:
        return None
    reference = values[access.AUTH_SECRET]
    if reference is None:
        annotations.close(access.AUTH_TYPE, "it needs auth-secret")
        return None
    try:
        secret = referred.secret(referred.own(namespace, reference))
        path, content = read_passwords(secret, values[access.AUTH_SECRET_TYPE])
    except UnusableSecretError as error:
        annotations.close(access.AUTH_SECRET, f"Secret {namespace}/{reference[1]} cannot be used: {error}")
        return None
    except ValueError as error:
        annotations.close(access.AUTH_SECRET, error)
        return None
    if slow := slow_hash(content):
        message = f"it has {slow}: each request with a password keeps a worker busy, for about 1 s with cost 14"
        annotations.report(Verdict.NOTE, access.AUTH_SECRET, message)
    return BasicAuth(realm=values[access.AUTH_REALM], file=referred.keep(path, content, for_workers=True))


def external_auth(namespace: str, annotations: Annotations, referred: Referred) -> ExternalAuth | None:
    """Return the auth server of an Ingress; None for none. If it is unusable, the Ingress is closed."""
    values = annotations.values
    url = values[access.AUTH_URL]
    if url is None:
        return None
    try:
        target = target_of_url(url, referred.targets, AUTH_SERVER, _kept(annotations))
        headers: tuple[tuple[str, Text], ...] = ()
        if (reference := values[access.AUTH_PROXY_SET_HEADERS]) is not None:
            headers = referred.request_headers(referred.own(namespace, reference))
    except ValueError as error:
        annotations.close(access.AUTH_URL, error)
        return None
    if not target and values[access.AUTH_KEEPALIVE]:
        message = (
            "no connections are kept to an auth server that is not a Service: its name is resolved for each request"
        )
        annotations.report(Verdict.IGNORED, access.AUTH_KEEPALIVE, message)
    signin = values[access.AUTH_SIGNIN]
    return ExternalAuth(
        url=url,
        target=target,
        method=values[access.AUTH_METHOD],
        signin=with_way_back(signin, values[access.AUTH_SIGNIN_REDIRECT_PARAM]) if signin is not None else Text(),
        response_headers=values[access.AUTH_RESPONSE_HEADERS],
        request_redirect=values[access.AUTH_REQUEST_REDIRECT],
        always_set_cookie=values[access.AUTH_ALWAYS_SET_COOKIE],
        set_headers=headers,
        cache=auth_cache(values[access.AUTH_CACHE_KEY], values[access.AUTH_CACHE_DURATION]),
    )


def _kept(annotations: Annotations) -> Keepalive | None:
    """Return the idle connections to an auth server; None for those of the settings."""
    values = annotations.values
    connections = values[access.AUTH_KEEPALIVE]
    if connections is None:
        return None
    requests, timeout_s = values[access.AUTH_KEEPALIVE_REQUESTS], values[access.AUTH_KEEPALIVE_TIMEOUT]
    return Keepalive(connections if requests and timeout_s else 0, requests, timeout_s)


def auth_cache(key: Text, kept: access.Kept) -> AuthCache | None:
    """Return which answers of an auth server are reused; None without a key."""
    return AuthCache(key=key, kept=kept) if key else None


def target_of_url(url: Url, targets: Targets, what: str, kept: Keepalive | None = None) -> str:
    """Return the upstream of the Service that a URL names; empty if the engine must resolve the host.

    Args:
        url: Where to.
        targets: The Services.
        what: What the server would be, for messages.
        kept: The idle connections to it; None for those of the settings.

    Raises:
        ValueError: An Ingress may not use this host, or there is no name server to resolve it.
    """
    if not url.host:
        if not targets.resolves:
            raise ValueError("no DNS server is configured to resolve the request's host")
        return ""
    if readers.is_private_to_node(url.host):
        raise ValueError(f"{readers.quoted(url.host)} is the node itself, which cannot be {what}")
    is_tls = url.scheme == "https"
    port = url.port or (443 if is_tls else 80)
    if why := targets.refusal_of_host(url.host, port):
        raise ValueError(f"{why}, which cannot be {what}")
    # The server name is part of the key: a TLS connection to another name must not be reused.
    options = UpstreamOptions(transport=f"HTTPS {url.host}" if is_tls else "", kept=kept)
    inside = targets.of_host(url.host, port, options)
    if inside is not None:
        target, why = inside
        if isinstance(target, ToUpstream):
            return target.upstream
        raise ValueError(why)
    if not targets.resolves and not readers.re.match(r"[0-9.]+\Z|\[", url.host):
        raise ValueError(f"no DNS server is configured to resolve {readers.quoted(url.host)}")
    return ""
