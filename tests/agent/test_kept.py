"""What an agent hands to the next one: open ports answer for the next one, and the rules of the first one are freed."""

from __future__ import annotations

import dataclasses
import gc
import http.client
import socket
import weakref

from rulegen.agent.kept import KeptParts
from rulegen.agent.servers import AgentServers
from tests.agent.stage import OPTIONS, Stage


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return server.getsockname()[1]


def status(port: int, page: str) -> int:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", page)
        return connection.getresponse().status
    finally:
        connection.close()


def servers_of(stage: Stage, kept: KeptParts, *ports: int) -> AgentServers:
    """Return what an agent answers at its ports for health and, if there are two, for metrics."""
    health, metrics = (*(f"127.0.0.1:{port}" for port in ports), "")[:2]
    options = dataclasses.replace(OPTIONS, healthz_address=health, metrics_address=metrics)
    return AgentServers(options, kept.http_loop, lambda: {stage.node.name}, stage.loop, None, None, True)


def test_open_ports_answer_for_the_next_agent_and_the_first_is_freed():
    first, second, health, metrics = Stage(), Stage(), free_port(), free_port()
    freed = weakref.ref(first)
    kept = KeptParts(first.state, first.inbox)
    try:
        kept.answer(servers_of(first, kept, health, metrics))
        assert [status(health, "/livez"), status(metrics, "/proxyMode")] == [200, 200]
        kept.answer(servers_of(second, kept, health, metrics))
        assert [status(health, "/livez"), status(metrics, "/proxyMode")] == [200, 200]
        kept.state, kept.inbox = second.state, second.inbox
        del first
        gc.collect()
        assert freed() is None
    finally:
        kept.close()


def test_a_port_that_is_not_configured_any_more_is_closed():
    stage, health, metrics, other = Stage(), free_port(), free_port(), free_port()
    kept = KeptParts(stage.state, stage.inbox)
    try:
        kept.answer(servers_of(stage, kept, health, metrics))
        kept.answer(servers_of(stage, kept, other))
        assert status(other, "/livez") == 200
        for port in (health, metrics):
            with socket.socket() as client:
                assert client.connect_ex(("127.0.0.1", port)) != 0
    finally:
        kept.close()
