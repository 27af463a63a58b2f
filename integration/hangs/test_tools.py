"""A tool that hangs: the agent says what it waits for, ends it in time, and what is not broken goes on."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from integration import manifests
from integration.agent import Node, network_namespace, until
from integration.faults.programs import PROGRAM, RESTORE_S, SHORT_LIMITS, Tools
from integration.faults.scene import HOST, redirecting, site_answers
from integration.ingress import objects
from integration.manifests import App
from tests.servers.fakeapi import FakeApi

pytestmark = pytest.mark.xdist_group("agent faults")

BOTH = App(name="web", number=802, ready=("pod-a", "pod-b"), protocols=("TCP", "UDP"))
ONE = App(name="web", number=802, ready=("pod-b",), protocols=("TCP", "UDP"))
NAMES = ("iptables-nft-restore", "ip6tables-nft-restore", "iptables-nft-save", "ip6tables-nft-save", "conntrack")


@pytest.fixture(scope="module")
def placed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Node, Tools]]:
    """Give a node whose tools are wrapped."""
    folder = tmp_path_factory.mktemp("hangs")
    tools = Tools.wrapped(folder, NAMES)
    with network_namespace(), FakeApi() as api:
        api.put("nodes", *manifests.nodes())
        node = Node(folder, api)
        node.configure(iptables={"minSyncPeriod": "0s", "syncPeriod": "30s"})
        node.serve(BOTH)
        mount = f"mount --bind {tools.programs} /usr/sbin && {SHORT_LIMITS}"
        node.wrapper = ("unshare", "--mount", "sh", "-c", mount, "sh")
        node.environment["PROGRAM"] = PROGRAM
        yield node, tools


@pytest.fixture(scope="class")
def running(placed: tuple[Node, Tools]) -> Iterator[tuple[Node, Tools]]:
    node, tools = placed
    with node.running() as tools.agent:
        yield node, tools


def sends(node: Node, app: App, family: int) -> bool:
    """Whether the rules of a family send to the ready Pods of an App, and to no others."""
    lines = [line for line in node.rules.lines(family=family) if f"lab/{app.name}:tcp" in line and "DNAT" in line]
    return len(lines) == len(app.ready)


def waits(node: Node, name: str) -> list[int]:
    """Return the processes of a tool that the agent says it waits for."""
    matches = (re.search(rf'what="?{name}\b.* pid=(\d+)', line) for line in node.lines("still waiting"))
    return list(dict.fromkeys(int(match[1]) for match in matches if match))


def name_of(pid: int) -> str:
    """Return the command line of a process; empty if it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except FileNotFoundError:
        return ""


