"""Workloads: objects such as Deployments, from which controllers create Pods. No endpoints are derived from them.

Only the labels of their Pods are read, for a warning about Services whose Pods are missing.
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
"""Maximum number of workloads that one selector is compared with."""


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
    """spec of a workload; the template of a CronJob is below `job_template`."""

    template: _PodTemplate | None = None
    job_template: _JobTemplate | None = None


class _Workload(Object, frozen=True):
    """Any workload."""

    metadata: ObjectMeta
    spec: _WorkloadSpec = _WorkloadSpec()


class Workload(NamedTuple):
    """A workload, and the labels of its Pods."""

    kind: str
    namespace: str
    name: str
    labels: tuple[tuple[str, str], ...]

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


def read_workload(document: Document) -> Workload | None:
    """Return the workload in a document; None if it is another kind or invalid."""
    group, _, _ = document.api_version.rpartition("/")
    if document.kind not in KINDS or group not in GROUPS:
        return None
    content = document.content
    try:
        if isinstance(content, msgspec.Raw):
            decoded = msgspec.json.decode(content, type=_Workload)
        else:
            decoded = msgspec.convert(content, _Workload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):  # it still counts as an unknown kind
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
        """Start without workloads."""
        self._count = 0
        self._by_label: defaultdict[tuple[str, str, str], list[Workload]] = defaultdict(list)

    def add(self, workload: Workload) -> None:
        """Add a workload; after `MAX_WORKLOADS`, ignore it, to limit memory."""
        if self._count < MAX_WORKLOADS:
            self._count += 1
            for key, value in workload.labels:
                self._by_label[workload.namespace, key, value].append(workload)

    def selected(self, namespace: str, selector: Mapping[str, str]) -> list[Workload]:
        """Return the workloads whose Pods a selector matches, sorted by kind and name."""
        if not selector or not self._count:
            return []
        narrowest = min((self._by_label.get((namespace, *pair), []) for pair in selector.items()), key=len)
        wanted = selector.items()
        return sorted(workload for workload in narrowest[:MAX_LOOKED_AT] if wanted <= dict(workload.labels).items())

    def missing_pods(self, service: Service) -> str:
        """Return the warning that the Pods of a Service's workloads are missing; empty if it has no workloads."""
        namespace, name = service.metadata.namespace, service.metadata.name
        selected = self.selected(namespace, service.spec.selector)
        if not selected:
            return ""
        return (
            f"Service {namespace}/{name}: the Pods of {listed(list(map(str, selected)))} are not among the objects,"
            f" so it has no endpoints; in a cluster that runs them, this command lists them:"
            f" kubectl get pods,endpointslices -n {namespace} -o yaml"
        )
