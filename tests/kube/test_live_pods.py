"""Endpoints from watched Pods: any sequence of events ends where a fresh start begins, and no change goes unnoticed."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rulegen.errors import Fault, Rejected
from rulegen.kube.endpoints_from import EndpointsFrom
from rulegen.kube.objects.events import Changed, Gone, Listed, called, name_of
from rulegen.kube.objects.kinds import KubeObject
from rulegen.kube.objects.names import Decoded, ObjectName
from rulegen.kube.objects.structs import EndpointSlice, Node, Pod, Service
from rulegen.kube.reading.decode import decode_object
from rulegen.kube.reading.pod_parts import PodParts
from rulegen.kube.snapshot import live_pods
from rulegen.kube.snapshot.cluster import Cluster
from rulegen.kube.snapshot.world import ServiceInput
from tests.sizes import examples

NAMES = ("a", "b", "c")
KINDS: tuple[type[KubeObject], ...] = (Service, Pod, Node, EndpointSlice)
Seen = dict[tuple[type[KubeObject], ObjectName], Decoded | Rejected]


def decoded(kind: type[KubeObject], **document: Any) -> Decoded | Rejected:
    return decode_object(msgspec.json.encode(document), kind)


def pod(name: str, app: str = "a", /, *, ready: bool = True, **status: Any) -> Decoded | Rejected:
    conditions = [{"type": "Ready", "status": "True" if ready else "False"}, {"type": "Initialized", "status": "True"}]
    return decoded(
        Pod,
        metadata={"name": name, "namespace": "shop", "uid": f"uid-{name}", "labels": {"app": app, "name": name}},
        spec={
            "nodeName": status.pop("node", "a"),
            "containers": [{"name": "c", "ports": [{"name": "http", "containerPort": status.pop("port", 8080)}]}],
        },
        status={"phase": "Running", "podIP": f"10.0.0.{NAMES.index(name) + 1}", "conditions": conditions, **status},
    )


def service(name: str, selector: dict[str, str], **spec: Any) -> Decoded | Rejected:
    address = f"10.96.0.{NAMES.index(name) + 1}"
    return decoded(
        Service,
        metadata={
            "name": name,
            "namespace": "shop",
            "creationTimestamp": f"2026-01-0{3 - NAMES.index(name)}T00:00:00Z",
        },
        spec={
            "clusterIP": address,
            "clusterIPs": [address],
            "ipFamilies": ["IPv4"],
            "selector": selector,
            "ports": [{"port": 80, "targetPort": "http"}],
            **spec,
        },
    )


def node(name: str, zone: str) -> Decoded | Rejected:
    return decoded(Node, metadata={"name": name, "labels": {"topology.kubernetes.io/zone": zone} if zone else {}})


def slice_(name: str, owner: str) -> Decoded | Rejected:
    return decoded(
        EndpointSlice,
        metadata={"name": name, "namespace": "shop", "labels": {"kubernetes.io/service-name": owner}},
        addressType="IPv4",
        endpoints=[{"addresses": ["10.0.9.9"]}],
        ports=[{"port": 9}],
    )


names = st.sampled_from(NAMES)
pods = st.builds(
    lambda name, app, ready, extra: pod(name, app, ready=ready, **extra),
    names,
    st.sampled_from("ab"),
    st.booleans(),
    st.sampled_from(
        [{}, {}, {"phase": "Succeeded"}, {"podIP": ""}, {"node": "b"}, {"node": "none"}, {"port": 81}, {"port": 0}]
    ),
)
selectors = st.sampled_from([{}, {"app": "a"}, {"app": "b"}, {"app": "a", "name": "a"}, {"none": "such"}])
specs = st.sampled_from(
    [{}, {}, {"trafficDistribution": "PreferClose"}, {"publishNotReadyAddresses": True}, {"type": "ExternalName"}]
)
objects = st.one_of(
    pods,
    pods,
    st.builds(lambda name, selector, spec: service(name, selector, **spec), names, selectors, specs),
    st.builds(node, names, st.sampled_from(["", "x", "y"])),
    st.builds(slice_, names, names),
)
events = st.one_of(
    objects,
    objects,
    st.tuples(st.sampled_from(KINDS), names),
    st.tuples(st.sampled_from(KINDS), st.lists(objects, max_size=4)),
)


def key_of(entry: Decoded | Rejected) -> tuple[type[KubeObject], ObjectName]:
    if isinstance(entry, Rejected):
        kind, _, name = entry.object.partition(" ")
        struct = next(each for each in KINDS if each.__name__ == kind)
        namespace, _, last = name.rpartition("/")
        return struct, ObjectName(namespace, last)
    return type(entry.object), name_of(entry)


def apply_event(cluster: Cluster, event: Any, known: Seen) -> set[ObjectName]:
    """Apply an event to a cluster and to a plain dictionary; return the touched Services."""
    if isinstance(event, Decoded | Rejected):
        kind, name = key_of(event)
        known[kind, name] = event
        return cluster.apply_event(Changed(kind, event, name)).services
    kind, what = event
    if isinstance(what, str):
        name = ObjectName("" if kind is Node else "shop", what)
        known.pop((kind, name), None)
        return cluster.apply_event(Gone(kind, name)).services
    now = {key_of(entry): entry for entry in what if key_of(entry)[0] is kind}
    for key in [key for key in known if key[0] is kind]:
        del known[key]
    known.update(now)
    return cluster.apply_event(Listed(kind, tuple(now.values()))).services


def state(cluster: Cluster) -> dict[ObjectName, ServiceInput | None]:
    return {name: cluster.service(name) for name in cluster.names()}


@settings(max_examples=examples(120), deadline=None)
@given(
    source=st.sampled_from([EndpointsFrom.PODS, EndpointsFrom.AUTO]),
    most=st.sampled_from([2, 250_000]),
    has_view=st.booleans(),
    sequence=st.lists(events, max_size=25),
)
def test_any_sequence_of_events_ends_as_a_fresh_start(source, most, has_view, sequence):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(live_pods, "MAX_MATCHES", most)
        cluster, known = Cluster(source, "a"), Seen()
        for event in sequence:
            before = state(cluster)
            touched = apply_event(cluster, event, known)
            after = state(cluster)
            changed = {name for name in before.keys() | after.keys() if before.get(name) != after.get(name)}
            assert changed <= touched
            if has_view:
                there = {name: each for name, each in after.items() if each is not None}
                assert dict(cluster.for_ingresses().services) == there
        fresh = Cluster(source, "a")
        for kind in KINDS:
            listed = tuple(entry for (of_kind, _), entry in known.items() if of_kind is kind)
            fresh.apply_event(Listed(kind, listed))
        assert state(fresh) == state(cluster)
        assert {each.object: each.faults for each in fresh.rejected} == {
            each.object: each.faults for each in cluster.rejected
        }
        assert fresh.of_kind(Node) == cluster.of_kind(Node)
        assert fresh.of_kind(Node).keys() <= {ObjectName("", "a")}


def cluster_of(*entries: Decoded | Rejected, source: EndpointsFrom = EndpointsFrom.PODS) -> Cluster:
    cluster = Cluster(source, "a")
    for entry in entries:
        apply_event(cluster, entry, Seen())
    return cluster


def addresses(cluster: Cluster, name: str = "a") -> list[str]:
    known = cluster.service(ObjectName("shop", name))
    return sorted(e.addresses[0] for s in known.slices for e in s.endpoints if e.conditions.ready) if known else []


def test_a_pod_that_becomes_ready_touches_only_its_services():
    ours, other = service("a", {"app": "a"}), service("b", {"app": "b"})
    cluster = cluster_of(node("a", ""), ours, other, pod("a", ready=False))
    assert addresses(cluster) == []
    assert apply_event(cluster, pod("a"), Seen()) == {ObjectName("shop", "a")}
    assert addresses(cluster) == ["10.0.0.1"]
    assert apply_event(cluster, pod("a"), Seen()) == set()


WITH_SLICES = [
    # where endpoints come from, the selector, the addresses
    (EndpointsFrom.PODS, {"app": "a"}, ["10.0.0.1", "10.0.9.9"]),
    (EndpointsFrom.PODS, {}, ["10.0.9.9"]),
    (EndpointsFrom.AUTO, {"app": "a"}, ["10.0.9.9"]),
    (EndpointsFrom.AUTO, {}, ["10.0.9.9"]),
]


@pytest.mark.parametrize(("source", "selector", "expected"), WITH_SLICES)
def test_slices_count_beside_pods_or_instead_of_them(source, selector, expected):
    cluster = cluster_of(node("a", ""), service("a", selector), pod("a"), slice_("x", "a"), source=source)
    known = cluster.service(ObjectName("shop", "a"))
    assert sorted(e.addresses[0] for s in known.slices for e in s.endpoints) == expected
    apply_event(cluster, (EndpointSlice, "x"), Seen())
    assert addresses(cluster) == (["10.0.0.1"] if selector else [])


def test_a_pod_on_an_unknown_node_is_no_endpoint_until_the_node_exists():
    cluster = cluster_of(service("a", {"app": "a"}), pod("a", node="b"))
    assert addresses(cluster) == []
    assert apply_event(cluster, node("b", "x"), Seen()) == {ObjectName("shop", "a")}
    assert addresses(cluster) == ["10.0.0.1"]


def test_an_invalid_node_exists():
    broken = Rejected(called(Node, ObjectName("", "b")), "", (Fault("spec", "wrong"),))
    cluster = cluster_of(service("a", {"app": "a"}), pod("a", node="b"))
    assert apply_event(cluster, broken, Seen()) == {ObjectName("shop", "a")}
    assert addresses(cluster) == ["10.0.0.1"]


def test_an_invalid_pod_affects_only_itself():
    cluster = cluster_of(node("a", ""), service("a", {"app": "a"}), pod("a"), pod("b"))
    apply_event(cluster, pod("b", port=0), Seen())
    assert addresses(cluster) == ["10.0.0.1"]
    assert [each.object for each in cluster.rejected] == ["Pod shop/b"]


def test_services_that_select_too_many_pods_are_refused_the_newest_first(monkeypatch):
    monkeypatch.setattr(live_pods, "MAX_MATCHES", 4)
    entries = [node("a", ""), *(pod(name) for name in NAMES), *(service(name, {"app": "a"}) for name in NAMES)]
    cluster = cluster_of(*entries)
    assert [each.object for each in cluster.rejected] == ["Service shop/a", "Service shop/b"]
    assert cluster.service(ObjectName("shop", "a")) is None
    assert len(addresses(cluster, "c")) == 3
    touched = apply_event(cluster, (Service, "c"), Seen())
    assert ObjectName("shop", "b") in touched
    assert len(addresses(cluster, "b")) == 3


def test_a_watched_pod_is_kept_without_what_no_endpoint_depends_on():
    kept = pod("a")
    assert isinstance(kept, Decoded)
    assert (kept.object.metadata.uid, kept.object.spec.containers[0].name) == ("", "")
    assert kept.object.status.conditions == pod("b").object.status.conditions
    assert kept.object.spec is pod("b").object.spec


def test_large_parts_of_pods_are_not_kept_after_their_pods():
    """A tenant may create and delete any number of Pods with as many labels and ports as an object can have."""
    parts = PodParts()
    for number in range(3):
        many = {f"key-{number}-{entry}": "x" for entry in range(100)}
        ports = [{"name": f"p{number}-{entry}", "containerPort": 1 + entry} for entry in range(100)]
        document = {
            "metadata": {"name": "a", "labels": many},
            "spec": {"containers": [{"ports": ports}]},
            "status": {"phase": "x" * 5000 + str(number)},
        }
        kept = parts.reduced(msgspec.convert(document, Pod))
        assert (len(kept.metadata.labels), len(kept.spec.containers[0].ports)) == (100, 100)
    long = parts.reduced(msgspec.convert({"metadata": {"name": "a", "labels": {"a": "x" * 5000}}}, Pod))
    assert long.metadata.labels == {"a": "x" * 5000}
    assert parts.sizes == (0, 1, 1)  # an empty spec and an empty text
