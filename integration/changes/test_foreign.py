"""What is not a proxy's stays as it was, to the byte and to the count of its packets."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from integration import rulesets, saves
from integration.conftest import IPTABLES
from integration.lab.hosts import FAMILIES
from integration.manifests import App, world

if TYPE_CHECKING:
    from collections.abc import Iterator

    from integration.blackbox import Rulegen, Variant
    from integration.lab.lab import Lab

ONE = App(
    name="one", number=501, ready=("pod-a", "pod-x"), type="LoadBalancer", external_ip=True, ranges=("10.0.0.0/8",)
)
ONE_LATER = App(name="one", number=501, ready=("pod-b",), affinity_s=60)
TWO = App(name="two", number=502, type="NodePort")
THREE = App(name="three", number=503, ready=("pod-a",), type="NodePort", external="Local")
FIRST, SECOND = world([ONE, TWO]), world([ONE_LATER, THREE])

# A runtime's, a network plugin's, a kubelet's and an administrator's rules. Where they stand is part of what they mean.
OTHERS = r"""*raw
-A PREROUTING -i eth1 -p udp -m udp --dport 9 -j CT --notrack
COMMIT
*mangle
:KUBE-IPTABLES-HINT - [0:0]
:KUBE-KUBELET-CANARY - [0:0]
-A FORWARD -p tcp -m tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu
COMMIT
*nat
:DOCKER - [0:0]
:KUBE-HOSTPORTS - [0:0]
:KUBE-MARK-DROP - [0:0]
:cali-PREROUTING - [0:0]
:kube-services - [0:0]
-A PREROUTING -m comment --comment "cali:6gwbT8clXdHdC1b1" -j cali-PREROUTING
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A PREROUTING -j kube-services
-A OUTPUT -m addrtype --dst-type LOCAL -j KUBE-HOSTPORTS
-A POSTROUTING ! -o eth0 -m comment --comment "not ours: -j KUBE-POSTROUTING" -j RETURN
-A DOCKER -i docker0 -j RETURN
-A DOCKER ! -i docker0 -p tcp -m tcp --dport 18080 -j REDIRECT --to-ports 8081
-A KUBE-MARK-DROP -j MARK --set-xmark 0x8000/0x8000
-A kube-services -p tcp -m tcp --dport 5 -j RETURN
COMMIT
*filter
:DOCKER-USER - [0:0]
:KUBE-KUBELET-CANARY - [0:0]
:KUBE-NWPLCY-DEFAULT - [0:0]
:MINE - [0:0]
-A INPUT -p tcp -m tcp --dport 5 -m comment --comment "counts" -j MINE
-A INPUT -m comment --comment "it's \"odd\" -j KUBE-SERVICES" -j MINE
-A FORWARD -j DOCKER-USER
-A FORWARD -i eth1 -o eth1 -j DROP
-A OUTPUT -p tcp -m tcp --dport 25 -m owner --uid-owner 65534 -j REJECT --reject-with tcp-reset
-A DOCKER-USER -j RETURN
-A KUBE-NWPLCY-DEFAULT -m comment --comment "A Very 'long' comment; with $(things) in it" -j RETURN
-A MINE -p tcp -m tcp --dport 5 -m limit --limit 5/min -j RETURN
COMMIT
"""


@pytest.fixture
def crowded(lab: Lab, rulegen: Rulegen, variant: Variant) -> Iterator[Rulegen]:
    """Give a node with others' rules and none of ours; in the end it has none at all."""
    rulegen.served = None
    rulesets.wipe(lab.node, variant)
    saves.load(lab.node, variant, dict.fromkeys(FAMILIES, OTHERS))
    yield rulegen
    rulesets.wipe(lab.node, variant)


