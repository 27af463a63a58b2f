"""Decodes documents into typed objects: fast for valid ones, with all faults for invalid ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from rulegen.errors import Fault, InputError, Rejected
from rulegen.kube.objects.kinds import CLUSTER_SCOPED, CONFIDENTIAL, KINDS, title
from rulegen.kube.objects.legacy_ingress import LegacyIngress, modern, with_old_paths
from rulegen.kube.objects.names import Decoded
from rulegen.kube.objects.packed import pack
from rulegen.kube.objects.structs import Ingress, ObjectMeta, Pod
from rulegen.kube.reading.documents import Document
from rulegen.kube.reading.json_text import MAX_PLAIN_VALUES, plain_json, value_count
from rulegen.kube.reading.pod_parts import PodParts
from rulegen.kube.reading.shape_faults import shape_faults
from rulegen.kube.reading.workloads import read_workload
from rulegen.kube.validation.validate import check, with_readable_part
from rulegen.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rulegen.kube.objects.kinds import KubeObject
    from rulegen.kube.reading.workloads import Workload


INGRESSES: Final[frozenset[type]] = frozenset({Ingress, LegacyIngress})
BATCH: Final = 128
"""Number of objects of a page that are decoded between two calls of `keep`."""


class Unknown(msgspec.Struct, frozen=True):
    """An object of a kind that rulegen does not read, such as `apps/v1 Deployment`.

    Attributes:
        workload: The workload with the labels of its Pods; None if the object is not one.
    """

    kind: str
    source: str
    workload: Workload | None = None


def decode(document: Document) -> Decoded | Rejected | Unknown:
    """Return the typed object in a document, or its rejection with all faults."""
    struct = KINDS.get((document.api_version, document.kind))
    if struct is None:
        return Unknown(f"{document.api_version} {document.kind}", document.source, read_workload(document))
    content = document.content
    try:
        if isinstance(content, msgspec.Raw):
            kube_object: KubeObject | LegacyIngress = msgspec.json.decode(content, type=struct)
        else:
            kube_object = msgspec.convert(content, struct)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _decode_slowly(document, struct)
    return _checked(kube_object, document.source)


def _checked(kube_object: KubeObject | LegacyIngress, source: str) -> Decoded | Rejected:
    """Validate an object; an Ingress of an older API version is converted to v1 before."""
    if not isinstance(kube_object, LegacyIngress):
        return check(kube_object, source)
    verdict = check(modern(kube_object), source)
    return with_old_paths(verdict) if isinstance(verdict, Rejected) else verdict


def _decode_slowly(document: Document, struct: type[KubeObject | LegacyIngress]) -> Decoded | Rejected:
    """Decode without null fields; if this fails too, return the rejection with all faults."""
    content = document.content
    try:
        value = plain_json(content) if isinstance(content, msgspec.Raw) else content
    except ValueError as error:
        called = title(document.kind, "", "(unreadable)")
        hides = struct in INGRESSES
        return Rejected(called, document.source, (Fault("", str(error)),), may_hide_hosts=hides)
    try:
        return _checked(msgspec.convert(value, struct), document.source)
    except msgspec.ValidationError as error:
        faults = shape_faults(value, struct, confidential=struct in CONFIDENTIAL) or (Fault("", str(error).lower()),)
        rejected = Rejected(_title(document.kind, struct, value), document.source, faults, _uid(value, struct))
        return with_readable_part(rejected, value) if struct in INGRESSES else rejected


def _title(kind: str, struct: type[KubeObject | LegacyIngress], value: Any) -> str:
    """Return the title of an object that could not be typed, from its metadata, with printable characters only."""
    metadata = value.get("metadata") if isinstance(value, dict) else None
    named = metadata if isinstance(metadata, dict) else {}
    name, namespace = named.get("name"), named.get("namespace")
    shown = printable(name) if isinstance(name, str) and name else "(no name)"
    default = "" if struct in CLUSTER_SCOPED else "default"
    return title(kind, printable(namespace) if isinstance(namespace, str) and namespace else default, shown)


def _uid(value: Any, struct: type[KubeObject | LegacyIngress]) -> str:
    """Return the UID of an object that could not be typed; empty if it has none or is confidential."""
    metadata = value.get("metadata") if isinstance(value, dict) and struct not in CONFIDENTIAL else None
    uid = metadata.get("uid") if isinstance(metadata, dict) else None
    return printable(uid) if isinstance(uid, str) else ""


# -- pages of an API server --------------------------------------------------------------------------------------------


class ListPage(NamedTuple):
    """One page of a list of an API server.

    Attributes:
        objects: The valid objects.
        rejected: The invalid objects with their faults.
        continue_token: Token to request the next page; empty on the last page.
        resource_version: The resourceVersion at which a watch starts after the list.
    """

    objects: list[Decoded]
    rejected: list[Rejected]
    continue_token: str
    resource_version: str


class _PageMetadata(msgspec.Struct):
    resource_version: str = msgspec.field(default="", name="resourceVersion")
    continue_token: str = msgspec.field(default="", name="continue")


class _Page(msgspec.Struct):
    """A page with the text of its items; Go may write an empty list as null."""

    metadata: _PageMetadata = msgspec.field(default_factory=_PageMetadata)
    items: tuple[msgspec.Raw, ...] | None = None


def decode_list(
    raw: bytes | bytearray,
    kind: type[KubeObject],
    *,
    source: str = "API server",
    keep: Callable[[Sequence[Decoded | Rejected]], None] = lambda _: None,
    packs: bool = False,
) -> ListPage:
    """Return the objects of one page of an API server.

    Each item is decoded separately: an invalid object affects only itself.

    Args:
        raw: The JSON text of the page.
        kind: The kind of its items.
        source: The source of the page, for messages.
        keep: Receives the objects in batches; raises if there are too many.
        packs: Whether Services and EndpointSlices are returned packed.

    Raises:
        InputError: The page is not a list.
    """
    try:
        content = msgspec.json.decode(raw, type=_Page)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(source, f"not a list of {kind.__name__} objects: {str(error).lower()}") from None
    page = ListPage([], [], content.metadata.continue_token, content.metadata.resource_version)
    items = content.items or ()
    for start in range(0, len(items), BATCH):
        batch = [decode_object(item, kind, source=source) for item in items[start : start + BATCH]]
        if packs:
            batch = [each if isinstance(each, Rejected) else pack(each) for each in batch]
        keep(batch)
        for entry in batch:
            if isinstance(entry, Rejected):
                page.rejected.append(entry)
            else:
                page.objects.append(entry)
    return page


def decode_object(
    raw: bytes | bytearray | msgspec.Raw, kind: type[KubeObject], *, source: str = "API server"
) -> Decoded | Rejected:
    """Return one object of a known kind from its JSON text, or its rejection with all faults.

    A Pod is returned without the fields that no endpoint depends on: there may be 150,000 of them.
    """
    verdict = _decoded(raw, kind, source)
    if isinstance(verdict, Decoded) and isinstance(verdict.object, Pod):
        return Decoded(_POD_PARTS.reduced(verdict.object), verdict.source, verdict.warnings)
    return verdict


_POD_PARTS: Final = PodParts()


def _decoded(raw: bytes | bytearray | msgspec.Raw, kind: type[KubeObject], source: str) -> Decoded | Rejected:
    if len(memoryview(raw)) > MAX_PLAIN_VALUES and value_count(memoryview(raw)) > MAX_PLAIN_VALUES:
        return _of_too_many_values(raw, kind, source)
    try:
        kube_object = msgspec.json.decode(raw, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _decode_slowly(Document(source, "", kind.__name__, msgspec.Raw(raw)), kind)
    return check(kube_object, source)


class _Named(msgspec.Struct):
    metadata: ObjectMeta = msgspec.field(default_factory=ObjectMeta)


def _of_too_many_values(raw: bytes | bytearray | msgspec.Raw, kind: type[KubeObject], source: str) -> Rejected:
    try:
        metadata = msgspec.json.decode(raw, type=_Named).metadata
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        metadata = ObjectMeta()
    called = _title(kind.__name__, kind, {"metadata": {"name": metadata.name, "namespace": metadata.namespace}})
    fault = Fault("", f"more than {MAX_PLAIN_VALUES} values")
    return Rejected(called, source, (fault,), may_hide_hosts=kind in INGRESSES)
