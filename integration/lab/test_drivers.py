"""The same packets in bare namespaces and in containers: a node in an unprivileged container is served as well."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from integration.blackbox import Rulegen
from integration.flows import DROPPED, REFUSED, Flow, check, kept, masked
from integration.lab.hosts import FAMILIES
from integration.manifests import App

if TYPE_CHECKING:
    from integration.blackbox import Variant
    from integration.conftest import DriverType, LabMaker
    from integration.lab.hosts import Family

SOLE = App(name="sole", number=301, ready=("pod-a",))
SPREAD = App(name="spread", number=302, ready=("pod-a", "pod-x"), type="LoadBalancer", external_ip=True)
LOCAL = App(
    name="local", number=303, ready=("pod-a", "pod-x"), type="LoadBalancer", external="Local", health_check_port=32403
)
AWAY = App(name="away", number=304, ready=("pod-x",), type="NodePort", external="Local")
EMPTY = App(name="empty", number=305, type="NodePort")
WORLD = (SOLE, SPREAD, LOCAL, AWAY, EMPTY)

FLOWS = [
    Flow("pod-b", SPREAD, "cluster", kept("pod-a", "pod-x")),
    Flow("pod-b", SPREAD, "cluster", kept("pod-a", "pod-x"), "UDP"),
    Flow("pod-b", SPREAD, "cluster", kept("pod-a", "pod-x"), "SCTP"),
    Flow("pod-a", SOLE, "cluster", masked("pod-a")),
    Flow("node1", SPREAD, "cluster", masked("pod-a", "pod-x")),
    Flow("client", SPREAD, "node", masked("pod-a", "pod-x")),
    Flow("client", SPREAD, "lb", masked("pod-a", "pod-x")),
    Flow("client", LOCAL, "lb", kept("pod-a")),
    Flow("client", AWAY, "node", DROPPED),
    Flow("pod-b", EMPTY, "cluster", REFUSED, "UDP"),
]


@pytest.fixture
def at(labs: LabMaker, driver: DriverType, variant: Variant, rulegens: dict[tuple[int, str], Rulegen]) -> Rulegen:
    """Give rulegen on the node of a lab of each driver."""
    lab = labs(driver, variant)
    return rulegens.setdefault((id(lab), variant), Rulegen(lab, variant))


@pytest.mark.same_rules(12)
@pytest.mark.of_nftables(6)
@pytest.mark.parametrize("flow", FLOWS, ids=str)
def test_flow(at: Rulegen, flow: Flow, family: Family) -> None:
    at.serve(WORLD)
    check(at.lab, flow, family)


def test_a_second_apply_has_nothing_to_do(at: Rulegen) -> None:
    at.serve(WORLD)
    at.check_converged()


def test_cleanup_leaves_no_way_to_a_service(at: Rulegen) -> None:
    at.serve(WORLD)
    at.cleanup()
    for family in FAMILIES:
        assert at.lab["pod-b"].request("TCP", SPREAD.cluster_ip(family), 80).outcome == "unreachable"
