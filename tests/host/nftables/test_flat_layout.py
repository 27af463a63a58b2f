"""Tables of layout `flat` in a real kernel: nft lists what was written, and loads what is exported."""

from __future__ import annotations

import select
import socket
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import pytest
from msgspec import structs
from msgspec.structs import replace

from rulegen.backends.nftables import flat, node
from rulegen.backends.nftables import service as by_service
from rulegen.compiler.services.observed import Observed
from rulegen.compiler.services.plan import plan_node
from rulegen.diff.changes import diff
from rulegen.host.commands.runner import Command, run
from rulegen.host.netfilter import nft
from rulegen.host.nftables.write import removes_at_once, write
from rulegen.kube.objects.names import ObjectName
from rulegen.languages.nftables.expressions import Concat, Ct, Literal, MapLookup, Meta, Payload, SetReference
from rulegen.languages.nftables.language import NAME
from rulegen.languages.nftables.read_text import read_text
from rulegen.languages.nftables.script import format_tables
from rulegen.languages.nftables.state import (
    BaseChain,
    NamedSet,
    NftChain,
    NftObjects,
    TableValue,
    chain_key,
    set_key,
    table_key,
)
from rulegen.languages.nftables.statements import Compare, Dnat, UpdateSet, nft_rule
from rulegen.model.host.facts import HostFacts
from rulegen.model.services.ir import Endpoint, NftExtra, ResolvedPort, ResolvedService
from rulegen.net import Family, Protocol, parse_address
from rulegen.ownership.nftables import FLAT_TABLE, TABLES
from tests.backends.nftables.test_flat import NODE, PORT, WORLDS, compiled, objects
from tests.parity.test_parity import name_of
from tests.shared import each, some
from tests.sizes import sampled

LIMITED = "cluster-ips-0"

pytestmark = pytest.mark.usefixtures("namespace")


@pytest.mark.parametrize("family", Family)
@pytest.mark.parametrize("world", each(sampled(WORLDS[8::33]), "world of nftables mode"), ids=name_of)
def test_what_is_written_is_listed_again(world: Path, family: Family):
    wanted = objects(world, "flat", family)
    assert write(family, diff({}, wanted)) == 1
    assert nft.observe(run, family, TABLES) == wanted
    assert read_text(format_tables(wanted, family), "export", TABLES)[family] == wanted


@pytest.mark.parametrize(("before", "after"), [("kube-proxy", "flat"), ("flat", "kube-proxy")])
def test_one_transaction_replaces_the_table_of_the_other_layout(before: str, after: str):
    world = some(WORLDS, "world of nftables mode", 8)
    first, second = (objects(world, layout, Family.IPV4) for layout in (before, after))
    write(Family.IPV4, diff({}, first))
    changes = diff(first, second)
    assert write(Family.IPV4, changes) == 1
    if not removes_at_once():
        write(Family.IPV4, changes, is_removal=True)
    left = nft.observe(run, Family.IPV4, TABLES)
    assert left == second
    assert {key.table for key in left} == {FLAT_TABLE if after == "flat" else "kube-proxy"}


def test_a_set_with_a_limit_is_replaced_by_one_without():
    wants = compiled(some(WORLDS, "world of nftables mode", 8), "flat")
    wanted = wants.unions[Family.IPV4][NAME].objects()
    limited = {set_key(FLAT_TABLE, LIMITED): NamedSet(("ipv4_addr",), size=1 << 15)}
    write(Family.IPV4, diff({}, wanted | limited))
    states = {(NAME, Family.IPV4): wanted | limited}
    plan = plan_node(wants, Observed(families=(Family.IPV4,), states=states), HostFacts(ipv6=False))
    assert write(Family.IPV4, plan.changes(NAME, Family.IPV4)) == 1
    assert nft.observe(run, Family.IPV4, TABLES) == wanted
    assert [item.name for item in plan.items] == [LIMITED]
    assert len(plan.items) == 1 < len(plan.changes(NAME, Family.IPV4))  # the chains with its rules are written again


@pytest.mark.parametrize("world", each(sampled(WORLDS[8::50]), "world of nftables mode"), ids=name_of)
def test_an_export_is_loaded_by_nft(world: Path, tmp_path: Path):
    wanted = {family: objects(world, "flat", family) for family in compiled(world, "flat").unions}
    export = tmp_path / "nftables.nft"
    export.write_text("".join(format_tables(content, family) for family, content in wanted.items()))
    ended = run(Command(("nft", "-f", str(export))))
    assert (ended.code, ended.stderr) == (0, "")
    for family, content in wanted.items():
        assert nft.observe(run, family, TABLES) == content


@pytest.mark.parametrize("family", Family)
def test_a_map_that_rules_learn_is_listed_again(family: Family):
    header, kind = ("ip", "ipv4_addr") if family is Family.IPV4 else ("ip6", "ipv6_addr")
    source, target, port = Payload(header, "saddr"), Payload(header, "daddr"), Payload("th", "dport")
    frontend = (Ct(f"{header} daddr", "original"), Meta("l4proto"), Ct("proto-dst", "original"))
    learnt = NamedSet(
        (kind, kind, "inet_proto", "inet_service"), (kind, "inet_service"), frozenset({"timeout"}), 10800, 65535
    )
    hit = Dnat(MapLookup(Concat((source, target, Meta("l4proto"), port)), SetReference("learnt")))
    learn = UpdateSet("update", SetReference("learnt"), Concat((source, *frontend)), Concat((target, port)), 600)
    new = Compare(Ct("state"), Literal("new"), "in")
    wanted: NftObjects = {
        table_key(FLAT_TABLE): TableValue(),
        set_key(FLAT_TABLE, "learnt"): learnt,
        chain_key(FLAT_TABLE, "hit"): NftChain((nft_rule(hit),), BaseChain("nat", "prerouting", -100)),
        chain_key(FLAT_TABLE, "learn"): NftChain((nft_rule(new, learn),), BaseChain("filter", "prerouting", -99)),
    }
    write(family, diff({}, wanted))
    assert nft.observe(run, family, TABLES) == wanted


