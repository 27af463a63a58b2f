"""`rulegen run` while the table of connections is full, so that the kernel drops each new connection.

The limit belongs to the whole machine: only root of its first network namespace can change it.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from integration import manifests
from integration.agent import Node, network_namespace, tool, until
from integration.manifests import App
from tests.servers.fakeapi import FakeApi

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.uml, pytest.mark.xdist_group("ipvs")]

WITHIN_S = 20
LIMIT = "/proc/sys/net/netfilter/nf_conntrack_max"


def app(*pods: str) -> App:
    return App(name="one", number=853, ready=pods, protocols=("TCP", "UDP"), families=(4,))


@pytest.fixture
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with network_namespace(), FakeApi() as api:
        api.put("nodes", *manifests.nodes())
        made = Node(tmp_path_factory.mktemp("agent"), api, "legacy")
        made.start_s = 60
        yield made


@contextmanager
def full_table() -> Iterator[None]:
    before = first_namespace(f"cat {LIMIT}").strip()
    first_namespace(f"echo 1 > {LIMIT}")
    try:
        yield
    finally:
        first_namespace(f"echo {before} > {LIMIT}")


def first_namespace(command: str) -> str:
    return tool("nsenter", "--target", "1", "--net", "sh", "-c", command)


def test_rules_follow_although_no_connection_is_accepted(node: Node) -> None:
    node.serve(app("pod-a"))
    with node.running() as process:
        assert node.rules.sends_to(app(), "pod-a")
        # The kernel tracks connections since the first rules: with this change, the watch is one that it knows.
        node.serve(app("pod-a", "pod-x"))
        until(lambda: node.rules.sends_to(app(), "pod-a", "pod-x"), WITHIN_S, "the change before is written")
        with full_table():
            until(lambda: node.health()[0] == 0, WITHIN_S, "no new connection is accepted")
            node.serve(app("pod-b", "pod-x"))
            until(lambda: node.rules.sends_to(app(), "pod-b", "pod-x"), WITHIN_S, "the change is written")
            assert process.poll() is None
        until(lambda: node.is_well, WITHIN_S, "healthy")
        node.check_converged()
        assert not node.lines("not written")
