"""`rulegen run` as a node runs it: the API server changes and goes away, and others break its rules."""

from __future__ import annotations

import os
import shlex
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from integration import manifests
from integration.agent import SYSCTL, Node, Rules, network_namespace, tool, until
from integration.manifests import App
from rulegen.host.netfilter.nft_commits import generation
from tests.servers.fakeapi import FakeApi

pytestmark = pytest.mark.xdist_group("agent")

MENDED_S = 2.0
ONE = App(name="one", number=801, ready=("pod-a", "pod-x"), type="LoadBalancer", ranges=("10.0.0.0/8",))
TWO = App(name="two", number=802, ready=("pod-a", "pod-b"), type="NodePort", protocols=("TCP",))


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with network_namespace(), FakeApi() as api:
        api.put("nodes", *manifests.nodes())
        yield Node(tmp_path_factory.mktemp("agent"), api)


def test_changes_of_the_cluster_reach_the_kernel(node: Node) -> None:
    node.serve(ONE)
    with node.running("-v"):
        assert node.rules.sends_to(ONE, "pod-a", "pod-x")
        node.check_converged()
        node.serve(ONE, TWO)
        until(lambda: node.rules.sends_to(TWO, "pod-a", "pod-b"), 5, "a new Service")
        node.serve(ONE, App(name="two", number=802, ready=("pod-b",), type="NodePort", protocols=("TCP",)))
        until(lambda: node.rules.sends_to(TWO, "pod-b"), 5, "one endpoint fewer")
        node.serve(TWO)
        until(lambda: not any("lab/one" in line for line in node.rules.lines()), 5, "a Service less")
        until(lambda: node.rules.sends_to(TWO, "pod-a", "pod-b"), 5, "one endpoint more")
        until(lambda: node.is_well, 5, "all written")
        node.check_converged()
    assert not node.lines("changed by another program")


def test_a_stop_leaves_the_rules_and_a_start_writes_nothing(node: Node) -> None:
    node.serve(ONE, TWO)
    with node.running():
        before, at = node.rules.everything(), generation()
        assert node.rules.sends_to(ONE, "pod-a", "pod-x")
    assert node.rules.everything() == before
    with node.running():
        time.sleep(0.5)
        assert generation() == at
    assert generation() == at
    assert not node.lines("written")


def test_once_ends_by_itself_when_all_is_written(node: Node) -> None:
    node.serve(TWO)
    process = node.start("--once")
    assert process.wait(20) == 0
    node.check_converged()
    assert node.rules.sends_to(TWO, "pod-a", "pod-b")


def test_without_an_api_server_rules_stay_and_drift_is_mended(node: Node) -> None:
    node.serve(ONE, TWO)
    with node.running():
        node.api.go_away()
        try:
            node.serve(ONE, App(name="two", number=802, ready=("pod-b",), type="NodePort", protocols=("TCP",)))
            time.sleep(0.5)
            node.rules.change("-t", "nat", "-F", "KUBE-SERVICES")
            until(lambda: node.rules.sends_to(TWO, "pod-a", "pod-b"), MENDED_S, "mended")
            until(
                lambda: any("KUBE-SERVICES" in line and "--dport" in line for line in node.rules.lines()),
                MENDED_S,
                "mended",
            )
        finally:
            node.api.come_back()
        until(lambda: node.rules.sends_to(TWO, "pod-b"), 20, "what changed meanwhile")
        node.check_converged()


def test_without_an_api_server_from_the_start_nothing_is_written(node: Node) -> None:
    node.serve(ONE, TWO)
    assert node.start("--once").wait(20) == 0
    before, at = node.rules.everything(), generation()
    node.api.go_away()
    try:
        process = node.start()
        until(lambda: bool(node.lines("started")), 30, "it runs")
        time.sleep(1)
        assert not node.is_well
        assert process.poll() is None
        process.terminate()
        assert process.wait(10) == 0, node.log.read_text()
    finally:
        node.api.come_back()
    assert (node.rules.everything(), generation()) == (before, at)


