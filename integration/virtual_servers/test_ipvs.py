"""What is IPVS mode's own: convergence of all that it keeps, connections that end in peace, moving to it and back."""

from __future__ import annotations

import sys
import time
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from integration import saves, servers
from integration.blackbox import CHANGES
from integration.changes.test_continuity import changing
from integration.changes.test_convergence import worlds
from integration.lab.hosts import TRANSPORTS
from integration.manifests import PORT, App, configuration, world
from tests.sizes import examples

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from integration.blackbox import Rulegen
    from integration.lab.hosts import Running
    from integration.lab.lab import Lab

pytestmark = [pytest.mark.variants, pytest.mark.ipvs, pytest.mark.xdist_group("ipvs")]

COUNTED_S = 20
PAUSE_S = 0.04
"""Between the questions of a client: in a user-mode Linux, one question costs some milliseconds."""

FEW = settings(
    max_examples=examples(1),
    deadline=None,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    print_blob=True,
)

ONE = App(
    name="one", number=701, ready=("pod-a", "pod-x"), type="LoadBalancer", external_ip=True, ranges=("10.0.0.0/8",)
)
TWO = App(name="two", number=702, type="NodePort")
THREE = App(name="three", number=703, ready=("pod-a",), external="Local", type="NodePort", affinity_s=10)
WORLD = world([ONE, TWO, THREE])


@pytest.fixture(autouse=True)
def unlike_before(rulegen: Rulegen) -> Iterator[None]:
    """These tests leave the node otherwise than they were told to serve."""
    rulegen.options = ()
    yield
    rulegen.served = None
    rulegen.options = ()


class TestConvergence:
    @FEW
    @given(wanted=worlds(), other=worlds(), seed=st.integers(0, 2**32))
    def test_apply_then_plan_is_empty(
        self, lab: Lab, rulegen: Rulegen, *, wanted: tuple[App, ...], other: tuple[App, ...], seed: int
    ) -> None:
        """From nothing, half of it, a hand-edited and another world: each time what is then there is the same."""
        servers.wipe(lab.node)
        rulegen.apply(world(wanted))
        fresh = servers.observe(lab.node)
        for share in (0.5, 0.1):
            servers.spoil(lab.node, Random(seed), share)
            rulegen.apply(world(wanted))
            assert servers.observe(lab.node) == fresh
        rulegen.apply(world(other))
        rulegen.apply(world(wanted))
        rulegen.check_converged()
        assert servers.observe(lab.node) == fresh

    def test_a_second_apply_writes_nothing(self, lab: Lab, rulegen: Rulegen) -> None:
        """Even the counters of a virtual server stay, which an edit would not clear but a new one would."""
        rulegen.apply(WORLD)
        lab["pod-b"].requests(5, "TCP", ONE.cluster_ip(4), PORT)
        until = time.monotonic() + COUNTED_S
        while self.counted(lab) != 5:
            assert time.monotonic() < until
            time.sleep(0.2)
        done = rulegen.apply(WORLD)
        assert "Applied" not in done.stdout
        assert self.counted(lab) == 5

    @staticmethod
    def counted(lab: Lab) -> int:
        """Return how many connections a virtual server has counted; the kernel adds them up every two seconds."""
        output = lab.node.run(["ipvsadm", "-Ln", "--stats", "-t", f"{ONE.cluster_ip(4)}:{PORT}"]).check().stdout
        return int(next(line for line in output.splitlines() if line.startswith("TCP")).split()[2])

    HARMS = (
        # what is done, and what the plan then says
        (f"ipvsadm -D -u {ONE.cluster_ip(4)}:80", f"UDP {ONE.cluster_ip(4)}:80"),
        (f"ipvsadm -E -t {ONE.cluster_ip(4)}:80 -s wlc", f"TCP {ONE.cluster_ip(4)}:80"),
        (f"ipvsadm -d -t {ONE.lb_ip(4)}:80 -r 10.244.1.11:8080", f"TCP {ONE.lb_ip(4)}:80"),
        (f"ipvsadm -e -t {ONE.outer_ip(4)}:80 -r 10.244.1.11:8080 -m -w 0", f"TCP {ONE.outer_ip(4)}:80"),
        (f"ipvsadm -A -u {ONE.cluster_ip(4)}:53 -s rr", f"UDP {ONE.cluster_ip(4)}:53"),
        (f"ip addr del {ONE.cluster_ip(6)}/128 dev kube-ipvs0", f"{ONE.cluster_ip(6)}/128"),
        (f"ipset del KUBE-CLUSTER-IP {ONE.cluster_ip(4)},tcp:80", f"{ONE.cluster_ip(4)},tcp:80"),
        ("ipset flush KUBE-NODE-PORT-TCP", "KUBE-NODE-PORT-TCP"),
        ("ipset add KUBE-6-CLUSTER-IP fd00::7,udp:7", "fd00::7,udp:7"),
        ("iptables-legacy -t nat -F KUBE-SERVICES", "KUBE-SERVICES"),
        ("sysctl -w net.ipv4.vs.conntrack=0", "net.ipv4.vs.conntrack"),
    )

    def test_drift_is_seen_and_mended(self, lab: Lab, rulegen: Rulegen) -> None:
        """Whatever somebody else took or put there, the plan names it."""
        rulegen.apply(WORLD)
        before = servers.observe(lab.node)
        for harm, _ in self.HARMS:
            lab.node.run(harm.split()).check()
        planned = rulegen.plan()
        assert planned.code == CHANGES
        assert [said for _, said in self.HARMS if said not in planned.stdout] == []
        rulegen.apply(WORLD)
        assert servers.observe(lab.node) == before
        assert lab.node.run(["sysctl", "-n", "net.ipv4.vs.conntrack"]).check().stdout == "1\n"
        assert lab["pod-b"].request("TCP", ONE.cluster_ip(4), PORT).outcome == "answered"


