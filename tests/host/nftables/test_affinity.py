"""Session affinity in layout `flat`, in a real kernel: a client stays with its endpoint, but loses no connection."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import product

import pytest
from msgspec import structs

from rulegen.backends.nftables import flat
from rulegen.backends.nftables import service as port_objects
from rulegen.diff.changes import diff
from rulegen.host.commands.runner import Command, run
from rulegen.host.nftables.write import write
from rulegen.languages.nftables.state import NamedSet, NftObjects
from rulegen.model.services.ir import Endpoint, ResolvedService
from rulegen.net import Family, Protocol, parse_address
from tests.backends.nftables.test_flat import NODE, PORT
from tests.host.nftables.test_flat_layout import reached

pytestmark = pytest.mark.usefixtures("namespace")

CLIENTS = [f"127.0.1.{number}" for number in range(1, 9)]
FRONTENDS = [("10.96.0.9", 80), ("10.96.0.10", 80), ("192.0.2.1", 30080)]
"""ClusterIP, external IP, and node port of one Service port."""
POOL = tuple(Endpoint.of(parse_address(f"127.0.0.{number}"), 8080, 1) for number in (2, 3, 4))


def content(*pool: Endpoint, protocol: Protocol = Protocol.TCP, affinity_s: int | None = 600) -> NftObjects:
    """Return the objects of the node and of a Service with session affinity."""
    port = structs.replace(
        PORT,
        protocol=protocol,
        cluster=pool,
        endpoints=pool,
        external_ips=(parse_address("10.96.0.10"),),
        node_port=30080,
        affinity_s=affinity_s,
    )
    service = ResolvedService(name=port.service, type="NodePort", ports=(port,))
    return {
        **flat.compile_node(NODE, counts=False, filled=()).objects["nftables"],
        **flat.compile_service(service, NODE, counts=False).objects["nftables"],
    }


@contextmanager
def serving(kind: socket.SocketKind) -> Iterator[dict[str, socket.socket]]:
    """Have all endpoints listen; give their sockets by address."""
    for command in ("ip address add 192.0.2.1/32 dev lo", "ip route add 10.96.0.0/24 dev lo"):
        assert run(Command(tuple(command.split()))).code == 0
    with ExitStack() as stack:
        servers = {}
        for endpoint in POOL:
            servers[endpoint.host] = server = stack.enter_context(socket.socket(socket.AF_INET, kind))
            server.bind((endpoint.host, endpoint.port))
            if kind is socket.SOCK_STREAM:
                server.listen(100)
        yield servers


@pytest.mark.parametrize("protocol", [Protocol.TCP, Protocol.UDP])
def test_a_client_stays_with_its_endpoint_whichever_frontend_it_uses(protocol: Protocol):
    kind = socket.SOCK_STREAM if protocol is Protocol.TCP else socket.SOCK_DGRAM
    write(Family.IPV4, diff({}, content(*POOL, protocol=protocol)))
    with serving(kind) as servers:
        of_client = {
            client: {reached(frontend, kind, servers, client) for frontend in FRONTENDS * 3} for client in CLIENTS
        }
    assert all(len(endpoints) == 1 for endpoints in of_client.values()), of_client
    assert len(set.union(*of_client.values())) > 1, "all clients are sent to the same endpoint"


def test_an_endpoint_that_leaves_gets_no_client_from_that_commit_on():
    before = content(*POOL)
    write(Family.IPV4, diff({}, before))
    with serving(socket.SOCK_STREAM) as servers:
        first = {client: reached(FRONTENDS[0], socket.SOCK_STREAM, servers, client) for client in CLIENTS}
        gone = first[CLIENTS[0]]
        after = content(*(endpoint for endpoint in POOL if endpoint.host != gone))
        assert write(Family.IPV4, diff(before, after)) == 1
        for client, frontend in product(CLIENTS, FRONTENDS):
            now = reached(frontend, socket.SOCK_STREAM, servers, client)
            assert now != gone, client
            assert first[client] in {now, gone}, "a client of another endpoint was moved"
        write(Family.IPV4, diff(after, before))
        assert reached(FRONTENDS[0], socket.SOCK_STREAM, servers, CLIENTS[0]) != gone, "it was remembered meanwhile"


def test_a_full_set_loses_affinity_but_no_connection(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(port_objects, "AFFINITY_SIZE", 1)
    write(Family.IPV4, diff({}, content(*POOL)))
    with serving(socket.SOCK_STREAM) as servers:
        of_client = {
            client: {reached(FRONTENDS[0], socket.SOCK_STREAM, servers, client) for _ in range(12)}
            for client in CLIENTS
        }
    stay = [client for client, endpoints in of_client.items() if len(endpoints) == 1]
    assert CLIENTS[0] in stay
    assert len(stay) < len(CLIENTS), "nobody lost affinity: the sets were not full"


def test_each_service_has_its_own_timeout():
    def timeouts(affinity_s: int | None) -> set[int | None]:
        named = content(*POOL, affinity_s=affinity_s).items()
        return {value.timeout_s for key, value in named if isinstance(value, NamedSet) and "affinity" in key.name}

    assert (timeouts(60), timeouts(10800), timeouts(None)) == ({60}, {10800}, set())
