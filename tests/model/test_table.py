"""Services that are added and removed in any order are served as in one decision about all."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from rulegen.kube.objects import structs as k
from rulegen.kube.objects.names import ObjectName
from rulegen.kube.snapshot.world import ServiceInput
from rulegen.model.services.node.context import NodeContext, resolve_site
from rulegen.model.services.node.ports_in_use import PortsInUse
from rulegen.model.services.options import Options
from rulegen.model.services.table import ServiceTable
from rulegen.net import Family, Protocol, parse_address
from tests.sizes import examples

OPTIONS = Options(node_name="node1")
NAMES = tuple(ObjectName("demo", name) for name in "abcd")
ADDRESSES = ("198.51.100.1", "198.51.100.2", "198.51.100.3")
PORTS = (80, 30080, 30081)


def node_with(*addresses: str, listens: bool = False) -> PortsInUse:
    """A node with some addresses; on one of them, no node ports answer."""
    own = frozenset(parse_address(address) for address in addresses)
    programs = frozenset({(Protocol.TCP, 80)} if listens else ())
    return PortsInUse(addresses=own, answering=own - {parse_address(ADDRESSES[2])}, programs=programs)


NODES = (node_with(), node_with(ADDRESSES[0]), node_with(*ADDRESSES), node_with(*ADDRESSES[:2], listens=True))


def table(*, oldest_wins: bool = True, guards: bool = False, on: PortsInUse = NODES[0]) -> ServiceTable:
    return ServiceTable(site_of(guards=guards), tuple(Family), oldest_wins=oldest_wins, ports_in_use=on)


def site_of(*, guards: bool) -> NodeContext:
    return replace(resolve_site(None, "node1", OPTIONS), guards=guards)


def service_of(
    name: ObjectName, age: str | None, external: tuple[str, ...], node_port: int, port: int = 80
) -> ServiceInput:
    spec = k.ServiceSpec(
        type="NodePort",
        cluster_ip=f"10.96.0.{1 + NAMES.index(name)}",
        ports=(k.ServicePort(name="http", port=port, node_port=node_port),),
        external_ips=external,
    )
    metadata = k.ObjectMeta(name=name.name, namespace=name.namespace, creation_timestamp=age)
    return ServiceInput(service=k.Service(metadata=metadata, spec=spec))


inputs = st.tuples(
    st.sampled_from((None, "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z")),
    st.lists(st.sampled_from(ADDRESSES), max_size=2, unique=True).map(tuple),
    st.sampled_from((0, 30080, 30081)),
    st.sampled_from(PORTS),
)
puts = st.lists(st.tuples(st.sampled_from(NAMES), st.one_of(st.none(), inputs, inputs)), max_size=12)


moves = st.lists(
    st.one_of(st.tuples(st.sampled_from(NAMES), st.one_of(st.none(), inputs, inputs)), st.sampled_from(NODES)),
    max_size=12,
)


@settings(max_examples=examples(300), deadline=None)
@given(moves, st.booleans(), st.booleans())
def test_single_changes_give_the_same_result_as_one_decision(moves, oldest_wins, guards):
    """This includes external addresses that are the node's own, while its addresses and programs change."""
    moving, last, on = table(oldest_wins=oldest_wins, guards=guards), {}, NODES[0]
    for move in moves:
        before = {name_: moving.service(name_) for name_ in NAMES}
        if isinstance(move, PortsInUse):
            on = move
            touched = moving.update_node(site_of(guards=guards), on)
        else:
            name, given_ = move
            last[name] = None if given_ is None else service_of(name, *given_)
            touched = moving.put(name, last[name])
            assert name in touched
        for name_ in NAMES:
            assert name_ in touched or moving.service(name_) == before[name_]
    fresh = table(oldest_wins=oldest_wins, guards=guards, on=on)
    for name in sorted(last, reverse=True):
        fresh.put(name, last[name])
    assert [moving.service(name_) for name_ in NAMES] == [fresh.service(name_) for name_ in NAMES]
    assert sorted(moving.warnings()) == sorted(fresh.warnings())
    assert sorted(moving.conflicts(), key=str) == sorted(fresh.conflicts(), key=str)


@settings(max_examples=examples(200), deadline=None)
@given(puts, st.sampled_from(NODES))
def test_no_service_gets_the_nodes_port_of_another(puts, on):
    strict, last = table(guards=True, on=on), {}
    for name, given_ in puts:
        last[name] = given_ and service_of(name, *given_)
        strict.put(name, last[name])
    ports = [port for name_ in NAMES if (service := strict.service(name_)) for port in service.ports]
    ages = {name: (given_.service.metadata.creation_timestamp or "x", name) for name, given_ in last.items() if given_}
    for port in ports:
        for address in port.external_ips:
            assert address not in on.addresses or (Protocol.TCP, port.port) not in on.programs
            for other in ports if address in on.answering else ():
                if other.node_port == port.port and other.service != port.service:
                    assert ages[port.service] < ages[other.service]
                    assert address in other.node_port_except


@settings(max_examples=examples(60), deadline=None)
@given(puts)
def test_each_claim_has_exactly_one_owner(puts):
    moving, last = table(), {}
    for name, given_ in puts:
        last[name] = given_
        moving.put(name, None if given_ is None else service_of(name, *given_))
    claims = [
        claim
        for name_ in NAMES
        if (service := moving.service(name_)) is not None
        for port in service.ports
        for claim in (*((str(a), port.port) for a in port.external_ips), *([port.node_port] if port.node_port else []))
    ]
    wanted = {
        claim
        for given_ in last.values()
        if given_ is not None
        for claim in (*((address, given_[3]) for address in given_[1]), *filter(None, given_[2:3]))
    }
    assert len(claims) == len(set(claims))
    assert {claim for claim in wanted if isinstance(claim, tuple)} == {c for c in claims if isinstance(c, tuple)}


def test_a_service_that_was_never_added_can_be_removed():
    empty = table()
    assert empty.put(NAMES[0], None) == {NAMES[0]}
    assert empty.service(NAMES[0]) is None
    assert list(empty.warnings()) == []