class TestOthers:
    FOREIGN = """
        ipvsadm -A -t 192.0.2.1:443 -s wlc -p 60
        ipvsadm -a -t 192.0.2.1:443 -r 192.0.2.2:443 -g -w 9
        ipvsadm -A -t 192.168.50.10:8443 -s rr
        ipvsadm -A -f 7 -s rr
        ipvsadm -A -t [2001:db8::1]:443 -s rr
        ipset create theirs hash:ip family inet comment
        ipset add theirs 192.0.2.9 comment "not ours"
        ip link add dummy7 type dummy
        ip addr add 10.96.9.9/32 dev dummy7
    """

    def test_foreign_servers_stay_through_apply_change_and_cleanup(self, lab: Lab, rulegen: Rulegen) -> None:
        """Virtual servers on addresses and ports that are not of Services, sets and devices of other names."""
        servers.wipe(lab.node)
        lab.node.run(["sh", "-ec", self.FOREIGN]).check()
        before = servers.observe(lab.node)
        try:
            for apps in ((ONE, TWO), (TWO, THREE)):
                rulegen.apply(world(apps))
                rulegen.check_converged()
                now = servers.observe(lab.node)
                assert now.servers > before.servers
                assert now.sets > before.sets
            rulegen.cleanup()
            after = servers.observe(lab.node)
            assert (after.servers, after.sets, after.addresses) == (before.servers, before.sets, before.addresses)
            assert "10.96.9.9/32" in lab.node.run(["ip", "-o", "addr", "show", "dev", "dummy7"]).check().stdout
            left = {line.chain for text in saves.save(lab.node, "ipvs").values() for line in saves.lines(text)}
            assert not {chain for chain in left if chain.startswith("KUBE-")}
        finally:
            lab.node.run(["ip", "link", "del", "dummy7"]).check()
            servers.wipe(lab.node)

    def test_an_unknown_scheduler_is_refused_before_any_write(self, lab: Lab, rulegen: Rulegen) -> None:
        servers.wipe(lab.node)
        before = servers.observe(lab.node)
        rulegen.write(WORLD)
        rulegen.options = ("--ipvs-scheduler", "best")
        done = rulegen.attempt("apply")
        assert done.code == 1
        assert "scheduler" in done.stderr
        assert "best" in done.stderr
        assert "Traceback" not in done.stderr
        assert servers.observe(lab.node) == before

    def test_every_scheduler_serves(self, lab: Lab, rulegen: Rulegen) -> None:
        """Each Service may have its own."""
        names = ("rr", "wrr", "lc", "wlc", "lblc", "lblcr", "dh", "sh", "sed", "nq", "mh")
        apps = {
            name: App(
                name=name,
                number=710 + number,
                ready=("pod-a", "pod-x"),
                protocols=("TCP",),
                annotations={"rulegen.io/ipvs-scheduler": name},
            )
            for number, name in enumerate(names)
        }
        rulegen.apply(world(apps.values()))
        printed = lab.node.run(["ipvsadm", "-Sn"]).check().stdout.splitlines()
        for name, app in apps.items():
            assert any(f"-A -t {app.cluster_ip(4)}:80 -s {name}" in line for line in printed)
            answers = lab["pod-b"].requests(2, "TCP", app.cluster_ip(4), PORT)
            assert {answer.outcome for answer in answers} == {"answered"}


