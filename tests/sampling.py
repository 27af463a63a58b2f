"""A plugin of pytest, `-p tests.sampling --most-cases 8`: of each test that has more cases, so many are run.

The choice is random and the same each time: rows far apart in a table, and all values of several parameters.
"""

from __future__ import annotations

import random
from collections import defaultdict

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--most-cases", type=int, metavar="N", help="run N cases of each test that has more")


@pytest.hookimpl(trylast=True)  # of the tests that marks have left
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    most = config.getoption("most_cases")
    if most is None:
        return
    kept = sample([item.nodeid for item in items], most)
    config.hook.pytest_deselected(items=[item for item in items if item.nodeid not in kept])
    items[:] = [item for item in items if item.nodeid in kept]


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
