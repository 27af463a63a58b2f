"""A short soak: a node under all that can go wrong at once; `python -m integration.soak` does it for minutes."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest

from integration.harms import HARMS
from integration.lab.lab import Unavailable
from integration.soak import soak
from tests.sizes import sized

SECONDS = sized(quick=9.0, usual=9.0, full=60.0)
LIFE_S = sized(quick=3.0, usual=3.0, full=20.0)
PAUSE_S = sized(quick=0.04, usual=0.04, full=0.01)
"""Between the questions of a client."""

pytestmark = pytest.mark.xdist_group("agent")


@pytest.mark.parametrize("mode", HARMS)
def test_no_request_to_a_healthy_service_fails(mode: str) -> None:
    each_s = {"kill_every_s": SECONDS / 3, "flush_every_s": SECONDS / 2, "pause_s": PAUSE_S}
    try:
        report = soak(SECONDS, LIFE_S, seed=7, mode=mode, **each_s)
    except Unavailable as reason:
        pytest.skip(str(reason))
    reported = json.dumps(asdict(report), indent=2)
    assert report.wrongs() == [], reported
    assert min(report.answered.values()) > 20, reported
    assert report.done["kills of the agent"] >= 2, reported
    assert report.done["flushes of all rules"] >= 1, reported
    assert mode == "iptables" or report.lost == 0, reported
