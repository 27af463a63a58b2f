"""JSON for machines is valid by its schema in each world of the parity data: plans, Services of dumps, models."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.plans.test_schemas import check
from tests.parity.test_parity import name_of, run
from tests.shared import each, worlds
from tests.sizes import sized

WORLDS = worlds("objects.yaml", "config.yaml", "world.yaml")
STEP = sized(quick=20, usual=3, full=1)
"""One world of so many is tried."""
DUMPS = {
    "iptables": ("iptables.save", "ip6tables.save"),
    "ipvs": ("ipvs",),
    "nftables": ("nftables.txt",),
}


@pytest.mark.parametrize("world", each(WORLDS[::STEP], "world"), ids=name_of)
def test_all_documents_of_a_world_are_valid(world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    given = ("-f", str(world / "objects.yaml"), "--config", str(world / "config.yaml"))
    given = (*given, "--host", str(world / "world.yaml"))
    dumped = {mode: [str(world / name) for name in names if (world / name).exists()] for mode, names in DUMPS.items()}
    assert any(dumped.values())
    for mode, dumps in dumped.items():
        if not dumps:
            continue
        options = (*given, "--mode", mode)
        observed = [word for dump in dumps for word in ("--observed", dump)]
        for against in (("--observed", "none"), observed):
            code, out = run(capsys, "plan", *options, *against, "-o", "json")
            assert (code, check(out, "plan")["mode"]) == (0, mode)
        code, out = run(capsys, "show", *dumps, "-o", "json")
        assert (code, bool(check(out, "dumped-services")["observed"])) == (0, True)
        assert run(capsys, "export", *options, "-o", str(tmp_path / mode))[0] == 0
        check((tmp_path / mode / "model.json").read_text(encoding="utf-8"), "model")
