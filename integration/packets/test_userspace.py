"""Packets under the rules of userspace mode, with an HAProxy that this test configures as the listener.

rulegen does not run its proxy yet, so `apply` rejects the mode. The rules of `export` are loaded instead, and HAProxy
gets the pools of the exported model. The flows are those of the other modes, except for source addresses: the proxy
connects from the node's own address. SCTP, UDP and connections to a local pool stay with the kernel and keep theirs.
"""

from __future__ import annotations

import json
import shutil
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from integration import manifests
from integration.flows import DROPPED, Flow, Served, check, masked
from integration.lab import topology
from integration.lab.namespaces import Namespaces
from integration.packets.test_flows import ALLOWED, CLIENT, FLOWS, NODE, POD, PORTED, RANGED, RANGED_LOCAL, WORLD

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from integration.conftest import LabMaker
    from integration.lab.hosts import Family
    from integration.lab.lab import Lab

pytestmark = pytest.mark.skipif(shutil.which("haproxy") is None, reason="not installed: haproxy")

LISTENER = 10261
CONFIGURATION = """\
global
  nbthread 1
  maxconn 2000
defaults
  mode tcp
  timeout connect 2s
  timeout client 30s
  timeout server 30s
frontend services
  bind 0.0.0.0:{port}
  bind [::]:{port} v6only transparent
  tcp-request content set-var(sess.port) dst_port
  tcp-request content set-var(sess.key) dst,concat(:,sess.port)
  tcp-request content set-var(sess.pool) var(sess.key),map_str({folder}/portals.map)
  acl v4 src 0.0.0.0/0
  tcp-request content set-var(sess.node) dst_port,map_str({folder}/ports.v4) if {{ dst_is_local }} v4
  tcp-request content set-var(sess.node) dst_port,map_str({folder}/ports.v6) if {{ dst_is_local }} !v4
  tcp-request content set-var(sess.pool) var(sess.node) if !{{ var(sess.pool) -m found }} {{ var(sess.node) -m found }}
  tcp-request content reject if !{{ var(sess.pool) -m found }}
  use_backend %[var(sess.pool)]
"""


def pools(model: dict[str, Any], folder: Path) -> str:
    """Write the maps of frontends, and return the backends: the cluster pool of each TCP port."""
    ports: dict[str, list[str]] = {"IPv4": [], "IPv6": []}
    portals, backends = [], []
    for service in model["services"]:
        for number, port in enumerate(service["ports"]):
            if port["protocol"] != "TCP" or not port["cluster"]:
                continue
            name = f"{service['name'].replace('/', '.')}.{number}"
            addresses = (port["cluster_ip"], *port["external_ips"], *port["load_balancer_ips"])
            portals += (f"{address}:{port['port']} {name}" for address in addresses)
            if port["node_port"]:
                ports[port["family"]].append(f"{port['node_port']} {name}")
            servers = (f"  server s{at} {each['text']}" for at, each in enumerate(port["cluster"]))
            backends += (f"backend {name}", "  balance roundrobin", *servers)
    (folder / "portals.map").write_text("".join(f"{line}\n" for line in portals))
    for family, lines in ports.items():
        (folder / f"ports.{family[2:]}").write_text("".join(f"{line}\n" for line in lines))
    return "".join(f"{line}\n" for line in backends)


@pytest.fixture(scope="module")
def userspace(labs: LabMaker, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    """Give a lab whose node serves the world of all flows in this mode."""
    lab, folder = labs(Namespaces, "userspace"), tmp_path_factory.mktemp("userspace")
    (folder / "objects.json").write_text(manifests.world(WORLD))
    (folder / "config.json").write_text(manifests.configuration())
    rulegen = [sys.executable, "-W", "error", "-m", "rulegen"]
    files = ("-f", str(folder / "objects.json"), "--config", str(folder / "config.json"), "--node", topology.NODE)
    lab.node.fork([*rulegen, "export", *files, "--mode", "userspace", "-o", str(folder / "out")]).wait(120).check()
    model = json.loads((folder / "out" / "model.json").read_text())
    backends = pools(model, folder)
    (folder / "haproxy.cfg").write_text(CONFIGURATION.format(port=LISTENER, folder=folder) + backends)
    lab.node.run(["haproxy", "-f", str(folder / "haproxy.cfg"), "-D", "-p", str(folder / "pid")]).check()
    load = "iptables-nft-restore < iptables.save; ip6tables-nft-restore < ip6tables.save; ip -6 -batch policy.routes"
    try:
        lab.node.run(["sh", "-ec", f"cd {folder / 'out'}; {load}"]).check()
        yield lab
        lab.node.fork([*rulegen, "cleanup", "--variant", "nft", "-y"]).wait(120).check()
        left = lab.node.run(
            ["sh", "-c", "iptables-nft-save; ip6tables-nft-save; ip -6 rule; ip -6 route show table all"]
        )
        assert not [line for line in left.stdout.splitlines() if "KUBE-P" in line or str(LISTENER) in line]
    finally:
        lab.node.run(["sh", "-c", f"kill $(cat {folder / 'pid'})"])


def in_this_mode(flow: Flow) -> Flow:
    """Return a flow with the source address that endpoints see in this mode."""
    if flow.protocol != "TCP" or not isinstance(flow.expect, Served):
        return flow
    is_local = flow.app.internal == "Local" if flow.way == "cluster" else flow.app.external == "Local"
    if is_local and (flow.way == "cluster" or flow.who == CLIENT):
        return flow  # rules of the kernel
    return replace(flow, expect=replace(flow.expect, kept=False))


@pytest.mark.parametrize("flow", [in_this_mode(flow) for flow in FLOWS], ids=str)
def test_flow(userspace: Lab, flow: Flow, family: Family) -> None:
    """A packet ends where the Service's rules of the API say, seen from both ends."""
    check(userspace, flow, family)


@pytest.mark.parametrize("app", [RANGED, RANGED_LOCAL], ids=lambda app: app.name)
def test_a_source_in_range_is_let_in(userspace: Lab, app: manifests.App, family: Family) -> None:
    expect = replace(masked("pod-a"), kept=app.external == "Local")
    check(userspace, Flow(CLIENT, app, "lb", expect, source=ALLOWED[family]), family)


def test_a_node_port_answers_on_loopback(userspace: Lab) -> None:
    check(userspace, Flow(NODE, PORTED, "loopback", masked("pod-a", "pod-x")), 4)


@pytest.mark.parametrize("who", [CLIENT, POD, NODE])
def test_nobody_speaks_to_the_listener_directly(userspace: Lab, who: str, family: Family) -> None:
    for address in userspace.node.addresses(family):
        answer = userspace[who].request("TCP", address, LISTENER, timeout_s=0.4)
        assert answer.outcome == DROPPED.outcome
