"""The auth server of all Ingresses that do not opt out: the keys `global-auth-*` of the ConfigMap."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from rulegen.model.ingress.ir import ExternalAuth
from rulegen.model.ingress.policy.authentication import AUTH_SERVER, auth_cache, target_of_url
from rulegen.model.ingress.values import readers
from rulegen.model.ingress.values.annotations import access
from rulegen.model.ingress.values.annotations.signin import signin_url, with_way_back
from rulegen.model.ingress.values.setting import SettingGuard
from rulegen.model.ingress.values.texts import Text

if TYPE_CHECKING:
    from collections.abc import Callable

    from rulegen.model.ingress.proxying import AuthCache
    from rulegen.model.ingress.upstreams.services import Targets
    from rulegen.model.ingress.values.configmap import ResolvedSettings
    from rulegen.model.ingress.values.settings import Settings

T = TypeVar("T")


def with_auth_faults(read: ResolvedSettings) -> ResolvedSettings:
    """Return settings with the invalid value of a key `global-auth-*`, if there is one, among their faults."""
    try:
        _read(read.settings)
    except ValueError as error:
        fault = SettingGuard.WITHOUT_AUTH, f"data.global-auth-{error}"
        return read._replace(faults=(*read.faults, fault), where=read.where or "settings")
    return read


def global_auth(settings: Settings, targets: Targets) -> ExternalAuth | None:
    """Return the auth server for all Ingresses that do not opt out; None for none.

    Raises:
        ValueError: A setting is invalid, or the server cannot be used. Clients that it rejects must not be admitted.
    """
    auth = _read(settings)
    if auth is None:
        return None
    try:
        return replace(auth, target=target_of_url(auth.url, targets, AUTH_SERVER))
    except ValueError as error:
        raise ValueError(f"url: {error}") from None


def _read(settings: Settings) -> ExternalAuth | None:
    """Return the auth server without its upstream; None for none.

    Raises:
        ValueError: A value is invalid. The message begins with the key, without `global-auth-`.
    """
    if not settings.global_auth_url:
        return None
    signin, redirect = settings.global_auth_signin, settings.global_auth_request_redirect
    parameter = _value("signin-redirect-param", readers.header_name, settings.global_auth_signin_redirect_param)
    signin_text = _value("signin", signin_url, signin) if signin else None
    return ExternalAuth(
        url=_value("url", _auth_url, settings.global_auth_url),
        target="",
        method=settings.global_auth_method,
        signin=with_way_back(signin_text, parameter) if signin_text is not None else Text(),
        response_headers=_value("response-headers", readers.settable_headers, settings.global_auth_response_headers),
        request_redirect=_value("request-redirect", access.AUTH_REQUEST_REDIRECT.read, redirect)
        if redirect
        else Text(),
        always_set_cookie=settings.global_auth_always_set_cookie,
        cache=_cache(settings),
    )


def _cache(settings: Settings) -> AuthCache | None:
    """Return which answers hold again; None for none.

    Raises:
        ValueError: A value is invalid. The message begins with the key, without `global-auth-`.
    """
    key = settings.global_auth_cache_key
    read = _value("cache-key", access.AUTH_CACHE_KEY.read, key) if key else Text()
    return auth_cache(
        read, _value("cache-duration", access.AUTH_CACHE_DURATION.read, settings.global_auth_cache_duration)
    )


def _value(key: str, read: Callable[[str], T], text: str) -> T:
    try:
        return read(text)
    except ValueError as error:
        raise ValueError(f"{key}: {error}") from None


def _auth_url(text: str) -> readers.Url:
    url = access.auth_url(text)
    if url.name.literal is None:
        raise ValueError("with the request's host in it, a client could choose the auth server")
    if url.host and readers.is_private_to_node(url.host):
        raise ValueError(f"{readers.quoted(url.host)} is the node itself, which cannot be {AUTH_SERVER}")
    return url
