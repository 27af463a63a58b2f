"""An agent that serves only Ingresses makes no rules, and its changes still count as applied."""

from __future__ import annotations

import io
import time

import msgspec
import pytest

from rulegen.agent.agent import Agent
from rulegen.agent.services.desired import DesiredServices
from rulegen.agent.telemetry.log import AgentLog
from rulegen.host.dataplane.idle import IdleDataplane
from rulegen.kube.endpoints_from import EndpointsFrom
from rulegen.kube.objects import structs as k
from rulegen.kube.objects.packed import PackedObject
from rulegen.model.services.stale_flows import StaleUdpPolicy
from tests.agent.stage import FACTS, OPTIONS, Stage, changed, endpoints, listed, node, service
from tests.servers.fakeapi import FakeApi


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


def agent_of(kubeconfig: str, **options: object) -> Agent:
    fields = {
        "options": msgspec.structs.replace(OPTIONS, healthz_address="", metrics_address=""),
        "facts": FACTS,
        "variant": None,
        "stale_udp": StaleUdpPolicy.ALL,
        "counts": False,
        "kubeconfig": kubeconfig,
        "context": None,
        "log": AgentLog(out=io.StringIO()),
        "mends": True,
        "once": True,
        "services": False,
        "clock": time.monotonic,
        "events": False,
        "follows_host": False,
    }
    return Agent(**(fields | options))


@pytest.mark.parametrize("endpoints_from", list(EndpointsFrom))
def test_an_agent_for_ingresses_alone_keeps_services_packed(tmp_path, endpoints_from):
    """Except with endpoints from Pods, for which all Services are read with each change of a Pod."""
    with FakeApi() as api:
        api.put("services", msgspec.to_builtins(service("a")), msgspec.to_builtins(service("b", 2)))
        agent = agent_of(api.kubeconfig(tmp_path), endpoints_from=endpoints_from)
        assert agent.run() == "once"
    kept = [each for each in agent.known.cluster.snapshot() if isinstance(each.object, k.Service)]
    assert sorted(each.name.name for each in kept) == ["a", "b"]
    packed = [isinstance(each, PackedObject) for each in kept]
    assert packed == [endpoints_from is EndpointsFrom.SLICES] * 2


@pytest.mark.parametrize("services", [False, True])
def test_services_that_have_rules_are_not_packed(services):
    assert agent_of("/nowhere", services=services)._following().packs is not services
