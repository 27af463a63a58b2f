"""Addresses in statuses follow whether this node serves."""

from __future__ import annotations

from rulegen.agent.status.publisher import ABSENT_S
from tests.agent.talking import ingress

A = "192.0.2.1"


def test_a_node_that_serves_nothing_is_not_published(place):
    place.api.put("ingresses", ingress("web"))
    node, serves = place.node("a", A), True
    node.addresses = lambda: (A,) if serves else None
    node.turn()
    assert place.published("ingresses", "web") == [A]
    serves = False
    node.turn()
    assert place.published("ingresses", "web") == []
    serves = True
    node.turn()
    assert place.published("ingresses", "web") == [A]


def test_addresses_of_an_earlier_run_stay_for_a_while(place):
    place.api.put("ingresses", {**ingress("web"), "status": {"loadBalancer": {"ingress": [{"ip": A}]}}})
    node = place.node("a")
    node.turn()
    assert place.published("ingresses", "web") == [A]
    place.clock.now += ABSENT_S
    node.turn()
    assert place.published("ingresses", "web") == []


def test_addresses_stay_at_the_end_if_they_are_to_stay(place):
    place.api.put("ingresses", ingress("web"))
    node, serves = place.node("a", A, withdraws=False), True
    node.addresses = lambda: (A,) if serves else None
    node.turn()
    node.state.ends()
    serves = False
    node.turn()
    node.stop(for_good=True)
    assert place.published("ingresses", "web") == [A]
