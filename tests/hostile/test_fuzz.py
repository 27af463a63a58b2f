"""Whatever the bytes: typed objects that pass all checks, or rejections with a reason; no traceback, no difference."""

from __future__ import annotations

import copy
import json
from typing import Any

import msgspec
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from rulegen.errors import InputError, Rejected
from rulegen.kube.objects.kinds import KINDS
from rulegen.kube.objects.names import Decoded
from rulegen.kube.objects.structs import EndpointSlice, Ingress, Secret, Service
from rulegen.kube.reading.decode import Unknown, decode, decode_list
from rulegen.kube.reading.documents import Document, Source, read_documents
from rulegen.kube.snapshot.build import build_world, read_world
from rulegen.kube.validation.validate import check
from tests.sizes import examples

GOOD: list[dict[str, Any]] = [
    {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {
            "name": "web",
            "namespace": "shop",
            "labels": {"app": "web"},
            "creationTimestamp": "2026-01-01T00:00:00Z",
        },
        "spec": {
            "type": "LoadBalancer",
            "clusterIP": "10.96.0.10",
            "clusterIPs": ["10.96.0.10", "fd00::10"],
            "ipFamilies": ["IPv4", "IPv6"],
            "ipFamilyPolicy": "RequireDualStack",
            "externalTrafficPolicy": "Local",
            "sessionAffinity": "ClientIP",
            "sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 10}},
            "healthCheckNodePort": 31000,
            "externalIPs": ["192.0.2.1"],
            "loadBalancerSourceRanges": ["10.0.0.0/8"],
            "selector": {"app": "web"},
            "ports": [
                {"name": "http", "port": 80, "targetPort": "http", "nodePort": 30080},
                {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 53},
            ],
        },
        "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.9", "ipMode": "VIP"}]}},
    },
    {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": "web-1", "namespace": "shop", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4",
        "endpoints": [
            {
                "addresses": ["10.244.0.1"],
                "conditions": {"ready": True, "serving": None},
                "nodeName": "node1",
                "zone": "a",
                "hints": {"forZones": [{"name": "a"}]},
            }
        ],
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
    },
    {
        "apiVersion": "v1",
        "kind": "Endpoints",
        "metadata": {"name": "db", "namespace": "shop"},
        "subsets": [
            {
                "addresses": [{"ip": "10.1.1.1", "nodeName": "node1"}],
                "notReadyAddresses": [{"ip": "10.1.1.2"}],
                "ports": [{"name": "db", "port": 5432, "protocol": "TCP"}],
            }
        ],
    },
    {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "web-1", "namespace": "shop", "labels": {"app": "web"}},
        "spec": {
            "nodeName": "node1",
            "containers": [{"name": "web", "ports": [{"name": "http", "containerPort": 80}]}],
        },
        "status": {
            "phase": "Running",
            "podIP": "10.244.0.1",
            "podIPs": [{"ip": "10.244.0.1"}],
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    },
    {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": "node1", "labels": {"topology.kubernetes.io/zone": "a"}},
        "spec": {"podCIDRs": ["10.244.0.0/24"]},
        "status": {"addresses": [{"type": "InternalIP", "address": "192.0.2.10"}]},
    },
    {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "ServiceCIDR",
        "metadata": {"name": "kubernetes"},
        "spec": {"cidrs": ["10.96.0.0/12"]},
    },
    {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {
            "name": "shop",
            "namespace": "shop",
            "annotations": {"nginx.ingress.kubernetes.io/ssl-redirect": "false"},
        },
        "spec": {
            "ingressClassName": "rulegen",
            "defaultBackend": {"resource": {"apiGroup": "example.com", "kind": "Bucket", "name": "b"}},
            "tls": [{"hosts": ["a.test"], "secretName": "tls"}],
            "rules": [
                {
                    "host": "*.a.test",
                    "http": {
                        "paths": [
                            {
                                "path": "/a",
                                "pathType": "Prefix",
                                "backend": {"service": {"name": "web", "port": {"name": "http"}}},
                            },
                            {
                                "pathType": "ImplementationSpecific",
                                "backend": {"service": {"name": "web", "port": {"number": 80}}},
                            },
                        ]
                    },
                }
            ],
        },
    },
    {
        "apiVersion": "extensions/v1beta1",
        "kind": "Ingress",
        "metadata": {"name": "old", "namespace": "shop"},
        "spec": {
            "backend": {"serviceName": "web", "servicePort": "http"},
            "rules": [
                {"host": "b.test", "http": {"paths": [{"backend": {"serviceName": "web", "servicePort": 80}}]}},
            ],
        },
    },
    {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "IngressClass",
        "metadata": {"name": "rulegen"},
        "spec": {"controller": "rulegen.io/ingress"},
    },
    {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "tls", "namespace": "shop"},
        "type": "kubernetes.io/tls",
        "data": {"tls.crt": "c3dvcmRmaXNo", "tls.key": "c3dvcmRmaXNo"},
        "stringData": {"auth": "swordfish"},
    },
    {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "settings", "namespace": "shop"},
        "data": {"hsts": "false"},
    },
]
WORDS = ["", "web", "-j ACCEPT", "a\nb", "\0", "\u202e", "10.0.0.1", "fd00::1", "TCP", "None", "Local", "80", "a" * 300]
WORDS += ["/", "//", "/a;{}", "*.a.test", "Exact", "A", "\x7f", "\\", "a.b/c"]
HIDDEN = ("swordfish", "c3dvcmRmaXNo")
"""What the Secret among the good objects holds; the API tells it to nobody, and neither do we."""
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-70000, 70000),
    st.integers(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.sampled_from(WORDS),
    st.text(max_size=20),
)
KEYS = st.sampled_from(
    [
        *("kind", "apiVersion", "items", "metadata", "name", "spec", "ports", "port", "labels", "<<", "a", "data"),
        *("rules", "host", "http", "paths", "path", "pathType", "backend", "service", "tls", "hosts", "number"),
    ]
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS | st.text(max_size=5), inner, max_size=4),
    max_leaves=20,
)
KINDS_AND_VERSIONS = st.sampled_from(
    [*KINDS, ("v1", "List"), ("v1", "ServiceList"), ("v1", "PodList"), ("apps/v1", "X")]
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    results = [path]
    if isinstance(value, dict):
        for key, inner in value.items():
            results += places(inner, (*path, key))
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            results += places(inner, (*path, index))
    return results


@st.composite
def mutated(draw: Any) -> list[dict[str, Any]]:
    objects = copy.deepcopy(draw(st.lists(st.sampled_from(GOOD), min_size=1, max_size=4)))
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from([place for place in places(objects) if place]))
        *parents, last = path
        at: Any = objects
        for step in parents:
            at = at[step]
        if isinstance(at, dict) and draw(st.booleans()):
            del at[last]
        else:
            at[last] = draw(VALUES)
    return objects


