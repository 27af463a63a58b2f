"""`rulegen run` in IPVS mode: what changes is written, what others break is mended, nobody is cut off."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from integration import manifests
from integration.agent import Node, network_namespace, tool, until
from integration.faults.programs import PROGRAM, SBIN, SCRIPT, SHORT_LIMITS, Tools
from integration.hangs.test_tools import waits
from integration.lab import topology
from integration.manifests import PORT, App
from tests.servers.fakeapi import FakeApi

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.uml, pytest.mark.xdist_group("ipvs")]

WITHIN_S = 20
ONE = App(name="one", number=851, ready=("pod-a", "pod-x"), type="LoadBalancer", protocols=("TCP",), families=(4,))


def two(*pods: str) -> App:
    return App(name="two", number=852, ready=pods, protocols=("TCP", "UDP"), families=(4,))


class IpvsNode(Node):
    """The same, where IPVS makes Services."""

    mode = "ipvs"
    start_s = 60


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with network_namespace(), FakeApi() as api:
        api.put("nodes", *manifests.nodes())
        # Somewhere for packets to go: connections are begun, and never answered.
        tool("ip", "link", "add", "eth0", "type", "dummy")
        tool("ip", "addr", "add", "192.168.50.10/24", "dev", "eth0")
        tool("ip", "link", "set", "eth0", "up")
        tool("ip", "route", "add", "default", "dev", "eth0")
        made = IpvsNode(tmp_path_factory.mktemp("agent"), api, "legacy")
        made.configure(ipvs={"syncPeriod": "2s"})
        yield made


def weights(app: App, protocol: str = "tcp") -> dict[str, int]:
    """Return the weights of an App's real servers by pod."""
    named = {str(topology.address(pod, 4)): pod for pod in topology.PODS}
    lines = tool("ipvsadm", "-Sn").splitlines()
    prefix = f"-a -{protocol[0]} {app.cluster_ip(4)}:{PORT} -r "
    words = [line.removeprefix(prefix).split() for line in lines if line.startswith(prefix)]
    return {named[fields[0].split(":")[0]]: int(fields[-1]) for fields in words}


def begin(app: App, count: int) -> None:
    """Begin so many connections; IPVS remembers each for a minute."""
    for _ in range(count):
        with socket.socket() as client:
            client.setblocking(False)
            client.connect_ex((str(app.cluster_ip(4)), PORT))


def test_changes_reach_the_kernel_and_drift_is_mended(node: Node) -> None:
    node.serve(ONE)
    with node.running():
        node.check_converged()
        assert weights(ONE) == {"pod-a": 1, "pod-x": 1}
        node.serve(ONE, two("pod-a", "pod-b"))
        until(lambda: weights(two()) == {"pod-a": 1, "pod-b": 1}, WITHIN_S, "a new Service")
        node.serve(ONE, two("pod-b"))
        until(lambda: weights(two()) == {"pod-b": 1}, WITHIN_S, "one endpoint fewer")
        node.serve(two("pod-b"))
        until(lambda: weights(ONE) == {}, WITHIN_S, "a Service less")
        for harm in (
            ("ipvsadm", "-C"),
            ("ip", "addr", "flush", "dev", "kube-ipvs0"),
            ("ipset", "flush", "KUBE-CLUSTER-IP"),
        ):
            tool(*harm)
        until(lambda: weights(two()) == {"pod-b": 1}, WITHIN_S, "virtual servers")
        until(lambda: str(two().cluster_ip(4)) in tool("ip", "addr", "show", "kube-ipvs0"), WITHIN_S, "addresses")
        until(lambda: str(two().cluster_ip(4)) in tool("ipset", "list", "KUBE-CLUSTER-IP"), WITHIN_S, "sets")
        node.check_converged()


def accepted(app: App) -> bool:
    """Whether somebody accepts a connection to a Service; its endpoints do not answer."""
    with socket.socket() as client:
        client.settimeout(0.5)
        return client.connect_ex((str(app.cluster_ip(4)), PORT)) == 0


