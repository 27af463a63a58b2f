"""Commands and agent know no ingress engine by name: an engine has its own modules and one row of a table."""

from __future__ import annotations

import ast
from dataclasses import fields
from pathlib import Path

import pytest

from rulegen.cli.engines.table import ENGINES

ROOT = Path(__file__).parents[2] / "rulegen"

MODE_OF: dict[str, str] = {"rulegen.backends.userspace": "haproxy"}
"""Modes whose connections go through a program that is also an engine: they write its language."""


def of_engine(module: str, engine: str) -> bool:
    return engine in module.split(".") or MODE_OF.get(module.rpartition(".")[0]) == engine


def imported(tree: ast.AST) -> set[str]:
    names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def decided_on(tree: ast.AST) -> set[object]:
    """Return the constants that anything is compared with, or that are keys or cases."""
    nodes: list[ast.expr | None] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Compare):
            nodes += [node.left, *node.comparators]
        elif isinstance(node, ast.MatchValue):
            nodes.append(node.value)
        elif isinstance(node, ast.Dict):
            nodes += node.keys
        elif isinstance(node, ast.Subscript):
            nodes.append(node.slice)
    return {node.value for node in nodes if isinstance(node, ast.Constant)}


@pytest.mark.not_quick
@pytest.mark.parametrize("engine", ENGINES)
def test_no_module_knows_an_engine_but_its_own_and_the_table(engine):
    known, compared = {}, {}
    for path in ROOT.rglob("*.py"):
        module = ".".join(("rulegen", *path.relative_to(ROOT).with_suffix("").parts))
        if of_engine(module, engine):
            continue
        text = path.read_text()
        tree = ast.parse(text if engine in text else "")
        known[module] = {name for name in imported(tree) if of_engine(name, engine)}
        compared[module] = decided_on(tree) & {engine}
    assert {module: names for module, names in known.items() if names} == {
        "rulegen.cli.engines.table": {f"rulegen.cli.engines.{engine}.row.{engine.upper()}"}
    }
    assert not {module: names for module, names in compared.items() if names}


@pytest.mark.parametrize("engine", ENGINES)
def test_the_options_of_an_engine_are_those_that_it_takes(engine):
    row = ENGINES[engine]
    assert {field.name for field in fields(row.choice())} == set(row.parameters)
