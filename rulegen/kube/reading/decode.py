"""Documents to typed objects: fast where all is well, and with every fault named where it is not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from rulegen.errors import Fault, InputError, Rejected
from rulegen.kube.objects.kinds import CLUSTER_SCOPED, CONFIDENTIAL, KINDS, title
from rulegen.kube.objects.legacy_ingress import LegacyIngress, in_old_words, modern
from rulegen.kube.objects.structs import ObjectMeta
from rulegen.kube.reading.documents import Document
from rulegen.kube.reading.json_text import MAX_PLAIN_VALUES, plain_json, value_count
from rulegen.kube.reading.shape_faults import shape_faults
from rulegen.kube.reading.workloads import read_workload
from rulegen.kube.validation.validate import check
from rulegen.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rulegen.kube.objects.kinds import KubeObject
    from rulegen.kube.objects.names import Decoded
    from rulegen.kube.reading.workloads import Workload


BATCH: Final = 128
"""Objects of a page that are decoded before their memory is counted."""


@dataclass(frozen=True, slots=True)
class Unknown:
    """An object of a kind that means nothing here, as `apps/v1 Deployment`.

    Attributes:
        workload: Where it makes Pods: the labels of those.
    """

    kind: str
    source: str
    workload: Workload | None = None


def decode(document: Document) -> Decoded | Rejected | Unknown:
    """Return the typed object that a document is, or all that is wrong with it."""
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
    """Check an object; one of an older version of the API as what it is today."""
    if not isinstance(kube_object, LegacyIngress):
        return check(kube_object, source)
    verdict = check(modern(kube_object), source)
    return in_old_words(verdict) if isinstance(verdict, Rejected) else verdict


def _decode_slowly(document: Document, struct: type[KubeObject | LegacyIngress]) -> Decoded | Rejected:
    """Drop nulls and try again; then say what is wrong, all of it."""
    content = document.content
    try:
        value = plain_json(content) if isinstance(content, msgspec.Raw) else content
    except ValueError as error:
        return Rejected(title(document.kind, "", "(unreadable)"), document.source, (Fault("", str(error)),))
    try:
        return _checked(msgspec.convert(value, struct), document.source)
    except msgspec.ValidationError as error:
        faults = shape_faults(value, struct, confidential=struct in CONFIDENTIAL) or (Fault("", str(error).lower()),)
        return Rejected(_title(document.kind, struct, value), document.source, faults, _uid(value, struct))


def _title(kind: str, struct: type[KubeObject | LegacyIngress], value: Any) -> str:
    """Return how an object is called that could not be typed: what its metadata says, made harmless."""
    metadata = value.get("metadata") if isinstance(value, dict) else None
    named = metadata if isinstance(metadata, dict) else {}
    name, namespace = named.get("name"), named.get("namespace")
    shown = printable(name) if isinstance(name, str) and name else "(no name)"
    default = "" if struct in CLUSTER_SCOPED else "default"
    return title(kind, printable(namespace) if isinstance(namespace, str) and namespace else default, shown)


def _uid(value: Any, struct: type[KubeObject | LegacyIngress]) -> str:
    """Return the UID of an object that could not be typed; empty for none."""
    metadata = value.get("metadata") if isinstance(value, dict) and struct not in CONFIDENTIAL else None
    uid = metadata.get("uid") if isinstance(metadata, dict) else None
    return printable(uid) if isinstance(uid, str) else ""


# -- pages of an API server --------------------------------------------------------------------------------------------


class ListPage(NamedTuple):
    """One page of a list of an API server.

    Attributes:
        objects: What can be used.
        rejected: What cannot, with its faults.
        continue_token: Asks for the next page; empty on the last one.
        resource_version: Where a watch continues.
    """

    objects: list[Decoded]
    rejected: list[Rejected]
    continue_token: str
    resource_version: str


class _PageMetadata(msgspec.Struct):
    resource_version: str = msgspec.field(default="", name="resourceVersion")
    continue_token: str = msgspec.field(default="", name="continue")


class _Page(msgspec.Struct):
    """A page with the text of its items; Go prints an empty list as null now and then."""

    metadata: _PageMetadata = msgspec.field(default_factory=_PageMetadata)
    items: tuple[msgspec.Raw, ...] | None = None


def decode_list(
    raw: bytes | bytearray,
    kind: type[KubeObject],
    *,
    source: str = "API server",
    keep: Callable[[Sequence[Decoded | Rejected]], None] = lambda _: None,
) -> ListPage:
    """Return the objects of one page, straight from the JSON bytes of an API server.

    Each item is decoded on its own: one bad object harms only itself.

    Args:
        raw: The page.
        kind: Of its items.
        source: Of the page, for messages.
        keep: Is given the objects, some at a time, and raises where there are too many of them.

    Raises:
        InputError: The page as a whole is no list.
    """
    try:
        content = msgspec.json.decode(raw, type=_Page)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(source, f"not a list of {kind.__name__} objects: {str(error).lower()}") from None
    page = ListPage([], [], content.metadata.continue_token, content.metadata.resource_version)
    items = content.items or ()
    for start in range(0, len(items), BATCH):
        batch = [decode_object(item, kind, source=source) for item in items[start : start + BATCH]]
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
    """Return one object of a known kind from its JSON text, or all that is wrong with it."""
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
    return Rejected(called, source, (Fault("", f"more than {MAX_PLAIN_VALUES} values"),))