def test_what_a_killed_agent_began_is_completed_by_the_next(node: Node) -> None:
    many = [
        App(name=f"app-{number}", number=number, ready=("pod-a", "pod-b"), protocols=("TCP",), families=(4,))
        for number in range(1001, 1201)
    ]
    node.serve(TWO)
    assert node.start("--once").wait(20) == 0
    node.serve(*many)
    for group in (True, False):  # what it had started ends with it, or writes on alone
        process = node.start()
        seen = time.monotonic()
        while time.monotonic() - seen < 10 and not any("lab/app-" in line for line in node.rules.lines()):
            time.sleep(0.01)
        (os.killpg if group else os.kill)(process.pid, signal.SIGKILL)
        process.wait(10)
        node.rules.change("-t", "nat", "-F", "KUBE-SERVICES")
    with node.running():
        node.check_converged()
        assert sum("lab/app-" in line and "--to-destination" in line for line in node.rules.lines()) == 400


def replace_endpoint(rules: Rules) -> None:
    chain = rules.chain_of("lab/two", "KUBE-SEP-")
    number, _ = rules.spec("nat", chain, "DNAT")
    spec = ("-p", "tcp", "-j", "DNAT", "--to-destination", "10.9.9.9:9")
    rules.change("-t", "nat", "-R", chain, str(number), *spec)


def double(rules: Rules, table: str, chain: str, pattern: str) -> None:
    """Put a rule in once more, behind all others."""
    rules.change("-t", table, *shlex.split(rules.spec(table, chain, pattern)[1]))


def reverse(rules: Rules) -> None:
    """Put the rules of a chain in the opposite order."""
    chain = rules.chain_of("lab/two", "KUBE-SEP-")
    first = next(line for line in rules.lines() if line.startswith(f"-A {chain} "))
    rules.change("-t", "nat", "-D", *shlex.split(first)[1:])
    rules.change("-t", "nat", *shlex.split(first))


def remove(rules: Rules, *chains: str) -> None:
    """Remove chains, and all that jumps there."""
    lines = rules.save("-t", "nat").splitlines()
    kept = "".join(f"{line}\n" for line in lines if not any(chain in line for chain in chains))
    rules.restore(kept)


DAMAGE: dict[str, Callable[[Rules], object]] = {
    "flush a chain": lambda rules: rules.change("-t", "nat", "-F", "KUBE-SERVICES"),
    "delete a rule": lambda rules: rules.delete_first("nat", "KUBE-SERVICES", "lab/two"),
    "delete a jump": lambda rules: rules.delete_first("nat", "PREROUTING", "KUBE-SERVICES"),
    "add a rule": lambda rules: rules.change("-t", "nat", "-I", "KUBE-SERVICES", "1", "-j", "RETURN"),
    "empty a Service's chain": lambda rules: rules.change("-t", "nat", "-F", rules.chain_of("lab/two")),
    "empty an endpoint's chain": lambda rules: rules.change("-t", "nat", "-F", rules.chain_of("lab/two", "KUBE-SEP-")),
    "double a rule": lambda rules: double(rules, "nat", "KUBE-MARK-MASQ", "MARK"),
    "double a rule of a shared chain": lambda rules: double(rules, "nat", "KUBE-SERVICES", "lab/two"),
    "replace an endpoint": replace_endpoint,
    "reverse a chain": reverse,
    "delete a jump of filter": lambda rules: rules.delete_first("filter", "FORWARD", "KUBE-FORWARD"),
    "add a rule to filter": lambda rules: rules.change("-I", "KUBE-FORWARD", "1", "-j", "DROP"),
    "put a rule before ours": lambda rules: rules.change(
        "-t", "nat", "-I", rules.chain_of("lab/two"), "1", "-j", "ACCEPT"
    ),
    "remove a chain and all that leads there": lambda rules: remove(rules, "KUBE-MARK-MASQ"),
    "remove a Service's chains": lambda rules: remove(
        rules, rules.chain_of("lab/two"), rules.chain_of("lab/two", "KUBE-EXT-"), rules.chain_of("lab/two", "KUBE-SEP-")
    ),
    "flush nat": lambda rules: rules.change("-t", "nat", "-F"),
    "flush nat of IPv6": lambda rules: rules.change("-t", "nat", "-F", family=6),
    "flush filter": lambda rules: rules.change("-F"),
    "flush filter of IPv6": lambda rules: rules.change("-F", family=6),
}
"""What others do to rules, whatever holds them."""

