"""The agent is built in one go: each part is given what it calls, and gets no callback from outside afterwards."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.project.places import ROOT

AGENT = ROOT / "rulegen/agent"
FILES = sorted(AGENT.rglob("*.py"))


def fields(text: str) -> Iterator[tuple[str, bool]]:
    """Yield the fields of classes, each with whether it is declared to be called."""
    for kind in ast.walk(ast.parse(text)):
        for node in kind.body if isinstance(kind, ast.ClassDef) else ():
            if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
                yield node.target.id, "Callable" in ast.unparse(node.annotation)


def set_on_others(text: str) -> Iterator[tuple[str, ast.expr | None]]:
    """Yield each attribute that code assigns to an object other than its own, with what it assigns."""
    for node in ast.walk(ast.parse(text)):
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        for target in targets:
            if isinstance(target, ast.Attribute) and ast.unparse(target.value) not in {"self", "cls"}:
                yield ast.unparse(target), getattr(node, "value", None)


@cache
def callbacks() -> set[str]:
    """Return the names of fields that are declared to be called, wherever they are declared."""
    declared = {field for file in FILES for field in fields(file.read_text())}
    return {name for name, is_called in declared if is_called and (name, False) not in declared}


PAGES = {"client.page"}
"""What a client waits for, which its loop changes with each request."""


def late(text: str) -> list[str]:
    """Return the callbacks that code sets on objects that exist already."""
    return [
        name
        for name, value in set_on_others(text)
        if (name.rpartition(".")[2] in callbacks() or isinstance(value, ast.Lambda)) and name not in PAGES
    ]


@pytest.mark.not_quick
def test_the_check_sees_a_callback_that_is_set_later():
    text = (
        "loop.on_ready = self._on_ready\nwriter.look = lambda facts: facts\nself.on_ready = ready\nloop.known = known"
    )
    assert late(text) == ["loop.on_ready", "writer.look"]
    assert {"on_ready", "send_event", "has_synced"} <= callbacks()


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(AGENT)))
def test_no_callback_is_set_after_construction(file: Path):
    assert late(file.read_text()) == []
