"""Tables of nftables with every kind of Service: nft lists them, and packets change nothing in them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from integration.conftest import NFTABLES
from integration.packets.test_flows import CLIENT, PORTED, WORLD

if TYPE_CHECKING:
    from integration.blackbox import Rulegen, Variant
    from integration.lab.lab import Lab


@pytest.mark.variants(*NFTABLES)
def test_nft_lists_all_that_is_written(lab: Lab, rulegen: Rulegen, variant: Variant) -> None:
    extras = ("drop-invalid", "health-ports", "localhost-node-ports") if variant == "nftables" else ()
    rulegen.serve(WORLD, None, *(word for extra in extras for word in ("--nftables-extra", extra)))
    rulegen.check_converged()
    before = lab.node.run(["nft", "-s", "list", "ruleset"]).check().stdout
    assert json.loads(lab.node.run(["nft", "-j", "list", "ruleset"]).check().stdout)["nftables"]
    assert lab[CLIENT].request("TCP", lab.node.addresses(4)[0], PORTED.node_port).outcome == "answered"
    assert lab.node.run(["nft", "-s", "list", "ruleset"]).check().stdout == before
