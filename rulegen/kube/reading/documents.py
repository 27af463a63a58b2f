"""Splits JSON and YAML texts into Kubernetes documents, and Lists into their items. `decode` gives them their types.

An invalid document affects only itself: it is returned as `Rejected`, and the rest of the file is read. JSON stays text
until it is decoded into a struct, so a large file is never in memory as plain Python objects.
"""

from __future__ import annotations

import codecs
import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import msgspec

from rulegen.errors import Fault, Rejected
from rulegen.kube.objects.kinds import KINDS
from rulegen.kube.reading.json_text import (
    MAX_JSON_COMMAS,
    json_line,
    json_position,
    json_problem,
    plain_json,
    with_whole_characters,
)
from rulegen.kube.reading.yaml_text import YamlFault, read_yaml
from rulegen.text import described, printable, quoted

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

MAX_NESTED_LISTS: Final = 4
MAX_REFUSED: Final = 1_000
UNRENDERED: Final = " (there are {{ in this file: a template that was not rendered?)"

_UTF8_MARK: Final = codecs.BOM_UTF8
_OTHER_MARKS: Final = {
    codecs.BOM_UTF32_LE: "UTF-32",
    codecs.BOM_UTF32_BE: "UTF-32",
    codecs.BOM_UTF16_LE: "UTF-16",
    codecs.BOM_UTF16_BE: "UTF-16",
}
_CHUNK: Final = 1 << 20
_TABLE: Final = re.compile(r"(?:NAMESPACE\s+)?NAME\s+[A-Z]")
_A_TABLE: Final = "a table that kubectl prints for people; -o yaml prints objects"
_BLANKS: Final = b" \t\r\n"
_TYPED_LISTS: Final = frozenset(f"{kind}List" for _, kind in KINDS)


class Source(NamedTuple):
    """An input text: its name for messages, and its bytes."""

    name: str
    content: bytes


@dataclass(frozen=True, slots=True)
class Document:
    """One Kubernetes object before typing.

    Attributes:
        source: File and position, such as `deploy/web.yaml:12` or `world.json: items[3]`.
        api_version: Its apiVersion, else that of the typed list that contains it.
        kind: Its kind, else that of the typed list that contains it.
        content: Its fields: JSON text, or a mapping without nulls. Not part of `repr`: it may be a Secret.
    """

    source: str
    api_version: str
    kind: str
    content: msgspec.Raw | dict[str, Any] = field(repr=False)


class _DocumentHead(msgspec.Struct, rename="camel"):
    """The fields of a JSON document that are read before typing."""

    api_version: str = ""
    kind: str = ""
    items: list[msgspec.Raw] | None = None


class _TextPosition(NamedTuple):
    """The position of a value, and the apiVersion and kind from the typed list that contains it."""

    source: str
    path: str = ""
    api_version: str = ""
    kind: str = ""
    nested: int = 0

    def __str__(self) -> str:
        return f"{self.source}: {self.path}" if self.path else self.source

    def refuse(self, message: str, field: str = "") -> Rejected:
        """Return the rejection of the document at this position."""
        return Rejected(str(self), self.source, (Fault(field, message),), may_hide_hosts=True)


def read_documents(source: Source) -> Iterator[Document | Rejected]:
    """Yield the documents of one text in order, and invalid ones as Rejected, with the line.

    A text that starts with `{` or `[` is read as JSON first, all others as YAML. Empty documents are skipped. After
    `MAX_REFUSED` invalid documents, the rest of the text is skipped: it does not contain Kubernetes objects.
    """
    refused = 0
    for document in _read_all(source):
        yield document
        if isinstance(document, Rejected):
            refused += 1
            if refused == MAX_REFUSED:
                yield _TextPosition(printable(source.name, 4096)).refuse(f"{refused} faults: the rest was not read")
                return


