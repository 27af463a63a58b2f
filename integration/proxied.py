"""The proxy of userspace mode in a lab: its processes, and clients that ask for its Services without pause."""

from __future__ import annotations

import os
import signal
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from integration.agent import until
from integration.manifests import PORT, App

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from integration.lab.hosts import Repeating
    from integration.lab.lab import Lab

PAUSE_S = 0.01
BALANCED = App(name="balanced", number=71, ready=("pod-a", "pod-x"), type="LoadBalancer", external_ip=True)


class ProxyProcesses:
    """The processes of the proxy on the lab's node."""

    def __init__(self, lab: Lab) -> None:
        inode = lab.node.run(["stat", "-Lc", "%i", "/proc/self/ns/net"]).check().stdout.strip()
        self.folder = Path(f"/run/rulegen/proxy-{inode}")

    def haproxy(self) -> int:
        """Return the process that takes new connections; 0 if there is none."""
        lines = (self.folder / "haproxy.pids").read_text().splitlines()
        pid = int(lines[-1].split()[0]) if lines else 0
        return pid if Path(f"/proc/{pid}/cwd").exists() else 0

    def relay(self) -> int:
        """Return the relay of UDP; 0 if there is none."""
        file = self.folder / "relay.pid"
        pid = int(file.read_text().split()[0]) if file.exists() else 0
        return pid if Path(f"/proc/{pid}/cwd").exists() else 0

    def supervisor(self) -> int:
        """Return the supervisor; 0 if there is none. The relay is a copy of it, with the same arguments."""
        for entry in Path("/proc").iterdir():
            with suppress(OSError):
                argv = (entry / "cmdline").read_text().split("\0")
                is_of_folder = entry.name.isdigit() and {"rulegen.host.userspace.supervisor", str(self.folder)} <= set(
                    argv
                )
                if is_of_folder and int(entry.name) != self.relay():
                    return int(entry.name)
        return 0

    def kill(self, pid: int) -> None:
        os.kill(pid, signal.SIGKILL)
        until(lambda: not Path(f"/proc/{pid}/cwd").exists(), 10, f"process {pid} has ended")


@contextmanager
def asking(lab: Lab, *, ended: bool = False) -> Iterator[Mapping[str, Repeating]]:
    """Ask from everywhere in both families, and fail unless all was answered.

    Args:
        lab: The lab.
        ended: Whether connections that are open at a moment may end: new ones must still be accepted and answered.
    """
    app = BALANCED
    askers = {
        "a pod by ClusterIP": lab["pod-c"].repeat("TCP", app.cluster_ip(4), PORT, pause_s=PAUSE_S),
        "a pod by ClusterIP, IPv6": lab["pod-c"].repeat("TCP", app.cluster_ip(6), PORT, pause_s=PAUSE_S),
        "outside by node port": lab.client.repeat("TCP", lab.node.addresses(4)[0], app.node_port, pause_s=PAUSE_S),
        "outside by balancer, IPv6": lab.client.repeat("TCP", app.lb_ip(6), PORT, pause_s=PAUSE_S),
        "the node by ClusterIP": lab.node.repeat("TCP", app.cluster_ip(4), PORT, pause_s=PAUSE_S),
        "the node by ClusterIP, IPv6": lab.node.repeat("TCP", app.cluster_ip(6), PORT, pause_s=PAUSE_S),
    }
    yield askers
    before = {who: sum(asker.report().answered.values()) for who, asker in askers.items()}
    for who, asker in askers.items():
        until(lambda w=who, a=asker: sum(a.report().answered.values()) > before[w] + 3, 10, f"{who} is answered")
    reports = {who: asker.stop() for who, asker in askers.items()}
    allowed = {"empty", "reset"} if ended else set()
    failures = {
        who: [each for each in r.first_failures if each["outcome"] not in allowed] for who, r in reports.items()
    }
    failures = {who: each for who, each in failures.items() if each}
    assert failures == {}, failures
