"""Ingresses that are closed because of an Ingress that is not served, or that protects whole hosts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from rulegen.errors import internal_error
from rulegen.kube.objects.names import ObjectKey, ObjectName
from rulegen.model.ingress.closing import INGRESS, Guard, UnservedIngress, held, hosts_of
from rulegen.model.ingress.ir import LocationPolicy
from rulegen.model.ingress.reasons import Reason, Verdict
from rulegen.model.ingress.routing.ingresses import ReadIngress, ResolvedIngress, age
from rulegen.model.ingress.values.annotations.reading import Annotations

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rulegen.kube.objects.structs import Ingress

_HELD = "its paths answer 503, because it may keep requests out of {}"


class Guarding(NamedTuple):
    """An Ingress that is not served, and what it may protect."""

    left_out: UnservedIngress
    guard: Guard


@dataclass(slots=True)
class Owners:
    """The Ingresses of a group as they were read.

    Attributes:
        served: Served Ingresses, oldest first; after `hold`, also closed replacements of those that are not served.
        guarding: Ingresses that are not served and may protect something.
        reasons: Why they are not served as written.
    """

    served: list[ResolvedIngress] = field(default_factory=list)
    guarding: list[Guarding] = field(default_factory=list)
    reasons: list[Reason] = field(default_factory=list)

    def read(self, ingress: Ingress, read: Callable[[Ingress], ReadIngress]) -> None:
        """Read an Ingress to serve. If this fails with an internal error, it is rejected, and may protect anything."""
        name = ObjectName(ingress.metadata.namespace, ingress.metadata.name)
        try:
            result = read(ingress)
        except Exception as error:  # noqa: BLE001 - a fault in one Ingress must not affect the others
            reason = Reason(ObjectKey(INGRESS, name), Verdict.REJECTED, "", internal_error(error))
            result = ReadIngress(None, [reason], Guard.HOSTS)
        self.reasons += result.reasons
        if result.owner is not None:
            self.served.append(result.owner)
        elif result.guard is not Guard.NOTHING:
            left_out = UnservedIngress.of(ingress, Verdict.REJECTED, hosts_of(ingress))
            self.guarding.append(Guarding(left_out, result.guard))

    def leave_out(self, left_out: UnservedIngress, read: Callable[[Ingress], ReadIngress]) -> None:
        """Record an Ingress that is not served. If it cannot be read, it may protect anything."""
        try:
            guard = read(left_out.ingress).guard
        except Exception:  # noqa: BLE001 - it is not served, and the reason is reported already
            guard = Guard.HOSTS
        if guard is not Guard.NOTHING:
            self.guarding.append(Guarding(left_out, guard))

    def hold(self, prefix: str) -> dict[str, dict[str, str]]:
        """Add the closed replacements of Ingresses that are not served.

        Returns:
            Why paths are closed, by host and namespace; an empty namespace stands for all. If the Ingress is in the
            namespace that had the host first, it closes all paths, otherwise only those of its own namespace.
        """
        hosts = {host for owner in self.served if not owner.is_canary for host in hosts_of(owner.ingress)}
        unwritten: list[tuple[Guarding, frozenset[str]]] = []
        for guarding in self.guarding:
            left_out, guard = guarding
            if not left_out.is_written:
                unwritten.append((guarding, left_out.hosts))
                continue
            instead = held(left_out, prefix, hosts)
            unwritten.append((guarding, instead.unwritten))
            about = ObjectKey(INGRESS, left_out.name)
            policy = LocationPolicy(is_closed=True, global_auth=False)
            self.served.append(
                ResolvedIngress(
                    left_out.name,
                    instead.ingress,
                    Annotations(about, prefix),
                    policy,
                    is_canary=False,
                    is_closed_by_settings=True,
                )
            )
            self.reasons.append(Reason(about, Verdict.CLOSED, "", _HELD.format(guard.value)))
        self.served.sort(key=lambda owner: age(owner.ingress))
        return _closers(self.served, unwritten)


def _closers(
    owners: Sequence[ResolvedIngress], guarding: Sequence[tuple[Guarding, frozenset[str]]]
) -> dict[str, dict[str, str]]:
    """Return why paths are closed, by host and namespace.

    Args:
        owners: The served Ingresses, oldest first.
        guarding: Ingresses that are not served, with the hosts where it is unknown which requests they protect.
    """
    closers: dict[str, dict[str, str]] = {}
    if not guarding and not any(owner.closes_hosts for owner in owners):  # most groups
        return closers
    first: dict[str, str] = {}
    for owner in owners:
        if owner.is_canary:
            continue
        for host in hosts_of(owner.ingress):
            namespace = first.setdefault(host, owner.name.namespace)
            if owner.closes_hosts:
                whose = "" if namespace == owner.name.namespace else owner.name.namespace
                message = f"server-snippet of Ingress {owner.name} may keep requests out"
                closers.setdefault(host, {}).setdefault(whose, message)
    for (left_out, guard), unclear in guarding:
        namespace, message = left_out.name.namespace, left_out.message(guard)
        for host in left_out.hosts if guard is Guard.HOSTS else unclear:
            whose = "" if guard is Guard.HOSTS and first.get(host) == namespace else namespace
            closers.setdefault(host, {}).setdefault(whose, message)
    return closers
