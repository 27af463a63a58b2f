"""Reads YAML into plain values, document by document, with libyaml's event parser.

Null values in mappings are omitted: they count as missing. `yaml_scalars` resolves scalars.

The reader is strict, because every byte may come from an attacker. Faults are: a duplicate key, a custom tag, an alias
that contains itself, more than `MAX_DEPTH` levels or `MAX_DOCUMENT_VALUES` values, or aliases that expand to more than
`MAX_ALIASED` values. Aliases share their value, so an alias bomb uses no memory before it is detected.
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import msgspec
import yaml
from yaml.cyaml import CParser  # type: ignore[attr-defined] # the stubs leave it out

from rulegen.kube.reading.yaml_scalars import CORE_TAG, resolve, tagged
from rulegen.text import printable, quoted

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_DEPTH: Final = 100
MAX_ALIASED: Final = 100_000
MAX_VALUES: Final = 40_000_000
"""Maximum number of values in one file; limits the time to about 60 s."""
MAX_DOCUMENT_VALUES: Final = 6_000_000
"""Maximum number of values in one document, which are all in memory; a List of 30,000 Services has 5.8 million."""
MAX_FAULTS: Final = 20
MAX_DIRECTIVES: Final = 16
COST_OF_DOCUMENT: Final = 20
COST_OF_COLLECTION: Final = 4
MAX_WORDS: Final = 50_000
MAX_REMEMBERED: Final = 64

_CONFIDENTIAL_KEYS: Final = frozenset({"data", "stringData"})
"""Keys of a Secret's values. Messages must not show tags (`!x`) or aliases (`*x`) there, which may be values."""
_DOCUMENT_START: Final = re.compile(rb"^---(?=[ \t\r\n]|\Z)", re.MULTILINE)
_DIRECTIVE: Final = re.compile(rb"^%", re.MULTILINE)


class _Marker:
    """A value that cannot occur in a document."""


_NO_KEY: Final = _Marker()
_MERGE: Final = _Marker()
_OPEN: Final = _Marker()
_UNSEEN: Final = _Marker()


class YamlDocument(msgspec.Struct, frozen=True):
    """One document.

    Attributes:
        line: The line at which it starts, counted from 1.
        value: Mappings, lists, text, numbers, booleans, None.
        item_lines: The line at which each mapping in the top-level list `items` starts.
    """

    line: int
    value: Any
    item_lines: tuple[int, ...] = ()


class YamlFault(msgspec.Struct, frozen=True):
    """A document that is not YAML, or that contains something not allowed in a manifest."""

    line: int
    message: str


