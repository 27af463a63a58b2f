"""Reduces the Pods of an API server to what endpoints depend on: about 1 KB of memory each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from rulegen.kube.objects.pods import addresses_of, is_ready, running_containers
from rulegen.kube.objects.structs import Condition, Container, ObjectMeta, Pod, PodIP, PodSpec, PodStatus

if TYPE_CHECKING:
    from rulegen.kube.objects.structs import Labels

MAX_SHARED: Final = 1024
"""Maximum number of parts of a kind that are remembered to be shared. They may outlive their Pods, so each is small."""
MAX_ENTRIES: Final = 32
"""Maximum number of labels or ports of a shared part."""
MAX_TEXT: Final = 4096
"""Maximum number of characters of a shared part."""
_READY: Final = (Condition(type="Ready", status="True"),)


class PodParts:
    """Reduces Pods to what endpoints depend on; equal parts are the same Python objects."""

    def __init__(self) -> None:
        self._labels: dict[frozenset[tuple[str, str]], Labels] = {}
        self._specs: dict[PodSpec, PodSpec] = {}
        self._texts: dict[str, str] = {}

    @property
    def sizes(self) -> tuple[int, int, int]:
        """The numbers of remembered label sets, specs and texts."""
        return len(self._labels), len(self._specs), len(self._texts)

    def reduced(self, pod: Pod) -> Pod:
        """Return a Pod without the fields that no endpoint depends on."""
        metadata = pod.metadata
        return Pod(
            metadata=ObjectMeta(
                name=metadata.name,
                namespace=self._text(metadata.namespace),
                deletion_timestamp="" if metadata.deletion_timestamp is not None else None,
                labels=self._shared_labels(metadata.labels),
            ),
            spec=self._shared_spec(pod),
            status=PodStatus(
                phase=self._text(pod.status.phase),
                pod_ips=tuple(PodIP(ip=address) for address in addresses_of(pod)),
                conditions=_READY if is_ready(pod) else (),
            ),
        )

    def _shared_spec(self, pod: Pod) -> PodSpec:
        ports = tuple(port for container in running_containers(pod) for port in container.ports if port.name)
        containers = (Container(ports=ports),) if ports else ()
        spec = PodSpec(node_name=pod.spec.node_name, containers=containers)
        if len(ports) > MAX_ENTRIES:
            return spec
        if len(self._specs) >= MAX_SHARED:
            self._specs.clear()
        return self._specs.setdefault(spec, spec)

    def _shared_labels(self, labels: Labels) -> Labels:
        if len(labels) > MAX_ENTRIES or sum(len(key) + len(value) for key, value in labels.items()) > MAX_TEXT:
            return labels
        if len(self._labels) >= MAX_SHARED:
            self._labels.clear()
        return self._labels.setdefault(frozenset(labels.items()), labels)

    def _text(self, text: str) -> str:
        if len(text) > MAX_TEXT:
            return text
        if len(self._texts) >= MAX_SHARED:
            self._texts.clear()
        return self._texts.setdefault(text, text)
