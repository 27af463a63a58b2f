"""The auth server of all Ingresses that do not opt out: the keys `global-auth-*` of the ConfigMap."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, TypeVar

from rulegen.model.ingress.ir import ExternalAuth
from rulegen.model.ingress.policy.authentication import AUTH_SERVER, auth_cache, target_of_url
from rulegen.model.ingress.values import readers
from rulegen.model.ingress.values.annotations import access
from rulegen.model.ingress.values.annotations.annotation import NO_NAMES
from rulegen.model.ingress.values.annotations.signin import signin_url, with_way_back
from rulegen.model.ingress.values.setting import SettingGuard
from rulegen.model.ingress.values.texts import Text

if TYPE_CHECKING:
    from collections.abc import Callable

    from rulegen.model.ingress.upstreams.services import Targets
    from rulegen.model.ingress.values.configmap import ResolvedSettings
    from rulegen.model.ingress.values.settings import Settings

T = TypeVar("T")


def with_auth_faults(read: ResolvedSettings) -> ResolvedSettings:
    """Return settings with each invalid value of a key `global-auth-*` among their faults."""
    _, faults = _read(read.settings)
    if not faults:
        return read
    lines = tuple((SettingGuard.WITHOUT_AUTH, f"data.global-auth-{fault}") for fault in faults)
    return read._replace(faults=(*read.faults, *lines), where=read.where or "settings")


def global_auth(settings: Settings, targets: Targets) -> ExternalAuth | None:
    """Return the auth server for all Ingresses that do not opt out; None for none.

    Raises:
        ValueError: A setting is invalid, or the server cannot be used. Clients that it rejects must not be admitted.
    """
    auth, faults = _read(settings)
    if faults:
        raise ValueError(faults[0])
    if auth is None:
        return None
    try:
        return replace(auth, target=target_of_url(auth.url, targets, AUTH_SERVER))
    except ValueError as error:
        raise ValueError(f"url: {error}") from None


class _Values:
    """Reads the values of the keys.

    Attributes:
        faults: For each invalid value, the key without `global-auth-`, and the reason.
    """

    def __init__(self) -> None:
        self.faults: list[str] = []

    def read(self, key: str, read: Callable[[str], T], text: str, otherwise: T) -> T:
        """Return the value of a text, or the other one if the text is empty or invalid."""
        if not text:
            return otherwise
        try:
            return read(text)
        except ValueError as error:
            self.faults.append(f"{key}: {error}")
            return otherwise


def _read(settings: Settings) -> tuple[ExternalAuth | None, list[str]]:
    """Return the auth server without its upstream, None for none, and the faults of all keys."""
    if not settings.global_auth_url:
        return None, []
    values = _Values()
    url = values.read("url", _auth_url, settings.global_auth_url, None)
    signin = values.read("signin", signin_url, settings.global_auth_signin, None)
    parameter = values.read(
        "signin-redirect-param", readers.header_name, settings.global_auth_signin_redirect_param, ""
    )
    headers = values.read("response-headers", readers.settable_headers, settings.global_auth_response_headers, NO_NAMES)
    redirect = values.read(
        "request-redirect", access.AUTH_REQUEST_REDIRECT.read, settings.global_auth_request_redirect, Text()
    )
    key = values.read("cache-key", access.AUTH_CACHE_KEY.read, settings.global_auth_cache_key, Text())
    kept = values.read(
        "cache-duration", access.AUTH_CACHE_DURATION.read, settings.global_auth_cache_duration, access.DEFAULT_KEPT
    )
    if url is None or values.faults:
        return None, values.faults
    auth = ExternalAuth(
        url=url,
        target="",
        method=settings.global_auth_method,
        signin=with_way_back(signin, parameter) if signin is not None else Text(),
        response_headers=headers,
        request_redirect=redirect,
        always_set_cookie=settings.global_auth_always_set_cookie,
        cache=auth_cache(key, kept),
    )
    return auth, []


def _auth_url(text: str) -> readers.Url:
    url = access.auth_url(text)
    if url.name.literal is None:
        raise ValueError("with the request's host in it, a client could choose the auth server")
    if url.host and readers.is_private_to_node(url.host):
        raise ValueError(f"{readers.quoted(url.host)} is the node itself, which cannot be {AUTH_SERVER}")
    return url
