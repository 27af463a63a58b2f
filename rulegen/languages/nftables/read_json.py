"""Reads the output of `nft -j list ruleset`, as nft 1.0.6 and 1.1 print it.

A dump that is cut, or whose objects lack names or types, is an error with its place. A statement of a rule that rulegen
never writes is kept as text. Tables of other programs are skipped.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

import msgspec

from rulegen.errors import InputError
from rulegen.languages.nftables import state
from rulegen.languages.nftables.canonical import element_part, type_name
from rulegen.languages.nftables.json_rules import constant_text, json_rule, json_verdict, number_of, texts_of
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

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rulegen.languages.nftables.statements import NftRule
    from rulegen.net import Family

_BEGIN: Final = re.compile(r'\s*\{\s*"nftables"')
_FAMILIES: Final = {name: family for family, name in state.FAMILIES.items()}
_UNSET: Final = frozenset({"dynamic"})


def is_json_dump(text: str) -> bool:
    """Whether the text looks like the output of `nft -j list`."""
    return _BEGIN.match(text) is not None


def read_json(text: str, source: str, tables: frozenset[str]) -> dict[Family, NftObjects]:
    """Return the objects of these tables, for each family that has any table in the dump.

    Raises:
        InputError: The dump cannot be read.
    """
    try:
        document = msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        raise InputError(
            source, f"not readable as JSON: {error}", hint="save it again with nft -j list ruleset"
        ) from None
    except RecursionError:
        raise InputError(source, "nested too deeply to be a dump of nft") from None
    entries = document.get("nftables") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        raise InputError(source, "no list `nftables`", hint="save it with nft -j list ruleset")
    return _JsonReader(source, tables).read(entries)


class _JsonReader:
    def __init__(self, source: str, tables: frozenset[str]) -> None:
        self._source, self._tables = source, tables
        self._objects: dict[Family, NftObjects] = {}
        self._rules: dict[tuple[Family, state.NftKey], list[NftRule]] = {}
        self._at = ""

    def read(self, entries: list[Any]) -> dict[Family, NftObjects]:
        for index, entry in enumerate(entries):
            self._at = f"nftables[{index}]"
            if not isinstance(entry, dict) or len(entry) != 1:
                raise self._error("not an object with one key")
            ((kind, value),) = entry.items()
            if kind == "metainfo":
                continue
            if not isinstance(value, dict):
                raise self._error(f"{kind} is not an object")
            self._at += f".{kind}"
            family = _FAMILIES.get(self._text(value, "family"))
            if family is None:
                continue
            table = self._text(value, "name" if kind == "table" else "table")
            objects = self._objects.setdefault(family, {})
            if table in self._tables:
                self._take(kind, table, value, objects, family)
        for (family, key), rules in self._rules.items():
            chain = self._objects[family][key]
            if isinstance(chain, NftChain):
                self._objects[family][key] = NftChain(tuple(rules), chain.base)
        return self._objects

    def _take(self, kind: str, table: str, value: dict[str, Any], objects: NftObjects, family: Family) -> None:
        match kind:
            case "table":
                self._put(objects, state.table_key(table), TableValue.read(texts_of(value.get("flags"))))
            case "chain":
                key = state.chain_key(table, self._text(value, "name"))
                self._put(objects, key, NftChain((), self._base(value)))
            case "rule":
                key = state.chain_key(table, self._text(value, "chain"))
                if key not in objects:
                    raise self._error(f"a rule of the chain {key.name[:64]!r}, which no entry before it has")
                rule = json_rule(self._list(value, "expr"), _comment(value))
                self._rules.setdefault((family, key), []).append(rule)
            case "set" | "map":
                self._take_set(table, value, objects)
            case "element":
                raise self._error("a single element: this is not the output of nft -j list ruleset")
            case _:
                name = value.get("name")
                key = state.other_key(table, kind, name if isinstance(name, str) else str(value.get("handle", "")))
                objects[key] = OtherObject(msgspec.json.encode(value).decode())

    def _take_set(self, table: str, value: dict[str, Any], objects: NftObjects) -> None:
        name, flags = self._text(value, "name"), frozenset(texts_of(value.get("flags"))) - _UNSET
        known = NamedSet(
            self._types(value.get("type"), "type"),
            self._types(value["map"], "map") if "map" in value else (),
            flags,
            self._number(value, "timeout"),
            self._number(value, "size"),
        )
        self._put(objects, state.set_key(table, name), known)
        if known.is_learnt or "elem" not in value:
            return
        for element in self._list(value, "elem"):
            self._take_element(table, name, known, element, objects)

    def _take_element(self, table: str, name: str, known: NamedSet, element: Any, objects: NftObjects) -> None:
        try:
            data: ElementData | None = None
            if known.is_map:
                element, mapped = element
                verdict = json_verdict(mapped) if known.data == (state.VERDICT,) else None
                data = verdict or tuple(_parts(mapped, known.data))
            key = tuple(_parts(element, known.key))
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            raise self._error(f"an element of {name[:64]!r} cannot be read") from None
        objects[state.element_key(table, name, key)] = ElementValue(data) if data is not None else state.IN_SET

    def _put(self, objects: NftObjects, key: state.NftKey, value: state.NftValue) -> None:
        if key in objects:
            raise self._error(f"{key.name[:64]!r} appears twice")
        objects[key] = value

    def _base(self, value: dict[str, Any]) -> BaseChain | None:
        if "hook" not in value:
            return None
        priority = self._number(value, "prio")
        policy = value.get("policy", "accept")
        if priority is None or not isinstance(policy, str):
            raise self._error("a chain with a hook needs a priority and a policy")
        return BaseChain(self._text(value, "type"), self._text(value, "hook"), priority, policy)

    def _types(self, value: Any, field: str) -> tuple[str, ...]:
        types = [value] if isinstance(value, str) else value
        if not isinstance(types, list) or not types or not all(isinstance(each, str) for each in types):
            return (f"unknown {field}: {msgspec.json.encode(value).decode()}",)  # such as typeof; never one of ours
        return tuple(type_name(part) for each in types for part in each.split(" . "))  # nft 1.0.6 joins those of data

    def _text(self, value: dict[str, Any], field: str) -> str:
        text = value.get(field)
        if not isinstance(text, str) or not text:
            raise self._error(f"no text in the field {field}")
        return text

    def _list(self, value: dict[str, Any], field: str) -> list[Any]:
        items = value.get(field, [])
        if not isinstance(items, list):
            raise self._error(f"no list in the field {field}")
        return items

    def _number(self, value: dict[str, Any], field: str) -> int | None:
        if field not in value:
            return None
        try:
            return number_of(value[field])
        except ValueError:
            raise self._error(f"no number in the field {field}") from None

    def _error(self, text: str) -> InputError:
        return InputError(self._source, f"{self._at}: {text}", hint="save it again with nft -j list ruleset")


def _comment(value: dict[str, Any]) -> str:
    comment = value.get("comment")
    return comment if isinstance(comment, str) else ""


def _parts(value: Any, types: tuple[str, ...]) -> Iterator[str]:
    """Yield the parts of a key or value of an element."""
    if isinstance(value, dict) and "elem" in value:  # with a comment or a counter
        value = value["elem"]["val"]
    parts = value["concat"] if isinstance(value, dict) and "concat" in value else [value]
    for index, part in enumerate(parts):
        yield element_part(types[index] if index < len(types) else "", constant_text(part))
