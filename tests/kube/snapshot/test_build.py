"""Snapshots contain each object once, with endpoints from the best source, and warnings about missing parts."""

from __future__ import annotations

import gc
import json
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from rulegen.errors import InputError, Rejected
from rulegen.kube.objects.names import ObjectName
from rulegen.kube.reading.decode import Unknown, decode
from rulegen.kube.reading.documents import Source, read_documents
from rulegen.kube.snapshot.build import build_world, read_world, without_gc
from rulegen.kube.snapshot.world import ClusterSnapshot
from rulegen.model.host.facts import HostFacts
from rulegen.model.services.ir import Model
from rulegen.model.services.options import Options
from rulegen.model.services.resolve import resolve

WEB = ObjectName("shop", "web")


def service(name: str = "web", **spec: Any) -> dict[str, Any]:
    spec = {"clusterIP": "10.96.0.10", "selector": {"app": name}, "ports": [{"name": "http", "port": 80}], **spec}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "shop"}, "spec": spec}


def slice_(name: str = "web-1", owner: str = "web", namespace: str = "shop", **labels: str) -> dict[str, Any]:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": name, "namespace": namespace, "labels": {"kubernetes.io/service-name": owner, **labels}},
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.244.0.1"]}],
        "ports": [{"name": "http", "port": 8080}],
    }


ENDPOINTS = {
    "apiVersion": "v1",
    "kind": "Endpoints",
    "metadata": {"name": "web", "namespace": "shop"},
    "subsets": [{"addresses": [{"ip": "10.244.0.2"}], "ports": [{"name": "http", "port": 8080}]}],
}
POD = {
    "apiVersion": "v1",
    "kind": "Pod",
    "metadata": {"name": "web-1", "namespace": "shop", "labels": {"app": "web"}},
    "status": {"podIP": "10.244.0.3", "conditions": [{"type": "Ready", "status": "True"}]},
}
NODE = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node1"}}


def world(*objects: dict[str, Any], **arguments: Any) -> ClusterSnapshot:
    return read_world(
        [Source(f"{i}.json", json.dumps(content).encode()) for i, content in enumerate(objects)], **arguments
    )


def addresses(snapshot: ClusterSnapshot) -> list[str]:
    return [e.addresses[0] for piece in snapshot.services[WEB].slices for e in piece.endpoints]


ORIGINS = [
    # objects                                          from            endpoints
    ([service()], "", []),
    ([service(), slice_(), ENDPOINTS, POD], "EndpointSlice", ["10.244.0.1"]),
    ([service(), ENDPOINTS, POD], "Endpoints", ["10.244.0.2"]),
    ([service(), POD], "Pods", ["10.244.0.3"]),
    ([service(), slice_(namespace="other"), POD], "Pods", ["10.244.0.3"]),
    ([service(), {**ENDPOINTS, "subsets": []}, POD], "", []),
    ([service(), {**slice_(), "endpoints": []}, POD], "EndpointSlice", []),
    ([service(selector={}), POD], "", []),
    ([service(selector=None), POD], "", []),
    ([service(selector={"app": "other"}), POD], "", []),
    ([service(type="ExternalName", externalName="example.org"), POD], "", []),
]


@pytest.mark.parametrize(("objects", "origin", "endpoints"), ORIGINS)
def test_where_endpoints_come_from(objects: list[dict[str, Any]], origin: str, endpoints: list[str]) -> None:
    snapshot = world(*objects)
    assert snapshot.services[WEB].endpoints_from == origin
    assert addresses(snapshot) == endpoints


def test_slices_are_sorted_by_name() -> None:
    snapshot = world(slice_("web-b"), slice_("web-a"), service(), slice_("web-c"))
    assert [piece.metadata.name for piece in snapshot.services[WEB].slices] == ["web-a", "web-b", "web-c"]


def test_objects_that_proxies_ignore_stay_in_the_snapshot() -> None:
    hidden = service()
    hidden["metadata"]["labels"] = {"service.kubernetes.io/service-proxy-name": "other"}
    snapshot = world(hidden, slice_(**{"service.kubernetes.io/headless": ""}))
    assert "service.kubernetes.io/service-proxy-name" in snapshot.services[WEB].service.metadata.labels
    assert "service.kubernetes.io/headless" in snapshot.services[WEB].slices[0].metadata.labels


