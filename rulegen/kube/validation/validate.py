"""Validates typed objects as the API server does: names, ranges, enumerations. All faults are reported at once.

If kube-proxy logs and ignores an invalid entry (such as an address in a list that the API server does not check), it is
ignored here too, with a warning, and the object stays valid.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from typing import TYPE_CHECKING, Any, Final

from msgspec import to_builtins
from msgspec.structs import replace

from rulegen.errors import Fault, Rejected
from rulegen.kube.objects.kinds import CLUSTER_SCOPED, CONFIDENTIAL, kind_of, title
from rulegen.kube.objects.names import Decoded
from rulegen.kube.objects.structs import (
    ConfigMap,
    Endpoints,
    EndpointSlice,
    Ingress,
    IngressClass,
    Namespace,
    Node,
    Pod,
    Secret,
    Service,
    ServiceCIDR,
)
from rulegen.kube.syntax import is_qualified_name
from rulegen.kube.validation.cluster import check_node, check_pod, check_service_cidr
from rulegen.kube.validation.endpoints import check_endpoints, check_slice
from rulegen.kube.validation.findings import Findings
from rulegen.kube.validation.ingress import check_ingress, check_ingress_class
from rulegen.kube.validation.secret import check_config_map, check_secret
from rulegen.kube.validation.service import check_service
from rulegen.kube.validation.unusable_ingress import readable_part
from rulegen.text import printable, quoted

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from rulegen.kube.objects.kinds import KubeObject
    from rulegen.kube.objects.structs import ObjectMeta

MAX_FAULTS: Final = 50
MAX_ANNOTATIONS_BYTES: Final = 256 << 10
"""Maximum size of all keys and values of one object."""
MAX_ANNOTATION_KEY: Final = 253 + 1 + 63

_TIME: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt][0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]{1,9})?[Zz]\Z")
_RULES: Final[Mapping[type[KubeObject], Callable[[Any, Findings], KubeObject]]] = {
    Service: check_service,
    EndpointSlice: check_slice,
    Endpoints: check_endpoints,
    Pod: check_pod,
    Node: check_node,
    ServiceCIDR: check_service_cidr,
    Ingress: check_ingress,
    IngressClass: check_ingress_class,
    Secret: check_secret,
    ConfigMap: check_config_map,
}
_NAMED_BY_LABEL: Final = frozenset({Service, Namespace})
_ANNOTATED: Final = frozenset({Ingress, IngressClass, Secret, ConfigMap})
"""Kinds whose annotations are validated here."""


def check(kube_object: KubeObject, source: str) -> Decoded | Rejected:
    """Return the object with defaults, or its rejection with all faults."""
    findings = Findings()
    kind = type(kube_object)
    metadata = _check_metadata(kube_object.metadata, kind, findings)
    if metadata is not kube_object.metadata:
        kube_object = replace(kube_object, metadata=metadata)
    rules = _RULES.get(kind)
    if rules is not None:
        kube_object = rules(kube_object, findings)
    if not findings.faults and not findings.ignored:
        return Decoded(kube_object, source)
    called = _called(kube_object)
    if findings.faults:
        uid = "" if kind in CONFIDENTIAL else printable(kube_object.metadata.uid)
        rejected = Rejected(called, source, bounded(findings.faults), uid)
        return with_readable_part(rejected, to_builtins(kube_object)) if kind is Ingress else rejected
    return Decoded(kube_object, source, tuple(f"{called}: {entry}" for entry in bounded(findings.ignored)))


def with_readable_part(rejected: Rejected, value: Any) -> Rejected:
    """Return the rejection of an Ingress with what can be read of its document."""
    part = readable_part(value)
    return dataclasses.replace(rejected, readable=part, may_hide_hosts=not part.has_all_hosts)


def bounded(faults: list[Fault]) -> tuple[Fault, ...]:
    """Return at most `MAX_FAULTS` faults, and the number of the others."""
    if len(faults) <= MAX_FAULTS:
        return tuple(faults)
    return (*faults[:MAX_FAULTS], Fault("", f"and {len(faults) - MAX_FAULTS} more faults of this kind"))


def _called(kube_object: KubeObject) -> str:
    metadata = kube_object.metadata
    return title(kind_of(kube_object), printable(metadata.namespace), printable(metadata.name) or "(no name)")


def _check_metadata(metadata: ObjectMeta, kind: type[KubeObject], findings: Findings) -> ObjectMeta:
    """Check names and times; set the namespace to `default` if the manifest has none."""
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
            findings.fault(path, f"{quoted(time)} is not a time such as 2026-01-31T23:59:59Z")
    if metadata.annotations and kind in _ANNOTATED:
        _check_annotations(metadata.annotations, findings)
    if kind in CLUSTER_SCOPED:
        return replace(metadata, namespace="") if metadata.namespace else metadata
    if not metadata.namespace:
        return replace(metadata, namespace="default")
    findings.label("metadata.namespace", metadata.namespace)
    return metadata


def _check_annotations(annotations: Mapping[str, str], findings: Findings) -> None:
    """Check the keys, the encoding of the values, and the total size; values are not interpreted here."""
    size = 0
    for key, value in annotations.items():
        if len(key) > MAX_ANNOTATION_KEY or not _is_annotation(key):
            expected = "a name of at most 63 characters, optionally after a DNS name and a slash"
            findings.fault("metadata.annotations", f"{quoted(key)} is not a valid key: {expected}")
        try:
            size += len(key) + (len(value) if value.isascii() else len(value.encode()))
        except UnicodeEncodeError:
            findings.fault(f"metadata.annotations.{printable(key)}", "is not Unicode text")
    if size > MAX_ANNOTATIONS_BYTES:
        findings.fault("metadata.annotations", f"{size} bytes in all, more than {MAX_ANNOTATIONS_BYTES}")


_is_annotation = functools.lru_cache(maxsize=4096)(is_qualified_name)
"""Cached, because all Ingresses have the same few keys."""
