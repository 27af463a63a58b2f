"""nftables mode on a host without iptables, and with an nft that hangs."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

from integration import manifests
from integration.agent import Node, network_namespace, tool, until
from integration.faults.programs import PROGRAM, SHORT_LIMITS, Tools
from integration.hangs.test_tools import name_of, waits
from integration.lab import topology
from integration.manifests import App
from tests.servers.fakeapi import FakeApi

pytestmark = [
    pytest.mark.xdist_group("agent faults"),
    pytest.mark.skipif(shutil.which("nft") is None, reason="not installed: nft"),
]

WEB = App(name="web", number=804, ready=("pod-a",), protocols=("TCP", "UDP"))


class NftablesNode(Node):
    """A node in nftables mode."""

    mode = "nftables"

    def argv(self, verb: str, *more: str) -> list[str]:
        """Return a command line that leaves the choice of iptables to rulegen: there is none."""
        argv = super().argv(verb, *more)
        number = argv.index("--variant")
        return argv[:number] + argv[number + 2 :]


@pytest.fixture(scope="class")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Node, Tools]]:
    """Give a node without iptables, whose agent has served its first Service."""
    folder = tmp_path_factory.mktemp("nftables")
    tools = Tools.wrapped(folder, ("nft", "conntrack"))
    with network_namespace(), FakeApi() as api:
        api.put("nodes", *manifests.nodes())
        node = NftablesNode(folder, api)
        node.configure(nftables={"minSyncPeriod": "0s", "syncPeriod": "30s"})
        node.serve(WEB)
        mount = f"mount --bind {tools.programs} /usr/sbin && {SHORT_LIMITS}"
        node.wrapper = ("unshare", "--mount", "sh", "-c", mount, "sh")
        node.environment["PROGRAM"] = PROGRAM
        names = [path.name for path in tools.programs.glob("*tables*")]
        with tools.missing(*names), node.running() as tools.agent:
            yield node, tools


def sends(family: int, *pods: str) -> bool:
    """Whether the table of a family has these Pods, and no others."""
    listed = tool("nft", "list", "table", "ip" if family == 4 else "ip6", "rulegen")
    return {pod for pod in topology.PODS if f"{topology.address(pod, family)}" in listed} == set(pods)


class TestWithoutIptables:
    def test_services_are_served(self, running: tuple[Node, Tools]) -> None:
        node, _ = running
        assert sends(4, "pod-a")
        assert sends(6, "pod-a")
        node.serve(replace(WEB, ready=("pod-a", "pod-b")))
        until(lambda: all(sends(family, "pod-a", "pod-b") for family in (4, 6)), 10, "both endpoints")
        assert "iptables is not installed" in node.lines(" started ")[0]
        assert not node.lines("not written")

    @pytest.mark.parametrize("name", ["nft", "conntrack"])
    def test_a_tool_that_hangs_is_in_log_and_health(self, running: tuple[Node, Tools], name: str) -> None:
        node, tools = running
        before = waits(node, name)
        with tools.hanging(name):
            if name == "nft":
                tool("nft", "add", "table", "ip", "other")  # all is read
            node.serve(WEB)
            until(lambda: waits(node, name) != before, 20, "said")
            assert name in name_of(waits(node, name)[-1])
            assert name == "conntrack" or name in node.health()[1]["lastError"]
        node.serve(replace(WEB, ready=("pod-b",)))
        until(lambda: node.is_well and all(sends(family, "pod-b") for family in (4, 6)), 30, "all is written")

    def test_a_stop_ends_the_tool_and_the_agent(self, running: tuple[Node, Tools]) -> None:
        """The last test of this agent."""
        node, tools = running
        before = waits(node, "nft")
        with tools.hanging("nft"):
            tool("nft", "add", "table", "ip", "another")  # all is read
            until(lambda: waits(node, "nft") != before, 10, "said")
            pid, began = waits(node, "nft")[-1], time.monotonic()
            assert tools.agent is not None
            tools.agent.terminate()
            assert tools.agent.wait(20) == 0
            assert time.monotonic() - began < 10
            assert name_of(pid) == ""
        argv = [*node.wrapper, *node.argv("cleanup")[:6], "-y"]
        subprocess.run(argv, env={**os.environ, **node.environment}, check=True)
        assert "rulegen" not in tool("nft", "list", "tables")
