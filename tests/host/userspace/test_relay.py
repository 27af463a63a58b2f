"""The relay of UDP: where the datagrams of a client go, with real sockets on the loopback device."""

from __future__ import annotations

import socket
from contextlib import ExitStack

import pytest

from rulegen.host.userspace.relay import table as t
from rulegen.host.userspace.relay.relay import Relay
from rulegen.host.userspace.relay.sockets import listening
from rulegen.languages.listeners.state import (
    PoolServer,
    ProxyFrontend,
    ServerPool,
    frontend_key,
    pool_key,
    pool_name,
    server_key,
)
from rulegen.net import Family, Protocol, parse_address
from tests.rights import needs_root

POOL = pool_name("demo", "dns", "dns", Family.IPV4)
UDP = Protocol.UDP
HOST = "127.0.0.1"


def objects(frontend_port, endpoints, affinity_s=None, frontend=HOST):
    servers = [PoolServer(POOL, parse_address(HOST), port) for port in endpoints]
    return {
        pool_key(Family.IPV4, POOL, UDP): ServerPool(affinity_s),
        frontend_key(Family.IPV4, frontend and parse_address(frontend), frontend_port, UDP): ProxyFrontend(POOL),
        **{server_key(Family.IPV4, server, UDP): server for server in servers},
    }


class Relayed:
    """A relay in this process, with endpoints and clients on the loopback device."""

    def __init__(self, stack, endpoints, most_flows=16, affinity_s=None):
        self.stack = stack
        self.endpoints = [stack.enter_context(bound()) for _ in range(endpoints)]
        listener = stack.enter_context(listening(Family.IPV4, 0))
        self.port = listener.getsockname()[1]
        requests = stack.enter_context(socket.socket(socket.AF_UNIX))
        requests.bind(b"")
        requests.listen()
        self.relay = Relay({Family.IPV4: listener}, requests, most_flows)
        stack.callback(self.relay.close)
        self.affinity_s = affinity_s
        self.serve(*range(endpoints))

    def serve(self, *numbers):
        """Let the Service have these endpoints."""
        ports = [self.endpoints[number].getsockname()[1] for number in numbers]
        wanted = objects(self.port, ports, self.affinity_s)
        gone = [(key, None) for key in self.relay.table.objects if key not in wanted]
        self.relay.change([*gone, *wanted.items()])

    def client(self):
        return self.stack.enter_context(bound())

    def send(self, client):
        """Send a datagram, and return which endpoint has got it, and from which port; None if none has."""
        client.sendto(b"x", (HOST, self.port))
        self.relay.round()
        for number, endpoint in enumerate(self.endpoints):
            try:
                return number, endpoint.recvfrom(10)[1][1]
            except BlockingIOError:
                continue
            except ValueError:  # closed
                continue
        return None


def bound():
    held = socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
    held.bind((HOST, 0))
    return held


@needs_root
def test_a_client_keeps_its_flow_and_others_get_the_next():
    with ExitStack() as stack:
        relayed = Relayed(stack, endpoints=2)
        clients = [relayed.client() for _ in range(2)]
        first, second = map(relayed.send, clients)
        assert {first[0], second[0]} == {0, 1}
        assert list(map(relayed.send, clients)) == [first, second]


@needs_root
def test_a_removed_endpoint_gets_no_more_datagrams():
    with ExitStack() as stack:
        relayed = Relayed(stack, endpoints=2)
        client = relayed.client()
        removed, port = relayed.send(client)
        left = 1 - removed
        relayed.serve(left)
        assert relayed.send(client)[0] == left
        relayed.endpoints[removed].sendto(b"on its way", (HOST, port))
        relayed.relay.round()
        assert client.recv(10) == b"on its way"


@needs_root
def test_after_a_refusal_another_endpoint_is_next():
    with ExitStack() as stack:
        relayed = Relayed(stack, endpoints=2, affinity_s=3600)
        client = relayed.client()
        refusing = relayed.send(client)[0]
        relayed.endpoints[refusing].close()
        relayed.endpoints[refusing] = relayed.endpoints[1 - refusing]
        assert relayed.send(client) is None
        relayed.relay.round()  # the error is read
        assert relayed.send(client) is not None


@needs_root
def test_flows_are_bounded_and_the_oldest_ends():
    with ExitStack() as stack:
        relayed = Relayed(stack, endpoints=1, most_flows=2)
        clients = [relayed.client() for _ in range(3)]
        ports = [relayed.send(client)[1] for client in clients]
        assert [relayed.send(client)[1] for client in clients[1:]] == ports[1:]
        assert relayed.send(clients[0])[1] != ports[0]


def table_of(wanted):
    table = t.RelayTable()
    table.change(wanted.items())
    return table


def test_affinity_lasts_until_a_client_is_silent(monkeypatch):
    pool = table_of(objects(53, [1, 2], affinity_s=60)).pool_of(Family.IPV4, t.Target(HOST, 53))
    first = pool.choose("a", 0)
    assert pool.choose("b", 0) != first
    assert pool.choose("a", 60) == first
    pool.saw("a", first, 100)
    assert pool.choose("a", 150) == first
    assert {pool.choose("a", 1000 * number) for number in range(1, 3)} == {t.Target(HOST, 1), t.Target(HOST, 2)}
    monkeypatch.setattr(t, "MOST_CLIENTS", 2)
    for client in "cde":
        pool.choose(client, 5000)
    assert list(pool.clients) == ["d", "e"]


@pytest.mark.parametrize(
    ("frontend", "destination", "is_known"),
    [
        ("10.96.0.1", ("10.96.0.1", 53), True),
        ("10.96.0.1", ("10.96.0.2", 53), False),
        ("10.96.0.1", ("10.96.0.1", 54), False),
        (None, ("192.0.2.7", 53), True),
    ],
)
def test_a_destination_leads_to_its_pool(frontend, destination, is_known):
    wanted = objects(53, [1], frontend=frontend)
    table = table_of(wanted)
    assert (table.pool_of(Family.IPV4, t.Target(*destination)) is not None) is is_known
    table.change((key, None) for key in wanted)
    assert table.pool_of(Family.IPV4, t.Target(*destination)) is None
