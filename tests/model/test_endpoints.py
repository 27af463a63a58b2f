"""The endpoints of a port on this node: readiness, termination, locality, topology hints, duplicates."""

from __future__ import annotations

import pytest

from rulegen.kube.objects import structs as k
from rulegen.model.services.endpoints import Topology, candidates, pools
from rulegen.net import Family

HERE = Topology("node1", "zone-a")


def endpoint(number: int, *, ready=True, serving=None, terminating=None, node="node2", zones=(), nodes=()):
    return k.SliceEndpoint(
        addresses=(f"10.0.0.{number}",),
        conditions=k.EndpointConditions(ready=ready, serving=serving, terminating=terminating),
        node_name=node,
        hints=k.EndpointHints(
            for_zones=tuple(k.ForZone(name=z) for z in zones), for_nodes=tuple(k.ForZone(name=n) for n in nodes)
        ),
    )


def slice_of(*endpoints, name="s", family="IPv4", ports=(("http", 80),)):
    return k.EndpointSlice(
        metadata=k.ObjectMeta(name=name, namespace="shop"),
        address_type=family,
        endpoints=endpoints,
        ports=tuple(k.SlicePort(name=n, port=p) for n, p in ports),
    )


def chosen(*endpoints, uses_local=True, place=HERE):
    known = candidates([slice_of(*endpoints)], place.node, pytest.fail)
    usable = pools(known.get((Family.IPV4, "http", "TCP"), ()), place, uses_cluster=True, uses_local=uses_local)
    return [
        [e.text.split(":")[0].rpartition(".")[2] for e in pool]
        for pool in (usable.cluster, usable.local, usable.endpoints)
    ]


READY = [
    ("all ready", [endpoint(1), endpoint(2, node="node1")], ["1", "2"], ["2"], ["1", "2"]),
    ("unknown is ready", [endpoint(1, ready=None)], ["1"], [], ["1"]),
    ("not ready is out", [endpoint(1), endpoint(2, ready=False)], ["1"], [], ["1"]),
    (
        "terminating only where nothing is ready",
        [endpoint(1, ready=False, serving=True, terminating=True)],
        ["1"],
        [],
        ["1"],
    ),
    ("terminating but not serving: never", [endpoint(1, ready=False, serving=False, terminating=True)], [], [], []),
    (
        "a ready one elsewhere; here one that terminates: the pools fall back apart",
        [endpoint(1), endpoint(2, ready=False, serving=True, terminating=True, node="node1")],
        ["1"],
        ["2"],
        ["1", "2"],
    ),
    ("serving though not ready is no endpoint", [endpoint(1, ready=False, serving=True)], [], [], []),
    ("sorted as text", [endpoint(9), endpoint(10)], ["10", "9"], [], ["10", "9"]),
]


@pytest.mark.parametrize(
    ("endpoints", "cluster", "local", "union"), [case[1:] for case in READY], ids=[case[0] for case in READY]
)
def test_readiness_and_termination(endpoints, cluster, local, union):
    assert chosen(*endpoints) == [cluster, local, union]


A, B = ("zone-a",), ("zone-b",)
HINTS = [
    ("zone hints on all", [endpoint(1, zones=A), endpoint(2, zones=B)], HERE, ["1"]),
    ("one without a hint: all", [endpoint(1, zones=A), endpoint(2)], HERE, ["1", "2"]),
    ("none for this zone: all", [endpoint(1, zones=B), endpoint(2, zones=B)], HERE, ["1", "2"]),
    ("a node without a zone: all", [endpoint(1, zones=A), endpoint(2, zones=B)], Topology("node1", ""), ["1", "2"]),
    (
        "node hints go before zone hints",
        [endpoint(1, zones=A, nodes=("node2",)), endpoint(2, zones=A, nodes=("node1",))],
        HERE,
        ["2"],
    ),
    (
        "node hints, none for this node: zones",
        [endpoint(1, zones=A, nodes=("x",)), endpoint(2, zones=B, nodes=("x",))],
        HERE,
        ["1"],
    ),
    ("hints of what is not ready do not count", [endpoint(1, zones=A), endpoint(2, ready=False)], HERE, ["1"]),
    (
        "hints are ignored by what terminates",
        [endpoint(1, zones=B, ready=False, serving=True, terminating=True)],
        HERE,
        ["1"],
    ),
]


@pytest.mark.parametrize(
    ("endpoints", "place", "cluster"), [case[1:] for case in HINTS], ids=[case[0] for case in HINTS]
)
def test_topology_hints(endpoints, place, cluster):
    assert chosen(*endpoints, uses_local=False, place=place)[0] == cluster


def test_the_local_pool_ignores_hints():
    assert chosen(endpoint(1, zones=A), endpoint(2, zones=B, node="node1"))[1:] == [["2"], ["1", "2"]]


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize(
    ("first", "other", "is_there"),
    [
        (endpoint(1), endpoint(1, ready=False), True),
        (endpoint(1), endpoint(1, ready=False, terminating=True), True),
        (endpoint(1, ready=False), endpoint(1, ready=False, serving=True, terminating=True), False),
    ],
)
def test_where_slices_disagree_the_better_endpoint_wins(first, other, is_there, order):
    slices = [slice_of(first, name="a"), slice_of(other, name="b")][::order]
    known = candidates(slices, "node1", pytest.fail)[Family.IPV4, "http", "TCP"]
    assert len(known) == 1
    assert bool(pools(known, HERE, uses_cluster=True, uses_local=False).cluster) is is_there


def test_an_invalid_address_is_skipped_with_a_warning():
    warnings: list[str] = []
    broken = slice_of(
        endpoint(1), k.SliceEndpoint(addresses=("nope",)), k.SliceEndpoint(addresses=("fd00::1",)), k.SliceEndpoint()
    )
    known = candidates([broken], "node1", warnings.append)
    assert [c.endpoint.text for c in known[Family.IPV4, "http", "TCP"]] == ["10.0.0.1:80"]
    assert ["nope" in warnings[0], "fd00::1" in warnings[1], len(warnings)] == [True, True, 2]


def test_ports_without_number_and_other_types_are_ignored():
    assert candidates([slice_of(endpoint(1), ports=((None, 80), ("x", None)))], "node1", pytest.fail) == {}
    assert candidates([slice_of(endpoint(1), family="FQDN")], "node1", pytest.fail) == {}