MANY = tuple(
    App(name=f"app-{number}", number=number, ready=("pod-a", "pod-b", "pod-x"), protocols=("TCP",), type="NodePort")
    for number in range(1001, 1101)
)


class TestInterruption:
    def test_an_apply_after_killed_ones_completes_them(self, lab: Lab, rulegen: Rulegen) -> None:
        """Killed in the middle of a first load, soon or late after the first set that is seen."""
        servers.wipe(lab.node)
        rulegen.apply(world(MANY))
        full = servers.observe(lab.node)
        for later_s in (0.0, 0.3):
            servers.wipe(lab.node)
            running = rulegen.start("apply")
            seen = f"until ipset list -n | grep -q KUBE-; do sleep 0.05; done; sleep {later_s}"
            lab.node.run(["sh", "-c", seen], timeout_s=100).check()
            running.kill(group=True)
            assert running.wait().code in {-9, 0}
            rulegen.apply(world(MANY))
            assert servers.observe(lab.node) == full
        rulegen.check_converged()
        for app in (MANY[0], MANY[-1]):
            assert lab["pod-c"].request("TCP", app.cluster_ip(4), PORT).outcome == "answered"


ECHO = """
import socket, sys, threading
def serve(connection):
    with connection:
        while line := connection.recv(100):
            connection.sendall(sys.argv[1].encode() + b" " + line)
server = socket.create_server(("", 9000))
print("listening", flush=True)
while True:
    threading.Thread(target=serve, args=(server.accept()[0],), daemon=True).start()
"""

TALK = """
import socket, struct, sys, time
from pathlib import Path
address, port, ending, report = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]), Path(sys.argv[4])
with socket.create_connection((address, port), timeout=5) as connection:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    count = 0
    while not ending.exists():
        connection.sendall(b"x")
        who = connection.recv(100).split()[0].decode()
        count += 1
        (new := report.with_suffix(".new")).write_text(f"{who} {count}")
        new.rename(report)
        time.sleep(0.05)
"""
"""Talks over one connection until a file is there, and tells with whom and how often. Then it resets the connection,
which IPVS forgets after 10 s."""


class Talking:
    """A connection that is held open."""

    def __init__(self, lab: Lab, address: Any, name: str) -> None:
        self._lab = lab
        self._ending, self._report = lab.folder / f"{name}.end", lab.folder / f"{name}.report"
        argv = [sys.executable, "-c", TALK, str(address), str(PORT), str(self._ending), str(self._report)]
        self._running: Running = lab.client.popen(argv)
        until(lab, self._report.exists, "a connection")

    def progress(self) -> tuple[str, int]:
        """Return who answers, and how often until now."""
        who, count = self._report.read_text().split()
        return who, int(count)

    def goes_on(self) -> bool:
        """Whether it still gets answers, from the same one."""
        who, count = self.progress()
        until(self._lab, lambda: self.progress()[1] > count + 2, "an answer")
        return self.progress()[0] == who

    def end(self) -> None:
        """End it."""
        self._ending.touch()
        self._running.wait(10).check()
        for path in (self._ending, self._report):
            path.unlink()


def until(lab: Lab, holds: Callable[[], bool], what: str, within_s: float = 30) -> None:
    """Wait for a condition."""
    for _ in range(int(within_s * 10)):
        if holds():
            return
        time.sleep(0.1)
    pytest.fail(f"{what}: not within {within_s} s")


