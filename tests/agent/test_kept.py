"""How agents follow each other: open ports answer for the next one, and one that has no tools waits for them."""

from __future__ import annotations

import gc
import http.client
import re
import socket
import weakref

import msgspec
import pytest

from rulegen.agent.inbox import Inbox, Wake
from rulegen.agent.kept import KeptParts
from rulegen.agent.servers import AgentServers
from rulegen.agent.starting import first_dataplane
from rulegen.agent.telemetry.state import AgentState
from rulegen.errors import HostError
from rulegen.host.commands.runner import Command, MissingToolError, ToolTimeoutError
from rulegen.host.dataplane.idle import IdleDataplane
from rulegen.host.netfilter.variant import NoAccessError, NoVariantError
from rulegen.model.host.facts import HostFacts
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
    options = msgspec.structs.replace(OPTIONS, healthz_address=health, metrics_address=metrics)
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


FAILURES = {
    "missing": MissingToolError("iptables-nft-save"),
    "hangs": ToolTimeoutError(Command(("iptables-nft-save",))),
    "fails for a moment": NoVariantError("iptables-nft does not work now"),
    "no IPVS": HostError("this kernel has no IPVS"),
}


@pytest.mark.parametrize("failure", FAILURES)
def test_an_agent_without_tools_waits_for_them(failure):
    failures, state = [FAILURES[failure]] * 2, AgentState(lambda: 0.0)
    inbox = Inbox(state)

    def of_host(_):
        if failures:
            raise failures.pop()
        return IdleDataplane(HostFacts())

    writer = first_dataplane(of_host, HostFacts(), state, inbox, waits=True)
    state.listed()
    assert state.is_working
    assert not state.is_alive
    with pytest.raises(HostError, match=re.escape(FAILURES[failure].message)):
        writer.read()
    assert inbox.size() == 0
    with pytest.raises(HostError, match="work now"):
        writer.read()
    assert inbox.signals.get_nowait() == Wake("reload")


@pytest.mark.parametrize(("failure", "waits"), [(NoAccessError("you may not"), True), (FAILURES["missing"], False)])
def test_what_does_not_pass_by_itself_is_an_error(failure, waits):
    def of_host(_):
        raise failure

    state = AgentState(lambda: 0.0)
    with pytest.raises(HostError, match=re.escape(failure.message)):
        first_dataplane(of_host, HostFacts(), state, Inbox(state), waits=waits)
