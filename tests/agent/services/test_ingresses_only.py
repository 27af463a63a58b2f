"""An agent that serves only Ingresses makes no rules, and its changes still count as applied."""

from __future__ import annotations

import pytest

from rulegen.agent.services.desired import DesiredServices
from rulegen.host.dataplane.idle import IdleDataplane
from rulegen.kube.objects import structs as k
from tests.agent.stage import FACTS, OPTIONS, Stage, changed, endpoints, listed, node, service


@pytest.mark.parametrize("serves", [True, False])
def test_services_have_rules_only_if_they_are_served(serves):
    stage = Stage()
    stage.desired.serves = serves
    for event in (changed(node()), changed(service("a")), changed(endpoints("a", 1)), changed(service("b", 1))):
        stage.cluster.apply_event(event)
    rules = stage.desired.decide(FACTS)
    assert sorted(each.name.name for each in rules.services) == (["a", "b"] if serves else [])
    text = str(rules.compiled().fragments)
    assert ("10.96.0.1" in text) == serves
    update = stage.desired.update(rules, stage.cluster.objects.names())
    assert any(update.services.values()) == serves


def test_changes_of_services_count_as_applied():
    stage = Stage(writer=IdleDataplane(FACTS))
    stage.desired.serves = False
    stage.at(0, changed(node()), listed(k.Service, service("a")), listed(k.EndpointSlice, endpoints("a", 1)))
    stage.at(2, changed(service("b", 2)), changed(endpoints("a", 1, 2)))
    stage.run(8)
    assert stage.state.desired > 0
    assert stage.state.applied == stage.state.desired
    assert not stage.desired.dirty.services
    assert not stage.desired.services()
    assert stage.cluster.service(stage.cluster.objects.names()[1]) == service("b", 2)


def test_by_default_services_are_served():
    assert DesiredServices(OPTIONS, counts=False).serves
