"""`rulegen run` in nftables mode, in both layouts: Services change, and other programs change the table."""

from __future__ import annotations

import re
import shutil
import signal
import subprocess
from contextlib import ExitStack
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from integration import forks, manifests
from integration.agent import Node, inside, tool, until
from integration.lab.lab import build
from integration.lab.namespaces import Namespaces
from integration.manifests import PORT, App
from rulegen.host.netfilter.nft_commits import generation
from tests.rights import needs_root
from tests.servers.fakeapi import FakeApi

if TYPE_CHECKING:
    from collections.abc import Iterator

    from integration.lab.hosts import Family
    from integration.lab.lab import Lab

pytestmark = [
    needs_root,
    pytest.mark.slow,
    pytest.mark.xdist_group("agent modes"),
    pytest.mark.skipif(shutil.which("nft") is None, reason="not installed: nft"),
]

WEB = App(name="web", number=81, ready=("pod-a", "pod-x"))
STICKY = App(name="sticky", number=82, ready=("pod-a", "pod-b"), affinity_s=600)
OTHER = App(name="other", number=83, ready=("pod-b",), type="NodePort")


class NftNode(Node):
    """A node in nftables mode."""

    mode = "nftables"

    def __init__(self, lab: Lab, api: FakeApi, table: str) -> None:
        super().__init__(lab.folder, api)
        self.lab, self.table = lab, table

    def argv(self, verb: str, *more: str) -> list[str]:
        """Return a command line, with the layout unless it is that of a node without kube-proxy's table."""
        layout = ("--nftables-layout", self.table) if self.table == "kube-proxy" and verb != "cleanup" else ()
        return super().argv(verb, *layout, *more)

    def configure(self, **options: object) -> None:
        """Check everything each second."""
        super().configure(nftables={"minSyncPeriod": "0s", "syncPeriod": "1s"}, **options)

    def answers(self, app: App, family: Family, *hosts: str) -> bool:
        """Whether only these hosts answer a pod, in some requests."""
        pod = self.lab["pod-c"]
        answers = [pod.request("TCP", app.cluster_ip(family), PORT, timeout_s=1) for _ in range(4 * len(hosts))]
        return {answer.name for answer in answers} == set(hosts)


@pytest.fixture(scope="module", params=["kube-proxy", "rulegen"])
def node(request: pytest.FixtureRequest) -> Iterator[NftNode]:
    with ExitStack() as stack:
        lab = stack.enter_context(build(Namespaces()))
        stack.enter_context(inside(f"/proc/{lab.node.wire.pid}/ns/net"))
        api = stack.enter_context(FakeApi())
        api.put("nodes", *manifests.nodes())
        node = NftNode(lab, api, request.param)
        yield node
        assert tables() == {node.table}
        assert forks.run([*node.argv("cleanup")[:6], "--variant", "nft", "-y"]).returncode == 0
        assert not tables()


def tables() -> set[str]:
    """Return the names of rulegen's tables that exist."""
    return set(tool("nft", "list", "tables").split()) & {"kube-proxy", "rulegen"}


def set_with(element: str, table: str) -> str:
    """Return the name of the IPv4 set of ClusterIPs that has an element."""
    listed = tool("nft", "list", "table", "ip", table)
    return next(
        name for name, text in re.findall(r"\tset (cluster-ips\S*) {(.*?)\n\t}", listed, re.DOTALL) if element in text
    )


def test_changes_of_the_cluster_reach_the_table(node: NftNode, family: Family) -> None:
    node.serve(WEB)
    with node.running():
        for ready in (("pod-a",), ("pod-b", "pod-x"), ("pod-a", "pod-x")):
            node.serve(replace(WEB, ready=ready))
            until(lambda r=ready: node.answers(WEB, family, *r), 10, f"{ready} answer")
        node.serve(WEB, OTHER, STICKY)
        until(lambda: node.answers(OTHER, family, "pod-b"), 10, "a new Service")
        node.serve(WEB, replace(STICKY, affinity_s=60))
        until(lambda: not node.answers(OTHER, family, "pod-b"), 10, "a Service less")
        until(lambda: "timeout 1m" in tool("nft", "list", "ruleset"), 10, "another timeout of affinity")
        node.check_converged()


def test_what_another_program_changes_is_repaired(node: NftNode) -> None:
    node.serve(WEB)
    with node.running("--nftables-owner", "off"):
        before = words_of_ruleset()
        for change in (
            f"delete element ip TABLE {set_with(str(WEB.cluster_ip(4)), node.table)} {{ {WEB.cluster_ip(4)} }}",
            "insert rule ip TABLE services accept",
            "flush chain ip6 TABLE masquerading",
            "delete table ip6 TABLE",
            f"add table ip {'rulegen' if node.table == 'kube-proxy' else 'kube-proxy'}",
        ):
            tool("nft", change.replace("TABLE", node.table))
            until(lambda: words_of_ruleset() == before, 30, change)


def words_of_ruleset() -> list[str]:
    """Return what nft lists, in any order: elements of a map that is made anew may come in another one."""
    return sorted(re.split(r"[,\s]+", tool("nft", "-s", "list", "ruleset")))


FOREIGN = (
    "delete table ip rulegen",
    "flush ruleset",
    "add element ip6 rulegen service-nodeports { tcp . 31234 : drop }",
    "insert rule ip rulegen services accept",
    "add table ip rulegen { flags dormant; }",
)
"""What other programs with the rights of root try."""


