"""Names and sizes of all code of rulegen: what is found again quickly, and read without scrolling."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2] / "rulegen"
MODULES = {str(path.relative_to(ROOT)): path.read_text() for path in sorted(ROOT.rglob("*.py"))}
LINES_OF_A_FUNCTION, LINES_OF_A_FILE = 60, 450
EMPTY_NAMES = {"told", "found", "one"}
FOLDERS = ("rulegen", "tests", "integration", "deploy")


def test_no_two_classes_share_a_name():
    modules = defaultdict(list)
    for name, text in MODULES.items():
        for kind in re.findall(r"^ *class (\w+)[(:]", text, re.MULTILINE):
            modules[kind].append(name)
    assert {name: where for name, where in modules.items() if len(where) > 1} == {}


def test_files_are_short():
    files = [*ROOT.parent.glob("*.py"), *(path for folder in FOLDERS for path in (ROOT.parent / folder).rglob("*.py"))]
    assert len(files) > len(MODULES)
    assert [str(path) for path in files if path.read_text().count("\n") > LINES_OF_A_FILE] == []


def test_functions_are_short():
    long = []
    for name, text in MODULES.items():
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or 0) - node.lineno + 1
                long += [f"{name}: {node.name}"] if lines > LINES_OF_A_FUNCTION else []
    assert long == []


@pytest.mark.parametrize("folder", FOLDERS)
def test_names_say_what_they_hold(folder):
    """A variable is bound by an assignment, a parameter, `except … as`, or a pattern; functions count as well."""
    files = sorted((ROOT.parent / folder).rglob("*.py"))
    assert files
    name = rf"\b({'|'.join(EMPTY_NAMES)})\b"
    words = re.compile(rf"{name}\s*([^\w\s]?=(?!=)|[,:()\]|]|in\b)|(\bas|\bdef|\|)\s+{name}")  # what may bind a name
    empty = []
    for path in files:
        text = path.read_text()
        for node in ast.walk(ast.parse(text)) if words.search(text) else ():
            match node:
                case ast.Name(name, ast.Store()) | ast.arg(name) | ast.FunctionDef(name) | ast.ExceptHandler(name=name):
                    pass
                case ast.MatchAs(name=name) | ast.MatchStar(name=name):
                    pass
                case _:
                    continue
            empty += [f"{path}:{node.lineno}: {name}"] if name in EMPTY_NAMES else []
    assert empty == []