class TestTermination:
    @pytest.fixture
    def echoes(self, lab: Lab) -> Iterator[None]:
        running = [lab[pod].popen([sys.executable, "-c", ECHO, pod]) for pod in ("pod-a", "pod-b")]
        for pod in ("pod-a", "pod-b"):
            address = str(lab[pod].addresses(4)[0])
            until(lab, lambda a=address: lab.node.request("TCP", a, 9000, timeout_s=0.2).outcome != "refused", pod)
        yield
        for program in running:
            program.kill(group=True)
            program.wait()

    @pytest.mark.usefixtures("echoes")
    def test_an_endpoint_that_goes_ends_its_connections_first(self, lab: Lab, rulegen: Rulegen) -> None:
        """Weight 0 while it has any; a restart knows that as well as anybody, for it stands in the kernel."""
        servers.wipe(lab.node)

        def serving(*pods: str) -> App:
            return App(name="long", number=750, ready=pods, target=9000, protocols=("TCP", "UDP"))

        app = serving("pod-a", "pod-b")
        virtual, leaving = f"{app.cluster_ip(4)}:{PORT}", f"{lab['pod-a'].addresses(4)[0]}:9000"
        rulegen.apply(world([app]))
        talks = [Talking(lab, app.cluster_ip(4), f"talk-{number}") for number in range(4)]
        assert sorted(talk.progress()[0] for talk in talks) == ["pod-a", "pod-a", "pod-b", "pod-b"]
        assert servers.weights(lab.node)[virtual, leaving][0] == 1

        rulegen.apply(world([serving("pod-b")]))
        weight, connections = servers.weights(lab.node)[virtual, leaving]
        assert (weight, connections >= 2) == (0, True)
        assert all(talk.goes_on() for talk in talks)
        udp = lab.node.run(["ipvsadm", "-Ln", "-u", virtual]).check().stdout
        assert leaving not in udp
        rulegen.check_converged()
        further = [Talking(lab, app.cluster_ip(4), f"further-{number}") for number in range(3)]
        assert {talk.progress()[0] for talk in further} == {"pod-b"}
        # One that comes back while it is leaving serves again at once; and leaves again.
        rulegen.apply(world([app]))
        assert servers.weights(lab.node)[virtual, leaving][0] == 1
        rulegen.apply(world([serving("pod-b")]))

        for talk in (*talks, *further):
            assert talk.goes_on()
            talk.end()
        until(lab, lambda: servers.weights(lab.node)[virtual, leaving][1] == 0, "connections forgotten")
        assert servers.weights(lab.node)[virtual, leaving] == (0, 0)
        rulegen.apply(world([serving("pod-b")]))
        assert (virtual, leaving) not in servers.weights(lab.node)
        rulegen.check_converged()


class TestContinuity:
    def test_changes_lose_no_connection(self, lab: Lab, rulegen: Rulegen) -> None:
        """An endpoint that leaves listens on, so whatever fails is ours."""
        hosts = ("pod-a", "pod-b", "pod-x")
        app = changing(hosts)
        rulegen.apply(world([app]))
        asking = {
            "a pod by ClusterIP": lab["pod-c"].repeat("TCP", app.cluster_ip(4), PORT, pause_s=PAUSE_S),
            "a pod by ClusterIP, IPv6": lab["pod-c"].repeat("TCP", app.cluster_ip(6), PORT, pause_s=PAUSE_S),
            "outside by node port": lab.client.repeat("TCP", lab.node.addresses(4)[0], app.node_port, pause_s=PAUSE_S),
            "outside by balancer": lab.client.repeat("TCP", app.lb_ip(4), PORT, pause_s=PAUSE_S),
            "the node by ClusterIP": lab.node.repeat("TCP", app.cluster_ip(4), PORT, pause_s=PAUSE_S),
        }
        changes: list[tuple[tuple[str, ...], dict[str, Any]]] = [
            (("pod-a", "pod-b"), {}),
            (("pod-x", "pod-b"), {}),
            (("pod-b",), {"affinity_s": 10}),
            (("pod-a", "pod-b"), {"external": "Local", "health_check_port": 32902}),
            (("pod-a", "pod-b"), {"ranges": ("192.168.50.0/24", "fd00:50::/64")}),
            (hosts, {}),
        ]
        for ready, more in changes:
            rulegen.apply(world([ONE, changing(ready, **more)]))
        reports = {who: asker.stop() for who, asker in asking.items()}
        assert {who: report.first_failures for who, report in reports.items() if report.failures} == {}
        assert all(sum(report.answered.values()) > 20 for report in reports.values())


