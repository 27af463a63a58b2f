"""Events of a watch give the same state, and touch the same objects, as one list or as single changes."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rulegen.errors import Fault, Rejected
from rulegen.kube.objects import structs as k
from rulegen.kube.objects.events import Changed, Gone, Listed, Unfollowed, called, scoped
from rulegen.kube.objects.kinds import KubeObject
from rulegen.kube.objects.names import Decoded, ObjectKey, ObjectName
from rulegen.kube.snapshot.cluster import Cluster, Touched
from rulegen.kube.snapshot.endpoints import SERVICE_NAME_LABEL
from tests.sizes import examples

KINDS = (k.Service, k.EndpointSlice, k.Node)
NAMES = ("a", "b", "c")


def built(kind: type[KubeObject], name: str, variant: int) -> Decoded | Rejected:
    """Return an object in one of a few states; state 0 is invalid."""
    if variant == 0:
        return Rejected(called(kind, scoped(kind, "demo", name)), "test", (Fault("spec", "is nothing"),))
    namespace = "" if kind is k.Node else "demo"
    metadata = k.ObjectMeta(name=name, namespace=namespace, labels={SERVICE_NAME_LABEL: NAMES[variant % 3]})
    built_object: KubeObject
    if kind is k.Service:
        built_object = k.Service(metadata=metadata, spec=k.ServiceSpec(cluster_ip=f"10.96.0.{variant}"))
    elif kind is k.EndpointSlice:
        built_object = k.EndpointSlice(metadata=metadata, address_type="IPv4")
    else:
        built_object = k.Node(metadata=metadata)
    return Decoded(built_object, "test")


kinds = st.sampled_from(KINDS)
states = st.dictionaries(st.sampled_from(NAMES), st.integers(0, 3), max_size=3)
singles = st.tuples(kinds, st.sampled_from(NAMES), st.one_of(st.none(), st.integers(0, 3)))


def tell(cluster: Cluster, kind: type[KubeObject], name: str, state: int | None) -> Touched:
    full_name = scoped(kind, "demo", name)
    return cluster.apply_event(
        Gone(kind, full_name) if state is None else Changed(kind, built(kind, name, state), full_name)
    )


def known(cluster: Cluster) -> object:
    """Return all state of a cluster that can be read."""
    names = [ObjectName("demo", name) for name in NAMES]
    world = cluster.world()
    return (
        cluster.names(),
        [cluster.service(name) for name in names],
        [cluster.node(name) for name in NAMES],
        cluster.rejected,
        dict(world.services),
        dict(world.nodes),
        sorted(world.rejected, key=str),
    )


@settings(max_examples=examples(150), deadline=None)
@given(st.lists(singles, max_size=10), kinds, states)
def test_a_list_gives_the_same_state_as_single_events(before, kind, state):
    listed, single = Cluster(), Cluster()
    for change in before:
        tell(listed, *change)
        tell(single, *change)
    touched = listed.apply_event(Listed(kind, tuple(built(kind, name, at) for name, at in state.items())))
    wanted = Touched()
    for name in NAMES:
        wanted.add(tell(single, kind, name, state.get(name)))
    assert known(listed) == known(single)
    assert touched == wanted


@settings(max_examples=examples(100), deadline=None)
@given(st.lists(singles, max_size=10), st.lists(singles, max_size=5))
def test_a_service_that_is_not_touched_has_not_changed(before, later):
    cluster = Cluster()
    for change in before:
        tell(cluster, *change)
    names = [ObjectName("demo", name) for name in NAMES]
    was, node = {name: cluster.service(name) for name in names}, [cluster.node(name) for name in NAMES]
    touched = Touched()
    for change in later:
        touched.add(tell(cluster, *change))
    for name in names:
        assert name in touched.services or cluster.service(name) == was[name]
    assert touched.nodes or [cluster.node(name) for name in NAMES] == node


@settings(max_examples=examples(60), deadline=None)
@given(st.lists(singles, max_size=10))
def test_a_repeated_event_touches_nothing(events):
    cluster = Cluster()
    last: dict[tuple[type[KubeObject], str], int | None] = {}
    for kind, name, state in events:
        tell(cluster, kind, name, state)
        last[kind, name] = state
    before = known(cluster)
    for (kind, name), state in last.items():
        assert not tell(cluster, kind, name, state)
    for kind in KINDS:
        objects = tuple(built(kind, name, at) for (of, name), at in last.items() if of is kind and at is not None)
        assert not cluster.apply_event(Listed(kind, objects))
    assert known(cluster) == before


@pytest.mark.parametrize("event", ["changed", "listed"])
def test_an_object_that_becomes_invalid_is_removed_and_rejected(event):
    cluster = Cluster()
    tell(cluster, k.Service, "a", 1)
    bad = built(k.Service, "a", 0)
    name = ObjectName("demo", "a")
    touched = cluster.apply_event(Changed(k.Service, bad, name) if event == "changed" else Listed(k.Service, (bad,)))
    assert touched.services == {name}
    assert cluster.service(name) is None
    assert cluster.rejected == [bad]
    tell(cluster, k.Service, "a", 2)
    assert cluster.rejected == []


def test_annotations_of_a_node_touch_nothing():
    cluster, name = Cluster(), ObjectName("", "a")
    for noted, touches in (("1", True), ("2", False)):
        node = k.Node(metadata=k.ObjectMeta(name="a", annotations={"cni.example/seen": noted}))
        assert bool(cluster.apply_event(Changed(k.Node, Decoded(node, "test"), name))) == touches
    kept = cluster.node("a")
    assert kept is not None
    assert kept.metadata.annotations == {"cni.example/seen": "2"}
    other = k.Node(metadata=k.ObjectMeta(name="a", labels={"topology.kubernetes.io/zone": "b"}))
    assert cluster.apply_event(Changed(k.Node, Decoded(other, "test"), name)).nodes


@pytest.mark.parametrize("kind", [k.Secret, k.ConfigMap])
def test_objects_watched_by_name_are_known_to_exist_or_not(kind):
    cluster, name = Cluster(), ObjectName("demo", "a")
    key = ObjectKey(kind.__name__, name)
    present = Decoded(kind(metadata=k.ObjectMeta(name="a", namespace="demo")), "test")
    assert not cluster.is_reported(kind, name)
    for event, is_gone in ((Gone(kind, name), True), (Changed(kind, present, name), False), (Gone(kind, name), True)):
        assert cluster.apply_event(event).site  # an object that does not exist is reported too
        assert cluster.is_reported(kind, name)
        assert cluster.gone == ({key} if is_gone else set())
        assert not cluster.apply_event(event).site
    assert not cluster.apply_event(Unfollowed(kind, name))
    assert not cluster.is_reported(kind, name)
    assert not cluster.gone


def test_warnings_about_ignored_entries_last_as_long_as_these():
    cluster, name = Cluster(), ObjectName("demo", "a")
    service = k.Service(metadata=k.ObjectMeta(name="a", namespace="demo"))
    first, second = "Service demo/a: spec.externalIPs[0]: ignored", "Service demo/a: spec.externalIPs[1]: ignored"
    for warnings in ((first,), (first, second), (), (second,)):
        cluster.apply_event(Changed(k.Service, Decoded(service, "test", warnings), name))
        assert cluster.warnings == list(warnings)
    cluster.apply_event(Gone(k.Service, name))
    assert cluster.warnings == []
