"""Additional names of hosts: aliases, and the name with or without `www.`.

They never replace the name of a host, except of a host with nothing but closed replacements of younger Ingresses.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rulegen.model.ingress.reasons import Verdict
from rulegen.model.ingress.routing.selection import age
from rulegen.model.ingress.values.annotations.routing import FROM_TO_WWW_REDIRECT, SERVER_ALIAS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from rulegen.model.ingress.ir import Server
    from rulegen.model.ingress.reasons import Reason
    from rulegen.model.ingress.routing.ingresses import ResolvedIngress


def with_other_names(
    servers: Mapping[str, Server],
    owners: Mapping[str, Iterable[ResolvedIngress]],
    reserved: Mapping[str, tuple[str, str, str]],
    replaced: Mapping[str, ResolvedIngress],
    reasons: set[Reason],
) -> dict[str, Server]:
    """Return the servers with additional names; the oldest Ingress that requests a name gets it.

    Args:
        servers: Servers by host.
        owners: Ingresses by host.
        reserved: Names that only older Ingresses get, with the age that counts.
        replaced: Hosts that have only closed replacements, each with the oldest of them.
        reasons: Receives reports about replaced hosts.
    """
    names = _Names(dict(servers), dict.fromkeys(servers, ""), reserved, replaced)
    ordered = sorted(
        ((owner, host) for host, asking in owners.items() for owner in asking if host),
        key=lambda pair: (age(pair[0].ingress), pair[1]),
    )
    for owner in owners.get("", ()):
        if len(owner.ingress.spec.rules) < 2:
            _tell_nameless(owner)
    for owner, host in ordered:
        for alias in owner.annotations.values[SERVER_ALIAS]:
            if names.take(alias, owner, host):
                names.named[host] = replace(names.named[host], aliases=(*names.named[host].aliases, alias))
            elif names.taken.get(alias) != host:
                owner.annotations.report(Verdict.LOST, SERVER_ALIAS, f"another Ingress has the host or alias {alias}")
    for owner, host in ordered:
        if not owner.annotations.values[FROM_TO_WWW_REDIRECT]:
            continue
        if host.startswith("*"):
            message = f"{host} is not a single name, with or without www."
            owner.annotations.report(Verdict.IGNORED, FROM_TO_WWW_REDIRECT, message)
            continue
        other = host.removeprefix("www.") if host.startswith("www.") else f"www.{host}"
        if names.take(other, owner, host):
            names.named[host] = replace(names.named[host], redirects_from=other)
        elif names.taken.get(other) != host:
            owner.annotations.report(Verdict.IGNORED, FROM_TO_WWW_REDIRECT, f"{other} has an Ingress of its own")
    return names.result(reasons)


@dataclass(slots=True)
class _Names:
    """The names of all hosts.

    Attributes:
        named: Servers by host.
        taken: The host that has each additional name; empty for the name of a host itself.
        reserved, replaced: See `with_other_names`.
    """

    named: dict[str, Server]
    taken: dict[str, str]
    reserved: Mapping[str, tuple[str, str, str]]
    replaced: Mapping[str, ResolvedIngress]

    def take(self, name: str, owner: ResolvedIngress, host: str) -> bool:
        """Give a name to a host, and return whether this Ingress may have it."""
        asks = age(owner.ingress)
        if name in self.reserved and self.reserved[name] < asks:
            return False
        if name in self.taken:
            known = self.replaced.get(name)
            if self.taken[name] or known is None or owner.is_replacement or age(known.ingress) < asks:
                return False
        self.taken[name] = host
        return True

    def result(self, reasons: set[Reason]) -> dict[str, Server]:
        """Return the servers. Other names of a replaced host remain closed if an older Ingress has its first name."""
        lost = [host for host in self.replaced if self.taken[host]]
        for host in lost:
            server = self.named.pop(host)
            message = f"the older Ingress of {self.taken[host]} has the additional name {host}, and gets its requests"
            reasons.add(self.replaced[host].reason(Verdict.LOST, "", message))
            others = (*server.aliases, *((server.redirects_from,) if server.redirects_from else ()))
            if others:
                self.named[others[0]] = replace(server, host=others[0], aliases=others[1:], redirects_from="")
        return dict(sorted(self.named.items())) if lost else self.named


def _tell_nameless(owner: ResolvedIngress) -> None:
    """Report annotations for names that have no effect in an Ingress without hosts."""
    if SERVER_ALIAS in owner.annotations.values:
        owner.annotations.report(Verdict.IGNORED, SERVER_ALIAS, "a rule without a host matches all names already")
    if owner.annotations.values[FROM_TO_WWW_REDIRECT]:
        owner.annotations.report(Verdict.IGNORED, FROM_TO_WWW_REDIRECT, "a rule without a host has no other name")