NFT_DAMAGE: dict[str, Callable[[Rules], object]] = {
    **DAMAGE,
    "delete a table": lambda _: tool("nft", "delete", "table", "ip", "nat"),
    "flush everything": lambda _: tool("nft", "flush", "ruleset"),
}
TOLD = "changed by another program"


def drop_parameter() -> None:
    SYSCTL.write_text("0\n")


@pytest.fixture(scope="class")
def mending(node: Node) -> Iterator[Node]:
    node.serve(ONE, TWO)
    with node.running():
        yield node


class TestDamage:
    """The kernel tells of it, so it is mended at once, long before the period is over."""

    @pytest.mark.parametrize("kind", NFT_DAMAGE)
    def test_foreign_changes_are_repaired_and_logged(self, mending: Node, kind: str) -> None:
        before, reported, counted = mending.rules.everything(), len(mending.lines(TOLD)), mending.drift()
        NFT_DAMAGE[kind](mending.rules)
        elapsed = until(lambda: sorted(mending.rules.everything()) == sorted(before), 10, kind)
        assert elapsed < MENDED_S
        until(lambda: len(mending.lines(TOLD)) > reported, 2, "told")
        assert mending.lines(TOLD)[-1].endswith("mended=True")
        assert mending.drift() > counted

    def test_nothing_is_written_behind_all_this(self, mending: Node) -> None:
        mending.check_converged()
        at, counted = generation(), mending.drift()
        time.sleep(1)
        assert (generation(), mending.drift()) == (at, counted)

    def test_rules_of_others_are_no_damage(self, mending: Node) -> None:
        count = len(mending.lines(TOLD))
        mending.rules.change("-t", "nat", "-N", "OTHERS")
        mending.rules.change("-t", "nat", "-A", "OTHERS", "-j", "RETURN")
        time.sleep(1)
        assert len(mending.lines(TOLD)) == count
        assert "-A OTHERS -j RETURN" in mending.rules.lines()


