"""What the node agent costs, from its start on. Run as a process inside a network namespace of its own, which it fills.

The API server is a real one over TCP, in this process; what the agent writes is seen as the kernel tells it, commit by
commit, so a time is that from the server's change to rules that packets meet.
"""

from __future__ import annotations

import json
import os
import queue
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from integration import manifests
from integration.bench import worlds
from integration.bench.kernel import ONE_RULE, OUTSIDE
from rulegen.host.netfilter.nft_commits import NftCommits, generation
from tests.servers.fakeapi import FakeApi

CHANGES = 120
IDLE_S = 40.0
"""Longer than a period of looking at the kernel."""
SETTLED_S = 3.0
FLOORS = 15
COLLECTIONS = {"Service": "services", "EndpointSlice": "endpointslices", "Node": "nodes"}
TICKS = os.sysconf("SC_CLK_TCK")
PAGE_MB = os.sysconf("SC_PAGE_SIZE") / 2**20


class Subject:
    """The agent under measurement.

    Attributes:
        started: When it began.
    """

    def __init__(self, folder: Path, kubeconfig: str, *more: str) -> None:
        config = folder / "config.json"
        periods = {"minSyncPeriod": "0s", "syncPeriod": "30s"}
        config.write_text(manifests.configuration(iptables=periods, nftables=periods))
        given = ("--kubeconfig", kubeconfig, "--config", str(config), "--node", "node1", "--variant", "nft", *more)
        self._log = folder / "log"
        # With this variable, each start would compile all modules anew, which takes 0.6 s of processor.
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
        command = [sys.executable, "-m", "rulegen", "run", *given]
        with self._log.open("w") as log:
            self.started = time.perf_counter()
            self.process = subprocess.Popen(command, stderr=log, env=environment)

    def wait_until_well(self) -> float:
        """Wait until all is written, and return how long that took from its start, in seconds."""
        while not self._is_well():
            if self.process.poll() is not None:
                raise SystemExit(f"the agent ended: {self._log.read_text()}")
            time.sleep(0.1)  # each question costs the agent some milliseconds
        return time.perf_counter() - self.started

    def end(self) -> None:
        """End it."""
        self.process.terminate()
        self.process.wait(30)

    @property
    def rss_mb(self) -> float:
        """Return the memory that it holds."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * PAGE_MB

    @property
    def peak_mb(self) -> float:
        """Return the most memory that it held."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM"))

    @property
    def own_s(self) -> float:
        """Return the processor time that it has used itself."""
        return sum(self._ticks()[:2]) / TICKS

    @property
    def cpu_s(self) -> float:
        """Return the processor time that it and the tools that it ran have used."""
        return sum(self._ticks()) / TICKS

    def _ticks(self) -> list[int]:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return [int(field) for field in fields[11:15]]

    @staticmethod
    def _is_well() -> bool:
        try:
            with urllib.request.urlopen("http://127.0.0.1:10256/healthz", timeout=5) as answer:
                reply = json.load(answer)
        except (urllib.error.URLError, ConnectionError):
            return False
        return bool(reply["healthy"]) and reply["appliedGeneration"] == reply["desiredGeneration"]


@contextmanager
def running(folder: Path, kubeconfig: str, *more: str) -> Iterator[Subject]:
    """Have an agent run."""
    subject = Subject(folder, kubeconfig, *more)
    try:
        yield subject
    finally:
        subject.end()


def serve(api: FakeApi, services: int) -> None:
    """Have the cluster consist of so many Services."""
    for document in worlds.objects(services):
        api.put(COLLECTIONS[document["kind"]], document)


