"""Killed in the middle of a first load: the next apply completes it, from whatever it finds."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import TYPE_CHECKING

import pytest

from integration import rulesets
from integration.blackbox import VARIANT_ROWS
from integration.lab.hosts import FAMILIES
from integration.manifests import PORT, App, world

if TYPE_CHECKING:
    from integration.blackbox import Rulegen, Variant
    from integration.lab.lab import Lab
    from integration.rulesets import Ruleset

SERVICES = 400
APPS = tuple(
    App(name=f"app-{number}", number=number, ready=("pod-a", "pod-b", "pod-x"), protocols=("TCP",), type="NodePort")
    for number in range(1001, 1001 + SERVICES)
)
WORLD = world(APPS)


@pytest.fixture(scope="session")
def full() -> dict[str, Ruleset]:
    """Remember, for each variant, what an undisturbed load leaves in the kernel."""
    return {}


# When it is killed: counted from its start, while nothing is written yet, or from the first rule of its that is seen;
# and whether the tool that it runs is killed with it, or writes on alone.
MOMENTS = [
    ("start", 0.05, True),
    ("first rule", 0.0, True),
    ("first rule", 0.05, False),
    ("first rule", 0.1, True),
    ("first rule", 0.2, False),
    ("first rule", 0.4, True),
]


@pytest.mark.same_rules(3)
@pytest.mark.of_nftables(2)
@pytest.mark.parametrize(("event", "later_s", "group"), MOMENTS)
def test_an_apply_after_a_killed_one_completes_it(
    lab: Lab, rulegen: Rulegen, variant: Variant, *, event: str, later_s: float, group: bool, full: dict[str, Ruleset]
) -> None:
    if variant not in full:
        rulesets.wipe(lab.node, variant)
        rulegen.apply(WORLD)
        full[variant] = rulesets.observe(lab.node, variant)

    rulesets.wipe(lab.node, variant)
    rulegen.write(WORLD)
    running = rulegen.start("apply")
    if event == "first rule":
        table = VARIANT_ROWS[variant].table
        seen = f"nft list tables | grep -q {table}" if table else f"iptables-{variant}-save | grep -q '^-A KUBE-'"
        if lab.node.run(["sh", "-c", f"until {seen}; do sleep 0.01; done"], timeout_s=30).code != 0:
            pytest.fail(f"apply has not begun to write: {running.wait(1).stderr}")
    lab.node.run(["sleep", str(later_s + Random().random() * 0.05)]).check()
    running.kill(group=group)
    assert running.wait().code in {-9, 0}

    rulegen.apply(WORLD)
    rulegen.check_converged()
    rules = rulesets.observe(lab.node, variant)
    for family in FAMILIES:
        assert rules[family] - full[variant][family] == Counter()
        assert full[variant][family] - rules[family] == Counter()
    for app in (APPS[0], APPS[-1]):
        assert lab["pod-c"].request("TCP", app.cluster_ip(4), PORT).outcome == "answered"


def test_what_was_served_before_is_served_in_between(lab: Lab, rulegen: Rulegen, variant: Variant) -> None:
    """A Service that the killed apply did not mean to change answers all the while."""
    rulesets.wipe(lab.node, variant)
    rulegen.apply(world(APPS[:1]))
    asking = lab["pod-c"].repeat("TCP", APPS[0].cluster_ip(4), PORT, pause_s=0.01)
    for moment_s in (0.05, 0.35, 0.7):
        rulegen.write(WORLD)
        running = rulegen.start("apply")
        lab.node.run(["sleep", str(moment_s)]).check()
        running.kill()
        running.wait()
        rulegen.apply(world(APPS[:1]))
    report = asking.stop()
    assert (report.failures, report.first_failures) == (0, [])
    assert set(report.answered) == {"pod-a", "pod-b", "pod-x"}