def test_equal_objects_count_once() -> None:
    snapshot = world(service(), service())
    assert len(snapshot.services) == 1
    assert snapshot.rejected == ()


def test_the_first_of_different_objects_is_kept() -> None:
    snapshot = world(service(), service(clusterIP="10.96.0.11"))
    assert snapshot.services[WEB].service.spec.cluster_ip == "10.96.0.10"
    (rejected,) = snapshot.rejected
    assert rejected.source == "1.json"
    assert rejected.lines() == (
        "Service shop/web: differs from the object of the same name in 0.json: that object is used",
    )


def test_one_name_in_two_namespaces_or_kinds_is_two_objects() -> None:
    other = service()
    other["metadata"]["namespace"] = "other"
    assert len(world(service(), other, ENDPOINTS).services) == 2


def test_unknown_kinds_are_counted() -> None:
    snapshot = world(
        service(), *[{"apiVersion": "apps/v1", "kind": "Deployment"}] * 2, {"apiVersion": "v1", "kind": "Event"}
    )
    assert dict(snapshot.unknown_kinds) == {"apps/v1 Deployment": 2, "v1 Event": 1}


def test_slices_of_a_missing_service_give_a_warning() -> None:
    snapshot = world(service(), *(slice_(f"x-{i}", f"x{i}") for i in range(7)))
    assert snapshot.warnings == (
        "EndpointSlices of Services that are not in the input: shop/x0, shop/x1, shop/x2, shop/x3, shop/x4, and 2 more",
    )


def test_slices_of_a_rejected_service_give_no_warning() -> None:
    snapshot = world(service("x"), service(type="x"), slice_())
    assert len(snapshot.rejected) == 1
    assert snapshot.warnings == ()


def test_a_missing_node_port_of_an_assigned_service_is_reported() -> None:
    snapshot = world(service(type="NodePort"))
    assert snapshot.warnings == ("Service shop/web: has a clusterIP but not all node ports: none is assigned",)


def test_the_service_cidr_of_the_cluster_comes_first() -> None:
    cidrs = [
        {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "ServiceCIDR",
            "metadata": {"name": name},
            "spec": {"cidrs": [cidr]},
        }
        for name, cidr in (("a", "10.1.0.0/16"), ("kubernetes", "fd00::/108"), ("z", "10.2.0.0/16"))
    ]
    assert world(*cidrs).service_cidrs == ("fd00::/108", "10.1.0.0/16", "10.2.0.0/16")


def test_nodes_and_service_cidrs() -> None:
    cidr = {"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": "b"}}
    snapshot = world(
        NODE,
        {**cidr, "spec": {"cidrs": ["10.1.0.0/16"]}},
        {**cidr, "metadata": {"name": "a"}, "spec": {"cidrs": ["fd00::/108"]}},
    )
    assert list(snapshot.nodes) == ["node1"]
    assert snapshot.service_cidrs == ("fd00::/108", "10.1.0.0/16")


@pytest.mark.parametrize("content", [b"", b"# nothing", b"a: [", b"{apiVersion: apps/v1, kind: X}", b"\xff"])
def test_nothing_usable_is_an_error_and_not_an_empty_snapshot(content: bytes) -> None:
    with pytest.raises(InputError, match=r"a\.yaml: no usable Kubernetes object in it"):
        read_world([Source("a.yaml", content)])


def test_no_sources_at_all() -> None:
    with pytest.raises(InputError, match="input: no usable"):
        read_world([])


def test_the_error_says_why_nothing_is_usable() -> None:
    with pytest.raises(InputError) as raised:
        read_world([Source("a", b"[1]"), Source("b", b"{apiVersion: apps/v1, kind: X}")])
    assert raised.value.hint == "a: expected a Kubernetes object, got a list; 1 of the unknown kind apps/v1 X"


