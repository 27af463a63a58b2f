"""What a change of one Service costs an agent that serves Ingresses. Run as a process in namespaces of its own.

`python -m integration.bench.ingress_agent SERVICES INGRESSES`: one host for each Ingress, one Service for each of them,
and the other Services are referred to by none. nginx and its sandbox are real. The times are the agent's own: from the
end of the time in which nothing changed to the start of `nginx -t`.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from integration import manifests
from integration.bench import worlds
from integration.bench.agent import PAGE_MB, TICKS
from integration.bench.ingress import objects
from integration.bench.kernel import OUTSIDE
from rulegen.agent.ingress import sync
from rulegen.cli.main import main as rulegen
from rulegen.host.nginx.engine import NginxEngine
from rulegen.host.proxy.sandbox import trial
from tests.fakes.requests import COLLECTIONS
from tests.servers.fakeapi import FakeApi

CHANGES = 5
OTHERS = 20
EVERY_S = 0.4
"""Between two changes that no Ingress refers to: longer than the agent waits for more."""
SERVED_S = 300.0
KINDS = {kind: name for name, (_, _, kind) in COLLECTIONS.items()}


def noted(
    log: Path, what: str, work: Callable[..., Any], *, at_end: bool = False, only_if_true: bool = False
) -> Callable[..., Any]:
    """Return the same function, which writes down when it starts, or ends; or only if its result is true."""

    def wrapped(*arguments: Any, **named: Any) -> Any:
        began = time.monotonic(), time.thread_time()
        result = work(*arguments, **named)
        at, cpu = (time.monotonic(), time.thread_time()) if at_end else began
        if result or not only_if_true:
            with log.open("a") as file:
                file.write(f"{what} {at} {cpu}\n")
        return result

    return wrapped


def agent(log: Path, arguments: list[str]) -> None:
    """Be the agent, and write down when what is measured happens."""
    # Patched where they are called: what is measured is the program as it is.
    sync.IngressSync.gather = noted(log, "quiet", sync.IngressSync.gather, at_end=True)  # type: ignore[method-assign]
    trial.try_release = noted(log, "test", trial.try_release)
    NginxEngine.check = noted(log, "decision", NginxEngine.check)  # type: ignore[method-assign]
    NginxEngine.deploy = noted(log, "served", NginxEngine.deploy, at_end=True)  # type: ignore[method-assign]
    rulegen(arguments)


class Subject:
    """The agent under measurement."""

    def __init__(self, folder: Path, kubeconfig: str) -> None:
        self.log, self._errors = folder / "moments", folder / "errors"
        self.log.touch()
        config = folder / "config.json"
        config.write_text(manifests.configuration(iptables={"minSyncPeriod": "0s", "syncPeriod": "300s"}))
        nginx = ("--ingress", "--no-services", "--nginx-dir", str(folder / "nginx"))
        nginx += (
            "--http-port",
            "8080",
            "--https-port",
            "8443",
            "--no-update-status",
            "--no-events",
            "--api-limit",
            "2048",
        )
        given = ("--kubeconfig", kubeconfig, "--config", str(config), "--node", "node1", *nginx)
        argv = [sys.executable, "-m", "integration.bench.ingress_agent", "agent", str(self.log), "run", *given]
        with self._errors.open("w") as errors:
            self.process = subprocess.Popen(argv, stderr=errors)

    def moments(self, what: str) -> list[tuple[float, float]]:
        """Return when something happened, and which processor time its thread had used by then."""
        lines = [line.split() for line in self.log.read_text().splitlines()]
        return [(float(at), float(cpu)) for name, at, cpu in lines if name == what]

    def wait_for(self, what: str, number: int) -> None:
        """Wait until something has happened so many times."""
        until = time.monotonic() + SERVED_S
        while len(self.moments(what)) < number:
            if self.process.poll() is not None or time.monotonic() > until:
                raise SystemExit(f"the agent does not serve: {self._errors.read_text()[-2000:]}")
            time.sleep(0.02)

    def wait_until_idle(self, seconds: float) -> None:
        """Wait until it has served nothing for so long."""
        while (ended := self.moments("served")[-1][0]) > time.monotonic() - seconds:
            time.sleep(min(1.0, ended + seconds - time.monotonic()) + 0.01)

    @property
    def cpu_s(self) -> float:
        """Return the processor time that it has used itself."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return sum(int(field) for field in fields[11:13]) / TICKS

    @property
    def rss_mb(self) -> float:
        """Return the memory that it holds."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * PAGE_MB

    @property
    def peak_mb(self) -> float:
        """Return the most memory that it held."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return next(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("VmHWM"))


