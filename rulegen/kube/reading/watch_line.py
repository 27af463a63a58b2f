"""The lines of a watch: each is one JSON document with a type and an object.

Source: the Kubernetes API concepts, "Efficient detection of changes". A resourceVersion is opaque: kept as it came.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec

from rulegen.errors import InputError
from rulegen.kube.objects.events import Changed, Gone, scoped
from rulegen.kube.reading.decode import decode_object
from rulegen.text import printable

if TYPE_CHECKING:
    from rulegen.kube.objects.kinds import KubeObject

GONE: Final = 410
"""The HTTP status, also in an ERROR event: the resourceVersion is older than what the server remembers."""


@dataclass(frozen=True, slots=True)
class WatchLine:
    """An event, and the resourceVersion from which a watch goes on after it; empty if the server did not say."""

    event: Changed | Gone
    version: str


@dataclass(frozen=True, slots=True)
class Bookmark:
    """Nothing happened up to this resourceVersion."""

    version: str


@dataclass(frozen=True, slots=True)
class WatchRefusal:
    """The server ends the watch with an error.

    Attributes:
        code: As an HTTP status; 0 if it does not say.
        message: For people, printable.
        retry_after: Seconds for which the server wants to be left alone.
    """

    code: int
    message: str
    retry_after: float


Line: TypeAlias = WatchLine | Bookmark | WatchRefusal


class _Envelope(msgspec.Struct):
    type: str
    object: msgspec.Raw


class _Metadata(msgspec.Struct, rename="camel"):
    name: str = ""
    namespace: str = ""
    resource_version: str = ""


class _EventHead(msgspec.Struct):
    kind: str = ""
    metadata: _Metadata = msgspec.field(default_factory=_Metadata)


class _Details(msgspec.Struct, rename="camel"):
    retry_after_seconds: int = 0


class _Status(msgspec.Struct):
    code: int = 0
    message: str = ""
    details: _Details | None = None


def read_line(raw: bytes | bytearray, kind: type[KubeObject], *, source: str = "API server") -> Line:
    """Return what a line of a watch for objects of a kind says.

    An object that cannot be used is an event like any other, with its faults, as long as it has a name.

    Raises:
        InputError: It is no such line: no JSON, of no known type, an object of another kind or without a name.
    """
    try:
        envelope = msgspec.json.decode(raw, type=_Envelope)
        if envelope.type == "ERROR":
            return _refusal(msgspec.json.decode(envelope.object, type=_Status))
        head = msgspec.json.decode(envelope.object, type=_EventHead)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise InputError(source, f"not an event of a {kind.__name__}: {printable(str(error).lower())}") from None
    version = head.metadata.resource_version
    if envelope.type == "BOOKMARK":
        return Bookmark(version)
    if head.kind not in {"", kind.__name__}:
        raise InputError(source, f"an event of a {printable(head.kind)}, expected a {kind.__name__}")
    if not head.metadata.name:
        raise InputError(source, f"an event of a {kind.__name__} without a name")
    name = scoped(kind, head.metadata.namespace, head.metadata.name)
    match envelope.type:
        case "ADDED" | "MODIFIED":
            return WatchLine(Changed(kind, decode_object(envelope.object, kind, source=source), name), version)
        case "DELETED":
            return WatchLine(Gone(kind, name), version)
        case other:
            raise InputError(source, f"an event of the unknown type {printable(other)!r}")


def _refusal(status: _Status) -> WatchRefusal:
    seconds = status.details.retry_after_seconds if status.details else 0
    return WatchRefusal(status.code, printable(status.message, 300), float(min(max(seconds, 0), 86_400)))
