"""Endpoints that no Ingress may have are told by events, and follow the addresses of the node."""

from __future__ import annotations

from ipaddress import ip_address

from msgspec.structs import replace

from rulegen.kube.objects import structs as k
from rulegen.model.forbidden import Forbidden
from tests.agent.site_unread.stage import Stage
from tests.strategies.ingresses import endpoints, ingress, path, rule, service

OWN = Forbidden(own=frozenset({ip_address("192.0.2.7")}))
MIXED = (service("mixed"), endpoints("mixed", ("10.244.1.5", "192.0.2.7")))


def node(*addresses: str) -> k.Node:
    node_addresses = tuple(k.NodeAddress(type="InternalIP", address=address) for address in addresses)
    return k.Node(metadata=k.ObjectMeta(name="node1"), status=k.NodeStatus(addresses=node_addresses))


def upstreams(stage: Stage) -> str:
    assert stage.site.live is not None
    return "".join(text for name, text in stage.site.live.files.items() if name.startswith("upstreams/"))


def of_mixed() -> k.Ingress:
    return ingress("mixed", rule("mixed.test", path("/", to="mixed")))


def test_each_ingress_with_a_refused_endpoint_has_an_event():
    stage = Stage(*MIXED, of_mixed())
    stage.site.options = replace(stage.site.options, forbidden=OWN)
    stage.turn()
    assert "10.244.1.5" in upstreams(stage)
    assert "192.0.2.7" not in upstreams(stage)
    (event,) = (candidate for candidate in stage.events if candidate.reason == "ForbiddenAddress")
    assert event.about.name == "mixed"
    assert "192.0.2.7:8080 is not used: 192.0.2.7 is an address of this node" in event.note


def test_an_address_that_the_node_gains_is_refused_at_once():
    stage = Stage(*MIXED, of_mixed())
    stage.site.options = replace(stage.site.options, node="node1")
    stage.turn()
    assert "192.0.2.7" in upstreams(stage)
    stage.server.put(node("192.0.2.7"))
    stage.turn()
    assert "192.0.2.7" not in upstreams(stage)
    stage.server.put(node("192.0.2.9"))
    stage.turn()
    assert "192.0.2.7" in upstreams(stage)
