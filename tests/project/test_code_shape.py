"""Names and sizes of all code of rulegen: what is found again quickly, and read without scrolling."""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[2] / "rulegen"
MODULES = {str(path.relative_to(ROOT)): path.read_text() for path in sorted(ROOT.rglob("*.py"))}
TREES = {name: ast.parse(text) for name, text in MODULES.items()}
LINES_OF_A_FUNCTION, LINES_OF_A_MODULE = 60, 450
EMPTY_NAMES = {"told", "found", "one"}


def test_no_two_classes_share_a_name():
    modules = defaultdict(list)
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                modules[node.name].append(name)
    assert {name: where for name, where in modules.items() if len(where) > 1} == {}


def test_functions_and_modules_are_short():
    long = [name for name, text in MODULES.items() if text.count("\n") > LINES_OF_A_MODULE]
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or 0) - node.lineno + 1
                long += [f"{name}: {node.name}"] if lines > LINES_OF_A_FUNCTION else []
    assert long == []


def test_variables_say_what_they_hold():
    empty = []
    for name, tree in TREES.items():
        for node in ast.walk(tree):
            match node:
                case ast.Name(variable, ast.Store()) | ast.arg(variable):
                    empty += [f"{name}:{node.lineno}: {variable}"] if variable in EMPTY_NAMES else []
    assert empty == []
