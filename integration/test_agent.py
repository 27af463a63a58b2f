"""`rulegen run` as a node runs it: the API server changes and goes away, and others break its rules."""

from __future__ import annotations

import ctypes
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from integration import manifests
from integration.lab import topology
from integration.manifests import App
from rulegen.host.nft_notices import generation
from tests.fakeapi import FakeApi

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = pytest.mark.xdist_group("agent")

CLONE_NEWNET = 0x40000000
MENDED_S = 2.0
ONE = App(name="one", number=801, ready=("pod-a", "pod-x"), type="LoadBalancer", ranges=("10.0.0.0/8",))
TWO = App(name="two", number=802, ready=("pod-a", "pod-b"), type="NodePort", protocols=("TCP",))
COLLECTIONS = {"Service": "services", "EndpointSlice": "endpointslices", "Node": "nodes"}
SYSCTL = Path("/proc/sys/net/ipv4/conf/all/route_localnet")


def until(holds: Callable[[], bool], within_s: float, what: str) -> float:
    """Wait until something holds, and return how long that took."""
    began = time.monotonic()
    while not holds():
        elapsed = time.monotonic() - began
        assert elapsed < within_s, f"{what}: not within {within_s} s"
        time.sleep(0.03)
    return time.monotonic() - began


def tool(*argv: str, stdin: str | None = None) -> str:
    return subprocess.run(argv, input=stdin, capture_output=True, text=True, check=True, timeout=60).stdout


def rules(table: str = "nat", family: int = 4) -> list[str]:
    """Return all rules of a table."""
    text = tool("iptables-nft-save" if family == 4 else "ip6tables-nft-save", "-t", table)
    return [line for line in text.splitlines() if line.startswith(("-A", ":"))]


def all_rules() -> list[str]:
    return [line for family in (4, 6) for table in ("nat", "filter") for line in rules(table, family)]


def wanted_rules() -> list[str]:
    """Return all rules without the counters of chains."""
    return [re.sub(r"\[\d+:\d+\]", "", line) for line in all_rules()]