@pytest.mark.layouts
def test_others_rules_stay_through_apply_change_and_cleanup(lab: Lab, crowded: Rulegen, variant: Variant) -> None:
    before = saves.foreign(saves.save(lab.node, variant))
    assert all(len(kept) > 25 for kept in before.values())
    for objects in (FIRST, SECOND, FIRST):
        crowded.apply(objects)
        crowded.check_converged()
        assert saves.foreign(saves.save(lab.node, variant)) == before
    crowded.cleanup()
    after = saves.save(lab.node, variant)
    assert saves.foreign(after) == before
    # A kubelet is at work here, and shares this one chain with us.
    left = {line.chain for text in after.values() for line in saves.lines(text) if line.is_proxys}
    assert left <= {"KUBE-FIREWALL", "INPUT", "OUTPUT"}


@pytest.mark.variants(*IPTABLES)
def test_rules_that_others_add_later_keep_their_place(lab: Lab, crowded: Rulegen, variant: Variant) -> None:
    """Before ours, between ours, and behind them."""
    crowded.apply(FIRST)
    for family in FAMILIES:
        tool = saves.tool(variant, family)
        for place in ("1", "3", "7"):
            rule = ["-p", "tcp", "-m", "tcp", "--dport", f"100{place}", "-j", "MINE"]
            lab.node.run([tool, "-I", "INPUT", place, *rule]).check()
    before = saves.foreign(saves.save(lab.node, variant))
    crowded.check_converged()
    crowded.apply(SECOND)
    assert saves.foreign(saves.save(lab.node, variant)) == before
    crowded.cleanup()
    assert saves.foreign(saves.save(lab.node, variant)) == before


@pytest.mark.of_nftables(0)
def test_others_counters_are_not_set_back(lab: Lab, crowded: Rulegen, variant: Variant) -> None:
    def count() -> int:
        text = lab.node.run([f"{saves.tool(variant, 4)}-save", "-c", "-t", "filter"]).check().stdout
        results = re.search(r"^\[(\d+):\d+\] -A INPUT .*counts", text, re.MULTILINE)
        assert results
        return int(results[1])

    lab.client.requests(3, "TCP", lab.node.addresses(4)[0], 5)
    assert count() == 3
    crowded.apply(FIRST)
    crowded.apply(SECOND)
    crowded.cleanup()
    assert count() == 3


def test_tables_that_are_not_of_iptables_stay(lab: Lab, crowded: Rulegen, variant: Variant) -> None:
    mine = "table inet mine { set s { type ipv4_addr; elements = { 10.9.9.9 } }; chain c { ip saddr @s drop; }; }"
    lab.node.run(["nft", "-f", "-"], stdin=mine).check()
    try:
        before = lab.node.run(["nft", "list", "table", "inet", "mine"]).check().stdout
        crowded.apply(FIRST)
        crowded.cleanup()
        assert lab.node.run(["nft", "list", "table", "inet", "mine"]).check().stdout == before
    finally:
        lab.node.run(["nft", "delete", "table", "inet", "mine"]).check()


@pytest.mark.layouts
def test_cleanup_leaves_nothing_and_then_does_nothing(lab: Lab, rulegen: Rulegen, variant: Variant) -> None:
    rulesets.wipe(lab.node, variant)
    rulegen.apply(FIRST)
    assert all(rulesets.observe(lab.node, variant).values())
    rulegen.cleanup()
    texts = saves.save(lab.node, variant)
    for family, text in texts.items():
        assert [line for line in saves.lines(text) if line.is_proxys] == [], family
    left = rulesets.observe(lab.node, variant)
    assert variant in IPTABLES or not any(left.values())
    rulegen.cleanup()
    assert saves.save(lab.node, variant) == texts


@pytest.mark.variants(*IPTABLES)
def test_the_other_variant_is_not_touched(lab: Lab, rulegen: Rulegen, variant: Variant) -> None:
    """Rules of the variant that is not ours to write stay, whoever wrote them."""
    other = "legacy" if variant == "nft" else "nft"
    rule = "*filter\n:MINE - [0:0]\n-A INPUT -p tcp -m tcp --dport 5 -j MINE\nCOMMIT\n"
    saves.load(lab.node, other, dict.fromkeys(FAMILIES, rule))
    try:
        before = saves.save(lab.node, other)
        rulegen.apply(FIRST)
        rulegen.cleanup()
        assert saves.save(lab.node, other) == before
    finally:
        saves.wipe(lab.node, other)
