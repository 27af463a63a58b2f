"""The proxy of userspace mode under changes and failures: what clients see of them, and what a plan shows."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from integration.agent import until
from integration.blackbox import CHANGES, Rulegen
from integration.lab.namespaces import Namespaces
from integration.manifests import PORT, App, world
from integration.proxied import BALANCED, ProxyProcesses, asking
from rulegen.host.userspace.exchange import ask

if TYPE_CHECKING:
    from collections.abc import Iterator

    from integration.conftest import LabMaker
    from integration.lab.hosts import Family

pytestmark = pytest.mark.skipif(shutil.which("haproxy") is None, reason="not installed: haproxy")

OTHER = App(name="other", number=72, ready=("pod-b",))


@pytest.fixture(scope="module")
def proxied(labs: LabMaker) -> Iterator[Rulegen]:
    lab = labs(Namespaces, "userspace")
    rulegen = Rulegen(lab, "userspace")
    yield rulegen
    rulegen.cleanup()


@pytest.fixture
def processes(proxied: Rulegen) -> ProxyProcesses:
    proxied.apply(world([BALANCED]))
    return ProxyProcesses(proxied.lab)


def test_new_connections_wait_for_a_killed_proxy(proxied: Rulegen, processes: ProxyProcesses) -> None:
    with asking(proxied.lab, ended=True):
        for _ in range(3):
            killed = processes.haproxy()
            processes.kill(killed)
            until(lambda k=killed: processes.haproxy() not in {0, k}, 20, "HAProxy runs again")
            proxied.check_converged()


def test_nothing_fails_without_a_supervisor(proxied: Rulegen, processes: ProxyProcesses) -> None:
    proxy = processes.haproxy()
    with asking(proxied.lab):
        processes.kill(processes.supervisor())
        planned = proxied.plan()
        assert planned.code == CHANGES
        assert "listener v4 port 10261 without supervisor" in planned.stdout
        proxied.apply(world([BALANCED]))
        assert processes.supervisor()
        proxied.check_converged()
    with asking(proxied.lab, ended=True):
        killed = processes.haproxy()
        processes.kill(killed)
        until(lambda: processes.haproxy() not in {0, killed}, 20, "HAProxy runs again")
    assert not Path(f"/proc/{proxy}/cwd").exists()


def test_both_killed_are_started_by_the_next_apply(proxied: Rulegen, processes: ProxyProcesses) -> None:
    processes.kill(processes.supervisor())
    processes.kill(processes.haproxy())
    assert "+ listener" in proxied.plan().stdout
    proxied.apply(world([BALANCED]))
    proxied.check_converged()
    with asking(proxied.lab):
        pass


def test_endpoints_change_without_a_reload(proxied: Rulegen, processes: ProxyProcesses) -> None:
    before = processes.haproxy()
    with asking(proxied.lab):
        for ready in (("pod-a",), ("pod-b", "pod-x"), ("pod-a", "pod-b"), ("pod-x",), ("pod-a", "pod-x")):
            proxied.apply(world([replace(BALANCED, ready=ready)]))
            proxied.check_converged()
    assert processes.haproxy() == before


def test_a_plan_names_the_service_of_what_is_removed(proxied: Rulegen, processes: ProxyProcesses) -> None:
    proxied.apply(world([BALANCED, OTHER]))
    proxied.write(world([replace(BALANCED, ready=("pod-a",))]))
    shown = proxied.plan().stdout
    assert "Left over" not in shown
    gone = shown.index("Service lab/other, no longer served here")
    assert shown.index("Service lab/balanced") < shown.index("- server lab.balanced.tcp.v4/") < gone
    assert gone < shown.index("- server lab.other.tcp.v4/")
    proxied.apply(world([BALANCED]))


def test_new_and_removed_services_need_no_reload(proxied: Rulegen, processes: ProxyProcesses, family: Family) -> None:
    before = processes.haproxy()
    with asking(proxied.lab):
        for _ in range(2):
            proxied.apply(world([BALANCED, OTHER]))
            proxied.check_converged()
            answer = proxied.lab["pod-c"].request("TCP", OTHER.cluster_ip(family), PORT)
            assert answer.name == "pod-b"
            proxied.apply(world([BALANCED]))
            proxied.check_converged()
    assert processes.haproxy() == before


def test_a_reload_for_more_spare_backends_ends_no_connection(proxied: Rulegen, processes: ProxyProcesses) -> None:
    before = processes.haproxy()
    others = [App(name=f"other{number}", number=80 + number, ready=("pod-b",)) for number in range(14)]
    with asking(proxied.lab):
        proxied.apply(world([BALANCED, *others]))
        proxied.check_converged()
    assert processes.haproxy() != before
    until(lambda: not Path(f"/proc/{before}/cwd").exists(), 20, "the old HAProxy has ended")


def test_a_restarted_proxy_serves_the_service_of_a_spare_backend(
    proxied: Rulegen, processes: ProxyProcesses, family: Family
) -> None:
    proxied.apply(world([BALANCED, OTHER]))
    killed = processes.haproxy()
    processes.kill(killed)
    until(lambda: processes.haproxy() not in {0, killed}, 20, "HAProxy runs again")
    proxied.check_converged()
    assert proxied.lab["pod-c"].request("TCP", OTHER.cluster_ip(family), PORT).name == "pod-b"


def test_a_change_by_somebody_else_is_shown_and_undone(proxied: Rulegen, processes: ProxyProcesses) -> None:
    lines = runtime(processes, "show servers state")
    server = next(line.split() for line in lines if " lab.balanced.tcp.v4 " in line)
    runtime(processes, f"set server {server[1]}/{server[3]} state maint")
    runtime(processes, f"del map v6.map {BALANCED.cluster_ip(6)}:{PORT}")
    planned = proxied.plan()
    assert planned.code == CHANGES
    assert f"+ server lab.balanced.tcp.v4/{server[4]}" in planned.stdout
    assert f"+ frontend [{BALANCED.cluster_ip(6)}]:{PORT}" in planned.stdout
    assert "Plan: 2 to add, 0 to change, 0 to delete" in planned.stdout
    proxied.apply(world([BALANCED]))
    proxied.check_converged()


def runtime(processes: ProxyProcesses, command: str) -> list[str]:
    """Return what HAProxy answers on its socket."""
    return (ask(processes.folder, "haproxy.sock", f"{command}\n", 10) or "").splitlines()


def test_the_proxy_has_no_rights(processes: ProxyProcesses) -> None:
    status = dict(
        line.split(":\t", 1)
        for line in Path(f"/proc/{processes.haproxy()}/status").read_text().splitlines()
        if ":\t" in line
    )
    assert set(status["Uid"].split()) == set(status["Gid"].split())
    assert int(status["Uid"].split()[0]) > 60_000
    assert status["Groups"].split() == []
    assert {int(status[name], 16) for name in ("CapInh", "CapPrm", "CapEff", "CapAmb")} == {0}
    assert status["NoNewPrivs"] == "1"


def test_other_users_cannot_reach_the_sockets(processes: ProxyProcesses) -> None:
    connect = "import socket; socket.socket(socket.AF_UNIX).connect({!r})"
    for name in ("haproxy.sock", "supervisor.sock"):
        path = str(processes.folder / name)
        for user, outcome in ((None, 0), (60_500, 1)):
            argv = [sys.executable, "-c", connect.format(path)]
            prefix = [] if user is None else ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups"]
            assert subprocess.run([*prefix, *argv], capture_output=True, check=False).returncode == outcome


def test_a_port_in_use_is_reported(proxied: Rulegen, processes: ProxyProcesses) -> None:
    proxied.cleanup()
    assert not processes.folder.exists()
    script = "import socket, time; s = socket.create_server(('0.0.0.0', 10261)); print(1, flush=True); time.sleep(60)"
    taken = proxied.lab.node.popen([sys.executable, "-c", script])
    try:
        until(lambda: "10261" in proxied.lab.node.run(["ss", "-ltn"]).stdout, 10, "the port is taken")
        proxied.write(world([BALANCED]))
        done = proxied.attempt("apply")
        assert done.code == 1
        assert "port 10261 (IPv4): Address already in use" in done.stderr
        assert "KUBE-PORTALS" not in proxied.lab.node.run(["iptables-nft-save"]).stdout
        assert not processes.folder.exists()
    finally:
        taken.kill()