def test_typed_objects_are_validated_too() -> None:
    decoded = [
        decode(document)
        for document in read_documents(Source("x", json.dumps(service()).encode()))
        if not isinstance(document, Rejected)
    ]
    (typed,) = [d.object for d in decoded if not isinstance(d, Rejected | Unknown)]
    assert list(build_world([typed]).services) == [WEB]
    bad = type(typed)(metadata=typed.metadata)
    assert build_world([bad]).rejected[0].lines() == (
        "Service shop/web: spec.ports: missing: a Service has at least one port",
    )


def test_no_typed_objects_give_an_empty_snapshot() -> None:
    assert build_world([]) == ClusterSnapshot()


@given(
    st.permutations(
        [service(), slice_("a"), slice_("b"), service("db"), ENDPOINTS, POD, NODE, service("x", clusterIP="")]
    )
)
def test_the_order_of_objects_does_not_matter(objects: list[dict[str, Any]]) -> None:
    objects_read = [
        decode(document) for text in objects for document in read_documents(Source("x", json.dumps(text).encode()))
    ]
    first = build_world(objects_read)
    assert list(first.services) == sorted(first.services)
    assert first == build_world(sorted(objects_read, key=repr))


@pytest.mark.parametrize("was_on", [True, False])
def test_without_gc_restores_the_state_of_the_collector(was_on: bool) -> None:
    before = gc.isenabled()
    try:
        (gc.enable if was_on else gc.disable)()
        with without_gc():
            assert not gc.isenabled()
        assert gc.isenabled() is was_on
    finally:
        (gc.enable if before else gc.disable)()


# -- Ingresses and referenced objects ----------------------------------------------------------------------------------


def ingress(name: str = "shop", namespace: str = "shop") -> dict[str, Any]:
    backend = {"service": {"name": "web", "port": {"number": 80}}}
    metadata = {"name": name, "namespace": namespace}
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": metadata,
        "spec": {"defaultBackend": backend},
    }


def ingress_class(name: str) -> dict[str, Any]:
    spec = {"controller": "rulegen.io/ingress"}
    return {"apiVersion": "networking.k8s.io/v1", "kind": "IngressClass", "metadata": {"name": name}, "spec": spec}


def stored(kind: str, name: str, namespace: str = "shop") -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": name, "namespace": namespace}, "data": {"a": "eA=="}}


def test_ingresses_and_referenced_objects_are_sorted_by_name() -> None:
    objects = [ingress("b"), ingress("c", "a"), ingress("a"), ingress_class("y"), ingress_class("x")]
    objects += [stored(kind, name) for kind in ("Secret", "ConfigMap") for name in ("t", "s")]
    snapshot = world(*objects)
    assert [str(name) for name in snapshot.ingresses] == ["a/c", "shop/a", "shop/b"]
    assert list(snapshot.ingress_classes) == ["x", "y"]
    assert [str(name) for name in snapshot.secrets] == ["shop/s", "shop/t"]
    assert [str(name) for name in snapshot.config_maps] == ["shop/s", "shop/t"]
    assert snapshot.secrets[ObjectName("shop", "s")].data == {"a": "eA=="}
    assert snapshot == world(*reversed(objects))
    assert (snapshot.rejected, snapshot.unknown_kinds, snapshot.warnings) == ((), {}, ())


def test_ingresses_alone_are_usable() -> None:
    assert list(world(ingress()).ingresses) == [ObjectName("shop", "shop")]
    assert list(world(ingress_class("x")).ingress_classes) == ["x"]


def test_secrets_and_config_maps_alone_are_an_error() -> None:
    with pytest.raises(InputError, match="no usable Kubernetes object in it") as raised:
        world(stored("Secret", "a"), stored("ConfigMap", "a"), stored("ConfigMap", "b"))
    assert raised.value.hint == (
        "2 of kind ConfigMap, which has no effect alone; 1 of kind Secret, which has no effect alone"
    )


