"""What befalls an agent: stopped, a full disk, a missing tool, a held lock. It says so, tries again, loses nothing."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from integration import forks, manifests
from integration.agent import Node, network_namespace, until
from integration.blackbox import Variant
from integration.manifests import App
from tests.servers.fakeapi import FakeApi
from tests.sizes import SIZE, Size

pytestmark = pytest.mark.xdist_group("agent faults")

FULL = SIZE is Size.FULL
STOPPED_S = 60.0 if FULL else 3.0
PERIOD_S = 30.0 if FULL else 1.0
"""Twice as long, and a change that waits makes a node unhealthy: so seconds do here for a minute."""
LOCKED_S = 30.0 if FULL else 12.0
"""Longer than the agent waits for the lock at once."""
BOTH = App(name="web", number=802, ready=("pod-a", "pod-b"), protocols=("TCP",))
ONE = App(name="web", number=802, ready=("pod-b",), protocols=("TCP",))
OTHER = App(name="other", number=803, ready=("pod-a",), protocols=("TCP",))


@contextmanager
def node_of(folder: Path, variant: Variant = "nft", *, period: str = "30s") -> Iterator[Node]:
    with network_namespace(), FakeApi() as api:
        api.put("nodes", *manifests.nodes())
        node = Node(folder, api, variant)
        node.configure(iptables={"minSyncPeriod": "0s", "syncPeriod": period})
        node.serve(BOTH)
        yield node


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    with node_of(tmp_path) as node:
        yield node


def check_caught_up(node: Node) -> None:
    """Wait until all that came is written, and fail unless the kernel is as the cluster wants it."""
    try:
        until(lambda: node.is_well, 60, "all is written")
    except AssertionError as late:
        raise AssertionError(f"{late}: {node.health()}\n{node.log.read_text()[-5000:]}") from None
    node.check_converged()
    assert node.rules.sends_to(ONE, "pod-b")
    assert node.rules.sends_to(OTHER, "pod-a")


def test_stopped_for_long_it_tells_the_truth_afterwards(tmp_path: Path) -> None:
    """While it is stopped it tells nothing; woken, it is not well before what came meanwhile is written."""
    with node_of(tmp_path, period=f"{PERIOD_S:g}s") as node, node.running() as process:
        os.kill(process.pid, signal.SIGSTOP)
        node.serve(ONE, OTHER)
        time.sleep(STOPPED_S)
        assert node.rules.sends_to(BOTH, "pod-a", "pod-b")
        os.kill(process.pid, signal.SIGCONT)
        told_well = until(lambda: node.is_well and node.rules.sends_to(ONE, "pod-b"), 20, "what came meanwhile")
        check_caught_up(node)
        assert told_well < 10
        assert not node.lines("changed by another program")


@contextmanager
def own_tools(node: Node) -> Iterator[Path]:
    """Give a folder with the tools of netfilter, which the agent finds where the system has its own: some may go."""
    tools = node.folder / "sbin"
    tools.mkdir()
    for pattern in ("*tables*", "conntrack"):
        for tool in Path("/usr/sbin").glob(pattern):
            shutil.copy(tool, tools / tool.name, follow_symlinks=not tool.name.startswith(("iptables-", "ip6tables-")))
    node.wrapper = ("unshare", "--mount", "sh", "-c", f'mount --bind {tools} /usr/sbin && exec "$@"', "sh")
    yield tools


def test_a_missing_tool_is_reported_and_its_work_done_later(node: Node) -> None:
    with own_tools(node) as tools, node.running():
        (tools / "iptables-nft-restore").rename(tools / "hidden")
        node.serve(ONE, OTHER)
        until(lambda: len(node.lines("not written")) > 1, 20, "told, and tried again")
        assert "iptables-nft-restore is not installed" in node.lines("not written")[0]
        assert "again_in_s=" in node.lines("not written")[0]
        _, health = node.health()
        assert health["lastError"] == "iptables-nft-restore is not installed"
        assert health["appliedGeneration"] < health["desiredGeneration"]
        assert node.rules.sends_to(BOTH, "pod-a", "pod-b")
        (tools / "hidden").rename(tools / "iptables-nft-restore")
        check_caught_up(node)
        assert not node.lines("changed by another program")


def test_rules_are_written_without_the_conntrack_tool(node: Node) -> None:
    with own_tools(node) as tools:
        (tools / "conntrack").unlink()
        with node.running():
            node.serve(ONE, OTHER)
            check_caught_up(node)
            assert node.rules.sends_to(ONE, "pod-b")
            assert len(node.lines("cannot search for stale connections")) == 1
            assert not node.lines("not written")


def test_time_stopped_counts_for_an_unwritten_change(tmp_path: Path) -> None:
    with node_of(tmp_path, period=f"{PERIOD_S:g}s") as node, own_tools(node) as tools, node.running() as process:
        (tools / "iptables-nft-restore").rename(tools / "hidden")
        node.serve(ONE, OTHER)
        until(lambda: bool(node.lines("not written")), 20, "told")
        os.kill(process.pid, signal.SIGSTOP)
        time.sleep(STOPPED_S)
        os.kill(process.pid, signal.SIGCONT)
        status, health = node.health()
        assert status == 503
        assert not health["healthy"]
        assert health["oldestUnappliedSeconds"] > STOPPED_S
        assert health["appliedGeneration"] < health["desiredGeneration"]
        assert node.health("livez")[0] == 503
        (tools / "hidden").rename(tools / "iptables-nft-restore")
        check_caught_up(node)
        assert node.health()[0] == node.health("livez")[0] == 200


def test_a_held_lock_is_waited_for_and_its_holder_named(tmp_path: Path) -> None:
    with node_of(tmp_path, "legacy", period="2s") as node, node.running():
        lock = Path(node.environment["XTABLES_LOCKFILE"])
        with subprocess.Popen(["flock", "--close", str(lock), "sleep", "60"]) as holder:
            try:
                until(lambda: is_locked(lock), 10, "locked")
                node.serve(ONE, OTHER)
                began = time.monotonic()
                until(lambda: bool(node.lines("not written")), 30, "told")
                assert "xtables lock was not free" in node.lines("not written")[0]
                assert f"held by process {holder.pid}" in node.lines("not written")[0]
                assert node.health()[1]["lastError"]
                time.sleep(max(0.0, LOCKED_S - (time.monotonic() - began)))
                assert node.rules.sends_to(BOTH, "pod-a", "pod-b")
            finally:
                holder.kill()
        check_caught_up(node)
        assert not node.lines("changed by another program")


def test_missing_tools_for_ipv6_are_reported_and_the_rest_kept(node: Node) -> None:
    with own_tools(node) as tools:
        hidden = node.folder / "hidden"
        hidden.mkdir()
        for tool in tools.glob("ip6tables*"):
            tool.rename(hidden / tool.name)
        with node.running():
            assert node.rules.sends_to(BOTH, "pod-a", "pod-b")
            node.serve(ONE, OTHER)
            until(lambda: node.rules.sends_to(ONE, "pod-b"), 10, "a change")
            (reported,) = node.lines("rules for IPv6 stay unchanged")
            assert "ip6tables-nft-save is not installed" in reported
            for tool in hidden.iterdir():
                tool.rename(tools / tool.name)
            until(lambda: any("lab/web:tcp" in line for line in node.rules.lines(family=6)), 40, "the rules of IPv6")
            check_caught_up(node)
            assert len(node.lines("the tools work now")) == 1
            assert not node.lines("not written")
            assert not node.lines("changed by another program")


@pytest.mark.parametrize("name", ["iptables-nft-save", "ip6tables-nft-save"])
def test_a_tool_that_is_missing_at_a_reload_is_used_later(node: Node, name: str) -> None:
    with own_tools(node) as tools, node.running() as process:
        (tools / name).rename(tools / "hidden")
        process.send_signal(signal.SIGHUP)
        node.serve(ONE, OTHER)
        until(lambda: bool(node.lines("not written")), 20, "told")
        assert f"{name} is not installed" in node.lines("not written")[0]
        assert node.health()[0] == 200
        assert len(node.lines("configuration reloaded")) == 1
        (tools / "hidden").rename(tools / name)
        check_caught_up(node)
        assert not node.lines("rules for IPv6 stay unchanged")


def is_locked(lock: Path) -> bool:
    """Whether somebody holds a lock."""
    with lock.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        return False


def test_a_second_agent_is_refused_until_the_first_is_killed(node: Node) -> None:
    first = node.start()
    try:
        until(lambda: node.is_well, 30, "first sync")
        second = forks.run([*node.argv("run"), "--health-address", "127.0.0.1:10356"])
        assert second.returncode == 1
        assert f"another agent, process {first.pid}, already manages the rules of Services" in second.stderr
        assert node.is_well
    finally:
        first.kill()
        first.wait(20)
    with node.running():
        assert node.rules.sends_to(BOTH, "pod-a", "pod-b")


@pytest.mark.parametrize(
    "log", ["2>/dev/full", "2> >(exit 0)", "<&- >&- 2>&-"], ids=["full disk", "reader gone", "closed"]
)
def test_where_its_log_takes_no_line_it_works_on(node: Node, log: str) -> None:
    node.wrapper = ("bash", "-c", f'exec "$@" {log}', "bash")
    process = node.start("-v")
    try:
        until(lambda: node.is_well, 30, "first sync")
        node.rules.change("-t", "nat", "-F", "KUBE-SERVICES")
        node.serve(ONE, OTHER)
        until(lambda: node.rules.sends_to(ONE, "pod-b"), 10, "a change")
        check_caught_up(node)
        assert process.poll() is None
    finally:
        process.terminate()
        process.wait(20)
