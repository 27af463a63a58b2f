"""Which Ingresses are served, oldest first, and why the others are not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from rulegen.kube.objects.names import ObjectKey
from rulegen.model.ingress.closing import INGRESS, UnservedIngress
from rulegen.model.ingress.grouping import grouped, hosts_and_overtaking, reserved_names, with_changed
from rulegen.model.ingress.host_groups import name_of
from rulegen.model.ingress.limits import NamespaceLimits
from rulegen.model.ingress.reasons import Reason, Verdict
from rulegen.model.ingress.routing.selection import in_order
from rulegen.model.ingress.upstreams.reads import RecordedMapping
from rulegen.model.ingress.values.classes import CATCH_ALL

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rulegen.kube.objects.names import ObjectName
    from rulegen.kube.objects.structs import Ingress, Secret
    from rulegen.kube.snapshot.world import ClusterSnapshot
    from rulegen.kube.validation.unusable_ingress import UnusableIngress
    from rulegen.model.ingress.host_groups import HostGroup
    from rulegen.model.ingress.options import IngressOptions

_INVALID: Final = "it is invalid: its faults are listed among the skipped objects"
_FEW: Final = 20


class Admission(NamedTuple):
    """The Ingresses that are served, and the inputs of this decision.

    Attributes:
        ingresses: All valid Ingresses.
        unusable: The others.
        decided_by: Other inputs.
        secrets: Secrets whose sizes were counted.
        groups: The served Ingresses, in groups; see `grouped`.
        reserved: Names of Ingresses over a limit; see `reserved_names`.
        reasons: Why the others are not served.
        for_few: For the next admission, if few Ingresses change; None if some are left out.
    """

    ingresses: Mapping[ObjectName, Ingress]
    unusable: Mapping[ObjectName, UnusableIngress]
    decided_by: tuple[object, ...]
    secrets: tuple[tuple[ObjectName, Secret | None], ...]
    groups: tuple[HostGroup, ...]
    reserved: Mapping[str, tuple[str, str, str]]
    reasons: tuple[Reason, ...]
    for_few: AdmissionIndex | None = None


class AdmissionIndex(NamedTuple):
    """What few new Ingresses are compared with, if no Ingress is left out.

    Attributes:
        hosts: The hosts of all Ingresses.
        overtaking: Hosts and additional names to which requests for other hosts may go.
        limits: At least what namespaces use.
    """

    hosts: frozenset[str]
    overtaking: frozenset[str]
    limits: NamespaceLimits


def admitted(world: ClusterSnapshot, options: IngressOptions, before: Admission | None) -> Admission:
    """Return the Ingresses that are served, oldest first, and why the others are not."""
    decided_by = (
        world.ingress_classes,
        world.namespaces if options.selection.namespace_selector is not None else {},
        options.selection,
        options.prefix,
        options.most_hosts,
        options.without,
    )
    if (
        before is not None
        and before.decided_by == decided_by
        and before.ingresses == world.ingresses
        and before.unusable == world.unusable
        and all(world.secrets.get(name) is known for name, known in before.secrets)
    ):
        return before
    if before is not None and (again := _readmitted(world, options, before, decided_by)) is not None:
        return again
    reasons: list[Reason] = []
    served: list[Ingress] = []
    left_out: list[UnservedIngress] = []
    secrets = RecordedMapping(world.secrets)
    limits = NamespaceLimits(options.most_hosts, options.prefix, secrets)
    for ingress in in_order((*world.ingresses.values(), *(known.ingress for known in world.unusable.values()))):
        name = name_of(ingress)
        key = ObjectKey(INGRESS, name)
        unusable = world.unusable.get(name)
        selection = options.selection
        refusal = selection.refusal(ingress, world) if unusable is None else selection.refuses(unusable, world)
        if refusal:
            path = "spec.defaultBackend" if refusal == CATCH_ALL else "spec.ingressClassName"
            reasons += [Reason(key, Verdict.SKIPPED, path, refusal)] if unusable is None else []
            continue
        if why := limits.refusal(ingress):
            verdict = Verdict.OVER_LIMIT
        elif unusable is not None:
            verdict, why = Verdict.REJECTED, _INVALID
        elif name in options.without:
            verdict, why = Verdict.QUARANTINED, options.without[name]
        else:
            served.append(ingress)
            continue
        reasons.append(Reason(key, verdict, "", why))
        may_guard_all = unusable is not None and not unusable.has_all_annotations
        left_out.append(UnservedIngress.of(ingress, verdict, options.prefix, may_guard_all=may_guard_all))
    return Admission(
        world.ingresses,
        world.unusable,
        decided_by,
        tuple(secrets.answers.items()),
        grouped(served, left_out, options.prefix),
        reserved_names(left_out, options.prefix),
        tuple(reasons),
        None if left_out else AdmissionIndex(*hosts_and_overtaking(served, options.prefix), limits),
    )


def _readmitted(
    world: ClusterSnapshot, options: IngressOptions, before: Admission, decided_by: tuple[object, ...]
) -> Admission | None:
    """Return the Ingresses that are served if few have changed, and no other is affected; None if that is unknown."""
    index = before.for_few
    if (
        index is None
        or before.decided_by != decided_by
        or before.unusable != world.unusable
        or any(world.secrets.get(name) is not known for name, known in before.secrets)
    ):
        return None
    gone = [known for name, known in before.ingresses.items() if world.ingresses.get(name) is not known]
    new = [known for name, known in world.ingresses.items() if before.ingresses.get(name) is not known]
    if len(gone) + len(new) > _FEW or any(
        options.selection.refusal(x, world) or name_of(x) in options.without for x in (*gone, *new)
    ):
        return None
    secrets = RecordedMapping(world.secrets)
    limits = index.limits.for_more(new, secrets)
    if any(limits.refusal(ingress) for ingress in new):
        return None
    regrouped = with_changed(before.groups, index.hosts, index.overtaking, gone, new, options.prefix)
    if regrouped is None:
        return None
    groups, hosts = regrouped
    read = tuple((dict(before.secrets) | secrets.answers).items())
    return before._replace(
        ingresses=world.ingresses,
        secrets=read,
        groups=groups,
        for_few=AdmissionIndex(hosts, index.overtaking, limits),
    )