def test_the_first_of_two_secrets_is_kept_and_no_value_is_shown() -> None:
    other = {**stored("Secret", "a"), "data": {"a": "aHVudGVyMg=="}}
    snapshot = world(service(), stored("Secret", "a"), other)
    assert snapshot.secrets[ObjectName("shop", "a")].data == {"a": "eA=="}
    (rejected,) = snapshot.rejected
    assert rejected.lines() == (
        "Secret shop/a: differs from the object of the same name in 1.json: that object is used",
    )


def decided(*objects: dict[str, Any]) -> tuple[ClusterSnapshot, Model]:
    snapshot = world(*objects)
    return snapshot, resolve(snapshot, Options(node_name="node1"), HostFacts())


def served(model: Model) -> list[str]:
    return [endpoint.text for port in model.services[WEB].ports for endpoint in port.endpoints]


PORT_NAMES = [
    # the Service's ports, the slice's ports, the endpoints, words of the warning
    ([{"port": 80}], [{"port": 8080}], ["10.244.0.1:8080"], ()),
    ([{"port": 80}], [{"port": 8080, "name": None, "protocol": None}], ["10.244.0.1:8080"], ()),
    ([{"port": 80}], [{"port": 8080, "name": "", "protocol": ""}], ["10.244.0.1:8080"], ()),
    ([{"name": "http", "port": 80}], [{"port": 8080}], [], ('port "http"/TCP', '""/TCP')),
    ([{"name": "http", "port": 80}], [{"name": "web", "port": 8080}], [], ('port "http"/TCP', '"web"/TCP')),
    ([{"port": 80}], [{"name": "web", "port": 8080}], [], ('port ""/TCP', '"web"/TCP')),
    ([{"name": "dns", "port": 53}], [{"name": "dns", "port": 53, "protocol": "UDP"}], [], ("/TCP", '"dns"/UDP')),
    ([{"name": "http", "port": 80}], [{"name": "http", "port": None}], [], ("have addresses, but no port",)),
    ([{"name": "http", "port": 80}], [], [], ("have addresses, but no port with a number",)),
]


@pytest.mark.parametrize("kind", ["EndpointSlice", "Endpoints"])
@pytest.mark.parametrize(("wanted", "offered", "endpoints", "words"), PORT_NAMES)
def test_ports_are_joined_by_name_and_protocol(
    kind: str, wanted: list[Any], offered: list[Any], endpoints: list[str], words: tuple[str, ...]
) -> None:
    if kind == "EndpointSlice":
        source = {**slice_(), "ports": offered}
    elif any(port["port"] is None for port in offered):
        return  # core Endpoints have no port without a number
    else:
        source = {**ENDPOINTS, "subsets": [{"addresses": [{"ip": "10.244.0.1"}], "ports": offered}]}
    snapshot, model = decided(service(ports=wanted), source)
    assert not snapshot.rejected
    assert served(model) == endpoints
    warnings = [warning for warning in model.warnings if warning.startswith("Service shop/web: ")]
    assert len(warnings) == bool(words)
    assert all(word in warning for warning in warnings for word in (*words, kind))


def test_two_ports_without_a_name_are_a_fault() -> None:
    snapshot = world(service(), {**slice_(), "ports": [{"port": 80}, {"port": 81}]})
    (rejected,) = snapshot.rejected
    assert "appears twice" in rejected.lines()[0]


def test_a_target_port_that_no_pod_has_gives_a_warning() -> None:
    two = [{"name": "http", "port": 80, "targetPort": 8080}, {"name": "admin", "port": 81, "targetPort": "admin"}]
    _, model = decided(service(ports=two), POD)
    assert served(model) == ["10.244.0.3:8080"]
    assert any('port "admin"/TCP' in warning and "none of its Pods" in warning for warning in model.warnings)


def workload(kind: str, api_version: str, name: str = "web", namespace: str | None = "shop", **labels: str) -> Any:
    template = {"metadata": {"labels": labels or {"app": "web", "tier": "front"}}, "spec": {"containers": []}}
    spec: Any = {"jobTemplate": {"spec": {"template": template}}} if kind == "CronJob" else {"template": template}
    metadata = {"name": name, **({"namespace": namespace} if namespace else {})}
    return {"apiVersion": api_version, "kind": kind, "metadata": metadata, "spec": spec}


