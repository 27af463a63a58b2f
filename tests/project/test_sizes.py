"""One variable says how much property tests, loads and long waits try; nothing says it inline."""

from __future__ import annotations

import ast

import pytest

from tests.project.places import ROOT
from tests.sampling import sample
from tests.sizes import Size, read_size

FILES = [file for folder in ("tests", "integration") for file in sorted((ROOT / folder).rglob("*.py"))]


@pytest.mark.not_quick
def test_every_count_of_examples_is_scaled() -> None:
    inline = [
        f"{file.relative_to(ROOT)}:{node.value.lineno}"
        for file in FILES
        if "max_examples" in (text := file.read_text(encoding="utf-8"))
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.keyword) and node.arg == "max_examples" and not isinstance(node.value, ast.Call)
    ]
    assert not inline, "max_examples=examples(...) from tests/sizes.py scales with RULEGEN_TEST_SIZE"


@pytest.mark.parametrize(("text", "size"), [("quick", Size.QUICK), ("usual", Size.USUAL), ("FULL", Size.FULL)])
def test_a_size_has_a_name(text: str, size: Size) -> None:
    assert read_size(text) is size


def test_another_name_is_an_error_that_names_them() -> None:
    with pytest.raises(ValueError, match="RULEGEN_TEST_SIZE=huge: expected quick, usual, full"):
        read_size("huge")


def test_a_sample_has_some_cases_of_each_test() -> None:
    ids = ["a::few[1]", "a::few[2]", "a::none", *(f"b::many[{row}-{mode}]" for row in range(50) for mode in ("x", "y"))]
    kept = sample(ids, 8)
    assert kept > set(ids[:3])
    assert len(kept) == 3 + 8
    assert {case[-2] for case in kept if "many" in case} == {"x", "y"}
    assert kept == sample(ids, 8)
    assert sample(ids, 100) == set(ids)