def _read_all(source: Source) -> Iterator[Document | Rejected]:
    place = _TextPosition(printable(source.name, 4096))
    content = source.content
    for mark, encoding in _OTHER_MARKS.items():
        if content.startswith(mark):
            yield place.refuse(f"is {encoding} text; manifests are UTF-8")
            return
    content = content.removeprefix(_UTF8_MARK)
    if (bad := _not_utf8_at(content)) is not None:
        yield _TextPosition(f"{place.source}:{_line_at(content, bad)}").refuse(f"not UTF-8 (byte {bad + 1})")
        return
    if content[:_CHUNK].lstrip(_BLANKS)[:1] in {b"{", b"["}:
        yield from _read_json_text(place, content)
    else:
        yield from _read_yaml_text(place, content)


def _not_utf8_at(content: bytes) -> int | None:
    """Return the position of the first byte that is not UTF-8; decodes piece by piece to save memory."""
    if content.isascii():
        return None
    decoder = codecs.getincrementaldecoder("utf-8")()
    view = memoryview(content)
    for start in range(0, len(content), _CHUNK):
        piece = view[start : start + _CHUNK]
        kept = len(decoder.getstate()[0])
        try:
            decoder.decode(piece, final=start + _CHUNK >= len(content))
        except UnicodeDecodeError as error:
            return start - kept + error.start
    return None


def _line_at(content: bytes, position: int) -> int:
    return content.count(b"\n", 0, position) + 1


# -- YAML --------------------------------------------------------------------------------------------------------------


def _read_yaml_text(place: _TextPosition, content: bytes) -> Iterator[Document | Rejected]:
    for document in read_yaml(content):
        here = place._replace(source=f"{place.source}:{document.line}")
        if isinstance(document, YamlFault):
            is_template = b"{{" in content
            yield here.refuse(f"{document.message}{UNRENDERED if is_template else ''}")
        elif document.value is not None:
            yield from _unfold(here, document.value, [f"{place.source}:{line}" for line in document.item_lines])


def _unfold(place: _TextPosition, value: Any, item_sources: Sequence[str] = ()) -> Iterator[Document | Rejected]:
    """Yield the object in `value`, or the objects of a list."""
    if not isinstance(value, dict):
        is_table = isinstance(value, str) and _TABLE.match(value)
        yield place.refuse(f"expected a Kubernetes object, got {_A_TABLE if is_table else described(value)}")
        return
    kind, api_version = value.get("kind", place.kind), value.get("apiVersion", place.api_version)
    if (fault := _unnamed(kind, api_version)) is not None:
        yield place.refuse(*fault)
        return
    items = value.get("items")
    if not _is_list(kind, has_items=items is not None):
        yield Document(str(place), api_version, kind, value)
        return
    if items is not None and not isinstance(items, list):
        yield place.refuse(f"expected a list, got {described(items)}", "items")
        return
    sources = item_sources if len(item_sources) == len(items or ()) else ()
    for index, item in enumerate(items or ()):
        inner = _inside(place, kind, api_version, index)
        if inner is None:
            yield place.refuse(f"Lists are nested more than {MAX_NESTED_LISTS} levels deep")
            return
        yield from _unfold(inner._replace(source=sources[index], path="") if sources else inner, item)


def _unnamed(kind: Any, api_version: Any) -> tuple[str, str] | None:
    """Return the fault of apiVersion or kind, and the field; None if both are valid."""
    for name, value in (("apiVersion", api_version), ("kind", kind)):
        if value == "":
            return "missing: this is not a Kubernetes object", name
        if not isinstance(value, str):
            return f"expected a text, got {described(value)}", name
        if len(value) > 253 or not value.isascii() or not value.isprintable() or " " in value:
            return f"{quoted(value)} is not the name of a kind", name
    return None


def _is_list(kind: str, *, has_items: bool) -> bool:
    """Return whether a kind is a list of objects, such as `List` or `ServiceList`, even if its items are null."""
    return kind == "List" or kind in _TYPED_LISTS or (kind.endswith("List") and has_items)


