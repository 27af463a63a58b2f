"""Reads the lines of a watch: each is a JSON document with a type and an object.

Source: the Kubernetes API concepts, "Efficient detection of changes". A resourceVersion is opaque and stays unchanged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

import msgspec

from rulegen.errors import InputError, Rejected
from rulegen.kube.objects.events import Changed, Gone, scoped
from rulegen.kube.objects.packed import pack
from rulegen.kube.reading.decode import decode_object
from rulegen.text import printable

if TYPE_CHECKING:
    from rulegen.kube.objects.kinds import KubeObject

GONE: Final = 410
"""HTTP status, also in an ERROR event: the server does not have the history since this resourceVersion any more."""


@dataclass(frozen=True, slots=True)
class WatchLine:
    """An event, and the resourceVersion at which a watch continues after it; empty if the server did not send one."""

    event: Changed | Gone
    version: str


@dataclass(frozen=True, slots=True)
class Bookmark:
    """The watch has reached this resourceVersion without further events."""

    version: str


@dataclass(frozen=True, slots=True)
class WatchRefusal:
    """An error with which the server ends the watch.

    Attributes:
        code: The HTTP status; 0 if the server did not send one.
        message: The server's message, printable.
        retry_after: Seconds to wait before the next request.
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


def read_line(
    raw: bytes | bytearray, kind: type[KubeObject], *, source: str = "API server", packs: bool = False
) -> Line:
    """Return the content of a line of a watch for objects of a kind.

    An invalid object with a name is an event with its faults.

    Args:
        raw: The line.
        kind: The kind of its object.
        source: The source of the line, for messages.
        packs: Whether a Service or an EndpointSlice is returned packed.

    Raises:
        InputError: The line is not JSON, its type is unknown, or its object has another kind or no name.
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
            state = decode_object(envelope.object, kind, source=source)
            if packs and not isinstance(state, Rejected):
                state = pack(state)
            return WatchLine(Changed(kind, state, name), version)
        case "DELETED":
            return WatchLine(Gone(kind, name), version)
        case other:
            raise InputError(source, f"an event of the unknown type {printable(other)!r}")


def _refusal(status: _Status) -> WatchRefusal:
    seconds = status.details.retry_after_seconds if status.details else 0
    return WatchRefusal(status.code, printable(status.message, 300), float(min(max(seconds, 0), 86_400)))