@pytest.mark.parametrize("node", ["rulegen"], indirect=True)
def test_no_other_program_changes_a_protected_table(node: NftNode, family: Family) -> None:
    node.serve(WEB)
    with node.running("--nftables-owner", "on"):
        before = tool("nft", "-a", "list", "ruleset")
        for change in FOREIGN:
            tried = subprocess.run(["nft", change], capture_output=True, text=True, check=False)
            assert tried.returncode == 0 or "Operation not permitted" in tried.stderr, tried
            assert tool("nft", "-a", "list", "ruleset") == before, change
        assert "owns the table" in apply_from_elsewhere(node)
        node.serve(replace(WEB, ready=("pod-b",)))
        until(lambda: node.answers(WEB, family, "pod-b"), 10, "its own change")
        assert node.drift() == 0
        node.check_converged()


@pytest.mark.parametrize("node", ["rulegen"], indirect=True)
def test_another_mode_beside_the_owner_writes_no_rule(node: NftNode) -> None:
    """Otherwise both modes would serve: the table of the owner cannot be removed."""
    node.serve(WEB)
    with node.running("--nftables-owner", "on"):
        assert "owns the table" in apply_from_elsewhere(node, "--mode", "iptables")
        assert "KUBE-SERVICES" not in tool("iptables-nft-save")


def apply_from_elsewhere(node: NftNode, *options: str) -> str:
    """Return what `rulegen apply` says, which would write something else than the agent."""
    ended = forks.run(node.argv("apply", "--masquerade-all", "-y", *options))
    assert ended.returncode != 0
    return str(ended.stdout + ended.stderr)


@pytest.mark.parametrize("node", ["rulegen"], indirect=True)
def test_the_table_of_a_killed_agent_is_adopted_as_it_is(node: NftNode, family: Family) -> None:
    node.serve(WEB)
    process = node.start("--nftables-owner", "on")
    until(lambda: node.is_well, node.start_s, "first sync")
    listed = rules_with_handles()
    process.send_signal(signal.SIGKILL)
    process.wait(30)
    assert node.answers(WEB, family, "pod-a", "pod-x")
    assert rules_with_handles() == listed
    tool("nft", f"add element ip rulegen {set_with(str(WEB.cluster_ip(4)), 'rulegen')} {{ 10.99.99.99 }}")  # it is open
    before = generation() or 0
    with node.running("--nftables-owner", "on"):
        assert "10.99.99.99" not in tool("nft", "list", "ruleset")
        assert rules_with_handles() == listed
        assert generation() == before + 3, "adopted for two families, and the element is deleted"
        assert subprocess.run(["nft", "delete table ip rulegen"], capture_output=True, check=False).returncode != 0
    before = generation() or 0
    with node.running("--nftables-owner", "on"):
        assert generation() == before + 2, "adopted for two families, and nothing is written"
        assert rules_with_handles() == listed


CIDRS = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "ServiceCIDR",
    "metadata": {"name": "kubernetes"},
    "spec": {"cidrs": ["10.96.0.0/16", "fd00:96::/112"]},
}


def test_changes_of_service_cidrs_reach_the_kernel(node: NftNode) -> None:
    """Connections to addresses of these ranges that no Service has are dropped."""
    node.serve(WEB)
    with node.running():
        before = dropped_ranges()
        node.api.put("servicecidrs", CIDRS)
        until(lambda: dropped_ranges() == {"10.96.0.0/16", "fd00:96::/112"}, 10, "dropped in both families")
        assert before != dropped_ranges()
        node.api.put("servicecidrs", {**CIDRS, "spec": {"cidrs": ["10.96.0.0/15"]}})
        until(lambda: dropped_ranges() == {"10.96.0.0/15", "fd00:96::/112"}, 10, "the unknown range stays")


def dropped_ranges() -> set[str]:
    return set(re.findall(r"ip6? daddr (\S+/\S+) drop", tool("nft", "list", "ruleset")))


@pytest.mark.parametrize("node", ["rulegen"], indirect=True)
def test_the_table_is_released_where_it_is_not_to_be_protected(node: NftNode) -> None:
    node.serve(WEB)
    with node.running("--nftables-owner", "on"):
        pass
    with node.running("--nftables-owner", "off"):
        assert rules_with_handles()
        tool("nft", "add table ip rulegen { chain foreign { }; }")  # refused while it has the flag of an owner
        until(lambda: "chain foreign" not in tool("nft", "list", "ruleset"), 15, "drift is repaired")


@pytest.mark.parametrize("node", ["rulegen"], indirect=True)
def test_a_reload_into_this_mode_protects_the_table(node: NftNode, monkeypatch: pytest.MonkeyPatch) -> None:
    """And a reload into another mode leaves nothing of this one behind, although the table was protected."""
    node.serve(WEB)
    monkeypatch.setattr(node, "mode", "")
    node.configure(mode="iptables")
    with node.running():
        assert not tables()
        for mode, expected in (("nftables", {"rulegen"}), ("iptables", set()), ("nftables", {"rulegen"})):
            node.configure(mode=mode)
            until(lambda names=expected: tables() == names and node.is_well, 30, f"moved to {mode}")  # type: ignore[misc]
            assert ("KUBE-SERVICES" in tool("iptables-nft-save")) is (mode == "iptables")
            assert node.answers(WEB, 4, "pod-a", "pod-x")
        assert subprocess.run(["nft", "delete table ip rulegen"], capture_output=True, check=False).returncode != 0


def rules_with_handles() -> list[str]:
    """Return all rules with their handles: a rule that is made anew has another one."""
    return [
        line
        for line in tool("nft", "-a", "-s", "list", "ruleset").splitlines()
        if "# handle" in line and "table" not in line
    ]