@pytest.mark.skipif(shutil.which("haproxy") is None, reason="not installed: haproxy")
def test_one_service_gains_and_loses_the_proxy(node: Node) -> None:
    proxied = replace(ONE, annotations={"rulegen.io/proxy-mode": "userspace"})
    node.serve(ONE, two("pod-b"))
    with node.running():
        node.serve(proxied, two("pod-b"))
        until(lambda: accepted(ONE), WITHIN_S, "the proxy accepts")
        node.check_converged()
        assert weights(two()) == {"pod-b": 1}
        node.serve(ONE, two("pod-b"))
        until(lambda: weights(ONE) == {"pod-a": 1, "pod-x": 1} and not accepted(ONE), WITHIN_S, "IPVS serves")
        node.check_converged()
        assert not node.lines("changed by another program")


def test_an_endpoint_that_goes_is_let_end_across_a_restart(node: Node) -> None:
    node.serve(two("pod-a", "pod-b"))
    with node.running():
        begin(two(), 4)
        node.serve(two("pod-b"))
        until(lambda: weights(two()) == {"pod-a": 0, "pod-b": 1}, WITHIN_S, "no new connections")
        until(lambda: weights(two(), "udp") == {"pod-b": 1}, WITHIN_S, "gone at once, of UDP")
    with node.running():
        assert weights(two()) == {"pod-a": 0, "pod-b": 1}
        node.check_converged()
        node.serve(two("pod-a", "pod-b"))
        until(lambda: weights(two()) == {"pod-a": 1, "pod-b": 1}, WITHIN_S, "back again")


def test_node_ports_follow_the_nodes_addresses(node: IpvsNode) -> None:
    """Without waiting for the next look at all there is."""
    address, port = "192.168.50.77", ONE.node_port
    node.serve(ONE)
    node.configure(ipvs={"syncPeriod": "60s"})
    with node.running():
        assert f"-A -t {address}:{port}" not in tool("ipvsadm", "-Sn")
        tool("ip", "addr", "add", f"{address}/24", "dev", "eth0")
        until(lambda: f"-A -t {address}:{port}" in tool("ipvsadm", "-Sn"), WITHIN_S, "a virtual server there")
        tool("ip", "addr", "del", f"{address}/24", "dev", "eth0")
        until(lambda: f"-A -t {address}:{port}" not in tool("ipvsadm", "-Sn"), WITHIN_S, "none any more")
    node.configure(ipvs={"syncPeriod": "2s"})


@pytest.fixture
def broken(node: Node, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tools]:
    """Have the node's agents use tools that hang on request, with short limits."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        tools = Tools(folder, folder)
        for tool_name in ("ipset", "iptables-legacy-save"):
            script = folder / tool_name
            script.write_text(SCRIPT.format(flags=folder, real=SBIN, name=tool_name))
            script.chmod(0o755)
        node.wrapper = ("sh", "-c", SHORT_LIMITS, "sh")
        monkeypatch.setitem(node.environment, "PATH", f"{folder}:{os.environ['PATH']}")
        node.environment["PROGRAM"] = PROGRAM
        yield tools
        node.wrapper = ()


def test_a_tool_that_hangs_is_named_and_ended_by_a_stop(node: Node, broken: Tools) -> None:
    node.serve(ONE)
    process = node.start()
    try:
        until(lambda: node.is_well, node.start_s, "first sync")
    except AssertionError:
        raise AssertionError(node.log.read_text()) from None
    for number, name in enumerate(("ipset", "iptables-legacy-save")):
        with broken.hanging(name):
            node.serve(ONE, two(*("pod-a", "pod-b")[number:]))
            until(lambda n=name: n in node.health()[1].get("lastError", ""), WITHIN_S, f"health names {name}")
            until(lambda n=name: bool(waits(node, n)), WITHIN_S, f"the log names {name}")
            assert node.health("livez")[0] == 200
        until(lambda n=number: len(weights(two())) == 2 - n, 2 * WITHIN_S, "the change is written")
    until(lambda: node.is_well, WITHIN_S, "all is written")
    with broken.hanging("ipset"):
        before = waits(node, "ipset")
        node.serve(two("pod-a"))
        until(lambda: waits(node, "ipset") != before, WITHIN_S, "it waits")
        began = time.monotonic()
        process.terminate()
        assert process.wait(30) == 0
        assert time.monotonic() - began < 15
    assert "Traceback" not in node.log.read_text()
