"""One tenant's objects make no process of rulegen large: memory is measured in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.test_plan import HOST
from tests.sizes import sized

MOST_MB = 512
FAMILIES = sized(quick=("IPv6",), usual=("IPv6",), full=("IPv4", "IPv6"))
"""IPv6 takes the most memory, as its addresses are longer; the limits are the same."""
MEASURED = (
    "import sys\n"
    "from rulegen.cli.main import main\n"
    "try:\n    main(sys.argv[1:])\n"
    # The maximum that getrusage tells counts what the process was before it executed this.
    "finally:\n    [print(line.split()[1], file=sys.stderr) for line in open('/proc/self/status') if 'VmHWM' in line]\n"
)


def service(family: str, ports: int, externals: int) -> dict[str, object]:
    address = "10.96.0.77" if family == "IPv4" else "fd00:10:96::77"
    prefix = "203.0.%d.%d" if family == "IPv4" else "fd00:51:%x::%x"
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "wide", "namespace": "tenant"},
        "spec": {
            "clusterIP": address,
            "clusterIPs": [address],
            "ipFamilies": [family],
            "externalIPs": [prefix % (i >> 8, i & 255) for i in range(1, externals + 1)],
            "ports": [{"name": f"p{port}", "port": port, "protocol": "TCP"} for port in range(1, ports + 1)],
        },
    }


def slices(family: str, ports: int, endpoints: int) -> list[dict[str, object]]:
    prefix = "10.%d.%d.%d" if family == "IPv4" else "fd00:10:%x::%x:%x"
    return [
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {
                "name": f"wide-{part}",
                "namespace": "tenant",
                "labels": {"kubernetes.io/service-name": "wide"},
            },
            "addressType": family,
            "ports": [{"name": f"p{port}", "port": port, "protocol": "TCP"} for port in range(1, ports + 1)],
            "endpoints": [{"addresses": [prefix % (part, i >> 8, i & 255)]} for i in range(1, 1001)],
        }
        for part in range(endpoints // 1000)
    ]


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("mode", ["iptables", "ipvs"])
@pytest.mark.parametrize(
    ("ports", "externals", "endpoints"),
    [(100, 0, 1000), (20_000, 50, 1000), (1, 1000, 1000), (5, 0, 10_000)],
    ids=["ports x endpoints", "ports x addresses", "addresses x endpoints", "served whole"],
)
def test_no_service_makes_a_process_large(tmp_path: Path, family, mode, ports, externals, endpoints):
    objects = [service(family, ports, externals), *slices(family, ports, endpoints)]
    file, host = tmp_path / "wide.json", tmp_path / "host.yaml"
    file.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}))
    host.write_text(HOST)
    asked = ("plan", "-f", str(file), "--host", str(host), "--mode", mode, "--observed", "none", "-v")
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, *asked],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "NO_COLOR": "1"},
    )
    assert "KUBE-SERVICES" in done.stdout
    assert int(done.stderr.splitlines()[-1]) / 1024 < MOST_MB
    is_whole = ports == 5 or (ports == 1 and mode == "iptables")
    assert ("--max-service-" in done.stdout + done.stderr) is not is_whole
