"""Annotations about a whole host: one of its Ingresses decides; a different value in another one is reported."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from rulegen.model.ingress.reasons import Verdict
from rulegen.model.ingress.values.annotations.routing import APP_ROOT
from rulegen.model.ingress.values.annotations.tls import AUTH_TLS_SECRET

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rulegen.model.ingress.ir import ClientAuth, Location
    from rulegen.model.ingress.routing.ingresses import ResolvedIngress
    from rulegen.model.ingress.values.annotations.annotation import Annotation

T = TypeVar("T")


def of_oldest(owners: Iterable[ResolvedIngress], annotation: Annotation[T | None], host: str) -> T | None:
    """Return the value of an annotation about a whole host: that of the oldest Ingress with it; None for none."""
    having = [owner for owner in owners if annotation in owner.annotations.values]
    if not having:
        return None
    decided = having[0].annotations.values[annotation]
    _report(having[0], [owner for owner in having if owner.annotations.values[annotation] != decided], annotation, host)
    return decided


def client_auth_of_host(owners: Iterable[ResolvedIngress], host: str) -> ClientAuth | None:
    """Return the verification of client certificates of a host: that of the first Ingress with a CA."""
    having = [owner for owner in owners if owner.client_auth is not None]
    if not having:
        return None
    decided = having[0].client_auth
    _report(having[0], [owner for owner in having if owner.client_auth != decided], AUTH_TLS_SECRET, host)
    return decided


def app_root_of_host(owners: Iterable[ResolvedIngress], locations: Sequence[Location], host: str) -> str:
    """Return the path to which `/` of a host is redirected; empty for none.

    As with ingress-nginx, of several Ingresses the one with the longest path decides.
    """
    having = {owner.name: owner for owner in owners if owner.policy.app_root}
    if len(having) < 2:
        return next((owner.policy.app_root for owner in having.values()), "")
    sources = [(len(known.source), known.source, known.ingress) for known in locations if known.ingress in having]
    longest = max(sources, key=lambda source: source[:2], default=None)
    decided = having[longest[2]] if longest is not None and longest[2] is not None else next(iter(having.values()))
    others = [owner for owner in having.values() if owner.policy.app_root != decided.policy.app_root]
    _report(decided, others, APP_ROOT, host)
    return decided.policy.app_root


def _report(
    decided: ResolvedIngress, others: Iterable[ResolvedIngress], annotation: Annotation[Any], host: str
) -> None:
    for owner in others:
        message = f"it applies to a whole host, and Ingress {decided.name} decides for {host or 'the default server'}"
        owner.annotations.report(Verdict.LOST, annotation, message)
