"""`rulegen run` on a host whose addresses and Node change: rules, health checks and flows follow within a second."""

from __future__ import annotations

import copy
import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from integration import manifests
from integration.agent import SYSCTL, Node, network_namespace, tool, until
from integration.lab import topology
from integration.manifests import App
from tests.servers.fakeapi import FakeApi

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.xdist_group("agent")

FIRST, SECOND = "192.168.50.10", "192.168.50.77"
HEALTH_PORT = 31998
SYSCTL_IPV6 = Path("/proc/sys/net/ipv6/conf/all/disable_ipv6")
WITHIN_S = 3
"""A second, and what tools and threads take on a machine that does other things."""


def balanced() -> App:
    return App(
        name="lb",
        number=811,
        ready=("pod-a",),
        type="LoadBalancer",
        external="Local",
        health_check_port=HEALTH_PORT,
        protocols=("TCP",),
    )


def game(*pods: str) -> App:
    return App(name="game", number=812, ready=pods, type="NodePort", protocols=("UDP",), families=(4,))


@pytest.fixture
def node(tmp_path: Any) -> Iterator[Node]:
    with network_namespace(), FakeApi() as api:
        api.put("nodes", *manifests.nodes())
        tool("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "peer0")
        tool("ip", "link", "set", "eth0", "up")
        tool("ip", "addr", "add", f"{FIRST}/24", "dev", "eth0")
        made = Node(tmp_path, api)
        made.configure(nodePortAddresses=["primary"])
        yield made


def registers(node: Node, address: str) -> None:
    """Have the kubelet tell this IPv4 address of the node."""
    document: dict[str, Any] = copy.deepcopy(manifests.nodes()[0])
    assert document["metadata"]["name"] == topology.NODE
    document["status"]["addresses"] = [{"type": "InternalIP", "address": address}]
    node.api.put("nodes", document)


def node_port_addresses(node: Node) -> list[str]:
    """Return on which addresses node ports are served."""
    return [line.split()[3] for line in node.rules.lines() if line.endswith("-j KUBE-NODEPORTS") and " -d " in line]


def tells_health(address: str) -> bool:
    try:
        with urllib.request.urlopen(f"http://{address}:{HEALTH_PORT}/", timeout=2) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


def families() -> list[str]:
    """Return of which families the agent keeps rules; none while it decides all anew."""
    try:
        with urllib.request.urlopen("http://127.0.0.1:10249/rules?output=json", timeout=5) as answer:
            return sorted(json.load(answer)["rules"])
    except urllib.error.HTTPError:
        return []


def test_node_ports_and_health_checks_follow_the_nodes_address(node: Node) -> None:
    registers(node, FIRST)
    node.serve(balanced())
    with node.running():
        assert node_port_addresses(node) == [f"{FIRST}/32"]
        assert tells_health(FIRST)
        tool("ip", "addr", "del", f"{FIRST}/24", "dev", "eth0")
        tool("ip", "addr", "add", f"{SECOND}/24", "dev", "eth0")
        registers(node, SECOND)
        until(lambda: node_port_addresses(node) == [f"{SECOND}/32"], WITHIN_S, "node ports at the new address")
        until(lambda: tells_health(SECOND), WITHIN_S, "health at the new address")
        assert not tells_health(FIRST)
        node.check_converged()


def test_a_node_deleted_and_created_again_opens_nothing_between(node: Node) -> None:
    registers(node, FIRST)
    node.serve(balanced())
    before = SYSCTL.read_text()
    with node.running():
        rules = node.rules.everything()
        node.api.delete("nodes", "", topology.NODE)
        until(lambda: bool(node.lines("is gone")), 10, "the log says what stays in use")
        assert node.rules.everything() == rules
        assert tells_health(FIRST)
        assert not tells_health("127.0.0.1")
        assert SYSCTL.read_text() == before
        tool("ip", "addr", "add", f"{SECOND}/24", "dev", "eth0")
        registers(node, SECOND)
        until(lambda: node_port_addresses(node) == [f"{SECOND}/32"], WITHIN_S, "the new Node's address")
        assert len(node.lines("is gone")) == 1
        assert SYSCTL.read_text() == before


def test_flows_to_a_later_address_end_with_their_endpoint(node: Node) -> None:
    registers(node, FIRST)
    node.configure()
    node.serve(game("pod-a"))
    pod = str(topology.address("pod-a", 4))
    with node.running():
        tool("ip", "addr", "add", "192.168.50.99/32", "dev", "eth0")
        sent = ("-s", "192.168.50.200", "-d", "192.168.50.99", "--sport", "40000", "--dport", str(game().node_port))
        reply = ("-r", pod, "-q", "192.168.50.200", "--reply-port-src", "8080", "--reply-port-dst", "40000")
        tool("conntrack", "-I", "-p", "udp", "-t", "600", *sent, *reply)
        assert "dst=192.168.50.99" in tool("conntrack", "-L", "-p", "udp")
        node.serve(game("pod-b"))
        until(lambda: "dst=192.168.50.99" not in tool("conntrack", "-L", "-p", "udp"), WITHIN_S, "the flow is deleted")


def test_ipv6_is_left_alone_while_it_is_switched_off(node: Node) -> None:
    first, second = balanced(), App(name="more", number=813, ready=("pod-a",), protocols=("TCP",))
    node.configure()
    node.serve(first)
    with node.running():
        rules = node.rules.lines(family=6)
        SYSCTL_IPV6.write_text("1")
        until(lambda: families() == ["IPv4"], WITHIN_S, "it keeps IPv4 alone")
        node.serve(first, second)
        until(lambda: node.rules.sends_to(second, "pod-a"), WITHIN_S, "a new Service, in IPv4")
        assert node.rules.lines(family=6) == rules
        SYSCTL_IPV6.write_text("0")
        until(lambda: families() == ["IPv4", "IPv6"], WITHIN_S, "it keeps both")
        there = str(second.cluster_ip(6))
        until(lambda: any(there in line for line in node.rules.lines(family=6)), WITHIN_S, "the same in IPv6")
        node.check_converged()
