"""An invalid Ingress is skipped, and what can be read of it is kept: its hosts, paths and annotations stay closed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rulegen.kube.objects.names import ObjectName
from rulegen.kube.reading.decode import decode
from rulegen.kube.reading.documents import Document, Source
from rulegen.kube.snapshot.build import build_world, read_world
from rulegen.kube.syntax import is_subdomain
from rulegen.kube.validation.unusable_ingress import UNREADABLE_PATH, readable_part
from tests.sizes import examples

BACKEND = {"service": {"name": "web", "port": {"number": 80}}}


def document(**spec: Any) -> dict[str, Any]:
    paths = [{"path": "/a", "pathType": "Exact", "backend": BACKEND}]
    rules = [{"host": "h.test", "http": {"paths": paths}}]
    return {"metadata": {"name": "web"}, "spec": {"ingressClassName": "rulegen", "rules": rules, **spec}}


def with_path(**path: Any) -> dict[str, Any]:
    return document(rules=[{"host": "h.test", "http": {"paths": [path]}}])


def paths(value: Any) -> list[tuple[str, str, str | None]]:
    rules = readable_part(value).ingress.spec.rules
    return [(rule.host, path.path, path.path_type) for rule in rules for path in (rule.http.paths if rule.http else ())]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (document(), [("h.test", "/a", "Exact")]),
        (with_path(path="/a"), [("h.test", "/a", "Prefix")]),
        (with_path(path="/a", pathType="Regex"), [("h.test", "/a", "Prefix")]),
        (with_path(path="/a", pathType=["Exact"]), [("h.test", "/a", "Prefix")]),
        (with_path(path="a"), [("h.test", "a", "Prefix")]),
        (with_path(), [("h.test", "/", "Prefix")]),
        (with_path(path=""), [("h.test", "/", "Prefix")]),
        (with_path(path=5), [("h.test", UNREADABLE_PATH, "Prefix")]),
        (with_path(path="/\ud800"), [("h.test", UNREADABLE_PATH, "Prefix")]),
        (document(rules=[{"host": "h.test", "http": {"paths": ["/"]}}]), [("h.test", UNREADABLE_PATH, "Prefix")]),
        (document(rules=[{"host": "h.test", "http": {"paths": []}}]), [("h.test", UNREADABLE_PATH, "Prefix")]),
        (document(rules=[{"host": "h.test", "http": "/"}]), [("h.test", UNREADABLE_PATH, "Prefix")]),
        (document(rules=[{"host": "h.test"}]), []),
        (document(rules=[{"host": "H.Test", "http": {"paths": [{"path": "/"}]}}]), [("h.test", "/", "Prefix")]),
    ],
)
def test_paths_that_cannot_be_read_are_unknown_and_not_absent(value, expected):
    assert paths(value) == expected


@pytest.mark.parametrize(
    "value",
    [
        document(rules="h.test"),
        document(rules=[]),
        document(rules=["h.test"]),
        document(rules=[{"host": 5}]),
        document(rules=[{"host": "h.test:80"}]),
        document(rules=[{"host": "h.test"}, {"host": "http://other.test"}]),
        document(rules={"host": "h.test"}, defaultBackend=BACKEND),
        {"metadata": {"name": "web"}, "spec": "rules"},
        {"metadata": {"name": "web"}},
        [],
        None,
    ],
    ids=str,
)
def test_a_host_that_cannot_be_read_is_noticed(value):
    assert not readable_part(value).has_all_hosts


@pytest.mark.parametrize("host", ["*", "_", "a.test; return 418;", "a.test\n", "a b"])
def test_a_text_that_no_client_can_send_as_a_host_hides_none(host):
    part = readable_part(document(rules=[{"host": host, "http": {"paths": [{"path": "/"}]}}]))
    assert part.has_all_hosts
    assert part.ingress.spec.rules == ()


@pytest.mark.parametrize("value", [document(), document(rules=[], defaultBackend={}), document(tls="x")], ids=str)
def test_hosts_that_can_be_read_are_complete(value):
    assert readable_part(value).has_all_hosts


@pytest.mark.parametrize(
    ("annotations", "expected", "has_all"),
    [
        ({"a": "b"}, {"a": "b"}, True),
        ({"a": 5, "b": True, "c": ["d"]}, {"a": "5", "b": "true", "c": '["d"]'}, True),
        ({"a": "\ud800", "b": "c"}, {"b": "c"}, False),
        ({5: "a"}, {}, False),
        (["a"], {}, False),
        ("a", {}, False),
        (None, {}, True),
    ],
)
def test_annotations_that_cannot_be_read_may_say_anything(annotations, expected, has_all):
    part = readable_part({**document(), "metadata": {"name": "web", "annotations": annotations}})
    assert (part.ingress.metadata.annotations, part.has_all_annotations) == (expected, has_all)


@pytest.mark.parametrize("metadata", ["x", [], None])
def test_without_metadata_it_may_say_anything(metadata):
    assert not readable_part({**document(), "metadata": metadata}).has_all_annotations


@pytest.mark.parametrize(("name", "has_class"), [("rulegen", True), ("Not A Class", True), (5, False), (["x"], False)])
def test_a_class_that_cannot_be_read_may_be_ours(name, has_class):
    assert readable_part(document(ingressClassName=name)).has_class is has_class


HOSTILE = ('a"; }', "a\nb", "${x}", "a\\", "#", "a\x00", "ü", "\ud800", "A" * 300, "", None, 5)


@pytest.mark.parametrize("name", HOSTILE)
def test_an_invalid_name_becomes_one_that_no_valid_object_has(name):
    metadata = readable_part({**document(), "metadata": {"name": name, "namespace": name}}).ingress.metadata
    assert not is_subdomain(metadata.name)
    assert metadata.name.isascii()
    assert metadata.name.isprintable()
    assert not set(metadata.name + metadata.namespace) & set("\"\\;{}$#'`\n")


def test_no_two_ingresses_have_the_same_name():
    valid = f"{json.dumps({'apiVersion': 'networking.k8s.io/v1', 'kind': 'Ingress', **document()})}\n"
    bad = json.dumps({"apiVersion": "networking.k8s.io/v1", "kind": "Ingress", **document(tls="x")})
    world = read_world([Source("a.json", f"{valid}{bad}{bad}".encode())])
    assert [*world.ingresses] == [ObjectName("default", "web")]
    assert [*world.unusable] == [ObjectName("default", "web (2)"), ObjectName("default", "web (3)")]
    assert [known.ingress.metadata.name for known in world.unusable.values()] == ["web (2)", "web (3)"]


@pytest.mark.parametrize("version", ["networking.k8s.io/v1", "networking.k8s.io/v1beta1"])
@pytest.mark.parametrize("change", [{"tls": [5]}, {"tls": [{"secretName": "Not A Name"}]}, {"tls": "x"}], ids=str)
def test_every_way_to_be_invalid_keeps_the_readable_part(version, change):
    rejected = decode(Document("a.yaml", version, "Ingress", document(**change)))
    (part,) = build_world([rejected]).unusable.values()
    assert [rule.host for rule in part.ingress.spec.rules] == ["h.test"]
    assert part.ingress.spec.tls
    assert not rejected.may_hide_hosts


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from(("metadata", "spec", "rules", "host", "http", "paths", "path", "annotations", "name")), VALUES)
@settings(max_examples=examples(200), deadline=None)
def test_no_document_fails_to_be_read(field, value):
    path = {"path": "/", "pathType": "Prefix"}
    http = {"paths": value if field == "paths" else [value if field == "path" else path]}
    rule = {"host": value if field == "host" else "h.test", "http": value if field == "http" else http}
    metadata = {"name": value if field == "name" else "web", "annotations": value if field == "annotations" else {}}
    known = {
        "metadata": value if field == "metadata" else metadata,
        "spec": value if field == "spec" else {"rules": value if field == "rules" else [rule]},
    }
    part = readable_part(known)
    if field in {"name", "annotations", "metadata"}:
        assert [rule.host for rule in part.ingress.spec.rules] == ["h.test"]