def _inside(place: _TextPosition, kind: str, api_version: str, index: int) -> _TextPosition | None:
    """Return the position of an item. Items of typed lists inherit apiVersion and kind; items of a List do not."""
    if place.nested >= MAX_NESTED_LISTS:
        return None
    path = f"{place.path}.items[{index}]" if place.path else f"items[{index}]"
    if kind == "List":
        return _TextPosition(place.source, path, nested=place.nested + 1)
    return _TextPosition(place.source, path, api_version, kind.removesuffix("List"), place.nested + 1)


# -- JSON --------------------------------------------------------------------------------------------------------------


def _read_json_text(place: _TextPosition, content: bytes) -> Iterator[Document | Rejected]:
    """Yield the documents of one JSON value, of several consecutive ones, or of YAML that starts like JSON."""
    if content.count(b",") > MAX_JSON_COMMAS:
        yield place.refuse(f"more than {MAX_JSON_COMMAS} values in one file: not read")
        return
    try:
        raw = msgspec.json.decode(content, type=msgspec.Raw)
    except RecursionError:
        yield place.refuse("JSON nested too deep")
        return
    except msgspec.DecodeError as error:
        problem = str(error)
        mended = with_whole_characters(content)
        if mended != content:
            yield from _read_json_text(place, mended)
            return
    else:
        yield from _unfold_raw(place, raw)
        return
    after = max(json_position(content, problem) - 1, 0)
    if "trailing characters" in problem and not content.startswith(b"---", after):
        yield from _read_json_stream(place, content)
    elif place.source.endswith(".json"):
        yield _TextPosition(f"{place.source}:{json_line(content, problem)}").refuse(
            f"not JSON: {json_problem(problem)}"
        )
    else:
        yield from _read_yaml_text(place, content)


def _unfold_raw(place: _TextPosition, raw: msgspec.Raw) -> Iterator[Document | Rejected]:
    """Yield the same as `_unfold` for JSON text. Faulty values are read again as plain values, to name the fault."""
    try:
        head = msgspec.json.decode(raw, type=_DocumentHead)
    except (msgspec.DecodeError, RecursionError):
        yield from _unfold_slowly(place, raw)
        return
    kind, api_version = head.kind or place.kind, head.api_version or place.api_version
    if _unnamed(kind, api_version) is not None:
        yield from _unfold_slowly(place, raw)
        return
    if not _is_list(kind, has_items=head.items is not None):
        yield Document(str(place), api_version, kind, raw)
        return
    for index, item in enumerate(head.items or ()):
        inner = _inside(place, kind, api_version, index)
        if inner is None:
            yield place.refuse(f"Lists are nested more than {MAX_NESTED_LISTS} levels deep")
            return
        yield from _unfold_raw(inner, item)


def _unfold_slowly(place: _TextPosition, raw: msgspec.Raw) -> Iterator[Document | Rejected]:
    try:
        value = plain_json(raw)
    except ValueError as error:
        yield place.refuse(str(error))
    else:
        yield from _unfold(place, value)


def _read_json_stream(place: _TextPosition, content: bytes) -> Iterator[Document | Rejected]:
    """Yield the documents of consecutive JSON values, which `kubectl` accepts too."""
    text = content.decode("utf-8")
    decoder = json.JSONDecoder()
    start, line = 0, 1
    while start < len(text):
        if text[start] in " \t\r\n":
            line += text[start] == "\n"
            start += 1
            continue
        here = _TextPosition(f"{place.source}:{line}")
        try:
            _, end = decoder.raw_decode(text, start)
        except (ValueError, RecursionError) as error:
            words = error.msg.lower() if isinstance(error, json.JSONDecodeError) else "nested too deep"
            yield here.refuse(f"not JSON: {words}")
            return
        yield from _unfold_raw(here, msgspec.Raw(text[start:end].encode("utf-8")))
        line += text.count("\n", start, end)
        start = end