class TestRunning:
    @pytest.mark.parametrize("name", NAMES)
    def test_what_the_agent_waits_for_is_in_its_log(self, running: tuple[Node, Tools], name: str) -> None:
        node, tools = running
        before = waits(node, name)
        with tools.hanging(name):
            if name.endswith("-save"):
                chain = f"OTHER-{os.urandom(4).hex()}"
                node.rules.change("-t", "nat", "-N", chain)  # another program writes: all is read
            else:
                node.serve(ONE)
            until(lambda: waits(node, name) != before, 10, "said")
            assert name in name_of(waits(node, name)[-1])
            assert name == "conntrack" or name in node.health()[1]["lastError"]
        node.serve(BOTH)
        until(lambda: node.is_well and all(sends(node, BOTH, family) for family in (4, 6)), 20, "all is written")

    @pytest.mark.parametrize("kind", ["hangs", "fails"])
    @pytest.mark.parametrize("name", ["ip6tables-nft-restore", "iptables-nft-save"])
    def test_a_broken_family_does_not_delay_the_other(self, running: tuple[Node, Tools], name: str, kind: str) -> None:
        node, tools = running
        broken, healthy = (6, 4) if name.startswith("ip6") else (4, 6)
        count = len(node.lines("not written"))
        with tools.hanging(name) if kind == "hangs" else tools.failing(3, name):
            if name.endswith("-save"):
                node.rules.change("-t", "nat", "-N", f"OTHER-{os.urandom(4).hex()}")  # so that all is read
            else:
                node.serve(ONE)
            until(lambda: len(node.lines("not written")) > count, 30, "said")
            assert f"family=IPv{broken}" in node.lines("not written")[count]
            for app in (BOTH, ONE, BOTH, ONE):
                node.serve(app)
                assert until(lambda app=app: sends(node, app, healthy), 10, "the healthy family") < 3
            assert not node.is_well
            assert name in node.health()[1]["lastError"]
        until(lambda: node.is_well and all(sends(node, ONE, family) for family in (4, 6)), 30, "both families")
        assert not node.lines("changed by another program")
        node.serve(BOTH)
        until(lambda: all(sends(node, BOTH, family) for family in (4, 6)), 10, "both families")

    def test_a_conntrack_tool_that_hangs_delays_no_rules(self, running: tuple[Node, Tools]) -> None:
        node, tools = running
        count, before = len(node.lines("cannot search for stale connections")), waits(node, "conntrack")
        with tools.hanging("conntrack"):
            node.serve(ONE)
            until(lambda: waits(node, "conntrack") != before, 10, "it waits")
            node.serve(BOTH)
            until(lambda: sends(node, BOTH, 4), 3 * RESTORE_S, "after the time limit")
            for app in (ONE, BOTH):
                node.serve(app)
                assert until(lambda app=app: sends(node, app, 4), 10, "the rules") < RESTORE_S
            node.rules.change("-t", "nat", "-N", f"OTHER-{os.urandom(4).hex()}")
            until(lambda: len(node.lines("cannot search for stale connections")) > count, 10, "said")
        until(lambda: node.is_well, 10, "all is written")

    def test_iptables_gone_altogether_is_written_later(self, running: tuple[Node, Tools]) -> None:
        node, tools = running
        programs, away = tools.programs, tools.flags.parent / "away"
        away.mkdir()
        names = [path.name for path in programs.glob("*tables*")]
        for name in names:
            (programs / name).rename(away / name)
        count = len(node.lines("not written"))
        node.serve(ONE)
        until(lambda: len(node.lines("not written")) > count + 1, 20, "said, and tried again")
        assert "is not installed" in node.lines("not written")[-1]
        assert not node.is_well
        for name in names:
            (away / name).rename(programs / name)
        until(lambda: node.is_well and all(sends(node, ONE, family) for family in (4, 6)), 30, "both families")
        node.check_converged()
        assert not node.lines("changed by another program")
        node.serve(BOTH)
        until(lambda: all(sends(node, BOTH, family) for family in (4, 6)), 10, "both families")

    def test_a_stop_ends_the_tool_and_the_agent(self, running: tuple[Node, Tools]) -> None:
        """The last test of this agent."""
        node, tools = running
        before = waits(node, "iptables-nft-restore")
        with tools.hanging("iptables-nft-restore"):
            node.serve(ONE)
            until(lambda: waits(node, "iptables-nft-restore") != before, 10, "said")
            pid, began = waits(node, "iptables-nft-restore")[-1], time.monotonic()
            assert tools.agent is not None
            tools.agent.terminate()
            assert tools.agent.wait(20) == 0
            assert time.monotonic() - began < 10
            assert name_of(pid) == ""
            assert "iptables-nft-restore" in node.lines("wait ended, because the agent must stop in time")[0]


@pytest.mark.skipif(not shutil.which("nginx"), reason="nginx is not installed")
def test_a_start_without_iptables_serves_what_needs_none(placed: tuple[Node, Tools]) -> None:
    node, tools = placed
    node.serve(BOTH)
    node.api.put("ingressclasses", objects.ingress_class())
    node.api.put("ingresses", redirecting("steady", HOST))
    nginx = tools.flags.parent / "nginx"
    shutil.copy(shutil.which("nginx") or "", nginx)
    site = ("--ingress", "--nginx-dir", str(tools.flags.parent / "site"), "--nginx-binary", str(nginx))
    with tools.missing(*(path.name for path in tools.programs.glob("*tables*"))):
        agent = node.start(*site)
        try:
            until(site_answers, 30, "nginx answers")
            until(lambda: len(node.lines("not written")) > 1, 30, "it looks for the tools again")
            assert "is not installed" in node.lines("not written")[0]
            status, document = node.health()
            assert status == 503
            assert "is not installed" in document["lastError"]
            assert node.health("livez")[0] == 200
        except BaseException:
            agent.kill()
            raise
    try:
        until(lambda: node.is_well and all(sends(node, BOTH, family) for family in (4, 6)), 60, "both families")
    except AssertionError as late:
        raise AssertionError(f"{late}\n{node.log.read_text()}") from None
    finally:
        agent.terminate()
        assert agent.wait(20) == 0, node.log.read_text()
    node.check_converged()
