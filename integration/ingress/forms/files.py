"""The files of cases and of hostile entries: whatever is not known in them fails, with its file, name and key."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from yaml import MappingNode, Node, ScalarNode, SequenceNode

from integration.ingress.forms import known
from integration.ingress.objects import UnknownForm
from tests.shared import YamlLoader

OWN = Path(__file__).parents[2] / "ingresses" / "files"
"""Files of the same forms that show each form once."""

_CONTROL = {"host": "ok.test", "service": "echo"}
_MERGED = "<<"


class Listed(dict[str, Any]):
    """A case or an entry of a file.

    Attributes:
        file: The name of the file.
        twice: The keys that stand twice in one mapping of it.
    """

    file: str = ""
    twice: tuple[str, ...] = ()


def cases(path: Path) -> list[dict[str, Any]]:
    """Return the cases of a file; each is checked by `check_case`, so that one fault stops one case only."""
    return _listed(path, "cases", "name", set())


def entries(path: Path) -> list[dict[str, Any]]:
    """Return the entries of a file of hostile objects, to be checked by `check_entry`."""
    return _listed(path, "entries", "id", {"control"})


def check_case(case: dict[str, Any]) -> None:
    """Raise UnknownForm for what is not known in a case."""
    _check(case, "case", "name", known.case_faults(case))


def check_entry(entry: dict[str, Any]) -> None:
    """Raise UnknownForm for what is not known in a hostile entry."""
    _check(entry, "entry", "id", known.entry_faults(entry))


def _check(element: dict[str, Any], kind: str, name: str, faults: Iterable[str]) -> None:
    file, twice = (element.file, element.twice) if isinstance(element, Listed) else ("", ())
    collected = [f"{key}: stands twice" for key in twice] + list(faults)
    if collected:
        raise UnknownForm(f"{file or 'no file'}: {kind} {element.get(name)}: " + "; ".join(collected))


def _listed(path: Path, key: str, name: str, more: set[str]) -> list[dict[str, Any]]:
    with path.open(encoding="utf-8") as text:
        loader = YamlLoader(text)
        root = loader.get_single_node()
        # Constructing puts merged keys beside the others.
        doubled = list(_twice(root, but=key))
        of_elements = [tuple(_twice(node)) for node in _elements(root, key)]
        whole = loader.construct_document(root)
    if not isinstance(whole, dict) or whole.keys() - {"version", key} - more or whole.get("version") != 1:
        raise UnknownForm(f"{path.name}: {whole!r:.200}")
    if whole.get("control", _CONTROL) != _CONTROL:
        raise UnknownForm(f"{path.name}: control {whole['control']}")
    if doubled or not isinstance(whole.get(key), list):
        raise UnknownForm(f"{path.name}: {key} is no list, or keys stand twice: {', '.join(doubled)}")
    results: list[dict[str, Any]] = []
    for number, (element, twice) in enumerate(zip(whole[key], of_elements, strict=True)):
        if not isinstance(element, dict) or not isinstance(element.get(name), str):
            raise UnknownForm(f"{path.name}: {key}[{number}] has no {name}")
        # What an alias of YAML repeats is changed in one place only.
        results.append(made := Listed(copy.deepcopy(element)))
        made.file, made.twice = path.name, twice
    return results


def _elements(root: Node, key: str) -> Iterator[Node]:
    pairs = root.value if isinstance(root, MappingNode) else []
    yield from (part for name, value in pairs if name.value == key for part in value.value)


def _twice(node: Node, but: str = "") -> Iterator[str]:
    """Yield the keys that stand twice in a mapping, with their lines; of each pair YAML drops the first in silence.

    Args:
        node: What is searched.
        but: A key of it whose value is not searched.
    """
    match node:
        case MappingNode(value=pairs):
            yield from _doubles(pairs)
            for key, value in pairs:
                yield from _twice(value) if key.value != but else ()
        case SequenceNode(value=parts):
            for part in parts:
                yield from _twice(part)


def _doubles(pairs: Iterable[tuple[Node, Node]]) -> Iterator[str]:
    seen: set[tuple[str, str]] = set()
    for key, _ in pairs:
        if not isinstance(key, ScalarNode) or key.value == _MERGED:
            continue
        if (identity := (key.tag, key.value)) in seen:
            yield f"{key.value} in line {key.start_mark.line + 1}"
        seen.add(identity)
