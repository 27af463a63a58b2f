"""What a change of an Ingress costs with an ingress engine: from the API server's event to the answer for a client.

`python -m integration.bench.engines.events haproxy 50`, in namespaces of its own for the network and for processes. The
agent, the engine and the endpoints are real processes. Each change begins when the files of the one before are written.
"""

from __future__ import annotations

import http.client
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from integration import manifests
from integration.bench import worlds
from integration.bench.agent import PAGE_MB
from integration.bench.ingress import ingress, objects
from integration.bench.ingress_agent import KINDS, noted
from integration.bench.kernel import OUTSIDE
from rulegen.agent.ingress import sync
from rulegen.cli.main import main as rulegen
from rulegen.host.haproxy.engine import HaproxyEngine
from rulegen.host.nginx.engine import NginxEngine
from tests.servers.fakeapi import FakeApi

CHANGES = 10
HTTP = 8081
PODS = 8080
LATE_S = 300.0
SETTLED_S = 0.3
MODULE = "integration.bench.engines.events"
ENGINES = {"nginx": NginxEngine, "haproxy": HaproxyEngine}
EARLY = {"nginx": (), "haproxy": ("move", "give")}
"""What gives an engine changes before its files are written."""
ENDPOINT = "endpoint"


class Pod(BaseHTTPRequestHandler):
    """Answers with its own address."""

    disable_nagle_algorithm = True  # head and body are two segments

    def do_GET(self) -> None:
        body = self.connection.getsockname()[0].encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Write nothing."""


def pods() -> None:
    """Answer for every endpoint."""
    ThreadingHTTPServer.request_queue_size = 128
    ThreadingHTTPServer(("0.0.0.0", PODS), Pod).serve_forever()


def agent(name: str, log: Path, arguments: list[str]) -> None:
    """Be the agent, and write down when what is measured happens."""
    # Patched where they are called: what is measured is the program as it is.
    for what in (*EARLY[name], "deploy"):
        setattr(ENGINES[name], what, noted(log, what, getattr(ENGINES[name], what), at_end=True, only_if_true=True))
    rulegen(arguments)


class Subject:
    """The agent under measurement, with its engine."""

    def __init__(self, name: str, folder: Path, kubeconfig: str) -> None:
        self.name, self.log, self._errors = name, folder / "moments", folder / "errors"
        self.log.touch()
        config = folder / "config.json"
        config.write_text(manifests.configuration(iptables={"minSyncPeriod": "0s", "syncPeriod": "300s"}))
        given = ["--kubeconfig", kubeconfig, "--config", str(config), "--node", "node1", "--ingress", "--no-services"]
        given += ["--ingress-engine", name, f"--{name}-dir", str(folder / name), "--http-port", str(HTTP)]
        given += ["--https-port", "8443", "--no-update-status", "--no-events", "--api-limit", "2048"]
        with self._errors.open("w") as errors:
            argv = [sys.executable, "-m", MODULE, "agent", name, str(self.log), "run", *given]
            self.process = subprocess.Popen(argv, stderr=errors)

    def moments(self, *names: str) -> list[float]:
        """Return when something of this kind ended."""
        lines = [line.split() for line in self.log.read_text().splitlines()]
        return [float(line[1]) for line in lines if len(line) == 3 and line[0] in names]

    def until(self, what: str, is_so: Callable[[], bool], pause: float) -> None:
        """Wait until something is so.

        Raises:
            SystemExit: It is not in time, or the agent has ended.
        """
        until = time.monotonic() + LATE_S
        while not is_so():
            if self.process.poll() is not None or time.monotonic() > until:
                raise SystemExit(f"{what}: {self._errors.read_text()[-2000:]}")
            time.sleep(pause)

    def settle(self, began: float) -> None:
        """Wait until the files of a change at this time are written, and the agent waits for nothing."""
        self.until("not written", lambda: max(self.moments("deploy"), default=0) > began, 0.05)
        took = self.moments("deploy")[-1] - began
        pause = SETTLED_S if EARLY[self.name] else SETTLED_S + max(sync.BREATH_S, sync.BREATHS * took)
        self.until("not settled", lambda: self.moments("deploy")[-1] < time.monotonic() - pause, 0.05)

    @property
    def memory_mb(self) -> float:
        """Return the memory that the agent holds."""
        return int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]) * PAGE_MB


def engine_mb(name: str) -> float:
    """Return the memory of all processes of an engine; what they share counts once."""
    total = 0
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (folder / "comm").read_text().startswith(name):
                lines = (folder / "smaps_rollup").read_text().splitlines()
                total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1024


def answer(host: str) -> str:
    """Return the body of a host's answer; empty if it has none."""
    connection = http.client.HTTPConnection("127.0.0.1", HTTP, timeout=5)
    try:
        connection.request("GET", "/", headers={"Host": host})
        reply = connection.getresponse()
        body = reply.read().decode()
    except OSError:
        return ""
    finally:
        connection.close()
    return body if reply.status == 200 else ""


