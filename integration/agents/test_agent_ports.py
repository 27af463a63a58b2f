"""`rulegen run` while clients of all its ports send without end, ask all at once, and do not read."""

from __future__ import annotations

import socket
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from integration import manifests
from integration.agent import Node, network_namespace
from integration.agents.test_agent_node import get
from integration.manifests import App
from tests.agent.attackers import EndlessHeads, memory_kib
from tests.servers.fakeapi import FakeApi

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.xdist_group("agent"), pytest.mark.slow]

FIRST_PORT = 31900
SERVICES = 6
PORTS = [10256, *range(FIRST_PORT, FIRST_PORT + SERVICES)]
MORE_KIB = 24 * 1024
"""What the agent may take more than before: far less than one head of 6 MB for each of the clients would cost."""

BEGINNING = 4
"""The most threads that an agent starts a moment after it is healthy."""


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    with network_namespace(), FakeApi() as api:
        api.put("nodes", *manifests.nodes())
        results = Node(tmp_path_factory.mktemp("agent"), api)
        results.serve(
            *(
                App(
                    name=f"one{number}",
                    number=810 + number,
                    ready=("pod-a",),
                    type="LoadBalancer",
                    external="Local",
                    health_check_port=FIRST_PORT + number,
                )
                for number in range(SERVICES)
            )
        )
        yield results


def test_endless_heads_on_every_port_cost_some_mib_and_no_probe(node: Node) -> None:
    with node.running() as process, ExitStack() as stack:
        before = memory_kib(process.pid, "VmHWM")
        threads = memory_kib(process.pid, "Threads")
        attack = EndlessHeads(PORTS)
        stack.callback(attack.close)
        for _ in range(4):
            attack.press()
            for port in PORTS:
                assert get(f"http://127.0.0.1:{port}/healthz")[0] == 200
        assert attack.began > 2 * 64 * len(PORTS)  # they were cut, and came again
        assert memory_kib(process.pid, "VmHWM") - before < MORE_KIB
        assert memory_kib(process.pid, "Threads") <= threads + BEGINNING
        assert node.metric("rulegen_http_clients_cut_total") > 0
        assert node.is_well


def test_all_clients_are_answered_beside_those_that_never_read(node: Node) -> None:
    with node.running() as process, ExitStack() as stack:
        assert get("http://127.0.0.1:10249/rules")[0] == 200
        before = memory_kib(process.pid, "VmHWM")
        for _ in range(50):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", 10249)))
            client.sendall(b"GET /rules HTTP/1.0\r\n\r\n")
        with ThreadPoolExecutor(150) as crowd:
            answers = list(crowd.map(lambda _: get("http://127.0.0.1:10249/metrics")[0], range(150)))
        assert answers == [200] * 150
        assert get("http://127.0.0.1:10256/healthz")[0] == 200
        assert memory_kib(process.pid, "VmHWM") - before < MORE_KIB
