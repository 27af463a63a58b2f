"""Documents to typed objects: fast where all is well, and with every fault named where it is not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from rulegen.errors import Fault, Rejected
from rulegen.kube.documents import Document, plain_json
from rulegen.kube.kinds import CLUSTER_SCOPED, KINDS, title
from rulegen.kube.shape import shape_faults
from rulegen.kube.validate import Decoded, check
from rulegen.kube.wording import printable

if TYPE_CHECKING:
    from rulegen.kube.objects import KubeObject


@dataclass(frozen=True, slots=True)
class Unknown:
    """An object of a kind that means nothing here, as `apps/v1 Deployment`."""

    kind: str
    source: str


def decode(document: Document) -> Decoded | Rejected | Unknown:
    """Return the typed object that a document is, or all that is wrong with it."""
    struct = KINDS.get((document.api_version, document.kind))
    if struct is None:
        return Unknown(f"{document.api_version} {document.kind}", document.source)
    content = document.content
    try:
        if isinstance(content, msgspec.Raw):
            found = msgspec.json.decode(content, type=struct)
        else:
            found = msgspec.convert(content, struct)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _decode_slowly(document, struct)
    return check(found, document.source)


def _decode_slowly(document: Document, struct: type[KubeObject]) -> Decoded | Rejected:
    """Drop nulls and try again; then say what is wrong, all of it."""
    content = document.content
    try:
        value = plain_json(content) if isinstance(content, msgspec.Raw) else content
    except ValueError as error:
        return Rejected(title(document.kind, "", "(unreadable)"), document.source, (Fault("", str(error)),))
    try:
        return check(msgspec.convert(value, struct), document.source)
    except msgspec.ValidationError as error:
        faults = shape_faults(value, struct) or (Fault("", str(error).lower()),)
        return Rejected(_title(document.kind, struct, value), document.source, faults)


def _title(kind: str, struct: type[KubeObject], value: Any) -> str:
    """Return how an object is called that could not be typed: what its metadata says, made harmless."""
    metadata = value.get("metadata")
    named = metadata if isinstance(metadata, dict) else {}
    name, namespace = named.get("name"), named.get("namespace")
    shown = printable(name) if isinstance(name, str) and name else "(no name)"
    default = "" if struct in CLUSTER_SCOPED else "default"
    return title(kind, printable(namespace) if isinstance(namespace, str) and namespace else default, shown)
