"""Ingresses of older API versions are converted to v1; their faults keep the paths of the old version."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from rulegen.errors import Rejected
from rulegen.kube.objects.legacy_ingress import LEGACY_VERSIONS
from rulegen.kube.objects.names import Decoded, ObjectName
from rulegen.kube.reading.decode import decode
from rulegen.kube.reading.documents import Document, Source
from rulegen.kube.snapshot.build import read_world

V1 = "networking.k8s.io/v1"
OLD = {"serviceName": "web", "servicePort": 80}
NEW = {"service": {"name": "web", "port": {"number": 80}}}


def decoded(spec: dict[str, Any], version: str) -> Any:
    content = {"metadata": {"name": "shop", "namespace": "shop"}, "spec": spec}
    as_text = decode(Document("x", version, "Ingress", msgspec.Raw(json.dumps(content).encode())))
    assert as_text == decode(Document("x", version, "Ingress", content))
    return as_text


def paths(*entries: dict[str, Any]) -> dict[str, Any]:
    return {"rules": [{"host": "a.test", "http": {"paths": list(entries)}}]}


SAME = [
    ({"backend": OLD}, {"defaultBackend": NEW}),
    (
        {"backend": {"serviceName": "web", "servicePort": "http"}},
        {"defaultBackend": {"service": {"name": "web", "port": {"name": "http"}}}},
    ),
    (paths({"backend": OLD}), paths({"path": "/", "pathType": "ImplementationSpecific", "backend": NEW})),
    (
        paths({"path": "/a", "backend": OLD}, {"path": "/b", "pathType": "Exact", "backend": OLD}),
        paths(
            {"path": "/a", "pathType": "ImplementationSpecific", "backend": NEW},
            {"path": "/b", "pathType": "Exact", "backend": NEW},
        ),
    ),
    (
        {**paths({"path": "/a*", "pathType": "", "backend": OLD}), "tls": [{"hosts": ["a.test"], "secretName": "b"}]},
        {
            **paths({"path": "/a*", "pathType": "ImplementationSpecific", "backend": NEW}),
            "tls": [{"hosts": ["a.test"], "secretName": "b"}],
        },
    ),
    (
        {"ingressClassName": "rulegen", "backend": OLD, "rules": [{"host": "b.test"}]},
        {"ingressClassName": "rulegen", "defaultBackend": NEW, "rules": [{"host": "b.test"}]},
    ),
    (
        {"backend": {"resource": {"kind": "Bucket", "name": "b"}}},
        {"defaultBackend": {"resource": {"kind": "Bucket", "name": "b"}}},
    ),
]


@pytest.mark.parametrize("version", LEGACY_VERSIONS)
@pytest.mark.parametrize(("old", "new"), SAME)
def test_conversion_to_v1(version: str, old: dict[str, Any], new: dict[str, Any]) -> None:
    converted = decoded(old, version)
    assert isinstance(converted, Decoded)
    assert converted == decoded(new, V1)


BAD = [
    ({"backend": {}}, "spec.backend: missing: a backend needs a Service"),
    ({"backend": {"serviceName": "web"}}, "spec.backend.servicePort: missing: the name or the number of a port"),
    ({"backend": {"servicePort": 80}}, "spec.backend.serviceName: missing"),
    (
        {"backend": {**OLD, "serviceName": "A"}},
        'spec.backend.serviceName: "A" is not a valid name: a-z, 0-9 and "-" inside, at most 63 characters',
    ),
    ({"backend": {**OLD, "servicePort": "a b"}}, 'spec.backend.servicePort: "a b" is not the name of a port'),
    ({"backend": {**OLD, "servicePort": -1}}, "spec.backend.servicePort: -1 is not a port (1\N{EN DASH}65535)"),
    ({"backend": {**OLD, "servicePort": []}}, "spec.backend.servicePort: expected an integer or a text, got a list"),
    ({"backend": NEW}, "spec.backend: missing: a backend needs a Service"),
    ({"defaultBackend": OLD}, "spec: neither rules nor a default backend"),
    (
        paths({"path": "/", "backend": {"serviceName": "a"}}),
        "spec.rules[0].http.paths[0].backend.servicePort: missing: the name or the number of a port",
    ),
    (paths({"path": "/\t", "backend": OLD}), 'spec.rules[0].http.paths[0].path: "/\\t" has control characters in it'),
    (paths({"path": "a", "backend": OLD}), 'spec.rules[0].http.paths[0].path: "a" does not begin with "/"'),
]


@pytest.mark.parametrize("version", LEGACY_VERSIONS)
@pytest.mark.parametrize(("spec", "line"), BAD)
def test_faults_have_the_paths_of_the_old_version(version: str, spec: dict[str, Any], line: str) -> None:
    rejected = decoded(spec, version)
    assert isinstance(rejected, Rejected)
    assert rejected.lines() == (f"Ingress shop/shop: {line}",)


def source(name: str, version: str, spec: dict[str, Any], kind: str = "Ingress", **metadata: str) -> Source:
    content = {"apiVersion": version, "kind": kind, "metadata": {"name": "shop", **metadata}, "spec": spec}
    return Source(name, json.dumps(content).encode())


def test_one_ingress_in_several_versions_is_one() -> None:
    old = [source(f"{i}.json", version, {"backend": OLD}) for i, version in enumerate(LEGACY_VERSIONS)]
    world = read_world([*old, source("2.json", V1, {"defaultBackend": NEW})])
    assert list(world.ingresses) == [ObjectName("default", "shop")]
    assert world.rejected == ()
    differs = read_world([*old, source("2.json", V1, {"defaultBackend": NEW}, namespace="default", uid="7")])
    assert [line for rejected in differs.rejected for line in rejected.lines()] == [
        "Ingress default/shop: differs from the object of the same name in 0.json: that object is used"
    ]


def test_classes_of_v1beta1() -> None:
    spec = {"controller": "rulegen.io/ingress"}
    classes = [source("x", f"networking.k8s.io/{version}", spec, "IngressClass") for version in ("v1beta1", "v1")]
    world = read_world(classes)
    assert world.ingress_classes["shop"].spec.controller == "rulegen.io/ingress"
    assert world.rejected == ()


def test_lists_of_older_versions() -> None:
    item = {"metadata": {"name": "a"}, "spec": {"backend": OLD}}
    content = {"apiVersion": LEGACY_VERSIONS[1], "kind": "IngressList", "items": [item]}
    assert list(read_world([Source("x", json.dumps(content).encode())]).ingresses) == [ObjectName("default", "a")]
