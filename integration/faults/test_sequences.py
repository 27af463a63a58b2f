"""After any sequence of faults of the host, all is as after a fresh start; what was not broken was served meanwhile."""

from __future__ import annotations

import os

import pytest

from integration.faults.engines import PROGRAMS
from integration.faults.modes import MODES, ServiceMode
from integration.faults.scene import APART, TOGETHER, scene
from integration.faults.sequences import Sequence, check_like_fresh_start, run_asked
from integration.lab.lab import Unavailable
from tests.rights import needs_root
from tests.sizes import sized

pytestmark = [
    needs_root,
    pytest.mark.slow,
    pytest.mark.xdist_group("agent faults"),
    pytest.mark.skipif(not PROGRAMS, reason="neither nginx nor haproxy is installed"),
]

SEQUENCES = int(os.environ.get("RULEGEN_FAULT_SEQUENCES", sized(quick="1", usual="1", full="20")))
STEPS = int(os.environ.get("RULEGEN_FAULT_STEPS", sized(quick="5", usual="7", full="12")))
ROWS: tuple[ServiceMode | None, ...] = sized(quick=(None,), usual=(None,), full=MODES)
"""The modes that are tried: all of them, or the one that the seed chooses for a layout."""
FIRST_SEED = int(os.environ.get("RULEGEN_FAULT_SEED", "1"))


@pytest.mark.timeout(300 + 60 * SEQUENCES)
@pytest.mark.parametrize("layout", [TOGETHER, APART])
@pytest.mark.parametrize("mode", ROWS, ids=lambda row: row.name if row else "drawn")
def test_after_any_faults_all_is_as_after_a_fresh_start(layout: str, mode: ServiceMode | None) -> None:
    try:
        with scene(layout, FIRST_SEED, mode) as node:
            for seed in range(FIRST_SEED, FIRST_SEED + SEQUENCES):
                run_asked(Sequence(node, seed), STEPS)
            check_like_fresh_start(node)
    except Unavailable as reason:
        pytest.skip(str(reason))
