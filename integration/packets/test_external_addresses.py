"""Who answers at an address that a Service names as its own though it is another's, with both semantics."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from integration.lab import topology
from integration.lab.hosts import FAMILIES
from integration.manifests import App, nodes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from integration.blackbox import Rulegen
    from integration.lab.hosts import Address, Host
    from integration.lab.lab import Lab

pytestmark = pytest.mark.ipvs

STRICT = ("--external-ip-semantics", "strict")
VICTIM = App(name="victim", number=810, ready=("pod-a",), type="NodePort", protocols=("TCP",))
TAKER = App(name="taker", number=811, ready=("pod-b",), type="LoadBalancer", protocols=("TCP",))
OLD, NEW = "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"
PROGRAM_PORT = 32295
ASKED = 6


@pytest.fixture(autouse=True)
def unlike_before(rulegen: Rulegen) -> Iterator[None]:
    """These tests leave the node otherwise than others expect it."""
    yield
    rulegen.served = None
    rulegen.options = ()


def documents(app: App, created: str, **fields: Any) -> list[dict[str, Any]]:
    """Return an App of some age; `port`, `vips` and `external` replace what it says of itself."""
    service, *slices = app.documents()
    service["metadata"]["creationTimestamp"] = created
    if "port" in fields:
        service["spec"]["ports"][0]["port"] = fields["port"]
    if "external" in fields:
        service["spec"]["externalIPs"] = list(fields["external"])
    if "vips" in fields:
        service["status"] = {"loadBalancer": {"ingress": [{"ip": vip} for vip in fields["vips"]]}}
    return [service, *slices]


def apply(rulegen: Rulegen, *reported: list[dict[str, Any]], options: tuple[str, ...] = ()) -> str:
    """Make the node serve what is told; return what the command says."""
    items = [*nodes(), *(document for part in reported for document in part)]
    rulegen.options = options
    done = rulegen.apply(json.dumps({"apiVersion": "v1", "kind": "List", "items": items}))
    rulegen.check_converged()
    return done.stdout + done.stderr


def who(asker: Host, address: Address, port: int) -> set[str]:
    """Return the names of all who answer."""
    answers = asker.requests(ASKED, "TCP", address, port)
    assert {answer.outcome for answer in answers} == {"answered"}
    return {answer.name for answer in answers}


def own(lab: Lab, at: int = 0) -> list[str]:
    return [str(lab.node.addresses(family)[at]) for family in FAMILIES]


def test_strict_semantics_keep_an_older_node_ports_connections(lab: Lab, rulegen: Rulegen) -> None:
    """A younger Service has the node's address at that port; with kube-proxy's semantics it gets the connections."""
    port = VICTIM.node_port
    reported = documents(VICTIM, OLD), documents(TAKER, NEW, port=port, vips=own(lab))
    for options, expected in ((STRICT, {"pod-a"}), ((), None)):
        said = apply(rulegen, *reported, options=options)
        assert "lab/victim" in said
        assert "lab/taker" in said
        for family in FAMILIES:
            results = who(lab.client, lab.node.addresses(family)[0], port)
            assert results == expected if expected else "pod-b" in results


def test_a_younger_node_port_leaves_an_older_address_alone(lab: Lab, rulegen: Rulegen) -> None:
    """It answers on the node's second address, where nobody else has its number."""
    port = VICTIM.node_port
    reported = documents(VICTIM, NEW), documents(TAKER, OLD, port=port, vips=own(lab))
    apply(rulegen, *reported, options=STRICT)
    for family in FAMILIES:
        first, second = lab.node.addresses(family)[:2]
        assert who(lab.client, first, port) == {"pod-b"}
        assert who(lab.client, second, port) == {"pod-a"}


def test_strict_semantics_keep_the_port_of_a_nodes_program(lab: Lab, rulegen: Rulegen) -> None:
    """As the kubelet does; with kube-proxy's semantics the Service gets the connections."""
    for family in FAMILIES:
        lab.node.listen("TCP", family, PROGRAM_PORT)
    reported = documents(TAKER, NEW, port=PROGRAM_PORT, vips=own(lab))
    for options, expected in ((STRICT, topology.NODE), ((), "pod-b")):
        said = apply(rulegen, reported, options=options)
        assert "a program of this node listens there" in said
        for family in FAMILIES:
            assert who(lab.client, lab.node.addresses(family)[0], PROGRAM_PORT) == {expected}


def test_the_gateway_stays_in_reach_with_strict_semantics(lab: Lab, rulegen: Rulegen) -> None:
    """In ipvs mode it would be bound to this node; in others, the Service's port there is taken."""
    gateways = [lab["node2"].addresses(family)[0] for family in FAMILIES]
    reported = documents(TAKER, NEW, port=topology.PORTS[0], external=map(str, gateways))
    said = apply(rulegen, reported, options=STRICT)
    for gateway in gateways:
        assert f"{gateway} is the gateway of this node; the entry is ignored" in said
        assert who(lab["pod-a"], gateway, topology.PORTS[0]) == {"node2"}
    said = apply(rulegen, reported)
    for gateway in gateways:
        assert f"{gateway} is the gateway of this node: " in said


def test_no_external_ip_answers_if_asked(lab: Lab, rulegen: Rulegen) -> None:
    """It is said with the number of Services; the balancer's address answers."""
    reported = documents(TAKER, NEW, external=[str(TAKER.outer_ip(family)) for family in FAMILIES])
    said = apply(rulegen, reported, options=("--ignore-external-ips",))
    assert "spec.externalIPs of 1 Service are ignored" in said
    for family in FAMILIES:
        assert who(lab.client, TAKER.lb_ip(family), 80) == {"pod-b"}
        assert lab.client.request("TCP", TAKER.outer_ip(family), 80, timeout_s=0.4).outcome != "answered"
