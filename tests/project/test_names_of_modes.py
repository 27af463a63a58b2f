"""No code asks for a mode or a language by its name: what differs between them is a row of a table."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from rulegen.compiler.tables import BACKENDS, LANGUAGES

ROOT = Path(__file__).parents[2] / "rulegen"
NAMES = {*BACKENDS, *LANGUAGES, "nftables"}
TABLES = {
    "backends/table.py": "the rows of the modes",
    "kube/proxyconfig/modes.py": "which sections of a configuration each mode reads",
    "model/services/modes.py": "what decisions depend on, of each mode",
    "kube/proxyconfig/configuration.py": "the sections of a configuration have these names",
    "host/commands/runner.py": "packages have the names of their tools",
    "host/files/dumps.py": "a file of a dump has the name of its tool",
    "cli/json_schemas.py": "a field of model.json has this name",
}
"""Modules with tables, or with the names of other things that are spelled alike."""
MODULES = sorted(path for path in ROOT.rglob("*.py") if str(path.relative_to(ROOT)) not in TABLES)


def names_asked_for(tree: ast.AST) -> list[str]:
    """Return the names in comparisons, match statements, and keys of mappings."""
    asked: list[ast.expr | None] = []
    for node in ast.walk(tree):
        match node:
            case ast.Compare(left, _, comparators):
                asked += [left, *comparators]
            case ast.MatchValue(value):
                asked.append(value)
            case ast.Dict(keys, _):
                asked += keys
            case ast.Subscript(_, key):
                asked.append(key)
            case _:
                continue
    inside = [inner for each in asked if each is not None for inner in ast.walk(each)]
    constants = [each for each in inside if isinstance(each, ast.Constant)]
    return [f"line {each.lineno}: {each.value}" for each in constants if each.value in NAMES]


@pytest.mark.parametrize("text", ["mode == 'ipvs'", "{'ipset': 1}", "x['iptables']", "a in ('links', b)"])
def test_what_the_rule_is_about_is_found(text):
    assert names_asked_for(ast.parse(text))


def test_no_module_asks_for_a_mode_by_its_name():
    quoted = re.compile(rf"[\"'](?:{'|'.join(map(str, NAMES))})[\"']")
    texts = {str(path.relative_to(ROOT)): path.read_text() for path in MODULES}
    named = {module: text for module, text in texts.items() if quoted.search(text)}
    asking = {module: names_asked_for(ast.parse(text)) for module, text in named.items()}
    assert {module: names for module, names in asking.items() if names} == {}


def test_each_exception_is_needed():
    assert {name for name in TABLES if names_asked_for(ast.parse((ROOT / name).read_text()))} == TABLES.keys()
