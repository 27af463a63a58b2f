"""How new connections are shared among endpoints: evenly, or all of one client to one endpoint."""

from __future__ import annotations

import math
import time
from collections import Counter
from typing import TYPE_CHECKING

import pytest

from integration.lab.hosts import FAMILIES
from integration.manifests import PORT, App
from tests.sizes import sized

if TYPE_CHECKING:
    from integration.blackbox import Rulegen
    from integration.lab.hosts import Family, Transport
    from integration.lab.lab import Lab

THREE = ("pod-a", "pod-b", "pod-x")
EVEN = App(name="even", number=201, ready=THREE)
TIMEOUT_S = 3
STICKY = App(name="sticky", number=202, ready=THREE, type="LoadBalancer", external_ip=True, affinity_s=TIMEOUT_S)
STICKY_LONG = App(name="sticky-long", number=203, ready=THREE, affinity_s=10800)
WORLD = (EVEN, STICKY, STICKY_LONG)

CLIENTS = {4: [f"192.168.50.{last}" for last in range(200, 224)], 6: [f"fd00:50::{last}" for last in range(200, 224)]}
"""Many addresses of one client: each is a client of its own to affinity, and together they leave nothing to chance."""


def _chosen(lab: Lab, app: App, family: Family, protocol: Transport = "TCP") -> list[str]:
    """Return who answers each of many clients, by the balancer's address."""
    address = app.lb_ip(family)
    return [lab.client.request(protocol, address, PORT, source=source).name for source in CLIENTS[family]]


@pytest.mark.same_rules(1)
@pytest.mark.of_nftables(1)
def test_three_endpoints_get_a_third_each(lab: Lab, rulegen: Rulegen, family: Family) -> None:
    """Many connections, judged by chi-square: an even choice fails here once in a million runs."""
    rulegen.serve(WORLD)
    count = sized(quick=1500, usual=1500, full=3000)
    answers = lab["pod-c"].requests(count, "TCP", EVEN.cluster_ip(family), PORT)
    got = Counter(answer.name for answer in answers)
    assert set(got) == set(THREE)
    chi_square = sum((got[name] - count / 3) ** 2 / (count / 3) for name in THREE)
    # With two degrees of freedom the chance of more than x is exp(-x/2).
    assert math.exp(-chi_square / 2) > 1e-6, dict(got)


@pytest.mark.same_rules(1)
@pytest.mark.of_nftables(1)
def test_datagrams_of_new_sockets_are_shared_too(lab: Lab, rulegen: Rulegen, family: Family) -> None:
    rulegen.serve(WORLD)
    answers = lab["pod-c"].requests(60, "UDP", EVEN.cluster_ip(family), PORT)
    assert {answer.name for answer in answers} == set(THREE)


@pytest.mark.same_rules(1)
@pytest.mark.layouts
@pytest.mark.of_nftables(2)
def test_a_client_stays_with_its_endpoint(lab: Lab, rulegen: Rulegen, family: Family) -> None:
    """By whatever address of the Service it comes."""
    rulegen.serve(WORLD)
    answers = lab["pod-c"].requests(20, "TCP", STICKY_LONG.cluster_ip(family), PORT)
    assert len({answer.name for answer in answers}) == 1
    for source in CLIENTS[family][:6]:
        ways = (STICKY.cluster_ip(family), STICKY.lb_ip(family), STICKY.outer_ip(family))
        by = {lab.client.request("TCP", way, PORT, source=source).name for way in ways}
        by |= {lab.client.request("TCP", lab.node.addresses(family)[0], STICKY.node_port, source=source).name}
        assert len(by) == 1, source


def test_affinity_ends_when_its_time_is_over(lab: Lab, rulegen: Rulegen) -> None:
    """Chance alone gives all clients the same endpoint again once in 10^11 runs."""
    rulegen.serve(WORLD)
    first = {family: _chosen(lab, STICKY, family) for family in FAMILIES}
    again = {family: _chosen(lab, STICKY, family) for family in FAMILIES}
    assert again == first
    time.sleep(TIMEOUT_S + 0.6)
    for family in FAMILIES:
        assert set(first[family]) == set(THREE)
        later = _chosen(lab, STICKY, family)
        assert later != first[family]
        assert _chosen(lab, STICKY, family) == later


def test_affinity_is_renewed_by_each_connection(lab: Lab, rulegen: Rulegen) -> None:
    """Its time counts from the last connection, not from the first."""
    rulegen.serve(WORLD)
    first = {family: _chosen(lab, STICKY, family, "UDP") for family in FAMILIES}
    for _ in range(4):
        time.sleep(TIMEOUT_S * 0.3)
        assert {family: _chosen(lab, STICKY, family, "UDP") for family in FAMILIES} == first


@pytest.mark.same_rules(1)
@pytest.mark.of_nftables(1)
def test_only_clients_of_a_removed_endpoint_move(lab: Lab, rulegen: Rulegen, family: Family) -> None:
    app = App(name="moving", number=204, ready=THREE, type="LoadBalancer", affinity_s=10800)
    rulegen.serve((app,))
    first = _chosen(lab, app, family)
    left = App(name="moving", number=204, ready=("pod-a", "pod-x"), type="LoadBalancer", affinity_s=10800)
    rulegen.serve((left,))
    for before, after in zip(first, _chosen(lab, left, family), strict=True):
        assert after == before if before in left.ready else after in left.ready
