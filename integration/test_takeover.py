"""A node that kube-proxy has programmed: it is as it should be, and a single rule less is seen."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from integration import saves
from integration.blackbox import CHANGES, NO_CHANGES
from integration.lab.lab import ROOT
from integration.manifests import App, world

if TYPE_CHECKING:
    from integration.blackbox import Rulegen
    from integration.lab.hosts import Family
    from integration.lab.lab import Lab

PARITY = Path(os.environ.get("RULEGEN_SHARED") or ROOT.parent / "shared") / "parity"
WORLDS = (
    "015-lb-source-ranges-dual",
    "021-affinity-dual",
    "026-both-policies-local",
    "097-random-1007",
)
pytestmark = pytest.mark.skipif(not PARITY.is_dir(), reason=f"no dumps of kube-proxy in {PARITY} (RULEGEN_SHARED)")


def _load(lab: Lab, rulegen: Rulegen, folder: Path) -> dict[Family, str]:
    """Put what kube-proxy wrote into the kernel; the counters that its rules refer to come from an apply before."""
    rulegen.apply(world([App(name="any", number=951, ready=("pod-a",))]))
    saves.wipe(lab.node, rulegen.variant)
    texts: dict[Family, str] = {4: (folder / "iptables.save").read_text(), 6: (folder / "ip6tables.save").read_text()}
    saves.load(lab.node, rulegen.variant, texts)
    return texts


@pytest.mark.parametrize("name", WORLDS)
def test_there_is_nothing_to_change_on_a_node_of_kube_proxy(lab: Lab, rulegen: Rulegen, name: str) -> None:
    folder = PARITY / name
    _load(lab, rulegen, folder)
    planned = rulegen.plan_of(folder / "objects.yaml", folder / "config.yaml", folder / "world.yaml")
    assert planned.code == NO_CHANGES, planned.stdout


def test_a_rule_that_is_missing_there_is_seen(lab: Lab, rulegen: Rulegen) -> None:
    folder = PARITY / WORLDS[2]
    texts = _load(lab, rulegen, folder)
    lines = [line for line in saves.lines(texts[4]) if "--to-destination" not in line.text]
    saves.load(lab.node, rulegen.variant, {4: saves.joined(lines)})
    planned = rulegen.plan_of(folder / "objects.yaml", folder / "config.yaml", folder / "world.yaml")
    assert planned.code == CHANGES
