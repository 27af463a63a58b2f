"""Reads the output of `nft list ruleset`, as nft 1.0.6 and 1.1 print it.

A dump that is cut or has other words in the place of names and types is an error with its line. A statement of a rule
that rulegen never writes is kept as text. Tables of other programs are skipped.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from rulegen.languages.nftables import state
from rulegen.languages.nftables.canonical import element_part, number, seconds, type_name
from rulegen.languages.nftables.state import (
    BaseChain,
    ElementData,
    ElementValue,
    NamedSet,
    NftChain,
    NftObjects,
    OtherObject,
    TableValue,
)
from rulegen.languages.nftables.text_rules import text_rule, text_verdict
from rulegen.languages.nftables.text_tokens import Words

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rulegen.languages.nftables.statements import NftRule
    from rulegen.net import Family

_BEGIN: Final = re.compile(r"\s*(?:#[^\n]*\n\s*)*table (?:ip|ip6|inet|arp|bridge|netdev) [^\s{]+ *\{")
_FAMILIES: Final = {name: family for family, name in state.FAMILIES.items()}
_PRIORITY: Final = re.compile(r"-?[0-9]{1,10}\Z")
_DETAILS: Final = frozenset({"comment", "timeout", "expires", "counter", "limit", "quota", "last"})
"""The words behind the key of an element that are no part of it."""


def is_text_dump(text: str) -> bool:
    """Whether the text looks like the output of `nft list`."""
    return _BEGIN.match(text) is not None


def read_text(text: str, source: str, tables: frozenset[str]) -> dict[Family, NftObjects]:
    """Return the objects of these tables, for each family that has any table in the dump.

    Raises:
        InputError: The dump cannot be read.
    """
    words = Words(text, source)
    states: dict[Family, NftObjects] = {}
    words.skip_lines()
    while not words.is_at_end:
        words.take("table")
        family, table = _FAMILIES.get(words.name()), words.name()
        objects = states.setdefault(family, {}) if family is not None else {}
        if family is None or table not in tables:
            words.skip_block()
        else:
            _TableText(words, table, objects).read()
        words.skip_lines()
    return states


class _TableText:
    """One table; its words follow."""

    def __init__(self, words: Words, table: str, objects: NftObjects) -> None:
        self._words, self._table, self._objects = words, table, objects

    def read(self) -> None:
        words = self._words
        key = state.table_key(self._table)
        self._put(key, TableValue())
        words.take("{")
        words.skip_lines()
        while words.text != "}":
            kind = words.take()
            match kind:
                case "flags":
                    self._objects[key] = TableValue.read(words.line())
                case "comment":
                    words.line()
                case "set" | "map":
                    self._set(words.name())
                case "chain":
                    self._chain(words.name())
                case _:
                    self._other(kind)
            words.skip_lines()
        words.take("}")

    def _other(self, kind: str) -> None:
        words, head = self._words, []
        while words.text not in {"{", "\n", "}", ""}:
            head.append(words.take())
        if not head or words.text != "{":
            raise words.error(f"{kind[:40]!r} in place of a set, map or chain")
        content = " ".join(word for word in words.skip_block() if word != "\n")
        self._put(state.other_key(self._table, " ".join((kind, *head[:-1])), head[-1]), OtherObject(content))

    def _chain(self, name: str) -> None:
        words = self._words
        base: BaseChain | None = None
        rules: list[NftRule] = []
        words.take("{")
        words.skip_lines()
        while words.text != "}":
            line = words.line()
            if line[:1] == ["type"] and "hook" in line:
                base = self._base(line)
            elif line[:1] == ["policy"] and base is not None:
                base = BaseChain(base.type, base.hook, base.priority, " ".join(line[1:]))
            elif line and line[0] != "comment":
                rules.append(text_rule(line))
            words.skip_lines()
        words.take("}")
        self._put(state.chain_key(self._table, name), NftChain(tuple(rules), base))

    def _base(self, line: Sequence[str]) -> BaseChain:
        """Return the hook in a line such as `type nat hook output priority dstnat - 10`."""
        try:
            at = line.index("priority")
            return BaseChain(line[1], line[line.index("hook") + 1], _priority(line[at + 1 :]))
        except (ValueError, IndexError):
            raise self._words.error("a hook without a type or a priority") from None

    def _set(self, name: str) -> None:
        words = self._words
        lines: dict[str, list[str]] = {}
        words.take("{")
        words.skip_lines()
        while words.text != "}":
            line = words.line()
            if line:
                lines[line[0]] = line[1:]
            words.skip_lines()
        words.take("}")
        known = self._definition(lines)
        self._put(state.set_key(self._table, name), known)
        if not known.is_learnt:
            for element in _elements(lines.get("elements", [])):
                self._element(name, known, element)

    def _definition(self, lines: dict[str, list[str]]) -> NamedSet:
        if "type" not in lines and "typeof" not in lines:
            raise self._words.error("a set without a type")
        key, data = _cut(lines.get("type") or lines["typeof"], ":")
        flags = frozenset(lines.get("flags", ())) - {",", "dynamic"}
        try:
            timeout = seconds("".join(lines["timeout"])) if "timeout" in lines else None
            size = number(" ".join(lines["size"])) if "size" in lines else None
        except ValueError as error:
            raise self._words.error(str(error)) from None
        return NamedSet(_types(key), _types(data) if data is not None else (), flags, timeout, size)

    def _element(self, name: str, known: NamedSet, element: list[str]) -> None:
        key, mapped = _cut(element, ":")
        if not key or (mapped is None) is known.is_map:
            raise self._words.error(f"an element of {name[:64]!r} before this line cannot be read")
        data: ElementData | None = None
        if mapped is not None:
            verdict = text_verdict(mapped) if known.data == (state.VERDICT,) else None
            data = verdict or tuple(_parts(mapped, known.data))
        parts = tuple(_parts(key, known.key))
        at = state.element_key(self._table, name, parts)
        self._objects[at] = ElementValue(data) if data is not None else state.IN_SET

    def _put(self, key: state.NftKey, value: state.NftValue) -> None:
        if key in self._objects:
            raise self._words.error(f"{key.name[:64] or self._table!r} appears twice")
        self._objects[key] = value


def _priority(words: Sequence[str]) -> int:
    """Return the priority that words such as `dstnat - 10` or `-110` name.

    Raises:
        ValueError: They name none.
    """
    text = "".join(words)
    name = next((name for name in state.PRIORITIES if text.startswith(name)), "")
    rest = text.removeprefix(name).removeprefix("+") if name else text
    if rest and not _PRIORITY.match(rest):
        raise ValueError(text)
    return state.PRIORITIES.get(name, 0) + (int(rest) if rest else 0)


def _elements(words: Sequence[str]) -> Iterator[list[str]]:
    """Yield the words of each element in `= { … }`, without comments and counters."""
    element: list[str] = []
    skips = False
    for word in words[2:-1]:  # without the equals sign and the braces
        if word == ",":
            if element:
                yield element
            element, skips = [], False
        elif word in _DETAILS:
            skips = True
        elif word == ":":
            skips = False
            element.append(word)
        elif not skips:
            element.append(word)
    if element:
        yield element


def _cut(words: Sequence[str], separator: str) -> tuple[list[str], list[str] | None]:
    if separator not in words:
        return list(words), None
    at = words.index(separator)
    return list(words[:at]), list(words[at + 1 :])


def _types(words: Sequence[str]) -> tuple[str, ...]:
    return tuple(map(type_name, _joined(words)))


def _joined(words: Sequence[str]) -> tuple[str, ...]:
    """Return the words between dots."""
    return tuple(part.strip() for part in " ".join(words).split(" . "))


def _parts(words: Sequence[str], types: tuple[str, ...]) -> Iterator[str]:
    for index, part in enumerate(_joined(words)):
        yield element_part(types[index] if index < len(types) else "", part)
