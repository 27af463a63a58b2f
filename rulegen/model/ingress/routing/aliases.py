"""Additional names of hosts: aliases, and the name with or without `www.`; they never replace the name of a host."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from rulegen.model.ingress.reasons import Verdict
from rulegen.model.ingress.routing.ingresses import age
from rulegen.model.ingress.values.annotations.routing import FROM_TO_WWW_REDIRECT, SERVER_ALIAS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from rulegen.model.ingress.ir import Server
    from rulegen.model.ingress.routing.ingresses import ResolvedIngress


def with_other_names(
    servers: Mapping[str, Server],
    owners: Mapping[str, Iterable[ResolvedIngress]],
    reserved: Mapping[str, tuple[str, str, str]],
) -> dict[str, Server]:
    """Return the servers with additional names; the oldest Ingress that requests a name gets it.

    Args:
        servers: Servers by host.
        owners: Ingresses by host.
        reserved: Names that only older Ingresses get, with the age that counts.
    """
    named = dict(servers)
    taken = dict.fromkeys(servers, "")
    ordered = sorted(
        ((owner, host) for host, asking in owners.items() for owner in asking if host),
        key=lambda pair: (age(pair[0].ingress), pair[1]),
    )
    for owner in owners.get("", ()):
        if len(owner.ingress.spec.rules) < 2:
            _tell_nameless(owner)
    for owner, host in ordered:
        for alias in owner.annotations.values[SERVER_ALIAS]:
            if reserved.get(alias, age(owner.ingress)) < age(owner.ingress):
                owner.annotations.report(Verdict.LOST, SERVER_ALIAS, f"another Ingress has the host or alias {alias}")
            elif alias not in taken:
                taken[alias] = host
                named[host] = replace(named[host], aliases=(*named[host].aliases, alias))
            elif taken[alias] != host:
                owner.annotations.report(Verdict.LOST, SERVER_ALIAS, f"another Ingress has the host or alias {alias}")
    for owner, host in ordered:
        if not owner.annotations.values[FROM_TO_WWW_REDIRECT]:
            continue
        if host.startswith("*"):
            message = f"{host} is not a single name, with or without www."
            owner.annotations.report(Verdict.IGNORED, FROM_TO_WWW_REDIRECT, message)
            continue
        other = host.removeprefix("www.") if host.startswith("www.") else f"www.{host}"
        if other not in taken and other not in reserved:
            taken[other] = host
            named[host] = replace(named[host], redirects_from=other)
        elif taken.get(other) != host:
            owner.annotations.report(Verdict.IGNORED, FROM_TO_WWW_REDIRECT, f"{other} has an Ingress of its own")
    return named


def _tell_nameless(owner: ResolvedIngress) -> None:
    """Report annotations for names that have no effect in an Ingress without hosts."""
    if SERVER_ALIAS in owner.annotations.values:
        owner.annotations.report(Verdict.IGNORED, SERVER_ALIAS, "a rule without a host matches all names already")
    if owner.annotations.values[FROM_TO_WWW_REDIRECT]:
        owner.annotations.report(Verdict.IGNORED, FROM_TO_WWW_REDIRECT, "a rule without a host has no other name")