WORKLOADS = [
    ("Deployment", "apps/v1"),
    ("Deployment", "extensions/v1beta1"),
    ("StatefulSet", "apps/v1"),
    ("DaemonSet", "apps/v1"),
    ("ReplicaSet", "apps/v1"),
    ("ReplicationController", "v1"),
    ("Job", "batch/v1"),
    ("CronJob", "batch/v1"),
    ("Rollout", "argoproj.io/v1alpha1"),
    ("DeploymentConfig", "apps.openshift.io/v1"),
]


def missing(snapshot: ClusterSnapshot) -> list[str]:
    return [warning for warning in snapshot.warnings if "are not among the objects" in warning]


@pytest.mark.parametrize("as_yaml", [False, True])
@pytest.mark.parametrize(("kind", "api_version"), WORKLOADS)
def test_a_service_with_a_workload_but_no_pods_gives_a_warning(kind: str, api_version: str, as_yaml: bool) -> None:
    objects = [service(), workload(kind, api_version)]
    text = (
        yaml.safe_dump_all(objects) if as_yaml else json.dumps({"apiVersion": "v1", "kind": "List", "items": objects})
    )
    snapshot = read_world([Source("x", text.encode())])
    (warning,) = missing(snapshot)
    assert f"Service shop/web: the Pods of {kind} web are not among the objects" in warning
    assert dict(snapshot.unknown_kinds) == {f"{api_version} {kind}": 1}


@pytest.mark.parametrize(
    "objects",
    [
        [service(), workload("Deployment", "apps/v1"), POD],
        [service(), workload("Deployment", "apps/v1"), slice_()],
        [service(), workload("Deployment", "apps/v1"), ENDPOINTS],
        [service(), workload("Deployment", "apps/v1", namespace="other")],
        [service(), workload("Deployment", "apps/v1", app="api")],
        [service(selector={}), workload("Deployment", "apps/v1")],
        [service(), workload("Widget", "apps/v1")],
        [service(), {**workload("Deployment", "apps/v1"), "spec": {"template": 7}}],
        [service(), {**workload("Deployment", "apps/v1"), "spec": {}}],
    ],
    ids=["pods", "slices", "endpoints", "namespace", "labels", "no-selector", "kind", "unreadable", "no-template"],
)
def test_no_warning_about_pods_if_none_are_missing(objects: list[Any]) -> None:
    assert missing(world(*objects)) == []


def test_all_workloads_are_named_with_the_default_namespace() -> None:
    without_namespace = service()
    del without_namespace["metadata"]["namespace"]
    many = [workload("Deployment", "apps/v1", f"web-{n}", None) for n in range(8)]
    (warning,) = missing(world(without_namespace, *many))
    assert "Service default/web" in warning
    assert "Deployment web-0" in warning
    assert "and 3 more" in warning


@pytest.mark.parametrize(
    ("spec", "word"),
    [
        ({"type": "NodePort"}, "node ports"),
        ({"type": "LoadBalancer"}, "node ports"),
        ({"type": "LoadBalancer", "allocateLoadBalancerNodePorts": False}, ""),
        (
            {
                "type": "LoadBalancer",
                "externalTrafficPolicy": "Local",
                "ports": [{"name": "http", "port": 80, "nodePort": 30080}],
            },
            "healthCheckNodePort",
        ),
        ({}, ""),
    ],
)
def test_each_missing_assigned_port_gives_a_warning(spec: Any, word: str) -> None:
    warnings = [warning for warning in world(service(**spec)).warnings if "none is assigned" in warning]
    assert len(warnings) == bool(word)
    assert all(word in warning for warning in warnings)


def test_slices_without_the_label_of_a_service_give_a_warning() -> None:
    unlabelled = {**slice_(), "metadata": {"name": "web-1", "namespace": "shop"}}
    snapshot = world(service(), unlabelled)
    assert addresses(snapshot) == []
    assert any("kubernetes.io/service-name" in text and "shop/web-1" in text for text in snapshot.warnings)
    assert not any("kubernetes.io/service-name" in text for text in world(service(), slice_()).warnings)
