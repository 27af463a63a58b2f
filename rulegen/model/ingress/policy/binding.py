"""Replaces variables about the location, such as the name of the Service, by their values, which are known."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from rulegen.model.ingress.values.readers import writable
from rulegen.model.ingress.values.texts import OF_LOCATION

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from rulegen.model.ingress.ir import ExternalAuth, LocationPolicy
    from rulegen.model.ingress.values.texts import Subject, Text


def names_location(policy: LocationPolicy) -> bool:
    """Whether a text of a policy refers to its location."""
    return any(not OF_LOCATION.isdisjoint(text.subjects) for text in _texts(policy))


def bound(policy: LocationPolicy, values: Mapping[Subject, str]) -> LocationPolicy:
    """Return a policy in whose texts variables about the location are replaced by values."""
    return replace(
        policy,
        redirect=(policy.redirect[0], policy.redirect[1].bound(values)) if policy.redirect is not None else None,
        upstream_vhost=policy.upstream_vhost.bound(values),
        forwarded_prefix=policy.forwarded_prefix.bound(values),
        external_auth=_bound_auth(policy.external_auth, values) if policy.external_auth is not None else None,
        scripts={name: text.bound(values) for name, text in policy.scripts.items()},
    )


def check_length(policy: LocationPolicy) -> None:
    """Check that each text of a policy is short enough for a configuration.

    Raises:
        ValueError: A text is too long.
    """
    for text in _texts(policy):
        writable("".join(part if isinstance(part, str) else "$" for part in text.parts))


def _bound_auth(auth: ExternalAuth, values: Mapping[Subject, str]) -> ExternalAuth:
    return replace(
        auth,
        url=auth.url.bound(values),
        signin=auth.signin.bound(values),
        request_redirect=auth.request_redirect.bound(values),
        set_headers=tuple((name, text.bound(values)) for name, text in auth.set_headers),
    )


def _texts(policy: LocationPolicy) -> Iterator[Text]:
    yield policy.upstream_vhost
    yield policy.forwarded_prefix
    if policy.redirect is not None:
        yield policy.redirect[1]
    if (auth := policy.external_auth) is not None:
        yield from (auth.url.name, auth.url.rest, auth.signin, auth.request_redirect)
        yield from (text for _, text in auth.set_headers)
    yield from policy.scripts.values()
