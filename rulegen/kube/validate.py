"""What a typed object must also be: names, ranges, words. All faults at once, as the API server would find them.

An entry that kube-proxy logs and passes over (an address that is none, in lists that the API never checked well) is
passed over here too, with a warning: the object stays.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from msgspec.structs import replace

from rulegen.errors import Fault, Rejected
from rulegen.kube.cluster_rules import check_node, check_pod, check_service_cidr
from rulegen.kube.endpoint_rules import check_endpoints, check_slice
from rulegen.kube.findings import Findings
from rulegen.kube.kinds import CLUSTER_SCOPED, kind_of, title
from rulegen.kube.objects import Endpoints, EndpointSlice, Namespace, Node, Pod, Service, ServiceCIDR
from rulegen.kube.service_rules import check_service
from rulegen.kube.wording import printable, quoted

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from rulegen.kube.objects import KubeObject, ObjectMeta

MAX_FAULTS: Final = 50

_TIME: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?[Zz]\Z")
_RULES: Final[Mapping[type[KubeObject], Callable[[Any, Findings], KubeObject]]] = {
    Service: check_service,
    EndpointSlice: check_slice,
    Endpoints: check_endpoints,
    Pod: check_pod,
    Node: check_node,
    ServiceCIDR: check_service_cidr,
}
_NAMED_BY_LABEL: Final = frozenset({Service, Namespace})


@dataclass(frozen=True, slots=True)
class Decoded:
    """A typed object that passed all checks.

    Attributes:
        object: The object, with its namespace and the defaults of the API filled in.
        source: Where it came from.
        warnings: Entries that were passed over, one line each.
    """

    object: KubeObject
    source: str
    warnings: tuple[str, ...] = ()


def check(found: KubeObject, source: str) -> Decoded | Rejected:
    """Return the object with its defaults filled in, or all that is wrong with it."""
    findings = Findings()
    kind = type(found)
    metadata = _check_metadata(found.metadata, kind, findings)
    if metadata is not found.metadata:
        found = replace(found, metadata=metadata)
    rules = _RULES.get(kind)
    if rules is not None:
        found = rules(found, findings)
    if not findings.faults and not findings.passed_over:
        return Decoded(found, source)
    called = _called(found)
    if findings.faults:
        return Rejected(called, source, bounded(findings.faults))
    return Decoded(found, source, tuple(f"{called}: {entry}" for entry in bounded(findings.passed_over)))


def bounded(faults: list[Fault]) -> tuple[Fault, ...]:
    """Return the faults, no more than a person would read."""
    if len(faults) <= MAX_FAULTS:
        return tuple(faults)
    return (*faults[:MAX_FAULTS], Fault("", f"and {len(faults) - MAX_FAULTS} more of that sort"))


def _called(found: KubeObject) -> str:
    metadata = found.metadata
    return title(kind_of(found), printable(metadata.namespace), printable(metadata.name) or "(no name)")


def _check_metadata(metadata: ObjectMeta, kind: type[KubeObject], findings: Findings) -> ObjectMeta:
    """Check names and times; the namespace is `default` where a manifest leaves it to kubectl."""
    if not metadata.name:
        findings.fault("metadata.name", "missing")
    elif kind in _NAMED_BY_LABEL:
        findings.label("metadata.name", metadata.name)
    else:
        findings.subdomain("metadata.name", metadata.name)
    for path, time in (
        ("metadata.creationTimestamp", metadata.creation_timestamp),
        ("metadata.deletionTimestamp", metadata.deletion_timestamp),
    ):
        if time is not None and not _TIME.match(time):
            findings.fault(path, f"{quoted(time)} is not a time as 2026-01-31T23:59:59Z")
    if kind in CLUSTER_SCOPED:
        return replace(metadata, namespace="") if metadata.namespace else metadata
    if not metadata.namespace:
        return replace(metadata, namespace="default")
    findings.label("metadata.namespace", metadata.namespace)
    return metadata
