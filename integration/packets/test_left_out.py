"""`rulegen run` on a real kernel that lacks a match: the Service that needs it is left out, all others are served."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from integration import manifests
from integration.agent import Node, network_namespace, tool, until
from integration.manifests import App
from tests.servers.fakeapi import FakeApi

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.uml, pytest.mark.xdist_group("ipvs")]

WITHIN_S = 60
LOADER = Path("/proc/sys/kernel/modprobe")
PLAIN = App(name="plain", number=861, ready=("pod-a",), families=(4,))
STICKY = App(name="sticky", number=862, ready=("pod-b",), families=(4,), affinity_s=60)


class SlowNode(Node):
    """The same, which may take its time to begin."""

    start_s = 60


@contextlib.contextmanager
def without(module: str) -> Iterator[None]:
    """Have the kernel without a module, and nobody who loads it."""
    loader = LOADER.read_text()
    tool("modprobe", "-r", module)
    LOADER.write_text("/bin/false\n")
    try:
        yield
    finally:
        LOADER.write_text(loader)


@pytest.mark.variants("legacy")
def test_a_kernel_without_recent_serves_all_but_affinity(tmp_path: Path, variant: str) -> None:
    with network_namespace(), FakeApi() as api:
        api.put("nodes", *manifests.nodes())
        node = SlowNode(tmp_path, api, variant)
        node.configure()
        node.serve(PLAIN)
        with node.running(), contextlib.ExitStack() as stack:
            stack.enter_context(without("xt_recent"))
            node.serve(PLAIN, STICKY)
            until(lambda: node.metric("rulegen_left_out_services") == 1, WITHIN_S, "one that is left out")
            rules = tool(f"iptables-{variant}-save", "-t", "nat")
            assert f"-d {PLAIN.cluster_ip(4)}/32" in rules
            assert f"-d {STICKY.cluster_ip(4)}/32" not in rules
            assert "left out" in node.log.read_text()
            stack.close()
            node.serve(PLAIN, App(name="sticky", number=862, ready=("pod-a",), families=(4,), affinity_s=60))
            until(lambda: node.metric("rulegen_left_out_services") == 0, WITHIN_S, "none that is left out")
            assert f"-d {STICKY.cluster_ip(4)}/32" in tool(f"iptables-{variant}-save", "-t", "nat")
            node.check_converged()
