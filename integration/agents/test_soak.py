"""A short soak: a node under all that can go wrong at once; `python -m integration.soak` does it for minutes."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest

from integration.lab.lab import Unavailable
from integration.soak import soak

pytestmark = pytest.mark.xdist_group("agent")


def test_no_request_to_a_healthy_service_fails() -> None:
    try:
        report = soak(14, 4, kill_every_s=4, flush_every_s=8, seed=7)
    except Unavailable as reason:
        pytest.skip(str(reason))
    reported = json.dumps(asdict(report), indent=2)
    assert report.wrongs() == [], reported
    assert min(report.answered.values()) > 20, reported
    assert report.done["kills of the agent"] >= 2, reported
    assert report.done["flushes of all rules"] >= 1, reported
