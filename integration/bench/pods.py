"""What the agent costs with endpoints from Pods or from slices. Run in a network namespace of its own, which it fills.

The Pods have the size of real ones: 5 KB of JSON, most of which no endpoint depends on.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from integration.bench import agent, worlds
from integration.bench.kernel import OUTSIDE
from tests.servers.fakeapi import FakeApi

OF_SERVICE = 10
"""Pods of each Service."""
NODES = 100
FILLER = [{"name": f"VARIABLE_{number}", "value": "x" * 80} for number in range(40)]


def node(number: int) -> dict[str, Any]:
    """Return a Node."""
    labels = {"topology.kubernetes.io/zone": f"zone-{number % 3}"}
    return {"metadata": {"name": f"node{number + 1}", "labels": labels}}


def uid(number: int) -> str:
    """Return the UID of a Pod."""
    return f"00000000-0000-4000-8000-{number:012}"


def address(number: int) -> str:
    """Return the address of a Pod."""
    return f"10.{244 + number // 62500}.{number // 250 % 250}.{number % 250 + 1}"


def pod(number: int, *, is_ready: bool = True) -> dict[str, Any]:
    """Return a Pod of a Deployment, as an API server prints it."""
    owner = number // OF_SERVICE
    name = f"svc-{owner}-5d4f7c9b8-{number:05}"
    ports = [{"name": "http", "containerPort": 8080, "protocol": "TCP"}]
    return {
        "metadata": {
            "name": name,
            "namespace": "bench",
            "uid": uid(number),
            "labels": {"app": f"svc-{owner}", "pod-template-hash": "5d4f7c9b8", "version": "v1"},
            "annotations": {"checksum/config": "0" * 64},
        },
        "spec": {
            "nodeName": f"node{number % NODES + 1}",
            "containers": [{"name": "app", "image": "registry.example/app:1", "ports": ports, "env": FILLER}],
        },
        "status": {
            "phase": "Running",
            "podIP": address(number),
            "podIPs": [{"ip": address(number)}],
            "hostIP": "192.168.50.10",
            "conditions": [
                {"type": "Initialized", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"},
                {"type": "Ready", "status": str(is_ready), "lastTransitionTime": "2026-01-01T00:00:00Z"},
                {"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"},
            ],
        },
    }


def endpoint_slice(owner: int, unready: int | None = None) -> dict[str, Any]:
    """Return the slice of one Service, as the controller writes it; one of its Pods may not be ready."""
    pods = range(owner * OF_SERVICE, (owner + 1) * OF_SERVICE)
    manager = {"endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io"}
    return {
        "metadata": {
            "name": f"svc-{owner}-abcde",
            "namespace": "bench",
            "labels": {"kubernetes.io/service-name": f"svc-{owner}", **manager},
        },
        "addressType": "IPv4",
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": [
            {
                "addresses": [address(number)],
                "conditions": {"ready": number != unready, "serving": number != unready, "terminating": False},
                "nodeName": f"node{number % NODES + 1}",
                "zone": f"zone-{number % NODES % 3}",
                "targetRef": {"kind": "Pod", "name": pod(number)["metadata"]["name"], "uid": uid(number)},
            }
            for number in pods
        ],
    }


def main(source: str, pods: int, count: int, settled_s: float) -> dict[str, float]:
    """Measure the agent with endpoints from Pods or from slices: its start, so many changes, its memory."""
    if os.environ.get(OUTSIDE) in {None, str(Path("/proc/self/ns/net").readlink())}:
        raise SystemExit("this fills the namespace that it runs in: run `make bench`")
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    services = pods // OF_SERVICE

    def change(number: int) -> None:
        changed = number * 7919 % pods
        if source == "pods":
            api.put("pods", pod(changed, is_ready=False))
        else:
            api.put("endpointslices", endpoint_slice(changed // OF_SERVICE, changed))

    with tempfile.TemporaryDirectory() as name, FakeApi() as api:
        api.put("nodes", *map(node, range(NODES)))
        api.put("services", *map(worlds.service, range(services)))
        api.put("endpointslices", *map(endpoint_slice, range(services)))
        api.put("pods", *map(pod, range(pods)))
        with agent.running(Path(name), api.kubeconfig(Path(name)), "--endpoints", source) as subject:
            collected = {"start": subject.wait_until_well()}
            time.sleep(settled_s)
            collected |= {"memory": subject.rss_mb, "peak": subject.peak_mb}
            collected |= agent.timed(change, count)
            return collected | {"memory after changes": subject.rss_mb}


if __name__ == "__main__":
    json.dump(main(sys.argv[1], *map(int, sys.argv[2:])), sys.stdout)
