"""A node that kube-proxy has programmed: it is as it should be, and a single rule less is seen."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from integration import rulesets, saves
from integration.blackbox import CHANGES, NO_CHANGES, VARIANT_ROWS
from integration.conftest import IPTABLES
from integration.lab.lab import ROOT
from integration.manifests import App, world

if TYPE_CHECKING:
    from integration.blackbox import Rulegen
    from integration.lab.hosts import Family
    from integration.lab.lab import Lab

PARITY = Path(os.environ.get("RULEGEN_SHARED") or ROOT.parent / "shared") / "parity"
_FEATURES = (" -j KUBE-FW-", " -m recent ", " -j KUBE-SVL-", " -p sctp ")
"""Words of rules: source ranges, session affinity, policies that are Local, SCTP."""
_DNAT = "--to-destination"


def _worlds() -> list[str]:
    """Return the first world for each feature that has it in both families, and the last one of all.

    Worlds for which kube-proxy could have written something else as well (`variants/`) are left out.
    """
    saves_of = {
        folder.name: [folder / name for name in ("iptables.save", "ip6tables.save")]
        for folder in sorted(PARITY.glob("*/"))
        if not (folder / "variants").exists()
    }
    texts = {
        name: [save.read_text() for save in both]
        for name, both in saves_of.items()
        if all(save.exists() for save in both)
    }
    results = [
        next((name for name, both in texts.items() if all(word in text for text in both)), "") for word in _FEATURES
    ]
    return list(dict.fromkeys(name for name in (*results, *list(texts)[-1:]) if name))


WORLDS = _worlds()
pytestmark = [
    pytest.mark.skipif(not WORLDS, reason=f"no dumps of kube-proxy in {PARITY} (RULEGEN_SHARED)"),
    pytest.mark.variants(*IPTABLES, "kube-proxy"),
]


def _load(lab: Lab, rulegen: Rulegen, folder: Path) -> dict[Family, str]:
    """Put what kube-proxy wrote into the kernel; the counters that its rules refer to come from an apply before."""
    rulegen.apply(world([App(name="any", number=951, ready=("pod-a",))]))
    rulesets.wipe(lab.node, rulegen.variant)
    if VARIANT_ROWS[rulegen.variant].table:
        lab.node.run(["nft", "-f", str(folder / "nftables.txt")]).check()
        return {}
    texts: dict[Family, str] = {4: (folder / "iptables.save").read_text(), 6: (folder / "ip6tables.save").read_text()}
    saves.load(lab.node, rulegen.variant, texts)
    lab.node.run(["conntrack", "-F"]).check()  # connections of other tests on this node, which no Service has here
    return texts


@pytest.mark.same_rules(2)
@pytest.mark.parametrize("name", WORLDS)
def test_there_is_nothing_to_change_on_a_node_of_kube_proxy(lab: Lab, rulegen: Rulegen, name: str) -> None:
    folder = PARITY / name
    _load(lab, rulegen, folder)
    planned = rulegen.plan_of(folder / "objects.yaml", folder / "config.yaml", folder / "world.yaml")
    assert planned.code == NO_CHANGES, planned.stdout


def test_a_rule_that_is_missing_there_is_seen(lab: Lab, rulegen: Rulegen) -> None:
    folders = (PARITY / name for name in WORLDS)
    folder = next((entry for entry in folders if _DNAT in (entry / "iptables.save").read_text()), None)
    if folder is None:
        pytest.skip(f"no world in {PARITY} that forwards to an endpoint")
    texts = _load(lab, rulegen, folder)
    if texts:
        lines = [line for line in saves.lines(texts[4]) if _DNAT not in line.text]
        saves.load(lab.node, rulegen.variant, {4: saves.joined(lines)})
    else:
        lab.node.run(["nft", "flush chain ip kube-proxy masquerading"]).check()
    planned = rulegen.plan_of(folder / "objects.yaml", folder / "config.yaml", folder / "world.yaml")
    assert planned.code == CHANGES
