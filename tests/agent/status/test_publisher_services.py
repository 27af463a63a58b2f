"""The addresses in the status of Services of type LoadBalancer."""

from __future__ import annotations

import pytest

from rulegen.agent.status.addresses import node_addresses
from rulegen.agent.status.services import PUBLISHED
from rulegen.kube.objects import structs as k
from tests.agent.talking import NAMESPACE, balanced, slice_on

A, B, C = "203.0.113.1", "203.0.113.2", "2001:db8::3"


class TestServices:
    @pytest.fixture
    def nodes(self, place):
        publications = [place.service_publication(("TCP", 22)) for _ in range(2)]
        return [
            place.node(name, *addresses, publication=publication, group="services")
            for (name, *addresses), publication in zip((("a", A, C), ("b", B)), publications, strict=True)
        ]

    def turn(self, nodes) -> None:
        for node in [*nodes, *nodes]:
            node.turn()

    def test_services_that_nobody_serves_get_the_nodes_addresses(self, place, nodes):
        both = {"ipFamilies": ["IPv4", "IPv6"], "clusterIPs": ["10.96.0.2", "fd00:10:96::2"]}
        place.api.put("services", balanced("web", 80), balanced("both", 81, number=2, **both))
        self.turn(nodes)
        assert place.published("services", "web") == [A, B]
        assert place.published("services", "both") == [C, A, B]
        status = place.api.kept("services")["shop", "web"]["status"]
        assert {entry["ipMode"] for entry in status["loadBalancer"]["ingress"]} == {"VIP"}
        assert status["conditions"][0]["type"] == PUBLISHED

    def test_what_is_somebody_elses_stays(self, place, nodes):
        other = {"loadBalancer": {"ingress": [{"ip": "198.51.100.1"}]}}
        place.api.put(
            "services",
            {**balanced("served", 80), "status": other},
            balanced("classy", 81, number=2, loadBalancerClass="example.com/lb"),
            balanced("internal", 82, number=3, type="ClusterIP"),
        )
        before = place.api.kept("services")
        self.turn(nodes)
        for node in nodes:
            node.stop(for_good=True)
        assert place.api.kept("services") == before

    def test_the_last_one_takes_all_out_and_leaves_no_trace(self, place, nodes):
        foreign = {
            "type": "example.com/Ready",
            "status": "True",
            "reason": "R",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }
        place.api.put("services", {**balanced("web", 80), "status": {"loadBalancer": {}, "conditions": [foreign]}})
        self.turn(nodes)
        assert place.published("services", "web") == [A, B]
        for node in nodes:
            node.stop(for_good=True)
        status = place.api.kept("services")["shop", "web"]["status"]
        assert status == {"loadBalancer": {}, "conditions": [foreign]}

    def test_once_somebody_else_serves_it_it_is_theirs(self, place, nodes):
        place.api.put("services", balanced("web", 80))
        self.turn(nodes)
        kept = place.api.kept("services")["shop", "web"]
        theirs = {**kept["status"], "loadBalancer": {"ingress": [{"ip": "198.51.100.1"}]}}
        place.api.put("services", {**kept, "status": theirs})
        self.turn(nodes)
        for node in nodes:
            node.stop(for_good=True)
        assert place.published("services", "web") == ["198.51.100.1"]

    def test_a_restart_knows_what_is_ours(self, place, nodes):
        place.api.put("services", balanced("web", 80))
        self.turn(nodes)
        again = place.node("a", A, publication=place.service_publication(), group="services")
        place.clock.now += 60
        for _ in range(10):
            again.turn()
            place.clock.now += 5
        assert place.published("services", "web") == [A]

    def test_local_traffic_goes_to_nodes_that_have_endpoints(self, place, nodes):
        place.api.put("services", balanced("web", 80, externalTrafficPolicy="Local"))
        place.api.put("endpointslices", slice_on("web", "b", "elsewhere"))
        self.turn(nodes)
        assert place.published("services", "web") == [B]
        place.api.put("endpointslices", slice_on("web", "a"))
        self.turn(nodes)
        assert place.published("services", "web") == [A]
        place.api.delete("endpointslices", "shop", "web-1")
        self.turn(nodes)
        assert place.published("services", "web") == []

    def test_of_two_with_one_port_the_older_is_published(self, place, nodes):
        place.api.put("services", balanced("young", 80, created="2026-02-01T00:00:00Z"), balanced("old", 80, number=2))
        self.turn(nodes)
        assert (place.published("services", "old"), place.published("services", "young")) == ([A, B], [])
        assert list(place.refused.values()) == [] or "shop/old" in str(place.refused)

    def test_a_port_that_the_node_itself_listens_on_is_not_taken(self, place, nodes):
        place.api.put("services", balanced("ssh", 22), balanced("web", 80, number=2))
        self.turn(nodes)
        assert (place.published("services", "ssh"), place.published("services", "web")) == ([], [A, B])

    def test_nor_one_that_another_node_listens_on(self, place):
        node, api_node = (
            place.node(name, address, publication=place.service_publication(), group="services")
            for name, address in (("a", A), ("b", B))
        )
        node.publications[0].taken = lambda: node.members.taken
        api_node.members.ports = lambda: frozenset({("TCP", 6443), ("UDP", 53)})
        place.api.put("services", balanced("api", 6443), balanced("dns", 53, number=2))
        for publisher in (api_node, node, api_node):
            publisher.members.join(publisher.addresses())
        node.turn()
        assert (place.published("services", "api"), place.published("services", "dns")) == ([], [A, B])
        lease = place.api.kept("leases")[NAMESPACE, "rulegen-services.node.b"]
        assert lease["metadata"]["annotations"]["rulegen.io/ports"] == "TCP/6443,UDP/53"

    def test_a_service_of_another_type_now_is_let_go_of(self, place, nodes):
        place.api.put("services", balanced("web", 80))
        self.turn(nodes)
        kept = place.api.kept("services")["shop", "web"]
        place.api.put("services", {**kept, "spec": {**kept["spec"], "type": "NodePort"}})
        self.turn(nodes)
        assert place.published("services", "web") == []


def test_external_addresses_of_a_node_come_before_internal_ones():
    """A node is reached by its external addresses else by its internal ones."""

    def node(*pairs: tuple[str, str]) -> k.Node:
        published = tuple(k.NodeAddress(type=kind, address=address) for kind, address in pairs)
        return k.Node(metadata=k.ObjectMeta(name="n"), status=k.NodeStatus(addresses=published))

    both = node(("InternalIP", "10.0.0.1"), ("ExternalIP", A), ("ExternalIP", C), ("Hostname", "n"))
    assert node_addresses(both, internal=False) == (A, C)
    assert node_addresses(both, internal=True) == ("10.0.0.1",)
    assert node_addresses(node(("InternalIP", "10.0.0.1"), ("InternalIP", "x")), internal=False) == ("10.0.0.1",)
    assert node_addresses(None, internal=False) == ()
