"""Names of tests fit on a line of a report: the effect in a few words, the rest in the docstring."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.project.places import ROOT

LONGEST = 60
SHORT = ("integration", "tests/flows", "tests/hostile", "tests/parity", "tests/project")
"""Folders where all names are short. The others follow."""


def files(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


@pytest.mark.parametrize("folder", SHORT)
def test_names_of_tests_are_short(folder: str) -> None:
    long = [
        f"{file.relative_to(ROOT)}:{node.lineno} {node.name}"
        for file in files(folder)
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_") and len(node.name) > LONGEST
    ]
    assert not long
