"""nftables mode on a host without iptables or a part of it, and with an nft that hangs."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from integration import manifests
from integration.agent import Node, network_namespace, tool, until
from integration.faults.modes import NftablesNode
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


@contextmanager
def placed(folder: Path) -> Iterator[tuple[Node, Tools]]:
    """Give a node whose tools are wrapped."""
    tools = Tools.wrapped(folder, ("nft", "conntrack"))
    with network_namespace(), FakeApi() as api:
        api.put("nodes", *manifests.nodes())
        node = NftablesNode(folder, api)
        node.configure(nftables={"minSyncPeriod": "0s", "syncPeriod": "30s"})
        node.serve(WEB)
        mount = f"mount --bind {tools.programs} /usr/sbin && {SHORT_LIMITS}"
        node.wrapper = ("unshare", "--mount", "sh", "-c", mount, "sh")
        node.environment["PROGRAM"] = PROGRAM
        yield node, tools


@pytest.fixture(scope="class")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Node, Tools]]:
    """Give a node without iptables, whose agent has served its first Service."""
    with placed(tmp_path_factory.mktemp("nftables")) as (node, tools):
        names = [path.name for path in tools.programs.glob("*tables*")]
        with tools.missing(*names), node.running() as tools.agent:
            yield node, tools


def sends(family: int, *pods: str) -> bool:
    """Whether the table of a family has these Pods, and no others."""
    listed = tool("nft", "list", "table", "ip" if family == 4 else "ip6", "rulegen")
    return {pod for pod in topology.PODS if f"{topology.address(pod, family)}" in listed} == set(pods)


@pytest.mark.parametrize("tool_name", ["iptables", "ip6tables"])
def test_without_the_tools_of_a_family_both_are_served(tmp_path: Path, tool_name: str) -> None:
    with placed(tmp_path) as (node, tools):
        old = [f"{tool_name}-nft", "-t", "nat", "-N", "KUBE-SVC-AAAAAAAAAAAAAAAA"]
        with ExitStack() as missing:
            missing.enter_context(tools.missing(*(each.name for each in tools.programs.glob(f"{tool_name}*"))))
            with node.running():
                assert all(sends(family, "pod-a") for family in (4, 6))
                tool(*old)  # which another proxy may have left
                said = f"{tool_name}-nft-save is not installed: it is unknown whether"
                until(lambda: bool(node.lines(said)), 10, "said")
                assert node.is_well
                missing.close()
                until(lambda: old[-1] not in tool(f"{tool_name}-nft-save", "-t", "nat"), 30, "the old chain is gone")
                assert node.is_well
                node.check_converged()


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
