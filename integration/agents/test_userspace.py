"""`rulegen run` in userspace mode: what clients see while Services change, and while its processes are killed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from integration import forks, manifests
from integration.agent import Node, inside, until
from integration.changes.test_proxy_mode import ASKS, PLAIN, served_from
from integration.lab.lab import build
from integration.lab.namespaces import Namespaces
from integration.manifests import PORT, App
from integration.proxied import BALANCED, ProxyProcesses, asking
from rulegen.host.userspace.exchange import ask
from tests.deploy.places import DEPLOY
from tests.deploy.test_units import capabilities
from tests.rights import needs_root
from tests.servers.fakeapi import FakeApi

if TYPE_CHECKING:
    from collections.abc import Iterator

    from integration.lab.hosts import Family, Transport
    from integration.lab.lab import Lab

pytestmark = [
    needs_root,
    pytest.mark.slow,
    pytest.mark.xdist_group("agent modes"),
    pytest.mark.skipif(shutil.which("haproxy") is None, reason="not installed: haproxy"),
]

OTHER = App(name="other", number=72, ready=("pod-b",))
UNUSUAL = App(name="unusual", number=73, ready=("pod-b",), affinity_s=4321)
"""There is no spare backend with its affinity, so that the proxy is reloaded for it."""
UNSUPERVISED_S = 20.0
SOON_S = 13.0
"""The time in which health follows the proxy, and what a busy machine adds to it."""
HAPROXY_SCRIPT = """#!/bin/sh
case " $* " in
*" -c "*) while [ -e {folder}/check.hangs ]; do sleep 0.05; done ;;
*" -v "*) ;;
*) if [ -e {folder}/start.fails ]; then exit 3; fi
   while [ -e {folder}/start.hangs ]; do sleep 0.05; done ;;