class TestSwitch:
    def test_from_iptables_to_ipvs_and_back(self, lab: Lab, rulegen: Rulegen, tmp_path: Path) -> None:
        """Connections that begin meanwhile succeed, and each mode leaves nothing in the other."""
        app = App(name="moving", number=760, ready=("pod-a", "pod-x"), type="LoadBalancer", protocols=TRANSPORTS)
        objects = world([app, ONE, TWO, THREE])
        servers.wipe(lab.node)
        rulegen.variant = "legacy"
        try:
            rulegen.apply(objects)
            before = servers.observe(lab.node)
            asking = {
                "a pod by ClusterIP": lab["pod-c"].repeat("TCP", app.cluster_ip(4), PORT, pause_s=PAUSE_S),
                "a pod by ClusterIP, IPv6": lab["pod-c"].repeat("TCP", app.cluster_ip(6), PORT, pause_s=PAUSE_S),
                "outside by balancer": lab.client.repeat("TCP", app.lb_ip(4), PORT, pause_s=PAUSE_S),
                "outside by node port": lab.client.repeat(
                    "TCP", lab.node.addresses(4)[0], app.node_port, pause_s=PAUSE_S
                ),
                "the node by ClusterIP": lab.node.repeat("TCP", app.cluster_ip(4), PORT, pause_s=PAUSE_S),
            }
            rulegen.variant = "ipvs"
            planned = rulegen.plan()
            assert planned.code == CHANGES
            assert "KUBE-SVC-" in planned.stdout
            assert f"{app.cluster_ip(4)}" in planned.stdout
            rulegen.apply(objects)
            rulegen.check_converged()
            there = servers.observe(lab.node)
            assert there.servers
            assert not [rule for rules in there.rules.values() for _, rule in rules if "KUBE-SVC-" in rule]
            rulegen.variant = "legacy"
            rulegen.apply(objects)
            rulegen.check_converged()
            assert servers.observe(lab.node) == before
            assert "kube-ipvs0" not in lab.node.run(["ip", "-o", "link"]).check().stdout
        finally:
            rulegen.variant = "ipvs"
            reports = {who: asker.stop() for who, asker in asking.items()}
            servers.wipe(lab.node)
        # A connection of the node itself has the ClusterIP as its source while that is bound: one that is open at the
        # moment in which it is unbound ends. A client that opens one after the other can lose one so.
        lost = reports["the node by ClusterIP"]
        assert lost.failures <= 1, lost.first_failures
        del reports["the node by ClusterIP"]
        assert {who: report.first_failures for who, report in reports.items() if report.failures} == {}
        assert all(sum(report.answered.values()) > 20 for report in (lost, *reports.values()))

    def test_timeouts_and_strict_arp(self, lab: Lab, rulegen: Rulegen) -> None:
        """Set where the configuration says so, and left alone where it says nothing."""
        config = configuration(ipvs={"tcpTimeout": "20m", "udpTimeout": "50s", "strictARP": True})
        rulegen.apply(WORLD, config)
        rulegen.check_converged()
        assert "1200 120 50" in lab.node.run(["ipvsadm", "-Ln", "--timeout"]).check().stdout
        names = ["net.ipv4.conf.all.arp_ignore", "net.ipv4.conf.all.arp_announce"]
        assert lab.node.run(["sysctl", "-n", *names]).check().stdout.split() == ["1", "2"]
        lab.node.run(["sysctl", "-w", *(f"{name}=0" for name in names)]).check()
        rulegen.apply(WORLD)
        rulegen.check_converged()
        assert "1200 120 50" in lab.node.run(["ipvsadm", "-Ln", "--timeout"]).check().stdout
