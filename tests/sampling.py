"""A plugin of pytest, `-p tests.sampling --most-cases 1`: of each test that has more cases, so many are run.

The choice is random and the same each time: rows far apart in a table, and all values of several parameters.
"""

from __future__ import annotations

import random
from collections import defaultdict
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator


SLOW = {"slow", "not_quick"}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--most-cases", type=int, metavar="N", help="run N cases of each test that has more")


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_generate_tests(metafunc: pytest.Metafunc) -> Iterator[None]:
    """Choose before pytest makes an item of each case: to make ten thousand takes seconds. Slow cases come last."""
    yield
    most = metafunc.config.getoption("most_cases")
    calls = metafunc._calls  # no hook is told the cases before they are items
    if most is None or len(calls) <= most:
        return
    fast = [call for call in calls if all(mark.name not in SLOW for mark in call.marks)]
    name = metafunc.definition.nodeid
    kept = sample([f"{name}[{call.id}]" for call in fast or calls], most)
    calls[:] = [call for call in calls if f"{name}[{call.id}]" in kept]


def sample(ids: list[str], most: int) -> set[str]:
    """Return the ids of at most so many cases of each test."""
    cases = defaultdict(list)
    for each in ids:
        cases[each.partition("[")[0]].append(each)
    return {
        each
        for test, group in cases.items()
        for each in (group if len(group) <= most else random.Random(test).sample(group, most))
    }