def beginnings(
    folder: Path, kubeconfig: str, settled_s: float, options: Sequence[str]
) -> Iterator[tuple[Subject, dict[str, float]]]:
    """Start the agent on an empty kernel, and once more where nothing is to be done; give it, and what it took."""
    with running(folder, kubeconfig, *options) as subject:
        collected = {"start on an empty kernel": subject.wait_until_well(), "start, processor": subject.cpu_s}
        time.sleep(settled_s)
        collected["peak"] = subject.peak_mb
        yield subject, {**collected, "memory": subject.rss_mb}
    before = generation()
    with running(folder, kubeconfig, *options) as subject:
        collected = {"start where nothing changed": subject.wait_until_well(), "start again, processor": subject.cpu_s}
        time.sleep(settled_s)
        collected["peak where nothing changed"] = subject.peak_mb
        collected["memory where nothing changed"] = subject.rss_mb
        collected["commits where nothing changed"] = (generation() or 0) - (before or 0)
        yield subject, collected


def changes(api: FakeApi, services: int, count: int) -> dict[str, float]:
    """Change an endpoint of one Service after the other, and return how long it takes to the kernel, in seconds."""

    def change(number: int) -> None:
        api.put("endpointslices", worlds.endpoint_slice(number * 7919 % services, worlds.ENDPOINTS - 1))

    return timed(change, count)


def timed(change: Callable[[int], None], count: int) -> dict[str, float]:
    """Change something so many times, and return how long each change takes to the kernel, in seconds."""
    commits: queue.SimpleQueue[float] = queue.SimpleQueue()
    notices = NftCommits(lambda _: False, lambda _: commits.put(time.perf_counter()))
    times = []
    try:
        for number in range(count):
            began = time.perf_counter()
            change(number)
            times.append(commits.get(timeout=60) - began)
            time.sleep(0.05)  # the agent has written; let it get back to waiting
    finally:
        notices.stop()
    times.sort()
    return {
        "change, median": statistics.median(times),
        "change, p99": times[int(len(times) * 0.99)],
        "change, slowest": times[-1],
    }


def floor() -> dict[str, float]:
    """Return what the least commit takes, in seconds, and how much of it is the kernel's."""
    walls, kernels = [], []
    for _ in range(FLOORS):
        before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_stime
        began = time.perf_counter()
        subprocess.run(["iptables-nft-restore", "--noflush"], input=ONE_RULE, text=True, check=True)
        walls.append(time.perf_counter() - began)
        kernels.append(resource.getrusage(resource.RUSAGE_CHILDREN).ru_stime - before)
    return {"least commit": statistics.median(walls), "least commit, kernel": statistics.median(kernels)}


def idle(subject: Subject, seconds: float) -> float:
    """Return the share of a processor that it takes while nothing happens."""
    before, began = subject.cpu_s, time.perf_counter()
    time.sleep(seconds)
    return (subject.cpu_s - before) / (time.perf_counter() - began)


def main(
    services: int,
    count: int = CHANGES,
    idle_s: float = IDLE_S,
    settled_s: float = SETTLED_S,
    options: Sequence[str] = (),
) -> dict[str, float]:
    """Measure all in this namespace, which must be empty: with so many changes, and so many seconds without any.

    Args:
        services: How many Services there are.
        count: How many changes.
        idle_s: How long nothing happens, in seconds.
        settled_s: How long to wait before memory is read, in seconds.
        options: Options of the agent, such as the mode.
    """
    if os.environ.get(OUTSIDE) in {None, str(Path("/proc/self/ns/net").readlink())}:
        raise SystemExit("this fills the namespace that it runs in: run `make bench`")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    with tempfile.TemporaryDirectory() as name, FakeApi() as api:
        folder = Path(name)
        serve(api, services)
        kubeconfig = api.kubeconfig(folder)
        collected: dict[str, float] = {}
        first = True
        for subject, figures in beginnings(folder, kubeconfig, settled_s, options):
            collected |= figures
            if first:
                first = False
                before, own = subject.cpu_s, subject.own_s
                collected |= changes(api, services, count)
                collected["change, processor"] = (subject.cpu_s - before) / count
                collected["change, own"] = (subject.own_s - own) / count
                collected["memory after changes"] = subject.rss_mb
            else:
                collected["idle"] = idle(subject, idle_s)
        return collected | floor()


if __name__ == "__main__":
    numbers = [int(argument) for argument in sys.argv[1:] if argument.isdigit()]
    json.dump(main(*numbers, options=sys.argv[1 + len(numbers) :]), sys.stdout)
