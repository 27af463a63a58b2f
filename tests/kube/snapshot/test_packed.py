"""A cluster of packed objects is the same as one of whole objects, in a fraction of the memory."""

from __future__ import annotations

import gc
import tracemalloc
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rulegen.apiserver.budget import weight
from rulegen.kube.objects import structs as k
from rulegen.kube.objects.events import Changed, Event, Gone, Listed, name_of
from rulegen.kube.objects.kinds import KubeObject
from rulegen.kube.objects.names import Decoded, ObjectName
from rulegen.kube.objects.packed import PackedObject, pack
from rulegen.kube.reading.decode import decode_list, decode_object
from rulegen.kube.reading.watch_line import read_line
from rulegen.kube.snapshot.cluster import Cluster
from tests.kube.snapshot.test_cluster import built, kinds, known, singles, states, tell
from tests.sizes import examples
from tests.strategies.ingresses import WEB, endpoints, service
from tests.strategies.services import worlds

WEB_NAME = ObjectName("default", "web")


def packed(event: Event) -> Event:
    """Return an event as the watch reports it to an agent that serves only Ingresses."""
    match event:
        case Listed(kind, objects):
            return Listed(kind, tuple(pack(each) if isinstance(each, Decoded) else each for each in objects))
        case Changed(kind, Decoded() as state, name):
            return Changed(kind, pack(state), name)
    return event


class PackingCluster(Cluster):
    """A cluster that gets all objects packed."""

    def apply_event(self, event: Event) -> Any:
        return super().apply_event(packed(event))


def change(known_object: KubeObject) -> Changed:
    decoded = Decoded(known_object, "test")
    return Changed(type(known_object), decoded, decoded.name)


# -- the same objects --------------------------------------------------------------------------------------------------


@settings(max_examples=examples(50), deadline=None)
@given(worlds())
def test_nothing_of_an_object_is_lost(world):
    for known_input in world.services.values():
        for each in (known_input.service, *known_input.slices):
            whole = Decoded(each, "here", ("a warning",))
            small = pack(whole)
            assert isinstance(small, PackedObject)
            assert small.object == each
            assert (small.name, small.source, small.warnings) == (name_of(whole), "here", ("a warning",))
            assert small.is_same(whole)
            assert small.is_same(pack(whole))
            assert whole.is_same(small)


HOSTILE = '\u202e\x00\\"\n\U0001f600' * 50


def test_any_text_and_size_is_kept():
    labels = {f"{HOSTILE}{number}": HOSTILE for number in range(200)}
    each = k.Service(
        metadata=k.ObjectMeta(name=HOSTILE, namespace="a", labels=labels, annotations={"x": "y" * 300_000})
    )
    assert pack(Decoded(each, "")).object == each


def test_the_order_of_labels_is_no_difference():
    first, second = (
        pack(Decoded(k.Service(metadata=k.ObjectMeta(name="a", labels=labels)), ""))
        for labels in ({"a": "1", "b": "2"}, {"b": "2", "a": "1"})
    )
    assert first.is_same(second)
    assert not first.is_same(pack(Decoded(k.Service(metadata=k.ObjectMeta(name="a")), "")))


def test_other_kinds_stay_as_they_are():
    node = Decoded(k.Node(metadata=k.ObjectMeta(name="a")), "")
    assert pack(node) is node


@pytest.mark.parametrize("packs", [False, True])
def test_lists_and_watches_report_packed_objects_where_asked(packs):
    texts = [msgspec.json.encode(each) for each in (service("web"), service("api"))]
    wanted = [decode_object(text, k.Service) for text in texts]
    page = decode_list(b'{"items": [%b, {"metadata": {}}]}' % b",".join(texts), k.Service, packs=packs)
    line = read_line(b'{"type": "ADDED", "object": %b}' % texts[0], k.Service, packs=packs)
    for each, other in zip((*page.objects, line.event.state), (*wanted, wanted[0]), strict=True):
        assert isinstance(each, PackedObject) == packs
        assert each.object == other.object
    assert len(page.rejected) == 1


# -- the same cluster --------------------------------------------------------------------------------------------------


@settings(max_examples=examples(100), deadline=None)
@given(st.lists(singles, max_size=10), kinds, states, st.lists(singles, max_size=5))
def test_a_cluster_of_packed_objects_is_that_of_whole_ones(before, kind, state, after):
    whole, small = Cluster(), PackingCluster()
    for cluster in (whole, small):
        assert not cluster.for_ingresses().services  # from now on, addresses are followed
    for one_change in (*before, (kind, state), *after):
        if isinstance(one_change[1], dict):
            touched = [_list(cluster, *one_change) for cluster in (whole, small)]
        else:
            touched = [tell(cluster, *one_change) for cluster in (whole, small)]
        assert touched[0] == touched[1]
    assert known(small) == known(whole)
    assert small.warnings == whole.warnings
    mine, others = small.for_ingresses(), whole.for_ingresses()
    assert dict(mine.services) == dict(others.services)
    assert mine.addresses == others.addresses


