"""What the import linter cannot see: the pure layers touch nothing outside, and no package is code in `__init__`."""

from __future__ import annotations

import ast
import sys
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.project.places import PACKAGE, ROOT

CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]["contracts"]
PURE = tuple(
    module.removeprefix("rulegen.")
    for contract in CONTRACTS
    if contract["name"] == "only host and apiserver do I/O"
    for module in contract["source_modules"]
)
"""The layers that turn values into values; the rest may look at the machine and speak to people."""
LAYERS = next(contract["layers"] for contract in CONTRACTS if contract["type"] == "layers")
MOST_FILES = 14

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
    files = [path for layer in PURE for path in (PACKAGE / layer).rglob("*.py")]
    return sorted(files + [PACKAGE / f"{layer}.py" for layer in PURE if (PACKAGE / f"{layer}.py").exists()])


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


def test_every_layer_below_the_edges_is_a_pure_one() -> None:
    below = LAYERS[LAYERS.index("safe_files") + 1 :]
    layers = {name.strip() for line in below for name in line.split("|") if "(" not in name}

    assert layers == set(PURE)
    assert {path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in modules()} == layers


def test_no_init_holds_code() -> None:
    for init in PACKAGE.rglob("__init__.py"):
        body = ast.parse(init.read_text(encoding="utf-8")).body
        assert all(isinstance(statement, ast.Expr) for statement in body) or init.parent == PACKAGE, init


@pytest.mark.parametrize("tree", ["rulegen", "tests", "integration"])
def test_a_folder_is_small_enough_to_be_read_at_once(tree: str) -> None:
    folders = Counter(path.parent for path in (ROOT / tree).rglob("*.py"))

    assert {folder: number for folder, number in folders.items() if number > MOST_FILES} == {}


def test_no_module_is_named_like_one_of_the_standard_library() -> None:
    names = {path.stem for path in PACKAGE.rglob("*.py")} | {path.parent.name for path in PACKAGE.rglob("*.py")}

    assert not names & set(sys.stdlib_module_names) - {"__main__"}


@pytest.mark.not_quick
def test_pure_layers_open_print_and_ask_nothing() -> None:
    results = [
        f"{path.relative_to(PACKAGE)}:{line}: {name}()"
        for path in modules()
        for line, name in calls(path.read_text(encoding="utf-8"))
    ]

    assert results == []
