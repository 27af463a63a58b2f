"""What `scripts/mutate` does to a file: each mutant is another program, and the same seed gives the same ones."""

from __future__ import annotations

import ast
from functools import cache

import pytest

from integration.mutation.concern import concerned_tests, sample
from integration.mutation.mutants import Mutant, mutants
from tests.project.places import ROOT
from tests.sizes import sampled


@pytest.mark.parametrize(
    ("source", "edits"),
    [
        ("a == b", ["(a != b)"]),
        ("a < b <= c", ["(a <= b <= c)", "(a < b < c)"]),
        ("a and b", ["(a or b)"]),
        ("not a", ["(a)"]),
        ("a if b else c", ["(c if b else a)"]),
        ("a | b", ["(a & b)"]),
        ("x = True", ["(False)"]),
        ("x = 80", ["(81)"]),
        ("x = 'ACCEPT'", ["('ACCEPTx')"]),
        ("x += y", ["pass"]),
        ("write(x)", ["pass"]),
        ("'''A docstring.'''", []),
        ("raise ValueError('no')", []),
        ("def f(x: 'X') -> 'Y': ...", []),
        ("@dataclass(frozen=True)\nclass A: ...", []),
        ("f'{x == 1}'", []),
        ("T = TypeVar('T', bound='A')", []),
        ("x = typing.cast('A', 80)", ["(81)"]),
        ("class A(Protocol[T]):\n    def f(self, *, x: bool = True) -> None:\n        '''A promise.'''", []),
        ("class A(Base):\n    x = 80", ["(81)"]),
    ],
)
def test_edits(source: str, edits: list[str]) -> None:
    assert [mutant.text for mutant in mutants("x.py", source.encode())] == edits


@cache
def chosen() -> list[Mutant]:
    return sample(ROOT, 100, 1)


@pytest.mark.slow
def test_a_mutant_is_another_program_that_still_parses() -> None:
    for mutant in sampled(chosen()):
        source = (ROOT / mutant.path).read_bytes()
        assert ast.dump(ast.parse(mutant.applied(source))) != ast.dump(ast.parse(source)), mutant


@pytest.mark.not_quick
def test_the_same_seed_gives_the_same_mutants() -> None:
    assert sample(ROOT, 100, 1) == chosen()
    assert len(chosen()) == 100


@pytest.mark.not_quick
def test_each_mutant_concerns_some_tests() -> None:
    assert all(concerned_tests(ROOT, mutant) for mutant in chosen())