def _list(cluster: Cluster, kind: type[KubeObject], state: dict[str, int]) -> Any:
    return cluster.apply_event(Listed(kind, tuple(built(kind, name, at) for name, at in state.items())))


# -- the same Python objects, as long as they are used -----------------------------------------------------------------


def test_a_service_in_use_is_the_same_object_until_it_changes():
    cluster = PackingCluster()
    for each in (*WEB, service("api")):
        cluster.apply_event(change(each))
    first = cluster.for_ingresses().services
    used = first[WEB_NAME]
    assert first.get(WEB_NAME) is used
    cluster.apply_event(change(service("api", cluster_ip="10.96.1.1")))
    cluster.apply_event(Listed(k.Service, (Decoded(service("web"), ""), Decoded(service("api"), ""))))
    second = cluster.for_ingresses().services
    assert second.get(WEB_NAME) is used
    cluster.apply_event(change(endpoints("web", ("10.244.1.9",))))
    third = cluster.for_ingresses().services
    assert third[WEB_NAME].slices == (endpoints("web", ("10.244.1.9",)),)
    assert second[WEB_NAME] is used  # an earlier snapshot stays as it was
    cluster.apply_event(Gone(k.Service, WEB_NAME))
    assert WEB_NAME not in cluster.for_ingresses().services
    assert third.get(WEB_NAME).service == service("web")


# -- memory ------------------------------------------------------------------------------------------------------------

COUNT = 300
MOST_OF_WHOLE = 0.4
"""Memory of a packed Service with its EndpointSlice, as a part of that of a whole one."""


def _documents(kind: str, number: int) -> dict[str, Any]:
    """Return an object as an API server sends it."""
    uid = f"0b1f2c3d-{number:04x}-4e5f-8a9b-{number:012x}"
    metadata = {"namespace": f"team-{number % 20}", "uid": uid, "creationTimestamp": "2026-01-01T00:00:00Z"}
    labels = {"app.kubernetes.io/name": f"web-{number}", "app.kubernetes.io/managed-by": "Helm"}
    if kind == "Service":
        address = f"10.96.{number // 250}.{number % 250}"
        spec = {
            "clusterIP": address,
            "clusterIPs": [address],
            "ports": [{"name": "http", "port": 80, "protocol": "TCP"}],
        }
        spec |= {"selector": labels, "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack", "type": "ClusterIP"}
        return {"metadata": {**metadata, "name": f"web-{number}", "labels": labels}, "spec": spec}
    labels |= {"kubernetes.io/service-name": f"web-{number}"}
    ready = {"ready": True, "serving": True, "terminating": False}
    return {
        "metadata": {**metadata, "name": f"web-{number}-x7k2p", "labels": labels},
        "addressType": "IPv4",
        "endpoints": [
            {
                "addresses": [f"10.{244 + each}.{number // 250}.{number % 250}"],
                "conditions": ready,
                "nodeName": f"node-{each}",
                "targetRef": {"kind": "Pod", "name": f"web-{number}-5d9c8b7f66-{each}"},
            }
            for each in range(3)
        ],
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
    }


def _bytes_per_service(*, packs: bool) -> float:
    """Return the memory that a cluster needs for each Service that nothing refers to."""
    pages = {
        kind: msgspec.json.encode({"items": [_documents(kind.__name__, number) for number in range(COUNT)]})
        for kind in (k.Service, k.EndpointSlice)
    }
    gc.collect()
    tracemalloc.start()
    try:
        cluster = Cluster()
        for kind, page in pages.items():
            cluster.apply_event(Listed(kind, tuple(decode_list(page, kind, packs=packs).objects)))
        world = cluster.for_ingresses()
        gc.collect()
        assert len(world.services) == COUNT
        return tracemalloc.get_traced_memory()[0] / COUNT
    finally:
        tracemalloc.stop()


@pytest.mark.not_quick
def test_a_service_that_nothing_refers_to_needs_a_fraction_of_the_memory():
    _bytes_per_service(packs=True)  # what is imported and cached once is not counted
    whole, small = _bytes_per_service(packs=False), _bytes_per_service(packs=True)
    assert small < MOST_OF_WHOLE * whole, (small, whole)


@pytest.mark.not_quick
def test_the_counted_memory_is_not_less_than_the_real_one():
    counted = 0
    for kind in (k.Service, k.EndpointSlice):
        each = decode_object(msgspec.json.encode(_documents(kind.__name__, 7)), kind)
        counted += weight([pack(each)])
        assert weight([pack(each)]) < weight([each])
    assert counted > _bytes_per_service(packs=True)
