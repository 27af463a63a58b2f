"""Dumps of several nodes of one small cluster, as `rulegen export` writes them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.test_plan import BLOG, run  # noqa: F401 - a fixture

NODE = """\
---
apiVersion: v1
kind: Node
metadata: {{name: {name}}}
spec: {{podCIDR: 10.244.1.0/24}}
status: {{addresses: [{{type: InternalIP, address: 192.168.50.10}}]}}
"""
HOST = """\
host:
  hostname: laptop
  interfaces: [{name: eth0, addresses: [192.168.50.10/24]}]
  ipv6: false
"""
NODES = ("node1", "node2", "node3", "node4")
OPTIONS = ("-f", "objects.yaml", "--cluster-cidr", "10.244.0.0/16", "--host", "host")
NODE_PORT = "--dport 32388 -j KUBE-EXT-"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "objects.yaml").write_text(BLOG + "".join(NODE.format(name=name) for name in NODES))
    (tmp_path / "host").write_text(HOST)
    (tmp_path / "dumps").mkdir()
    return tmp_path


@pytest.fixture
def dump(run, folder: Path):  # noqa: F811 - the fixture
    """Return a function that writes the dumps of a node, changed by a function of its rules."""

    def write(name: str, change=lambda text: text, *more: str) -> Path:
        code, _, err = run("export", *OPTIONS, "--node", name, "-o", f"dumps/{name}", *more)
        assert code == 0, err
        for file in ("model.json", "sysctl.conf"):
            (folder / "dumps" / name / file).unlink(missing_ok=True)
        rules = folder / "dumps" / name / "iptables.save"
        if rules.exists():
            rules.write_text(change(rules.read_text()))
        return folder / "dumps" / name

    return write


def without_node_port(text: str) -> str:
    """Return rules without that of the node port."""
    assert NODE_PORT in text
    return "".join(line for line in text.splitlines(keepends=True) if NODE_PORT not in line)