def assert_told_well(rejected: Rejected) -> None:
    assert rejected.faults
    for line in rejected.lines():
        assert line.isprintable()
        assert len(line) < 600
        assert not [word for word in HIDDEN if word in line]


def assert_sound(content: bytes, name: str = "fuzz") -> None:
    """Every document is one of the four things; the World that comes of it is the same each time."""
    for document in read_documents(Source(name, content)):
        results = document if isinstance(document, Rejected) else decode(document)
        match results:
            case Rejected():
                assert_told_well(results)
            case Unknown(kind):
                assert kind.isprintable()
            case Decoded(value, source, warnings):
                again = check(value, source)
                assert isinstance(again, Decoded)
                assert again.object == value  # what was accepted is accepted again, and complete
                assert msgspec.convert(msgspec.to_builtins(value), type(value)) == value
                assert all(warning.isprintable() for warning in warnings)
                assert not isinstance(value, Secret) or not [word for word in HIDDEN if word in repr(results)]
    try:
        world = read_world([Source(name, content)])
    except InputError as error:
        first = str(error), error.hint
        with pytest.raises(InputError) as raised:
            read_world([Source(name, content)])
        assert first[0].isprintable()
        assert (str(raised.value), raised.value.hint) == first
    else:
        assert world == read_world([Source(name, content)])
        for rejected in world.rejected:
            assert_told_well(rejected)