def pause_s(reload_s: float) -> float:
    """Return for how long no reload is put off any more, after one that took so long."""
    return sync.BREATHS * reload_s + 2 * sync.BREATH_S


def others(api: FakeApi, subject: Subject, first: int, count: int) -> dict[str, float]:
    """Change Services that no Ingress refers to, one after the other."""
    decisions, cpu = len(subject.moments("decision")), subject.cpu_s
    for number in range(count):
        api.put("endpointslices", worlds.endpoint_slice(first + number, worlds.ENDPOINTS - 1))
        time.sleep(EVERY_S)
    time.sleep(2)
    return {
        "others: decisions": len(subject.moments("decision")) - decisions,
        "others: cpu": (subject.cpu_s - cpu) / count,
    }


def referred(api: FakeApi, subject: Subject, count: int) -> dict[str, float]:
    """Change Services that Ingresses refer to, each once what was before is served and no reload is pending."""
    times, cpus, cpu = [], [], subject.cpu_s
    for number in range(count):
        tests = len(subject.moments("test"))
        api.put("endpointslices", worlds.endpoint_slice(number * 7, worlds.ENDPOINTS - 1))
        subject.wait_for("test", tests + 1)
        tested = subject.moments("test")[tests]
        quiet = max(moment for moment in subject.moments("quiet") if moment <= tested)
        times.append(tested[0] - quiet[0])
        cpus.append(tested[1] - quiet[1])
        while not (served := [at for at, _ in subject.moments("served") if at > tested[0]]):
            time.sleep(0.1)
        subject.wait_until_idle(pause_s(served[0] - tested[0]))
    return {
        "quiet to test, median": statistics.median(times),
        "quiet to test, slowest": max(times),
        "quiet to test, processor": statistics.median(cpus),
        "change, processor": (subject.cpu_s - cpu) / count,
    }


def main(services: int, ingresses: int, changes: int = CHANGES) -> dict[str, float]:
    """Measure all in this namespace, which must be empty."""
    if os.environ.get(OUTSIDE) in {None, str(Path("/proc/self/ns/net").readlink())}:
        raise SystemExit("this serves on ports of the namespace that it runs in: give it one of its own")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    with tempfile.TemporaryDirectory() as name, FakeApi() as api:
        folder = Path(name)
        folder.chmod(0o755)  # nginx's workers are another user
        for document in objects(ingresses, tls=False):
            api.put(KINDS[document["kind"]], document)
        for number in range(ingresses, services):
            api.put("services", worlds.service(number))
            api.put("endpointslices", worlds.endpoint_slice(number))
        api.put("nodes", next(iter(worlds.objects(0))))
        began = time.monotonic()
        subject = Subject(folder, api.kubeconfig(folder))
        try:
            subject.wait_for("served", 1)
            served, tested = subject.moments("served")[0][0], subject.moments("test")[0][0]
            figures = {"start until served": served - began, "memory": subject.rss_mb}
            subject.wait_until_idle(pause_s(served - tested))
            if services > ingresses:
                figures |= others(api, subject, ingresses, OTHERS)
            figures |= referred(api, subject, changes)
            return figures | {"memory after changes": subject.rss_mb, "peak": subject.peak_mb}
        finally:
            subject.process.terminate()
            subject.process.wait(60)


if __name__ == "__main__":
    if sys.argv[1] == "agent":
        agent(Path(sys.argv[2]), sys.argv[3:])
    else:
        print(json.dumps(main(*map(int, sys.argv[1:])), indent=1))