class _Broken(Exception):  # noqa: N818 - it never leaves this module
    """The current document has a fault."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(message)
        self.fault = YamlFault(line, message)


def read_yaml(content: bytes) -> Iterator[YamlDocument | YamlFault]:
    """Yield the documents of a YAML text in order, with a fault in place of each invalid document.

    After a fault, the reader continues with the next `---`. It stops, with a last fault, after `MAX_FAULTS` faults or
    `MAX_VALUES` values, or if there are more than `MAX_DIRECTIVES` directives.

    Args:
        content: UTF-8 without a byte order mark.
    """
    if (
        len(list(islice(_DIRECTIVE.finditer(content), MAX_DIRECTIVES + 1))) > MAX_DIRECTIVES
    ):  # libyaml's time grows with their square
        yield YamlFault(1, f"more than {MAX_DIRECTIVES} lines that start with %: not read")
        return
    offset, lines, values = 0, 0, 0
    for _ in range(MAX_FAULTS):
        builder = _Builder(content, offset, lines, values)
        try:
            yield from builder.documents()
        except _Broken as broken:
            fault = broken.fault
        else:
            return
        yield fault
        if builder.values > MAX_VALUES:
            return
        restart = _next_document(content, offset, builder.restart_index)
        if restart is None:
            return
        lines += content.count(b"\n", offset, restart)
        offset, values = restart, builder.values
    yield YamlFault(lines + 1, f"more than {MAX_FAULTS} faults in this file: the rest was not read")


def _next_document(content: bytes, offset: int, index: int) -> int | None:
    """Return the byte position of the first `---` line at or after character `index`, counted from byte `offset`."""
    if content.isascii():
        start = offset + index
    else:
        start = offset + len(content[offset:].decode("utf-8")[:index].encode("utf-8"))
    match = _DOCUMENT_START.search(content, start)
    return match.start() if match else None


@dataclass(slots=True)
class _Builder:
    """Builds documents from events without recursion; only `MAX_DEPTH` limits the nesting."""

    content: bytes
    offset: int
    lines: int
    values: int
    restart_index: int = 0
    _container: Any = None
    _key: Any = _NO_KEY
    _frames: list[tuple[Any, Any, str | None, int]] = field(default_factory=list)
    _anchors: dict[str, Any] = field(default_factory=dict)
    _nulls: list[tuple[dict[Any, Any], Any]] = field(default_factory=list)
    _merging: list[dict[Any, Any]] = field(default_factory=list)
    _item_lines: list[int] = field(default_factory=list)
    _aliased: int = 0
    _known: dict[str, Any] = field(default_factory=dict)
    _most: int = 0

    def documents(self) -> Iterator[YamlDocument]:
        """Yield the documents from `offset` on.

        Raises:
            _Broken: A document has a fault; the search for the next document starts at `restart_index`.
        """
        stream = io.BytesIO(self.content)
        stream.seek(self.offset)
        parser: Any = CParser(stream)
        steps = {
            yaml.ScalarEvent: self._scalar,
            yaml.MappingStartEvent: self._start_mapping,
            yaml.MappingEndEvent: self._end,
            yaml.SequenceStartEvent: self._start_sequence,
            yaml.SequenceEndEvent: self._end,
            yaml.AliasEvent: self._alias,
        }
        line = 1
        try:
            while (event := parser.get_event()) is not None:
                kind = type(event)
                if (step := steps.get(kind)) is not None:
                    step(event)
                elif kind is yaml.DocumentStartEvent:
                    line = self._start_document(event)
                elif kind is yaml.DocumentEndEvent:
                    self.restart_index = event.end_mark.index
                    yield self._document(line)
        except yaml.YAMLError as error:
            raise self._no_yaml(error) from None

    @property
    def _hidden(self) -> bool:
        """Whether the current value may be a value of a Secret."""
        return self._key in _CONFIDENTIAL_KEYS or any(frame[1] in _CONFIDENTIAL_KEYS for frame in self._frames)

    def _line(self, event: Any) -> int:
        return self.lines + int(event.start_mark.line) + 1

    def _no_yaml(self, error: yaml.YAMLError) -> _Broken:
        mark = getattr(error, "problem_mark", None) or getattr(error, "context_mark", None)
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or "unreadable"
        context = getattr(error, "context", None)
        line = self.lines + mark.line + 1 if mark else self.lines + 1
        return _Broken(line, f"not YAML: {f'{context}, ' if context else ''}{problem}")

    def _start_document(self, event: Any) -> int:
        self.restart_index = event.end_mark.index if event.explicit else event.start_mark.index
        self._container, self._key = [], _NO_KEY
        self._anchors, self._nulls, self._merging, self._item_lines, self._aliased = {}, [], [], [], 0
        self._frames.clear()
        self._most = self.values + MAX_DOCUMENT_VALUES
        self._count(event, COST_OF_DOCUMENT)
        return self._line(event) + (1 if event.explicit else 0)

    def _document(self, line: int) -> YamlDocument:
        for mapping, key in self._nulls:
            mapping.pop(key, None)
        value = self._container[0] if self._container else None
        return YamlDocument(line, value, tuple(self._item_lines))

    def _scalar(self, event: Any) -> None:
        value = event.value
        if event.implicit[0]:
            known = self._known.get(value, _UNSEEN)
            if known is _UNSEEN:
                known = self._learn(value)
            value = known
            if value == "<<" and self._key is _NO_KEY and type(self._container) is dict:
                self._merging.append(self._container)
                value = _MERGE
        elif event.tag is not None and not event.implicit[1]:
            try:
                value = tagged(value, event.tag)
            except ValueError as error:
                message = (
                    "the tag of this value is not allowed or does not fit the value" if self._hidden else str(error)
                )
                raise _Broken(self._line(event), message) from None
        if event.anchor is not None:
            self._anchors[event.anchor] = (value, 1)
        self._add(value, event)

    def _learn(self, text: str) -> Any:
        """Resolve a plain scalar, and cache short ones: a file repeats the same few words."""
        value = resolve(text)
        self._most -= 1  # a new text takes more memory than a cached one
        if len(text) <= MAX_REMEMBERED:
            if len(self._known) >= MAX_WORDS:
                self._known.clear()
            self._known[text] = value
        return value

    def _add(self, value: Any, event: Any) -> None:
        """Add a complete value to the current list, or as key or value to the current mapping."""
        container, key = self._container, self._key
        self.values += 1
        if self.values > self._most:
            self._count(event, 0)
        if type(container) is list:
            container.append(value)
        elif key is _NO_KEY:
            if type(value) is not str and value is not _MERGE:
                value = self._key_text(value, event)
            if value in container:
                name = "<<" if value is _MERGE else value
                raise _Broken(self._line(event), f"the key {quoted(name)} appears twice in one mapping")
            self._key = value
        else:
            container[key] = value
            if value is None:
                self._nulls.append((container, key))
            self._key = _NO_KEY

    def _key_text(self, value: Any, event: Any) -> str:
        """Return the text of a key that is not text: `80:` and `yes:` are "80" and "true", as in kubectl."""
        if isinstance(value, bool):
            return "true" if value else "false"
        if isinstance(value, int | float):
            return str(value)
        raise _Broken(self._line(event), f"a key must be text, not {'null' if value is None else 'a collection'}")

    def _start_mapping(self, event: Any) -> None:
        frames = self._frames
        if len(frames) == 2 and frames[1][1] == "items":
            self._item_lines.append(self._line(event))
        self._start(event, {}, "map")

    def _start_sequence(self, event: Any) -> None:
        self._start(event, [], "seq")

    def _start(self, event: Any, container: Any, name: str) -> None:
        if event.tag is not None and event.tag not in {"!", f"{CORE_TAG}{name}"}:
            tag = "of this value" if self._hidden else quoted(event.tag)
            raise _Broken(self._line(event), f"the tag {tag} is not allowed in a manifest")
        if len(self._frames) >= MAX_DEPTH:
            raise _Broken(self._line(event), f"more than {MAX_DEPTH} levels deep")
        self._count(event, COST_OF_COLLECTION)
        if event.anchor is not None:
            self._anchors[event.anchor] = _OPEN
        self._frames.append((self._container, self._key, event.anchor, self.values + self._aliased))
        self._container, self._key = container, _NO_KEY

    def _count(self, event: Any, cost: int) -> None:
        """Add the cost of a document or collection, and check the limits.

        Raises:
            _Broken: The file or the document has too many values.
        """
        self.values += cost
        if self.values > MAX_VALUES:
            raise _Broken(self._line(event), f"more than {MAX_VALUES} values in one file: the rest was not read")
        if self.values > self._most:
            raise _Broken(self._line(event), f"more than {MAX_DOCUMENT_VALUES} values in one document")

    def _end(self, event: Any) -> None:
        value = self._container
        if self._merging and self._merging[-1] is value:
            self._merging.pop()
            self._merge(value, event)
        self._container, self._key, anchor, before = self._frames.pop()
        if anchor is not None:
            self._anchors[anchor] = (value, self.values + self._aliased - before + 1)
        self._add(value, event)

    def _alias(self, event: Any) -> None:
        known = self._anchors.get(event.anchor)
        if known is None or known is _OPEN:
            name = "at this place" if self._hidden else f"*{printable(event.anchor)}"
            wrong = "has no anchor before it" if known is None else "contains itself"
            raise _Broken(self._line(event), f"the alias {name} {wrong}")
        value, weight = known
        self._aliased += weight
        if self._aliased > MAX_ALIASED:
            raise _Broken(self._line(event), f"aliases expand to more than {MAX_ALIASED} values")
        self._add(value, event)

    def _merge(self, mapping: dict[Any, Any], event: Any) -> None:
        """Merge the mapping or mappings that `<<` names; the mapping's own keys win, then the first mapping."""
        merged = mapping.pop(_MERGE)
        for other in merged if type(merged) is list else [merged]:
            if type(other) is not dict:
                raise _Broken(self._line(event), "<< needs a mapping or a list of mappings")
            for key, value in other.items():
                if key not in mapping:
                    mapping[key] = value
                    if value is None:
                        self._nulls.append((mapping, key))