@given(st.binary(max_size=200))
@settings(deadline=None)
def test_bytes(content: bytes) -> None:
    assert_sound(content)


@given(st.text(alphabet="{}[]:,-?&*!|>'\"%@`# \n\ta0<~\\", max_size=80))
@settings(deadline=None, max_examples=examples(150))
def test_punctuation(text: str) -> None:
    assert_sound(text.encode())
    assert_sound(("apiVersion: v1\nkind: Service\nmetadata: " + text).encode())


@pytest.mark.not_quick
@given(VALUES, KINDS_AND_VERSIONS)
@settings(deadline=None)
def test_structures(value: Any, kind: tuple[str, str]) -> None:
    document = {"apiVersion": kind[0], "kind": kind[1], "metadata": {"name": "a"}, "spec": value, "items": value}
    assert_sound(json.dumps(value).encode())
    assert_sound(json.dumps(document).encode())
    assert_sound(yaml.safe_dump(document).encode())


@given(mutated())
@settings(deadline=None, max_examples=examples(100))
def test_mutated_objects(objects: list[Any]) -> None:
    as_json = json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}).encode()
    assert_sound(as_json)
    assert_sound(yaml.safe_dump_all(objects, sort_keys=False).encode())


@given(mutated())
@settings(deadline=None)
def test_json_and_yaml_say_the_same(objects: list[Any]) -> None:
    """The fast way and the slow way reach one verdict; only places and spellings of the sources differ."""

    def verdicts(content: bytes) -> list[Any]:
        results = (d if isinstance(d, Rejected) else decode(d) for d in read_documents(Source("x", content)))
        return [(f.object, f.faults) if isinstance(f, Rejected) else getattr(f, "object", "unknown") for f in results]

    texts = [yaml.safe_dump(document, sort_keys=False).encode() for document in objects if isinstance(document, dict)]
    for entry, text in zip([document for document in objects if isinstance(document, dict)], texts, strict=True):
        slow, fast = verdicts(text), verdicts(json.dumps(entry).encode())
        if all(isinstance(v, tuple) and v[0].startswith("x") for v in slow + fast):
            continue  # refused before it had a kind: the place is part of the name
        assert slow == fast


@given(mutated(), st.sampled_from([Service, EndpointSlice, Ingress, Secret]))
@settings(deadline=None)
def test_pages_of_an_api_server(objects: list[Any], kind: Any) -> None:
    """One bad object harms only itself, and it is the same verdict as on its own."""
    page = decode_list(json.dumps({"metadata": {"resourceVersion": "7"}, "items": objects}).encode(), kind)
    assert page.resource_version == "7"
    assert len(page.objects) + len(page.rejected) == len(objects)
    for document in objects:
        raw = msgspec.Raw(json.dumps(document).encode())
        api_version = next(version for version, name in KINDS if name == kind.__name__)
        alone = decode(Document("API server", api_version, kind.__name__, raw))
        assert alone in (page.rejected if isinstance(alone, Rejected) else page.objects)
    build_world([*page.objects, *page.rejected])


@pytest.mark.parametrize(
    "text", [*WORDS, "\x1b[31m", "\u2028", "\ufeff", "${IFS}", "'; --", '"', "\\", "é", "\U0001f600"]
)
def test_hostile_text_stays_where_text_is_free(text: str) -> None:
    """Labels and annotations may say anything; names may not."""
    document = copy.deepcopy(GOOD[0])
    document["metadata"]["labels"] = {text: text}
    document["metadata"]["annotations"] = {text: text}
    world = read_world([Source("labels.json", json.dumps(document).encode())])
    (service,) = world.services.values()
    assert service.service.metadata.labels == {text: text}
    assert world.rejected == ()