def objects_of(layout: str, *ports: ResolvedPort) -> NftObjects:
    """Return the objects of the node and of a Service for each port."""
    compilers = (flat, flat) if layout == "flat" else (node, by_service)
    content = {**compilers[0].compile_node(NODE, counts=False, filled=()).objects[NAME]}
    for port in ports:
        service = ResolvedService(name=port.service, type="NodePort", ports=(port,))
        content |= compilers[1].compile_service(service, NODE, counts=False).objects[NAME]
    return content


HEAVY = tuple(Endpoint.of(parse_address(f"127.0.0.{number}"), 8080, number * 1000 - 1) for number in range(1, 4))


@pytest.mark.parametrize("layout", ["flat", "kube-proxy"])
@pytest.mark.parametrize("affinity_s", [None, 600])
def test_a_change_of_weights_is_one_transaction_beside_all_other_services(layout: str, affinity_s: int | None):
    def content(*pool: Endpoint) -> NftObjects:
        """Return the objects of a Service whose weights are ranges of numbers, and of a Service without weights."""
        port = structs.replace(PORT, cluster=pool, endpoints=pool, affinity_s=affinity_s)
        equal = tuple(structs.replace(endpoint, weight=1) for endpoint in pool)
        name, address = ObjectName("shop", "other"), parse_address("10.96.0.7")
        other = structs.replace(PORT, service=name, cluster_ip=address, cluster=equal, endpoints=equal)
        return objects_of(layout, port, other)

    states = [content(*HEAVY[:count]) for count in (2, 3, 2)]
    for before, after in pairwise([{}, *states]):
        assert write(Family.IPV4, diff(before, after)) == 1
        assert nft.observe(run, Family.IPV4, TABLES) == after


@pytest.mark.parametrize("family", Family)
def test_the_extra_rules_are_listed_again(family: Family):
    extras = tuple(sorted(NftExtra))
    described = replace(
        NODE, family=family, drop_invalid=True, nft_extras=extras, localhost_node_ports=family is Family.IPV4
    )
    port = structs.replace(PORT, family=family, cluster_ip=None, health_check_node_port=32000)
    service = ResolvedService(name=port.service, type="LoadBalancer", ports=(port,))
    wanted = {
        **flat.compile_node(described, counts=False, filled=()).objects[NAME],
        **flat.compile_service(service, described, counts=False).objects[NAME],
    }
    write(family, diff({}, wanted))
    assert nft.observe(run, family, TABLES) == wanted
    assert read_text(format_tables(wanted, family), "export", TABLES)[family] == wanted


@pytest.mark.parametrize("protocol", [Protocol.TCP, Protocol.UDP])
@pytest.mark.parametrize("layout", ["flat", "kube-proxy"])
def test_connections_reach_all_endpoints_by_all_frontends(layout: str, protocol: Protocol):
    """One process is client and endpoints: the kernel translates what it sends to an address of the Service."""
    for command in ("ip address add 192.0.2.1/32 dev lo", "ip route add 10.96.0.9/32 dev lo"):
        assert run(Command(tuple(command.split()))).code == 0
    pool = tuple(Endpoint.of(parse_address(f"127.0.0.{number}"), 8080, weight) for number, weight in ((2, 1), (3, 2)))
    port = structs.replace(PORT, protocol=protocol, cluster=pool, endpoints=pool, node_port=30080)
    write(Family.IPV4, diff({}, objects_of(layout, port)))
    kind = socket.SOCK_STREAM if protocol is Protocol.TCP else socket.SOCK_DGRAM
    with ExitStack() as stack:
        servers = {}
        for endpoint in pool:
            servers[endpoint.host] = server = stack.enter_context(socket.socket(socket.AF_INET, kind))
            server.bind((endpoint.host, endpoint.port))
            if kind is socket.SOCK_STREAM:
                server.listen(100)
        for frontend in (("10.96.0.9", 80), ("192.0.2.1", 30080)):
            answered = Counter(reached(frontend, kind, servers) for _ in range(40))
            assert set(answered) == set(servers), answered
            assert answered["127.0.0.3"] > answered["127.0.0.2"] / 2, "it has two of three shares"


def reached(
    frontend: tuple[str, int], kind: socket.SocketKind, servers: Mapping[str, socket.socket], source: str = ""
) -> str:
    """Return the endpoint that a new connection reaches."""
    with socket.socket(socket.AF_INET, kind) as client:
        client.settimeout(5)
        if source:
            client.bind((source, 0))
        client.connect(frontend)
        client.send(b"?")
        ready, _, _ = select.select(list(servers.values()), [], [], 5)
        (name,) = (host for host, server in servers.items() if server in ready)
        if kind is socket.SOCK_STREAM:
            servers[name].accept()[0].close()
        else:
            servers[name].recv(10)
        return name
