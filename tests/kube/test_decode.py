"""Documents are decoded into typed objects, and invalid ones are rejected with all faults."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from rulegen.errors import Fault, InputError, Rejected
from rulegen.kube.objects.names import Decoded
from rulegen.kube.objects.structs import EndpointSlice, Namespace, Node, ObjectMeta, Service, ServicePort
from rulegen.kube.reading.decode import Unknown, decode, decode_list, decode_object
from rulegen.kube.reading.documents import Document

WEB = {"metadata": {"name": "web", "namespace": "shop"}, "spec": {"clusterIP": "10.96.0.9", "ports": [{"port": 80}]}}


def decoded(content: Any, kind: str = "Service", api_version: str = "v1") -> Any:
    as_text = decode(Document("x", api_version, kind, msgspec.Raw(json.dumps(content).encode())))
    as_values = decode(Document("x", api_version, kind, json.loads(json.dumps(content))))
    if None not in json.loads(json.dumps(content)).values():
        assert as_text == as_values
    return as_text


def test_a_service_is_typed_and_gets_defaults() -> None:
    web = decoded(WEB)
    assert isinstance(web, Decoded)
    service = web.object
    assert isinstance(service, Service)
    assert service.spec.ports == (ServicePort(port=80),)
    assert (service.spec.type, service.spec.cluster_ips, service.spec.ip_families) == (
        "ClusterIP",
        ("10.96.0.9",),
        ("IPv4",),
    )
    assert service.metadata.namespace == "shop"
    assert web.warnings == ()


def test_an_object_without_a_namespace_is_in_the_default_one() -> None:
    assert decoded({"metadata": {"name": "a"}}, "Pod").object.metadata.namespace == "default"
    assert decoded({"metadata": {"name": "a", "namespace": "b"}}, "Node").object.metadata.namespace == ""


def test_a_null_is_a_missing_field() -> None:
    content = {
        "metadata": {"name": "web", "creationTimestamp": None, "labels": None, "annotations": {"a": None}},
        "spec": {"clusterIP": "10.96.0.9", "ports": [{"port": 80, "protocol": None, "targetPort": None}], "type": None},
        "status": None,
    }
    web = decoded(content)
    assert web.object.spec == decoded(WEB).object.spec
    assert web.object.metadata.annotations == {}


def test_a_null_in_a_list_is_a_fault() -> None:
    rejected = decoded({**WEB, "spec": {"ports": [None]}})
    assert rejected.faults == (Fault("spec.ports[0]", "expected an object, got nothing (null)"),)


@pytest.mark.parametrize(
    ("kind", "api_version"),
    [
        ("Deployment", "apps/v1"),
        ("EndpointSlice", "discovery.k8s.io/v1beta1"),
        ("Service", "v2"),
        ("Service", "serving.knative.dev/v1"),
        ("Ingress", "networking.k8s.io/v1alpha1"),
        ("Ingress", "extensions/v1"),
        ("Secret", "v1beta1"),
        ("NetworkPolicy", "networking.k8s.io/v1"),
        ("service", "v1"),
    ],
)
def test_other_kinds_are_named(kind: str, api_version: str) -> None:
    assert decoded({"metadata": 5}, kind, api_version) == Unknown(f"{api_version} {kind}", "x")


def test_unused_fields_may_have_any_type() -> None:
    content = {**WEB, "metadata": {**WEB["metadata"], "managedFields": [{"x": [1, {}]}], "finalizers": 7}, "extra": [1]}
    assert decoded(content).object == decoded(WEB).object


def test_all_faults_are_reported_in_the_order_of_the_fields() -> None:
    rejected = decoded({"metadata": {"name": 5, "labels": {"a": 1}}, "spec": {"ports": [{"port": "x"}, 7], "type": []}})
    assert isinstance(rejected, Rejected)
    assert rejected.object == "Service default/(no name)"
    assert rejected.faults == (
        Fault("metadata.name", "expected a text, got the number 5"),
        Fault("metadata.labels.a", "expected a text, got the number 1"),
        Fault("spec.type", "expected a text, got a list"),
        Fault("spec.ports[0].port", 'expected an integer, got the text "x"'),
        Fault("spec.ports[1]", "expected an object, got the number 7"),
    )


def test_the_number_of_reported_faults_is_limited() -> None:
    for ports in ([{"port": "x"}] * 500, [{"port": -1}] * 500):
        assert len(decoded({**WEB, "spec": {"ports": ports}}).faults) == 51


# -- pages -------------------------------------------------------------------------------------------------------------


def page(*items: Any, **metadata: str) -> bytes:
    return json.dumps({"kind": "ServiceList", "metadata": metadata, "items": list(items)}).encode()


def test_a_page_has_a_token_and_a_resource_version() -> None:
    listed = decode_list(page(WEB, **{"continue": "abc", "resourceVersion": "17"}), Service)
    assert [service.object.metadata.name for service in listed.objects] == ["web"]
    assert (listed.rejected, listed.continue_token, listed.resource_version) == ([], "abc", "17")
    assert listed.objects[0].source == "API server"


@pytest.mark.parametrize("raw", [b'{"items": null}', b'{"items": []}', b"{}", b'{"metadata": {}, "items": []}'])
def test_an_empty_page(raw: bytes) -> None:
    assert decode_list(raw, Service) == ([], [], "", "")


def test_an_invalid_object_affects_only_itself() -> None:
    bad_type = {"metadata": {"name": "a"}, "spec": {"ports": [{"port": "http"}]}}
    bad_value = {"metadata": {"name": "b"}, "spec": {"ports": [{"port": 99999}]}}
    nulls = {**WEB, "metadata": {"name": "c", "labels": None}}
    listed = decode_list(page(bad_type, WEB, 7, bad_value, nulls), Service, source="https://cluster")
    assert [service.object.metadata.name for service in listed.objects] == ["web", "c"]
    assert [line for rejected in listed.rejected for line in rejected.lines()] == [
        'Service default/a: spec.ports[0].port: expected an integer, got the text "http"',
        "Service default/(no name): expected an object, got the number 7",
        "Service default/b: spec.ports[0].port: 99999 is not a port (1\N{EN DASH}65535)",
    ]
    assert {rejected.source for rejected in listed.rejected} == {"https://cluster"}


@pytest.mark.parametrize(
    "raw", [b"", b"[]", b"no", b'{"items": {}}', b'{"items": [}', b"[" * 9999, b'{"metadata": 7}', b"\xff"]
)
def test_an_invalid_page_is_an_error(raw: bytes) -> None:
    with pytest.raises(InputError, match="not a list of EndpointSlice objects"):
        decode_list(raw, EndpointSlice)


def test_single_objects() -> None:
    assert decode_object(b'{"metadata": {"name": "n"}}', Node) == Decoded(
        Node(metadata=ObjectMeta(name="n")), "API server"
    )
    namespace = decode_object(b'{"metadata": {"name": "n", "labels": null}}', Namespace, source="s")
    assert isinstance(namespace, Decoded)
    assert isinstance(decode_object(b'{"metadata": 1}', Node), Rejected)
    assert isinstance(decode_object(b"{", Node), Rejected)