def host_of(number: int) -> str:
    """Return the host of an Ingress of the world."""
    return f"app-{number}.bench.example.com"


class Changes:
    """Changes one after the other, each with the time until a client sees it.

    Attributes:
        served: Seconds from the event to the answer of the changed host, by kind of change.
        taken: Seconds from the event of an endpoint until the engine has taken it, if it takes it before its files.
    """

    def __init__(self, api: FakeApi, subject: Subject) -> None:
        self.api, self.subject = api, subject
        self.served: dict[str, list[float]] = {}
        self.taken: list[float] = []

    def put(self, *documents: dict[str, Any]) -> None:
        """Give objects to the API server."""
        for document in documents:
            self.api.put(KINDS[document["kind"]], document)

    def time(self, what: str, number: int, document: dict[str, Any], body: str = "") -> None:
        """Change an object; wait until the host of this number answers with a body, or with any."""
        subject, early = self.subject, EARLY[self.subject.name]
        before, host = len(subject.moments(*early)), host_of(number)

        def is_right(got: str) -> bool:
            return got == body if body else got != ""

        began = time.monotonic()
        self.put(document)
        subject.until(f"{host} is not served", lambda: is_right(answer(host)), 0.001)
        self.served.setdefault(what, []).append(time.monotonic() - began)
        if what == ENDPOINT:
            self.taken += [moment - began for moment in subject.moments(*early)[before:][:1]]
        subject.settle(began)

    def all(self, ingresses: int, changes: int) -> None:
        """Make all kinds of changes."""
        for number in range(changes):
            slice_ = worlds.endpoint_slice(number, 1)
            address = f"10.244.255.{number + 1}"
            slice_["endpoints"][0]["addresses"] = [address]
            self.time(ENDPOINT, number, slice_, address)
        for number in range(ingresses, ingresses + changes):
            new = ingress(number, tls=False)
            for route in new["spec"]["rules"][0]["http"]["paths"]:
                route["backend"]["service"]["name"] = "svc-0"
            self.time("host", number, new)
        for number in range(ingresses + changes, ingresses + 2 * changes):
            self.put(worlds.service(number), worlds.endpoint_slice(number))
            time.sleep(SETTLED_S)
            self.time("Service port", number, ingress(number, tls=False))


def main(name: str, ingresses: int, changes: int = CHANGES) -> dict[str, float]:
    """Measure all in this namespace, which must be empty."""
    if os.environ.get(OUTSIDE) in {None, str(Path("/proc/self/ns/net").readlink())}:
        raise SystemExit("this serves on ports of the namespace that it runs in: give it one of its own")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    subprocess.run(["ip", "address", "add", "10.244.0.0/16", "dev", "lo"], check=True)
    with tempfile.TemporaryDirectory() as place, FakeApi(is_prompt=True) as api:
        folder = Path(place)
        folder.chmod(0o755)  # the engine's workers are another user
        for document in objects(ingresses, tls=False):
            api.put(KINDS[document["kind"]], document)
        api.put("nodes", next(iter(worlds.objects(0))))
        endpoints = subprocess.Popen([sys.executable, "-m", MODULE, "pods"])
        began = time.monotonic()
        subject = Subject(name, folder, api.kubeconfig(folder))
        try:
            subject.until("not served", lambda: answer(host_of(0)) != "", 0.05)
            figures = {"start": time.monotonic() - began}
            subject.settle(began)
            figures |= {"agent": subject.memory_mb, "engine": engine_mb(name)}
            made = Changes(api, subject)
            made.all(ingresses, changes)
            for what, times in made.served.items():
                figures |= {f"{what}, median": statistics.median(times), f"{what}, slowest": max(times)}
            if made.taken:
                figures |= {"taken, median": statistics.median(made.taken), "taken, slowest": max(made.taken)}
            return figures | {"agent after changes": subject.memory_mb, "engine after changes": engine_mb(name)}
        finally:
            subject.process.terminate()
            subject.process.wait(60)
            endpoints.kill()


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["pods"]:
            pods()
        case ["agent", name, log, *arguments]:
            agent(name, Path(log), arguments)
        case [name, *numbers]:
            print(json.dumps(main(name, *map(int, numbers)), indent=1))
