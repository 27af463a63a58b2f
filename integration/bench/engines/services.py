"""What a change of a Service costs in userspace mode: from the API server's event to the answer for a client.

`python -m integration.bench.engines.services 5000`, in namespaces of its own for the network and for processes. The
agent, its HAProxy and the endpoints are real processes; the client is a program of the node.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from integration.bench import worlds
from integration.bench.agent import Subject, running, serve
from integration.bench.engines.events import MODULE, engine_mb
from integration.bench.kernel import OUTSIDE
from tests.servers.fakeapi import FakeApi

if TYPE_CHECKING:
    from collections.abc import Callable

CHANGES = 40
MODE = ("--mode", "userspace", "--no-events")
LATE_S = 30.0
TRY_S = 0.002
"""How long a connection may take before the client tries again: a lost packet is sent again after a second only."""
SETTLED_S = 0.5


def answer(address: str) -> str:
    """Return the body of a Service's answer; empty if it has none at once."""
    connection = http.client.HTTPConnection(address, 80, timeout=1)
    try:
        connection.sock = socket.create_connection((address, 80), timeout=TRY_S)
        connection.sock.settimeout(1)
        connection.request("GET", "/")
        return connection.getresponse().read().decode()
    except (OSError, http.client.HTTPException):
        return ""
    finally:
        connection.close()


def timed(subject: Subject, address: str, expected: str, change: Callable[[], object]) -> float:
    """Make a change; return the seconds until a Service answers from an endpoint, or from any."""
    subject.wait_until_well()
    time.sleep(SETTLED_S)  # the files follow after the answer
    began = time.perf_counter()
    change()
    while (body := answer(address)) == "" or (expected and body != expected):
        if time.perf_counter() - began > LATE_S:
            raise SystemExit(f"{address} does not answer: {body!r}")
    return time.perf_counter() - began


def changes(api: FakeApi, subject: Subject, services: int, count: int) -> dict[str, float]:
    """Change an endpoint of one Service after the other, then add Services; return seconds of both.

    A new Service is timed from its first endpoints on.
    """
    moved, added = [], []
    for number in range(count):
        changed = worlds.endpoint_slice(number, 1)
        endpoint = f"10.244.255.{number + 1}"
        changed["endpoints"][0]["addresses"] = [endpoint]
        address = worlds.service(number)["spec"]["clusterIP"]
        moved.append(timed(subject, address, endpoint, lambda changed=changed: api.put("endpointslices", changed)))
    for number in range(services, services + count):
        new = worlds.service(number)
        api.put("services", new)
        address, its_slice = new["spec"]["clusterIP"], worlds.endpoint_slice(number)
        added.append(timed(subject, address, "", lambda each=its_slice: api.put("endpointslices", each)))
    figures = {}
    for what, times in (("endpoint", moved), ("new Service", added)):
        figures |= {f"{what}, median": statistics.median(times), f"{what}, slowest": max(times)}
    return figures


def main(services: int, count: int = CHANGES) -> dict[str, float]:
    """Measure all in this namespace, which must be empty."""
    if os.environ.get(OUTSIDE) in {None, str(Path("/proc/self/ns/net").readlink())}:
        raise SystemExit("this fills the namespace that it runs in: give it one of its own")
    for argv in (
        ["link", "set", "lo", "up"],
        ["address", "add", "10.240.0.0/12", "dev", "lo"],  # of endpoints
        ["route", "add", "10.96.0.0/12", "dev", "lo"],  # the route of a real node to ClusterIPs
    ):
        subprocess.run(["ip", *argv], check=True)
    with tempfile.TemporaryDirectory() as name, FakeApi(is_prompt=True) as api:
        folder = Path(name)
        serve(api, services)
        kubeconfig = api.kubeconfig(folder)
        endpoints = subprocess.Popen([sys.executable, "-m", MODULE, "pods"])
        try:
            with running(folder, kubeconfig, *MODE) as subject:
                figures = {"start": subject.wait_until_well(), "agent": subject.rss_mb, "haproxy": engine_mb("haproxy")}
                figures |= changes(api, subject, services, count)
                return figures | {"agent after changes": subject.rss_mb, "haproxy after changes": engine_mb("haproxy")}
        finally:
            endpoints.kill()
            cleanup = ["cleanup", "--variant", "nft", "-y"]
            subprocess.run([sys.executable, "-m", "rulegen", *cleanup], stdout=subprocess.DEVNULL, check=True)


if __name__ == "__main__":
    json.dump(main(*map(int, sys.argv[1:])), sys.stdout)
