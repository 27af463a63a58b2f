"""Killed in the middle of a first load: the next apply completes it, from whatever it finds."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import TYPE_CHECKING

import pytest

from integration import saves
from integration.lab.hosts import FAMILIES
from integration.manifests import PORT, App, world

if TYPE_CHECKING:
    from integration.blackbox import Rulegen
    from integration.lab.hosts import Family
    from integration.lab.lab import Lab

SERVICES = 300
APPS = tuple(
    App(name=f"app-{number}", number=number, ready=("pod-a", "pod-b", "pod-x"), protocols=("TCP",), type="NodePort")
    for number in range(1001, 1001 + SERVICES)
)
WORLD = world(APPS)
KILLS = 5


@pytest.fixture(scope="session")
def first_loads() -> dict[str, tuple[float, dict[Family, Counter[str]]]]:
    """Remember, for each variant, how long an undisturbed load takes and what it leaves in the kernel."""
    return {}


def _rules(lab: Lab, variant: str) -> dict[Family, Counter[str]]:
    return {family: Counter(text.splitlines()) for family, text in saves.save(lab.node, variant).items()}


@pytest.mark.parametrize("attempt", range(KILLS))
def test_an_apply_after_a_killed_one_completes_it(
    lab: Lab,
    rulegen: Rulegen,
    variant: str,
    attempt: int,
    first_loads: dict[str, tuple[float, dict[Family, Counter[str]]]],
) -> None:
    """Killed at five moments spread over the load, alone or with the tool that it runs."""
    if variant not in first_loads:
        saves.wipe(lab.node, variant)
        took_s = rulegen.apply(WORLD).elapsed_s
        first_loads[variant] = took_s, _rules(lab, variant)
    took_s, expected = first_loads[variant]

    saves.wipe(lab.node, variant)
    rulegen.write(WORLD)
    running = rulegen.start("apply")
    moment_s = took_s * (attempt + Random().random()) / KILLS
    # Its start is the same each time and writes nothing; what is told apart below is only whether it was killed at all.
    lab.node.run(["sleep", f"{moment_s:.3f}"]).check()
    running.kill(group=attempt % 2 == 0)
    killed = running.wait()
    assert killed.code in {-9, 0}, killed.stderr

    rulegen.apply(WORLD)
    rulegen.check_converged()
    rules = _rules(lab, variant)
    for family in FAMILIES:
        assert rules[family] - expected[family] == Counter()
        assert expected[family] - rules[family] == Counter()
    for app in (APPS[0], APPS[-1]):
        assert lab["pod-c"].request("TCP", app.cluster_ip(4), PORT).outcome == "answered"


def test_what_was_served_before_is_served_in_between(lab: Lab, rulegen: Rulegen, variant: str) -> None:
    """A Service that the killed apply did not mean to change answers all the while."""
    saves.wipe(lab.node, variant)
    rulegen.apply(world(APPS[:1]))
    asking = lab["pod-c"].repeat("TCP", APPS[0].cluster_ip(4), PORT, pause_s=0.01)
    for moment_s in (0.5, 0.8, 1.2):
        rulegen.write(WORLD)
        running = rulegen.start("apply")
        lab.node.run(["sleep", str(moment_s)]).check()
        running.kill()
        running.wait()
        rulegen.apply(world(APPS[:1]))
    report = asking.stop()
    assert (report.failures, report.first_failures) == (0, [])
    assert set(report.answered) == {"pod-a", "pod-b", "pod-x"}
