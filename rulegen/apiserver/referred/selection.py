"""Lists and watches of which only wanted objects are decoded; often only metadata is requested.

Secrets to which no Ingress refers must not be read. For lists and watches of a namespace or of all, only metadata is
therefore requested. If the server sends complete objects, only the wanted ones are decoded. The text of the others is
dropped with its page.

Source: Kubernetes API concepts, "Receiving resources as Tables" and "PartialObjectMetadata" (KEP-2334).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

import msgspec

from rulegen.apiserver.lists import MAX_PAGE_VALUES
from rulegen.apiserver.transport.failures import ApiError
from rulegen.apiserver.transport.reasons import ApiReason
from rulegen.kube.objects.events import scoped
from rulegen.kube.reading.decode import decode_object
from rulegen.kube.reading.json_text import value_count
from rulegen.kube.reading.watch_line import GONE
from rulegen.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable

    from rulegen.errors import Rejected
    from rulegen.kube.objects.kinds import KubeObject
    from rulegen.kube.objects.names import Decoded, ObjectName

METADATA_LIST: Final = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json"
"""Media types of a list of metadata. A server that does not know the first sends complete objects, which also works."""
METADATA_WATCH: Final = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json"
MAX_VERSION: Final = 1024
"""Maximum length of a resourceVersion, which is stored for each object. Usually about 10."""
_BOOKMARK: Final = "BOOKMARK"
_TYPES: Final = frozenset({"ADDED", "MODIFIED", "DELETED", _BOOKMARK, "ERROR"})


class ObjectHead(NamedTuple):
    """The metadata of an object.

    Attributes:
        version: Its resourceVersion; empty if it has none, or one that is too long.
    """

    name: ObjectName
    version: str


class SelectedObject(NamedTuple):
    """An object that is wanted."""

    head: ObjectHead
    state: Decoded | Rejected


class ListHead(NamedTuple):
    """Metadata of a page of a list.

    Attributes:
        version: Where a watch starts.
        continue_token: Token for the next page; empty on the last one.
    """

    version: str
    continue_token: str


class ChangedHead(NamedTuple):
    """A line of a watch.

    Attributes:
        version: Revision of the watch after this line.
        name: The changed or deleted object; None for a bookmark.
        is_gone: Whether it was deleted.
    """

    version: str
    name: ObjectName | None
    is_gone: bool


class _HeadMetadata(msgspec.Struct, rename="camel"):
    name: str = ""
    namespace: str = ""
    resource_version: str = ""


class _Item(msgspec.Struct):
    metadata: _HeadMetadata = msgspec.field(default_factory=_HeadMetadata)


class _ListMetadata(msgspec.Struct):
    resource_version: str = msgspec.field(default="", name="resourceVersion")
    continue_token: str = msgspec.field(default="", name="continue")


class _HeadPage(msgspec.Struct):
    """A page of which only the metadata of its items is kept; Go sometimes prints an empty list as null."""

    kind: str = ""
    metadata: _ListMetadata = msgspec.field(default_factory=_ListMetadata)
    items: list[_Item] | None = None


class _ObjectPage(msgspec.Struct):
    """A page with its items as text, each of which may be decoded or not."""

    kind: str = ""
    metadata: _ListMetadata = msgspec.field(default_factory=_ListMetadata)
    items: tuple[msgspec.Raw, ...] | None = None


class _EventObject(msgspec.Struct, rename="camel"):
    kind: str = ""
    metadata: _HeadMetadata = msgspec.field(default_factory=_HeadMetadata)
    code: int = 0
    message: str = ""


class _Event(msgspec.Struct):
    type: str
    object: _EventObject


def read_heads(
    url: str, kind: type[KubeObject], raw: bytes | bytearray, wants: Callable[[ObjectName], bool]
) -> tuple[ListHead, list[ObjectHead]]:
    """Return the metadata of the wanted objects of a page, and of the list.

    Args:
        url: Of the server, for messages.
        kind: Kind of the objects; a list of their metadata is sufficient.
        raw: The body of the answer.
        wants: Returns whether an object is wanted.

    Raises:
        ApiError: It is not such a page; reason `too large` if it has too many values.
    """
    page = _page(url, kind, raw, _HeadPage)
    heads = (_head(kind, item.metadata) for item in page.items or ())
    return _list_head(page.metadata), [head for head in heads if wants(head.name)]


def read_selected(
    url: str, kind: type[KubeObject], raw: bytes | bytearray, wants: Callable[[ObjectName], bool]
) -> tuple[ListHead, list[SelectedObject]]:
    """Return the wanted objects of a page; the others are not decoded.

    Raises:
        ApiError: As for `read_heads`.
    """
    page = _page(url, kind, raw, _ObjectPage)
    selected = []
    for item in page.items or ():
        try:
            head = _head(kind, msgspec.json.decode(item, type=_Item).metadata)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            continue  # without a name: no Ingress refers to it
        if wants(head.name):
            selected.append(SelectedObject(head, decode_object(item, kind, source=url)))
    return _list_head(page.metadata), selected


def read_changed(url: str, kind: type[KubeObject], line: bytes | bytearray) -> ChangedHead:
    """Return the object that a line of a watch is about.

    Raises:
        ApiError: It is not such a line, or the server ends the watch with an error (`expired`, `error event`).
    """
    try:
        event = msgspec.json.decode(line, type=_Event)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ApiError(
            f"{url}: not an event of a {kind.__name__}: {printable(str(error).lower())}", ApiReason.GARBAGE
        ) from None
    content, metadata = event.object, event.object.metadata
    if event.type not in _TYPES:
        raise ApiError(f"{url}: an event of the unknown type {printable(event.type)!r}", ApiReason.GARBAGE)
    if event.type == "ERROR":
        reason = ApiReason.EXPIRED if content.code == GONE else ApiReason.ERROR_EVENT
        raise ApiError(f"{url}: watch {kind.__name__}: {printable(content.message, 300)} ({content.code})", reason)
    if event.type == _BOOKMARK:
        return ChangedHead(_version(metadata), None, is_gone=False)
    if content.kind not in {"", kind.__name__, "PartialObjectMetadata"} or not metadata.name:
        raise ApiError(f"{url}: not an event of a {kind.__name__}", ApiReason.GARBAGE)
    name = scoped(kind, metadata.namespace, metadata.name)
    return ChangedHead(_version(metadata), name, is_gone=event.type == "DELETED")


_Page = TypeVar("_Page", _HeadPage, _ObjectPage)


def _page(url: str, kind: type[KubeObject], raw: bytes | bytearray, form: type[_Page]) -> _Page:
    expected = {f"{kind.__name__}List", "PartialObjectMetadataList"}
    if len(raw) > MAX_PAGE_VALUES and value_count(raw) > MAX_PAGE_VALUES:
        raise ApiError(
            f"{url}: a page of a {kind.__name__}List with more than {MAX_PAGE_VALUES} values", ApiReason.TOO_LARGE
        )
    try:
        page = msgspec.json.decode(raw, type=form)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        words = f"{url}: no {kind.__name__}List: {printable(str(error).lower(), 300)}"
        raise ApiError(words, ApiReason.GARBAGE, hint="check that this is the address of an API server") from None
    if page.kind not in expected or not _version(page.metadata):
        words = f"{url}: got {printable(page.kind, 40)!r}, expected a {kind.__name__}List with a resourceVersion"
        raise ApiError(words, ApiReason.GARBAGE, hint="check that this is the address of an API server")
    return page


def _list_head(metadata: _ListMetadata) -> ListHead:
    return ListHead(_version(metadata), metadata.continue_token)


def _head(kind: type[KubeObject], metadata: _HeadMetadata) -> ObjectHead:
    return ObjectHead(scoped(kind, metadata.namespace, metadata.name), _version(metadata))


def _version(metadata: _HeadMetadata | _ListMetadata) -> str:
    version = metadata.resource_version
    return version if len(version) <= MAX_VERSION else ""