class Node:
    """A node in a network namespace of its own, and the API server that it asks.

    Attributes:
        place: The options that say where Services are made.
        start_s: How long the first sync may take.
    """

    place: tuple[str, ...] = ("--variant", "nft")
    start_s = 20

    def __init__(self, folder: Path, api: FakeApi) -> None:
        self.folder, self.api = folder, api
        self.kubeconfig = api.kubeconfig(folder)
        self.log = folder / "log"
        self.config = folder / "config.json"
        self.configure()

    def configure(self, **options: object) -> None:
        given = {"iptables": {"minSyncPeriod": "0s", "syncPeriod": "30s"}, **options}
        self.config.write_text(manifests.configuration(**given))

    def serve(self, *apps: App) -> None:
        """Have the cluster consist of these Apps."""
        documents = [document for app in apps for document in app.documents()]
        for collection in ("services", "endpointslices"):
            new = [one for one in documents if COLLECTIONS[one["kind"]] == collection]
            names = {one["metadata"]["name"] for one in new}
            for namespace, name in set(self.api.kept(collection)):
                if name not in names:
                    self.api.delete(collection, namespace, name)
            self.api.put(collection, *new)

    def argv(self, verb: str, *more: str) -> list[str]:
        given = ("--kubeconfig", self.kubeconfig, "--config", str(self.config), "--node", topology.NODE)
        return [sys.executable, "-W", "error", "-m", "rulegen", verb, *self.place, *given, *more]

    def start(self, *more: str) -> subprocess.Popen[bytes]:
        self.log.write_text("")
        with self.log.open("a") as log:
            return subprocess.Popen(self.argv("run", *more), stderr=log, stdout=log, start_new_session=True)

    @contextmanager
    def running(self, *more: str) -> Iterator[subprocess.Popen[bytes]]:
        process = self.start(*more)
        try:
            until(lambda: self.is_well or process.poll() is not None, self.start_s, "first sync")
            assert process.poll() is None, self.log.read_text()
            yield process
        finally:
            process.terminate()
            code = process.wait(15)
        assert code == 0, self.log.read_text()
        assert "Traceback" not in self.log.read_text()

    @property
    def is_well(self) -> bool:
        """Whether it says that all that came is written."""
        try:
            with urllib.request.urlopen("http://127.0.0.1:10256/healthz", timeout=5) as answer:
                told = json.load(answer)
        except (urllib.error.URLError, ConnectionError):
            return False
        return told["healthy"] and told["appliedGeneration"] == told["desiredGeneration"]

    def lines(self, word: str) -> list[str]:
        return [line for line in self.log.read_text().splitlines() if word in line]

    def check_converged(self) -> None:
        """Fail unless a plan against the same API server is empty."""
        done = subprocess.run(
            self.argv("plan", "--detailed-exitcode"), capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


@contextmanager
def network_namespace() -> Iterator[None]:
    """Be in a network namespace of our own, with all that is started meanwhile."""
    if os.geteuid() != 0:
        pytest.skip("network namespaces need root")
    libc = ctypes.CDLL(None, use_errno=True)
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        if libc.unshare(CLONE_NEWNET) != 0:
            pytest.skip(f"no network namespace: {os.strerror(ctypes.get_errno())}")
        try:
            tool("ip", "link", "set", "lo", "up")
            yield
        finally:
            libc.setns(before, CLONE_NEWNET)
    finally:
        os.close(before)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with network_namespace(), FakeApi() as api:
        api.put("nodes", *manifests.nodes())
        yield Node(tmp_path_factory.mktemp("agent"), api)


def endpoint_rules(app: App, *hosts: str) -> bool:
    """Whether the rules of an App send TCP to just these hosts."""
    found = set()
    for line in rules():
        match = re.search(rf' -p tcp .*"?lab/{app.name}:tcp.*--to-destination (\S+):', line)
        if match:
            found.add(match[1])
    return found == {str(topology.address(host, 4)) for host in hosts}


def test_changes_of_the_cluster_reach_the_kernel(node: Node) -> None:
    node.serve(ONE)
    with node.running("-v"):
        assert endpoint_rules(ONE, "pod-a", "pod-x")
        node.check_converged()
        node.serve(ONE, TWO)
        until(lambda: endpoint_rules(TWO, "pod-a", "pod-b"), 5, "a new Service")
        node.serve(ONE, App(name="two", number=802, ready=("pod-b",), type="NodePort", protocols=("TCP",)))
        until(lambda: endpoint_rules(TWO, "pod-b"), 5, "one endpoint fewer")
        node.serve(TWO)
        until(lambda: not any("lab/one" in line for line in rules()), 5, "a Service less")
        until(lambda: endpoint_rules(TWO, "pod-a", "pod-b"), 5, "one endpoint more")
        until(lambda: node.is_well, 5, "all written")
        node.check_converged()
    assert not node.lines("changed by others")


def test_the_end_leaves_the_rules_and_a_new_beginning_writes_nothing(node: Node) -> None:
    node.serve(ONE, TWO)
    with node.running():
        before, at = all_rules(), generation()
        assert endpoint_rules(ONE, "pod-a", "pod-x")
    assert all_rules() == before
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
    assert endpoint_rules(TWO, "pod-a", "pod-b")


def test_without_an_api_server_the_node_stays_as_it_was_and_what_is_broken_is_mended(node: Node) -> None:
    node.serve(ONE, TWO)
    with node.running():
        node.api.go_away()
        try:
            node.serve(ONE, App(name="two", number=802, ready=("pod-b",), type="NodePort", protocols=("TCP",)))
            time.sleep(0.5)
            tool("iptables-nft", "-t", "nat", "-F", "KUBE-SERVICES")
            until(lambda: endpoint_rules(TWO, "pod-a", "pod-b"), MENDED_S, "mended")
            until(lambda: any("KUBE-SERVICES" in line and "--dport" in line for line in rules()), MENDED_S, "mended")
        finally:
            node.api.come_back()
        until(lambda: endpoint_rules(TWO, "pod-b"), 20, "what changed meanwhile")
        node.check_converged()


def test_without_an_api_server_from_the_start_nothing_is_written(node: Node) -> None:
    node.serve(ONE, TWO)
    assert node.start("--once").wait(20) == 0
    before, at = all_rules(), generation()
    node.api.go_away()
    try:
        process = node.start()
        time.sleep(2)
        assert not node.is_well
        assert process.poll() is None
        process.terminate()
        assert process.wait(10) == 0, node.log.read_text()
    finally:
        node.api.come_back()
    assert (all_rules(), generation()) == (before, at)


def test_killed_in_the_middle_of_a_load_the_next_one_completes_it(node: Node) -> None:
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
        while time.monotonic() - seen < 10 and not any("lab/app-" in line for line in rules()):
            time.sleep(0.01)
        (os.killpg if group else os.kill)(process.pid, signal.SIGKILL)
        process.wait(10)
        tool("iptables-nft", "-t", "nat", "-F", "KUBE-SERVICES")
    with node.running():
        node.check_converged()
        assert sum("lab/app-" in line and "--to-destination" in line for line in rules()) == 400


def delete_first(table: str, chain: str, pattern: str) -> None:
    """Delete the first rule of a chain that a pattern is found in."""
    found = [line for line in tool("iptables-nft", "-t", table, "-S", chain).splitlines() if line.startswith("-A")]
    number = next(number for number, line in enumerate(found, 1) if re.search(pattern, line))
    tool("iptables-nft", "-t", table, "-D", chain, str(number))


def chain_of(word: str, kind: str = "KUBE-SVC-") -> str:
    return next(m[0] for line in rules() if word in line and (m := re.search(rf"{kind}[A-Z2-7]{{16}}", line)))


def replace_endpoint() -> None:
    chain = chain_of("lab/two", "KUBE-SEP-")
    found = [line for line in tool("iptables-nft", "-t", "nat", "-S", chain).splitlines() if line.startswith("-A")]
    number = next(number for number, line in enumerate(found, 1) if "DNAT" in line)
    spec = ("-p", "tcp", "-j", "DNAT", "--to-destination", "10.9.9.9:9")
    tool("iptables-nft", "-t", "nat", "-R", chain, str(number), *spec)


def double_rule() -> None:
    rule = next(line for line in rules() if line.startswith("-A KUBE-MARK-MASQ "))
    tool("iptables-nft", "-t", "nat", *shlex.split(rule))


def remove_mark() -> None:
    """Remove KUBE-MARK-MASQ, and all that jumps there."""
    text = "".join(
        f"{line}\n" for line in tool("iptables-nft-save", "-t", "nat").splitlines() if "KUBE-MARK-MASQ" not in line
    )
    tool("iptables-nft-restore", stdin=text)


DAMAGE: dict[str, Callable[[], object]] = {
    "flush a chain": lambda: tool("iptables-nft", "-t", "nat", "-F", "KUBE-SERVICES"),
    "delete a rule": lambda: delete_first("nat", "KUBE-SERVICES", "lab/two"),
    "delete a jump": lambda: delete_first("nat", "PREROUTING", "KUBE-SERVICES"),
    "add a rule": lambda: tool("iptables-nft", "-t", "nat", "-I", "KUBE-SERVICES", "1", "-j", "RETURN"),
    "empty a Service's chain": lambda: tool("iptables-nft", "-t", "nat", "-F", chain_of("lab/two")),
    "double a rule": double_rule,
    "replace an endpoint": replace_endpoint,
    "delete a jump of filter": lambda: delete_first("filter", "FORWARD", "KUBE-FORWARD"),
    "put a rule before ours": lambda: tool("iptables-nft", "-t", "nat", "-I", chain_of("lab/two"), "1", "-j", "ACCEPT"),
    "remove a chain and all that leads there": remove_mark,
    "flush nat": lambda: tool("iptables-nft", "-t", "nat", "-F"),
    "flush nat of IPv6": lambda: tool("ip6tables-nft", "-t", "nat", "-F"),
    "flush filter": lambda: tool("iptables-nft", "-t", "filter", "-F"),
}


@pytest.fixture(scope="class")
def mending(node: Node) -> Iterator[Node]:
    node.serve(ONE, TWO)
    with node.running():
        yield node


class TestDamage:
    @pytest.mark.parametrize("kind", DAMAGE)
    def test_what_others_break_is_mended_and_told(self, mending: Node, kind: str) -> None:
        before, told = wanted_rules(), len(mending.lines("changed by others"))
        DAMAGE[kind]()
        elapsed = until(lambda: sorted(wanted_rules()) == sorted(before), 10, kind)
        assert elapsed < MENDED_S
        until(lambda: len(mending.lines("changed by others")) > told, 2, "told")
        assert mending.lines("changed by others")[-1].endswith("mended=True")

    def test_nothing_is_written_behind_all_this(self, mending: Node) -> None:
        mending.check_converged()
        at = generation()
        time.sleep(1)
        assert generation() == at
        with urllib.request.urlopen("http://127.0.0.1:10249/metrics", timeout=5) as answer:
            text = answer.read().decode()
        found = re.findall(r'^rulegen_drift_total\{kind="\w+"\} (\d+)$', text, re.MULTILINE)
        assert sum(map(int, found)) >= len(DAMAGE)

    def test_rules_of_others_are_no_damage(self, mending: Node) -> None:
        told = len(mending.lines("changed by others"))
        tool("iptables-nft", "-t", "nat", "-N", "OTHERS")
        tool("iptables-nft", "-t", "nat", "-A", "OTHERS", "-j", "RETURN")
        time.sleep(1)
        assert len(mending.lines("changed by others")) == told
        assert "-A OTHERS -j RETURN" in rules()


def test_asked_only_to_report_it_tells_all_damage_and_mends_none(node: Node) -> None:
    node.serve(ONE, TWO)
    assert node.start("--once").wait(20) == 0
    saved = {family: tool(f"{family}-nft-save") for family in ("iptables", "ip6tables")}
    with node.running("--drift", "report"):
        assert not node.lines("changed by others")
        for kind, damage in DAMAGE.items():
            told = len(node.lines("mended=False"))
            damage()
            broken = wanted_rules()
            until(lambda told=told: len(node.lines("mended=False")) > told, 5, f"{kind}: told")
            assert wanted_rules() == broken, kind
            for family, text in saved.items():
                tool(f"{family}-nft-restore", stdin=text)
            time.sleep(0.3)
    assert not node.lines(" written")


def test_sighup_has_it_read_its_configuration_anew(node: Node) -> None:
    """With it a wrong kernel parameter is seen within another time, since nothing tells of those."""
    node.serve(TWO)
    node.configure()
    with node.running() as process:
        assert SYSCTL.read_text() == "1\n"
        node.configure(iptables={"minSyncPeriod": "0s", "syncPeriod": "1s"})
        process.send_signal(signal.SIGHUP)
        until(lambda: bool(node.lines("begins anew")), 10, "SIGHUP")
        until(lambda: node.is_well, 10, "a sync")
        SYSCTL.write_text("0")
        until(lambda: SYSCTL.read_text() == "1\n", 3, "the parameter")
        until(lambda: bool(node.lines("route_localnet")), 2, "told")
    node.configure()
