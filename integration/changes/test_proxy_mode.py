"""A Service that asks for the proxy, in a node of another mode: who serves it, and what clients see of the change."""

from __future__ import annotations

import shutil
from dataclasses import replace
from itertools import product
from typing import TYPE_CHECKING

import pytest

from integration.flows import target
from integration.lab.topology import NODE
from integration.manifests import PORT, App, world
from integration.proxied import BALANCED, ProxyProcesses

if TYPE_CHECKING:
    from integration.blackbox import Rulegen
    from integration.lab.hosts import Family
    from integration.lab.lab import Lab

pytestmark = [
    pytest.mark.skipif(shutil.which("haproxy") is None, reason="not installed: haproxy"),
    pytest.mark.variants("nft", "nftables"),
    pytest.mark.ipvs,
]

OTHER = App(name="other", number=72, ready=("pod-b",), protocols=("TCP", "UDP"))
PLAIN = replace(BALANCED, protocols=("TCP", "UDP"))
ASKS = replace(PLAIN, annotations={"rulegen.io/proxy-mode": "userspace"})
PAUSE_S = 0.02


def served_from(lab: Lab, app: App, family: Family) -> set[str]:
    """Return by which of the pod's and the node's addresses endpoints see a pod, over both protocols."""
    names = {str(lab["pod-c"].addresses(family)[0]): "pod"} | {str(a): "node" for a in lab.node.addresses(family)}
    answers = [lab["pod-c"].request(protocol, app.cluster_ip(family), PORT) for protocol in ("TCP", "UDP")]
    assert {answer.outcome for answer in answers} == {"answered"}
    return {names[str(answer.source)] for answer in answers}


@pytest.mark.variants("nft", "nftables", "kube-proxy")
def test_each_frontend_is_served_by_the_proxy(lab: Lab, rulegen: Rulegen, family: Family) -> None:
    rulegen.serve((ASKS, OTHER))
    nodes = {str(address) for address in lab.node.addresses(family)}
    for way, who, protocol in product(("cluster", "node", "lb"), ("pod-c", NODE, "client"), ("TCP", "UDP")):
        if (way, who) != ("cluster", "client"):
            address, port = target(lab, ASKS, way, family)
            answers = lab[who].requests(6, protocol, address, port)
            assert {answer.name for answer in answers} == set(ASKS.ready), (way, who, protocol, answers)
            assert {str(answer.source) for answer in answers} <= nodes
    assert served_from(lab, OTHER, family) == {"pod"}
    rulegen.check_converged()


def test_a_service_changes_over_without_a_lost_connection(lab: Lab, rulegen: Rulegen) -> None:
    rulegen.serve((PLAIN, OTHER))
    processes = ProxyProcesses(lab)
    assert not processes.folder.exists()
    asking = {
        f"{who} by {way} over {protocol}": lab[who].repeat(protocol, address, port, pause_s=PAUSE_S)
        for protocol in ("TCP", "UDP")
        for who, way, address, port in (
            ("pod-c", "ClusterIP", PLAIN.cluster_ip(4), PORT),
            ("pod-c", "ClusterIP, IPv6", PLAIN.cluster_ip(6), PORT),
            ("client", "node port", lab.node.addresses(4)[0], PLAIN.node_port),
            ("client", "balancer, IPv6", PLAIN.lb_ip(6), PORT),
            (NODE, "ClusterIP", PLAIN.cluster_ip(4), PORT),
        )
    }
    for app in (ASKS, replace(ASKS, ready=("pod-a", "pod-b")), PLAIN, ASKS, PLAIN):
        rulegen.apply(world([app, OTHER]))
        rulegen.check_converged()
        for family in (4, 6):
            assert served_from(lab, app, family) == ({"node"} if app.annotations else {"pod"})
    reports = {who: asker.stop() for who, asker in asking.items()}
    failures = {
        who: report.first_failures for who, report in reports.items() if report.failures > allowed(who, rulegen)
    }
    assert failures == {}, failures
    assert not processes.folder.exists()
    for tool in ("iptables-nft-save", "ip6tables-nft-save"):
        assert "PORTALS" not in lab.node.run([tool]).check().stdout


def allowed(who: str, rulegen: Rulegen) -> int:
    """Return how many questions may be lost in five changes: some datagrams; with IPVS, what it forwards ends.

    A datagram can be lost if its flow begins after the stale flows were listed; on a busy machine, this takes longer.
    """
    if rulegen.variant == "ipvs":
        return 1000
    return 3 if "UDP" in who else 0
