"""What no linter sees: the pure floors touch nothing outside."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.project.places import PACKAGE

PURE = ("errors", "net", "diff", "kube", "model", "languages", "plan", "backends", "road")
"""The floors that turn values into values; the rest may look at the machine and speak to people."""

FORBIDDEN = {"open", "print", "input", "exec", "eval", "compile", "breakpoint", "exit", "quit", "__import__"}
FORBIDDEN_METHODS = {"open", "read_text", "write_text", "read_bytes", "write_bytes", "import_module"}


def calls(source: str) -> Iterator[tuple[int, str]]:
    """Yield the line and the name of each forbidden call."""
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Call(func=ast.Name(id=name)) if name in FORBIDDEN:
                yield node.lineno, name
            case ast.Call(func=ast.Attribute(attr=name)) if name in FORBIDDEN_METHODS:
                yield node.lineno, name


def modules() -> list[Path]:
    files = [path for floor in PURE for path in (PACKAGE / floor).rglob("*.py")]
    return sorted(files + [PACKAGE / f"{floor}.py" for floor in PURE if (PACKAGE / f"{floor}.py").exists()])


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("open('x')", [(1, "open")]),
        ("\nio.open('x')", [(2, "open")]),
        ("print(1)", [(1, "print")]),
        ("Path('x').read_text()", [(1, "read_text")]),
        ("re.compile('x')", []),
        ("def open(): ...", []),
    ],
)
def test_a_forbidden_call_is_found(source: str, expected: list[tuple[int, str]]) -> None:
    assert list(calls(source)) == expected


def test_every_pure_floor_is_there() -> None:
    assert {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in modules()} == set(PURE)


def test_pure_floors_open_print_and_ask_nothing() -> None:
    found = [
        f"{path.relative_to(PACKAGE)}:{line}: {name}()"
        for path in modules()
        for line, name in calls(path.read_text(encoding="utf-8"))
    ]

    assert found == []