@pytest.fixture(scope="class")
def polling(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """Give a node whose rules are of the variant that nothing tells of, looked at every 0.4 s."""
    with network_namespace(), FakeApi() as api:
        api.put("nodes", *manifests.nodes())
        node = Node(tmp_path_factory.mktemp("legacy"), api, "legacy")
        node.configure(iptables={"minSyncPeriod": "0s", "syncPeriod": "400ms"})
        node.serve(ONE, TWO)
        with node.running():
            yield node


class TestPolledDamage:
    """Nothing tells of it, so it is seen within a period."""

    @pytest.mark.parametrize("kind", DAMAGE)
    def test_legacy_rules_are_repaired_and_logged(self, polling: Node, kind: str) -> None:
        before, reported, counted = polling.rules.everything(), len(polling.lines(TOLD)), polling.drift()
        DAMAGE[kind](polling.rules)
        until(lambda: sorted(polling.rules.everything()) == sorted(before), 10, kind)
        until(lambda: len(polling.lines(TOLD)) > reported, 2, "told")
        assert polling.drift() > counted

    def test_a_kernel_parameter_is_repaired_and_logged(self, polling: Node) -> None:
        count = len(polling.lines("route_localnet"))
        drop_parameter()
        until(lambda: SYSCTL.read_text() == "1\n", 10, "the parameter")
        until(lambda: len(polling.lines("route_localnet")) > count, 2, "told")

    def test_nothing_is_written_where_nobody_broke_anything(self, polling: Node) -> None:
        polling.check_converged()
        written = polling.metric("rulegen_writes_total")
        time.sleep(1.2)
        assert polling.metric("rulegen_writes_total") == written


def check_told_and_left(node: Node, damage: Mapping[str, Callable[[Rules], object]]) -> None:
    """Do all sorts of damage to a node whose agent only reports: each is told, none mended."""
    saved = {family: node.rules.save(family=family) for family in (4, 6)}
    for kind, break_it in damage.items():
        count = len(node.lines("mended=False"))
        break_it(node.rules)
        broken = node.rules.everything()
        until(lambda count=count: len(node.lines("mended=False")) > count, 10, f"{kind}: told")
        assert node.rules.everything() == broken, kind
        for family, text in saved.items():
            node.rules.restore(text, family)
        until(lambda: node.metric("rulegen_drift_unmended") == 0, 10, f"{kind}: as before")
    assert not node.lines(" written")


def test_asked_only_to_report_it_tells_all_damage_and_mends_none(node: Node) -> None:
    node.serve(ONE, TWO)
    assert node.start("--once").wait(20) == 0
    with node.running("--drift", "report"):
        assert not node.lines(TOLD)
        check_told_and_left(node, NFT_DAMAGE)


def test_asked_only_to_report_it_tells_what_it_must_look_for_too(tmp_path: Path) -> None:
    with network_namespace(), FakeApi() as api:
        api.put("nodes", *manifests.nodes())
        node = Node(tmp_path, api, "legacy")
        node.configure(iptables={"minSyncPeriod": "0s", "syncPeriod": "200ms"})
        node.serve(ONE, TWO)
        assert node.start("--once").wait(20) == 0
        with node.running("--drift", "report"):
            assert not node.lines(TOLD)
            check_told_and_left(node, DAMAGE)
            drop_parameter()
            until(lambda: bool(node.lines("route_localnet")), 10, "the parameter: told")
            assert SYSCTL.read_text() == "0\n"


def test_sighup_has_it_read_its_configuration_anew(node: Node) -> None:
    """With it a wrong kernel parameter is seen within another time, since nothing tells of those."""
    node.serve(TWO)
    node.configure()
    with node.running() as process:
        assert SYSCTL.read_text() == "1\n"
        node.configure(iptables={"minSyncPeriod": "0s", "syncPeriod": "1s"})
        process.send_signal(signal.SIGHUP)
        until(lambda: bool(node.lines("configuration reloaded")), 10, "SIGHUP")
        until(lambda: node.is_well, 10, "a sync")
        SYSCTL.write_text("0")
        until(lambda: SYSCTL.read_text() == "1\n", 3, "the parameter")
        until(lambda: bool(node.lines("route_localnet")), 2, "told")
    node.configure()


def test_sighup_then_sigterm_stops_the_agent(node: Node) -> None:
    """Two signals at the same moment: the kernel gives the second to any thread."""
    node.serve(TWO)
    for _ in range(3):
        with node.running() as process:
            process.send_signal(signal.SIGHUP)
            process.send_signal(signal.SIGTERM)
            until(lambda: process.poll() is not None, 10, "the end")


def test_restarted_without_an_api_server_it_keeps_what_it_knew(node: Node) -> None:
    node.serve(TWO)
    node.configure()
    with node.running() as process:
        node.api.go_away()
        try:
            node.serve(App(name="two", number=802, ready=("pod-b",), type="NodePort", protocols=("TCP",)))
            node.configure(iptables={"minSyncPeriod": "0s", "syncPeriod": "30s", "masqueradeBit": 13})
            process.send_signal(signal.SIGHUP)
            until(lambda: any("0x2000" in line for line in node.rules.lines()), 10, "what was configured")
            until(lambda: node.is_well, 5, "it is well")
            assert node.rules.sends_to(TWO, "pod-a", "pod-b")
            node.rules.change("-t", "nat", "-F", "KUBE-SERVICES")
            until(
                lambda: any("KUBE-SERVICES" in line and "--dport" in line for line in node.rules.lines()), 5, "mended"
            )
        finally:
            node.api.come_back()
        until(lambda: node.rules.sends_to(TWO, "pod-b"), 20, "what changed meanwhile")
        node.check_converged()
    node.configure()


def test_what_cannot_begin_anew_goes_on_and_says_why(node: Node) -> None:
    node.serve(TWO)
    kubeconfig = Path(node.kubeconfig)
    good = kubeconfig.read_text()
    with node.running() as process:
        kubeconfig.write_text("{")
        try:
            process.send_signal(signal.SIGHUP)
            until(lambda: bool(node.lines("not reloaded")), 10, "told")
            assert node.is_well
            assert not node.lines("stopped")
            node.serve(ONE, TWO)
            until(lambda: node.rules.sends_to(ONE, "pod-a", "pod-x"), 5, "a change")
        finally:
            kubeconfig.write_text(good)
        process.send_signal(signal.SIGHUP)
        until(lambda: bool(node.lines("configuration reloaded")), 10, "it can again")
        until(lambda: node.is_well, 10, "a sync")
