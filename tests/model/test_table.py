"""Services decided one by one: in whatever order they come and go, each is served as if all had been decided."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from rulegen.kube import objects as k
from rulegen.kube.world import ObjectName, ServiceInput
from rulegen.model.nodes import resolve_site
from rulegen.model.options import Options
from rulegen.model.table import ServiceTable
from rulegen.net import Family

OPTIONS = Options(node_name="node1")
NAMES = tuple(ObjectName("demo", name) for name in "abcd")
ADDRESSES = ("198.51.100.1", "198.51.100.2", "198.51.100.3")


def table(*, oldest_wins: bool = True) -> ServiceTable:
    return ServiceTable(resolve_site(None, "node1", OPTIONS), tuple(Family), oldest_wins=oldest_wins)


def told(name: ObjectName, age: str | None, external: tuple[str, ...], node_port: int) -> ServiceInput:
    spec = k.ServiceSpec(
        type="NodePort",
        cluster_ip=f"10.96.0.{1 + NAMES.index(name)}",
        ports=(k.ServicePort(name="http", port=80, node_port=node_port),),
        external_ips=external,
    )
    metadata = k.ObjectMeta(name=name.name, namespace=name.namespace, creation_timestamp=age)
    return ServiceInput(service=k.Service(metadata=metadata, spec=spec))


inputs = st.tuples(
    st.sampled_from((None, "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z")),
    st.lists(st.sampled_from(ADDRESSES), max_size=2, unique=True).map(tuple),
    st.sampled_from((0, 30080, 30081)),
)
puts = st.lists(st.tuples(st.sampled_from(NAMES), st.one_of(st.none(), inputs, inputs)), max_size=12)


@settings(max_examples=100, deadline=None)
@given(puts, st.booleans())
def test_one_by_one_comes_to_what_all_come_to_and_tells_who_is_served_otherwise(puts, oldest_wins):
    moving, last = table(oldest_wins=oldest_wins), {}
    for name, given_ in puts:
        before = {one: moving.service(one) for one in NAMES}
        last[name] = None if given_ is None else told(name, *given_)
        touched = moving.put(name, last[name])
        assert name in touched
        for one in NAMES:
            assert one in touched or moving.service(one) == before[one]
    fresh = table(oldest_wins=oldest_wins)
    for name in sorted(last, reverse=True):
        fresh.put(name, last[name])
    assert [moving.service(one) for one in NAMES] == [fresh.service(one) for one in NAMES]
    assert sorted(moving.warnings()) == sorted(fresh.warnings())


@settings(max_examples=60, deadline=None)
@given(puts)
def test_a_claim_is_never_given_twice_and_never_lost(puts):
    moving, last = table(), {}
    for name, given_ in puts:
        last[name] = given_
        moving.put(name, None if given_ is None else told(name, *given_))
    claims = [
        claim
        for one in NAMES
        if (service := moving.service(one)) is not None
        for port in service.ports
        for claim in (*map(str, port.external_ips), *([port.node_port] if port.node_port else []))
    ]
    wanted = {
        claim for given_ in last.values() if given_ is not None for claim in (*given_[1], *filter(None, given_[2:]))
    }
    assert len(claims) == len(set(claims))
    assert {claim for claim in wanted if isinstance(claim, str)} == {c for c in claims if isinstance(c, str)}


def test_what_never_came_can_go():
    one = table()
    assert one.put(NAMES[0], None) == {NAMES[0]}
    assert one.service(NAMES[0]) is None
    assert list(one.warnings()) == []
