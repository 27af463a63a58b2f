"""Workloads: objects that a controller makes Pods of. They have no addresses, so no endpoint comes from one.

Only the labels of their Pods are read, to say whose Pods a Service lacks.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Final, NamedTuple

import msgspec

from rulegen.kube.objects.structs import Object, ObjectMeta
from rulegen.text import listed, printable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rulegen.kube.objects.structs import Service
    from rulegen.kube.reading.documents import Document

KINDS: Final = frozenset(
    {
        "Deployment",
        "StatefulSet",
        "DaemonSet",
        "ReplicaSet",
        "ReplicationController",
        "Job",
        "CronJob",
        "DeploymentConfig",
        "Rollout",
    }
)
GROUPS: Final = frozenset({"apps", "batch", "extensions", "apps.openshift.io", "argoproj.io", ""})
MAX_LABELS: Final = 64
MAX_WORKLOADS: Final = 100_000
MAX_LOOKED_AT: Final = 1_000
"""Workloads that one selector is compared with, at most."""


class _PodTemplate(Object, frozen=True):
    """spec.template of a workload."""

    metadata: ObjectMeta = ObjectMeta()


class _JobSpec(Object, frozen=True):
    """spec of a Job."""

    template: _PodTemplate = _PodTemplate()


class _JobTemplate(Object, frozen=True):
    """spec.jobTemplate of a CronJob."""

    spec: _JobSpec = _JobSpec()


class _WorkloadSpec(Object, frozen=True):
    """spec of a workload; a CronJob has its template further in."""

    template: _PodTemplate | None = None
    job_template: _JobTemplate | None = None


class _Workload(Object, frozen=True):
    """Any workload."""

    metadata: ObjectMeta
    spec: _WorkloadSpec = _WorkloadSpec()


class Workload(NamedTuple):
    """A workload, and the labels that its Pods have."""

    kind: str
    namespace: str
    name: str
    labels: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


def read_workload(document: Document) -> Workload | None:
    """Return the workload that a document is; None for any other object, and for one that cannot be read."""
    group, _, _ = document.api_version.rpartition("/")
    if document.kind not in KINDS or group not in GROUPS:
        return None
    content = document.content
    try:
        if isinstance(content, msgspec.Raw):
            decoded = msgspec.json.decode(content, type=_Workload)
        else:
            decoded = msgspec.convert(content, _Workload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # it is counted as an unknown kind all the same
        return None
    spec = decoded.spec
    template = spec.template or (spec.job_template.spec.template if spec.job_template else None)
    labels = template.metadata.labels if template is not None else {}
    if not labels or len(labels) > MAX_LABELS:
        return None
    metadata = decoded.metadata
    namespace = printable(metadata.namespace) or "default"
    return Workload(document.kind, namespace, printable(metadata.name), tuple(sorted(labels.items())))


class Workloads:
    """Workloads by namespace and label of their Pods."""

    def __init__(self) -> None:
        """Start with none."""
        self._count = 0
        self._by_label: defaultdict[tuple[str, str, str], list[Workload]] = defaultdict(list)

    def add(self, workload: Workload) -> None:
        """Take one in; of a flood of them no more than memory allows."""
        if self._count < MAX_WORKLOADS:
            self._count += 1
            for key, value in workload.labels:
                self._by_label[workload.namespace, key, value].append(workload)

    def selected(self, namespace: str, selector: Mapping[str, str]) -> list[Workload]:
        """Return the workloads whose Pods a selector selects, in order of kind and name."""
        if not selector or not self._count:
            return []
        narrowest = min((self._by_label.get((namespace, *pair), []) for pair in selector.items()), key=len)
        wanted = selector.items()
        return sorted(workload for workload in narrowest[:MAX_LOOKED_AT] if wanted <= dict(workload.labels).items())

    def missing_pods(self, service: Service) -> str:
        """Return the warning that a Service has no endpoints since the Pods of its workloads are absent; else empty."""
        namespace, name = service.metadata.namespace, service.metadata.name
        selected = self.selected(namespace, service.spec.selector)
        if not selected:
            return ""
        return (
            f"Service {namespace}/{name}: the Pods of {listed(list(map(str, selected)))} are not among the objects,"
            f" so it has no endpoints; a cluster that runs them has them: kubectl get pods,endpointslices -n"
            f" {namespace} -o yaml"
        )