esac
exec {haproxy} "$@"
"""


class ProxiedNode(Node):
    """A node in userspace mode."""

    mode = "userspace"

    def __init__(self, lab: Lab, api: FakeApi) -> None:
        super().__init__(lab.folder, api)
        self.lab, self.proxy = lab, ProxyProcesses(lab)

    def cleanup(self) -> None:
        """Remove all rules and the proxy."""
        assert forks.run([*self.argv("cleanup")[:6], "--variant", "nft", "-y"]).returncode == 0
        assert not self.proxy.folder.exists()

    def answers(self, app: App, family: Family, *hosts: str, protocol: Transport = "TCP") -> bool:
        """Whether only these hosts answer a pod, in some requests."""
        pod = self.lab["pod-c"]
        answers = [pod.request(protocol, app.cluster_ip(family), PORT, timeout_s=1) for _ in range(2 * len(hosts))]
        return {answer.name for answer in answers} == set(hosts)


@pytest.fixture(scope="module")
def node() -> Iterator[ProxiedNode]:
    with ExitStack() as stack:
        lab = stack.enter_context(build(Namespaces()))
        stack.enter_context(inside(f"/proc/{lab.node.wire.pid}/ns/net"))
        api = stack.enter_context(FakeApi())
        api.put("nodes", *manifests.nodes())
        node = ProxiedNode(lab, api)
        yield node
        node.cleanup()


@pytest.fixture(autouse=True)
def usual_settings(node: ProxiedNode) -> None:
    """A test before may have changed `syncPeriod`: a change that has waited twice as long is unhealthy."""
    node.configure()


def test_changes_of_the_cluster_reach_the_proxy(node: ProxiedNode, family: Family) -> None:
    node.serve(BALANCED)
    with node.running():
        before = node.proxy.haproxy()
        with asking(node.lab):
            for ready in (("pod-a",), ("pod-b", "pod-x"), ("pod-a", "pod-x")):
                node.serve(replace(BALANCED, ready=ready))
                until(lambda r=ready: node.answers(BALANCED, family, *r), 5, f"{ready} answer")
            assert node.proxy.haproxy() == before
            node.serve(BALANCED, OTHER)
            until(lambda: node.answers(OTHER, family, "pod-b"), 5, "a new Service")
        node.serve(OTHER)
        until(lambda: not node.answers(BALANCED, family, "pod-a", "pod-x"), 5, "a Service less")
        node.check_converged()
    assert not node.lines("changed by another program")


def test_a_killed_proxy_is_reported_and_refuses_nobody(node: ProxiedNode) -> None:
    node.serve(BALANCED)
    with node.running():
        with asking(node.lab, ended=True):
            for _ in range(2):  # the first may be killed before the agent listens to the supervisor
                killed = node.proxy.haproxy()
                node.proxy.kill(killed)
                until(lambda k=killed: node.proxy.haproxy() not in {0, k}, 10, "HAProxy runs again")
                node.check_converged()
        until(lambda: bool(node.lines(") has ended by signal 9")), 10, "it is logged")
        assert node.metric("rulegen_proxy_failures_total") >= 1
    assert not node.lines("changed by another program")


def test_ejected_endpoints_are_told(node: ProxiedNode) -> None:
    node.serve(BALANCED)
    drop = ("-p", "tcp", "--dport", "8080", "-j", "REJECT", "--reject-with", "tcp-reset")
    with node.running():
        in_pod = node.lab["pod-a"]
        in_pod.run(["iptables-nft", "-I", "INPUT", *drop]).check()
        until(lambda: node.answers(BALANCED, 4, "pod-x"), SOON_S, "one endpoint answers")
        until(lambda: "EndpointEjected" in {each["reason"] for each in events(node)}, SOON_S, "an Event")
        in_pod.run(["iptables-nft", "-D", "INPUT", *drop]).check()
        until(lambda: node.answers(BALANCED, 4, "pod-a", "pod-x"), SOON_S, "both answer")
        until(lambda: "EndpointReturned" in {each["reason"] for each in events(node)}, SOON_S, "an Event")
        ejected = next(each for each in events(node) if each["reason"] == "EndpointEjected")
        assert (ejected["regarding"]["kind"], ejected["regarding"]["name"]) == ("Service", BALANCED.name)
        assert node.metric("rulegen_proxy_endpoint_changes_total") >= 2


def test_a_killed_relay_serves_again(node: ProxiedNode) -> None:
    node.serve(BALANCED)
    with node.running():
        killed = node.proxy.relay()
        node.proxy.kill(killed)
        for family in (4, 6):
            until(lambda f=family: node.answers(BALANCED, f, "pod-a", "pod-x", protocol="UDP"), SOON_S, "an answer")
        assert node.proxy.relay() not in {0, killed}
        node.check_converged()


def test_a_killed_supervisor_is_replaced(node: ProxiedNode) -> None:
    node.serve(BALANCED)
    with node.running(), asking(node.lab):
        proxy, killed = node.proxy.haproxy(), node.proxy.supervisor()
        node.proxy.kill(killed)
        until(lambda: node.proxy.supervisor() not in {0, killed}, UNSUPERVISED_S, "a new supervisor")
        until(lambda: bool(node.lines("its supervisor has ended")), 5, "it is logged")
        node.check_converged()
        assert node.proxy.haproxy() == proxy


def test_files_that_did_not_follow_are_written_by_the_next_agent(node: ProxiedNode) -> None:
    app = replace(BALANCED, protocols=("TCP",))
    node.serve(app)
    process = node.start()
    try:
        until(lambda: node.is_well, node.start_s, "first sync")
        for ready in (("pod-a",), ("pod-x",)):
            node.serve(replace(app, ready=ready))
            until(lambda r=ready: node.answers(app, 4, *r) and node.is_well, 10, f"{ready} answer")
        killed, supervisor = node.proxy.haproxy(), node.proxy.supervisor()
        os.kill(supervisor, signal.SIGSTOP)  # the files follow when it has answered
        try:
            node.serve(replace(app, ready=("pod-a",)))
            until(lambda: node.answers(app, 4, "pod-a"), 10, "it is served at run time")
            assert not node.is_well
        finally:
            process.kill()
            node.proxy.kill(killed)
            os.kill(supervisor, signal.SIGCONT)
    finally:
        process.kill()
        process.wait(10)
    until(lambda: node.proxy.haproxy() not in {0, killed}, 10, "HAProxy runs again")
    assert node.answers(app, 4, "pod-x")
    with node.running():
        assert node.answers(app, 4, "pod-a")
        node.check_converged()


@pytest.mark.parametrize("mode", ["iptables", "nftables"])
def test_one_service_gains_and_loses_the_proxy(node: ProxiedNode, mode: str, tmp_path: Path) -> None:
    node.cleanup()
    node.mode = mode
    node.configure(nftables={"minSyncPeriod": "0s", "syncPeriod": "30s"}, nodePortAddresses=["0.0.0.0/0", "::/0"])
    node.serve(PLAIN, OTHER)
    try:
        with node.running(), asking(node.lab):
            assert not node.proxy.folder.exists()
            for app, seen in ((ASKS, {"node"}), (PLAIN, {"pod"}), (ASKS, {"node"})):
                node.serve(app, OTHER)
                for family in (4, 6):
                    until(lambda f=family, s=seen: served_from(node.lab, PLAIN, f) == s, 10, f"{seen} in {family}")
                node.check_converged()
                assert node.proxy.folder.exists() == bool(app.annotations)
                assert (node.health()[0], node.drift()) == (200, 0)
            killed = node.proxy.supervisor()
            node.proxy.kill(killed)
            until(lambda: node.proxy.supervisor() not in {0, killed}, UNSUPERVISED_S, "a new supervisor")
            assert node.lines("its supervisor has ended")
            assert node.metric("rulegen_proxy_failures_total") == 1
            assert node.health()[0] == 200
            exporting = node.argv("export", "-o", str(tmp_path / "out"))
            exported = forks.run([each for each in exporting if each not in {"--variant", "nft"}])
            assert exported.returncode == 0, exported.stdout + exported.stderr
            shown = forks.run([*node.argv("show")[:6], str(tmp_path / "out")]).stdout
            assert f"Service lab/{PLAIN.name}" in shown, shown
            assert " 0 foreign rules." in shown, shown
        assert served_from(node.lab, PLAIN, 4) == {"node"}
    finally:
        node.cleanup()
        node.mode = ProxiedNode.mode


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["killed", "stopped"])
def test_without_an_agent_the_proxy_still_serves(node: ProxiedNode, number: signal.Signals) -> None:
    node.serve(BALANCED)
    with node.running():
        proxy, supervisor = node.proxy.haproxy(), node.proxy.supervisor()
    process = node.start()
    until(lambda: node.is_well, 30, "first sync")
    with asking(node.lab):
        os.kill(process.pid, number)
        process.wait(10)
        assert (node.proxy.haproxy(), node.proxy.supervisor()) == (proxy, supervisor)
    with asking(node.lab), node.running():
        assert not node.lines("written")
        assert (node.proxy.haproxy(), node.proxy.supervisor()) == (proxy, supervisor)


def test_changes_by_somebody_else_are_mended(node: ProxiedNode) -> None:
    node.configure(iptables={"minSyncPeriod": "0s", "syncPeriod": "1s"})
    node.serve(BALANCED)
    with node.running():
        runtime(node, f"del map v4.map {BALANCED.cluster_ip(4)}:{PORT}")
        until(lambda: node.answers(BALANCED, 4, "pod-a", "pod-x"), 10, "the frontend is there again")
        assert node.lines("changed by another program")
        node.rules.change("-t", "nat", "-F", "KUBE-PORTALS-CONTAINER")
        until(lambda: node.answers(BALANCED, 4, "pod-a", "pod-x"), 5, "the rules are there again")


def test_the_rights_of_the_unit_are_enough(node: ProxiedNode) -> None:
    units = DEPLOY / "systemd"
    rights = capabilities(units / "rulegen.service") | capabilities(units / "rulegen-userspace.conf")
    bounding = ",".join(["-all", *(f"+{right.lower()}" for right in sorted(rights))])
    node.cleanup()
    node.serve(BALANCED)
    node.wrapper = ("setpriv", "--no-new-privs", "--inh-caps=-all", "--ambient-caps=-all", "--bounding-set", bounding)
    try:
        with node.running(), asking(node.lab):
            node.serve(BALANCED, OTHER)
            until(lambda: node.answers(OTHER, 4, "pod-b"), 10, "a new Service")
            killed = node.proxy.supervisor()
            node.proxy.kill(killed)
            until(lambda: node.proxy.supervisor() not in {0, killed}, UNSUPERVISED_S, "a new supervisor")
            node.serve(BALANCED)
            until(lambda: not node.answers(OTHER, 4, "pod-b"), 10, "a Service less")
        assert not node.lines(" ERROR ")
    finally:
        node.wrapper = ()
        node.cleanup()


def events(node: ProxiedNode) -> list[dict[str, Any]]:
    """Return the Events that the API server has."""
    return list(node.api.kept("events").values())


def running_checks(folder: Path) -> int:
    """Return how many `haproxy -c` of a folder are running."""
    number = 0
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            argv = (entry / "cmdline").read_text().split("\0")
            number += entry.name.isdigit() and str(folder / "haproxy") in argv and "-c" in argv
    return number


def starting(folder: Path) -> bool:
    """Whether a new HAProxy of a folder does not run yet."""
    return any(
        (entry / "cmdline").read_bytes().startswith(f"/bin/sh\0{folder}/haproxy\0-db".encode())
        for entry in Path("/proc").iterdir()
        if entry.name.isdigit() and (entry / "cmdline").exists()
    )


def runtime(node: ProxiedNode, command: str) -> None:
    """Have HAProxy execute a command, as somebody else would."""
    assert ask(Path(node.proxy.folder), "haproxy.sock", f"{command}\n", 10) is not None


def test_health_follows_a_proxy_that_hangs(node: ProxiedNode) -> None:
    node.serve(BALANCED)
    with node.running():
        proxy = node.proxy.haproxy()
        os.kill(proxy, signal.SIGSTOP)
        try:
            until(lambda: node.health()[0] == 503, SOON_S, "health 503")
            assert node.health()[1]["lastError"] == "the proxy of Services does not answer"
            assert node.health("livez")[0] == 200
            assert node.lines("no TCP connection to a Service is accepted")
            until(lambda: "ServicesNotServed" in {each["reason"] for each in events(node)}, SOON_S, "an Event")
        finally:
            os.kill(proxy, signal.SIGCONT)
        until(lambda: node.health()[0] == 200, SOON_S, "health 200")
        assert node.lines("the proxy of Services answers again")


@pytest.fixture
def wrapped(node: ProxiedNode) -> Iterator[Path]:
    """Have the node use an HAProxy that fails or hangs as long as files in a folder say so; give the folder."""
    node.cleanup()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        folder.chmod(0o755)
        script = folder / "haproxy"
        script.write_text(HAPROXY_SCRIPT.format(folder=folder, haproxy=shutil.which("haproxy")))
        script.chmod(0o755)
        node.environment["PATH"] = f"{folder}:{os.environ['PATH']}"
        try:
            yield folder
        finally:
            node.environment.pop("PATH")
            node.cleanup()


@pytest.mark.parametrize("flag", ["start.fails", "start.hangs"])
def test_health_follows_a_proxy_that_cannot_start(node: ProxiedNode, wrapped: Path, flag: str) -> None:
    node.serve(BALANCED)
    with node.running():
        (wrapped / flag).touch()
        node.proxy.kill(node.proxy.haproxy())
        until(lambda: node.health()[0] == 503, SOON_S, "health 503")
        assert "HAProxy" in node.health()[1]["lastError"] or "proxy" in node.health()[1]["lastError"]
        assert node.health("livez")[0] == 200
        assert node.metric("rulegen_proxy_failures_total") >= 1
        said = forks.run([*node.argv("cleanup")[:6], "--variant", "nft"])
        assert "the proxy of userspace mode stays: HAProxy does not run" in said.stdout + said.stderr
        (wrapped / flag).unlink()
        until(lambda: node.health()[0] == 200, SOON_S, "health 200")
        until(lambda: node.answers(BALANCED, 4, "pod-a", "pod-x"), SOON_S, "clients are answered")
        until(lambda: node.is_well, 30, "all is written")


def test_a_test_of_haproxy_that_hangs_harms_only_what_needs_it(node: ProxiedNode, wrapped: Path) -> None:
    node.serve(BALANCED)
    with node.running(), asking(node.lab, ended=True):
        (wrapped / "check.hangs").touch()
        node.serve(BALANCED, OTHER)
        until(lambda: node.answers(OTHER, 4, "pod-b"), SOON_S, "a Service that takes a spare backend")
        node.serve(BALANCED, OTHER, UNUSUAL)
        until(lambda: running_checks(wrapped) > 0, 30, "`haproxy -c` hangs")
        killed = node.proxy.haproxy()
        node.proxy.kill(killed)
        until(lambda: node.proxy.haproxy() not in {0, killed}, SOON_S, "HAProxy runs again")
        assert running_checks(wrapped) == 1
        until(lambda: bool(node.lines("`haproxy -c` has not ended after")), SOON_S, "it says what it waits for")
        assert node.health()[0] == 200
        node.serve(replace(BALANCED, ready=("pod-x",)), OTHER, UNUSUAL)
        until(lambda: node.answers(BALANCED, 4, "pod-x", protocol="UDP"), SOON_S, "a change of UDP")
        until(lambda: bool(node.lines("`haproxy -c` has not ended after 20 s")), 60, "it is given up")
        (wrapped / "check.hangs").unlink()
        until(lambda: node.answers(UNUSUAL, 4, "pod-b"), 60 + SOON_S, "the new Service")


def test_a_start_of_haproxy_that_hangs_delays_nothing_else(node: ProxiedNode, wrapped: Path) -> None:
    node.serve(BALANCED)
    with node.running() as agent, asking(node.lab, ended=True):
        (wrapped / "start.hangs").touch()
        node.serve(BALANCED, UNUSUAL)
        until(lambda: starting(wrapped), 30, "a new HAProxy hangs")
        node.serve(replace(BALANCED, ready=("pod-x",)), UNUSUAL)
        until(lambda: node.answers(BALANCED, 4, "pod-x", protocol="UDP"), SOON_S, "a change of UDP")
        until(lambda: starting(wrapped), 30, "it is tried again")
        began = time.monotonic()
        assert (ask(Path(node.proxy.folder), "supervisor.sock", "state\n", 5) or "").startswith("ok v4:")
        assert starting(wrapped)
        agent.terminate()
        assert agent.wait(20) == 0
        assert time.monotonic() - began < 10
        (wrapped / "start.hangs").unlink()
    with node.running(), asking(node.lab):
        until(lambda: node.answers(UNUSUAL, 4, "pod-b"), SOON_S, "the new Service")


def has_answered(folder: Path) -> bool:
    with suppress(ConnectionError):  # a HAProxy that ends just now
        return ask(folder, "haproxy.sock", "show info\n", 1) is not None
    return False


def fill(folder: Path) -> None:
    """Fill the disk of a folder."""
    with suppress(OSError), (folder / "filler").open("wb", buffering=0) as file:
        while True:
            file.write(b"0" * 4096)


def test_a_full_disk_harms_only_changes_of_the_proxy(node: ProxiedNode) -> None:
    node.cleanup()
    folder, new = Path(node.proxy.folder), replace(OTHER, protocols=("TCP",))
    folder.mkdir(0o711)
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m,mode=711", "none", folder], check=True)
    try:
        node.serve(BALANCED)
        with node.running(), asking(node.lab, ended=True):
            fill(folder)
            node.serve(BALANCED, new)
            until(lambda: node.answers(new, 4, "pod-b"), SOON_S, "a new Service, before its files are written")
            until(lambda: bool(node.lines("not written")), 60, "it is logged")
            assert "No space left on device" in node.lines("not written")[0]
            (folder / "filler").unlink()
            until(lambda: node.is_well, 30 + SOON_S, "the files follow")
            fill(folder)
            node.serve(BALANCED, new, UNUSUAL)
            until(lambda: "No space left" in node.health()[1].get("lastError", ""), 60, "health says so")
            killed, supervisor = node.proxy.haproxy(), node.proxy.supervisor()
            node.proxy.kill(killed)
            until(lambda: has_answered(folder), SOON_S, "HAProxy runs again")
            assert node.proxy.supervisor() == supervisor
            assert node.answers(new, 4, "pod-b")
            (folder / "filler").unlink()
            until(lambda: node.answers(UNUSUAL, 4, "pod-b"), 30 + SOON_S, "the new Service")
    finally:
        forks.run([*node.argv("cleanup")[:6], "--variant", "nft", "-y"])
        subprocess.run(["umount", "--lazy", folder], check=True)
        folder.rmdir()
