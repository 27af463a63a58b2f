"""Tests of one group run on one worker and share what was built for them: pytest and xdist must agree on groups."""

from __future__ import annotations

import os

import pytest

pytestmark = pytest.mark.xdist_group("groups")


@pytest.mark.skipif("PYTEST_XDIST_WORKER" not in os.environ, reason="there is one worker")
def test_a_worker_knows_the_group_of_a_test(request: pytest.FixtureRequest) -> None:
    """xdist 3.8 writes it into names that pytest 9.2 does not read: then each worker builds everything."""
    if not request.config.getoption("loadgroup", default=False):
        pytest.skip("tests are not handed out by group")
    assert request.node.nodeid.endswith("@groups")
