"""Groups Ingresses that share hosts. The hosts of one group are decided together."""

from __future__ import annotations

from bisect import insort
from collections import defaultdict
from typing import TYPE_CHECKING

from rulegen.model.ingress.closing import UnservedIngress, aliases_of, hosts_of, names_of, wildcard_above
from rulegen.model.ingress.host_groups import HostGroup
from rulegen.model.ingress.routing.selection import age
from rulegen.model.ingress.values.annotations.routing import CANARY

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from collections.abc import Set as AbstractSet

    from rulegen.kube.objects.structs import Ingress


def grouped(ingresses: Sequence[Ingress], left_out: Sequence[UnservedIngress], prefix: str) -> tuple[HostGroup, ...]:
    """Return Ingresses in groups, in the same order, such that each host belongs to one group.

    One group has the host for all other names, even if no Ingress requests it. Both arguments are sorted by age,
    oldest first.
    """
    served, overtaking = hosts_and_overtaking(ingresses, prefix)
    members: list[Ingress | UnservedIngress] = [*ingresses, *(known for known in left_out if known.is_written)]
    parents = list(range(len(members)))
    first_of: dict[str, int] = {}

    def root(index: int) -> int:
        while parents[index] != index:
            parents[index] = index = parents[parents[index]]
        return index

    for index, member in enumerate(members):
        for host in member.hosts if isinstance(member, UnservedIngress) else _hosts_and_mains(member, prefix):
            first = first_of.setdefault(host, index)
            if first != index:
                first, here = root(first), root(index)
                parents[max(first, here)] = min(first, here)
    groups: dict[int, tuple[list[Ingress], list[UnservedIngress]]] = {}
    for index, member in enumerate(members):
        ours, others = groups.setdefault(root(index), ([], []))
        if isinstance(member, UnservedIngress):
            others.append(member)
        else:
            ours.append(member)
    other = root(first_of[""]) if "" in first_of else None
    unwritten: defaultdict[int | None, list[UnservedIngress]] = defaultdict(list)
    for known in left_out:
        if not known.is_written:
            for at in {root(first_of[host]) for host in (*known.hosts, *_below(known, served)) if host in first_of}:
                unwritten[at].append(known)
    return (
        *(
            HostGroup(
                tuple(ours), first == other, (*others, *unwritten[first]), _overtaken(ours, others, overtaking, prefix)
            )
            for first, (ours, others) in groups.items()
        ),
        *([HostGroup((), has_other_hosts=True)] if other is None else ()),
    )


def hosts_and_overtaking(ingresses: Iterable[Ingress], prefix: str) -> tuple[frozenset[str], frozenset[str]]:
    """Return the hosts of Ingresses, and the hosts and additional names to which requests for other hosts may go."""
    served = frozenset(host for ingress in ingresses for host in hosts_of(ingress))
    aliases = (alias for ingress in ingresses for alias in aliases_of(ingress, prefix))
    return served, frozenset(host for host in served if not host or host.startswith("*")).union(aliases)


def with_changed(
    groups: tuple[HostGroup, ...],
    hosts: frozenset[str],
    overtaking: frozenset[str],
    gone: Sequence[Ingress],
    new: Iterable[Ingress],
    prefix: str,
) -> tuple[tuple[HostGroup, ...], frozenset[str]] | None:
    """Return groups and hosts after a change of few Ingresses that share no host with others; None if they may.

    Args:
        groups: The groups, none of which has an Ingress that is not served.
        hosts: The hosts of all Ingresses.
        overtaking: See `hosts_and_overtaking`.
        gone: The Ingresses that are not there any more.
        new: Those that are new.
        prefix: Prefix of annotations that have a meaning.
    """
    # An additional name, the default server and a wildcard host concern the hosts of others.
    for ingress in (*gone, *new):
        if aliases_of(ingress, prefix) or any(not x or x.startswith("*") for x in _hosts_and_mains(ingress, prefix)):
            return None
    alone = {id(ingress) for ingress in gone}
    kept = [group for group in groups if len(group.ingresses) != 1 or id(group.ingresses[0]) not in alone]
    if len(groups) - len(kept) != len(gone):  # one of them shared a host with others
        return None
    left = hosts.difference(*(hosts_of(ingress) for ingress in gone))
    last = [kept.pop()] if kept and not kept[-1].ingresses else []
    for ingress in new:
        own = hosts_of(ingress)
        if not own or not left.isdisjoint(own):
            return None
        left |= own
        insort(
            kept,
            HostGroup((ingress,), has_other_hosts=False, overtaken=_overtaken([ingress], (), overtaking, prefix)),
            key=lambda group: age(group.ingresses[0]),
        )
    return (*kept, *last), left


def _hosts_and_mains(ingress: Ingress, prefix: str) -> set[str]:
    """Return the hosts of an Ingress; with the default server if it is a canary whose default backend joins others."""
    hosts = hosts_of(ingress)
    is_canary = f"{prefix}/{CANARY.name}" in ingress.metadata.annotations
    return {*hosts, ""} if is_canary and ingress.spec.default_backend is not None else hosts


def _below(left_out: UnservedIngress, served: Iterable[str]) -> list[str]:
    """Return the hosts that have TLS because of a wildcard host of an Ingress that is not served."""
    wildcards = {host for host in hosts_of(left_out.ingress) if host.startswith("*")}
    if not wildcards or not left_out.ingress.spec.tls:
        return []
    return [host for host in served if wildcard_above(host) in wildcards]


def _overtaken(
    ingresses: Iterable[Ingress], left_out: Iterable[UnservedIngress], overtaking: AbstractSet[str], prefix: str
) -> frozenset[str]:
    """Return the hosts of a group whose requests go to a server of another name, if they have none of their own."""
    if not overtaking:  # most clusters have no wildcard host
        return frozenset()
    members = (*ingresses, *(known.ingress for known in left_out))
    hosts = {host for ingress in members for host in names_of(ingress, prefix) if host}
    if "" in overtaking:
        return frozenset(hosts)
    return frozenset(host for host in hosts if host in overtaking or wildcard_above(host) in overtaking)


def reserved_names(left_out: Iterable[UnservedIngress], prefix: str) -> dict[str, tuple[str, str, str]]:
    """Return the names of Ingresses over a limit, which no younger Ingress gets as additional names.

    The age of a name is that of the oldest such Ingress.
    """
    reserved: dict[str, tuple[str, str, str]] = {}
    for known in left_out:  # oldest first
        if not known.is_written:
            for name in names_of(known.ingress, prefix):
                reserved.setdefault(name, age(known.ingress))
    return reserved
