"""Lines of a watch are read; invalid lines are errors."""

from __future__ import annotations

import json

import pytest

from rulegen.errors import InputError, Rejected
from rulegen.kube.objects.events import Changed, Gone, called, name_of
from rulegen.kube.objects.names import Decoded, ObjectName
from rulegen.kube.objects.structs import Node, Secret, Service
from rulegen.kube.reading.watch_line import Bookmark, WatchLine, WatchRefusal, read_line

WEB = ObjectName("shop", "web")


def line(type_: str, **content) -> bytes:
    return json.dumps({"type": type_, "object": content}).encode()


def service(**spec) -> dict:
    metadata = {"namespace": "shop", "name": "web", "resourceVersion": "0x7f-opaque"}
    return {"kind": "Service", "apiVersion": "v1", "metadata": metadata, "spec": {"ports": [{"port": 80}], **spec}}


@pytest.mark.parametrize("kind", ["ADDED", "MODIFIED"])
def test_an_object_that_was_added_or_modified(kind):
    said = read_line(line(kind, **service()), Service)

    assert isinstance(said, WatchLine)
    assert said.version == "0x7f-opaque"
    assert isinstance(said.event, Changed)
    assert isinstance(said.event.state, Decoded)
    assert said.event.name == name_of(said.event.state) == WEB


def test_an_object_that_was_deleted():
    assert read_line(line("DELETED", **service()), Service) == WatchLine(Gone(Service, WEB), "0x7f-opaque")


def test_an_invalid_object_is_an_event_with_its_name():
    said = read_line(line("MODIFIED", **service(ports=[{"port": 70000}])), Service)

    assert isinstance(said, WatchLine)
    assert isinstance(said.event, Changed)
    assert isinstance(said.event.state, Rejected)
    assert said.event.name == WEB
    assert said.event.state.object == called(Service, WEB)


def test_an_invalid_object_can_be_deleted():
    assert read_line(line("DELETED", **service(ports="none")), Service) == WatchLine(Gone(Service, WEB), "0x7f-opaque")


def test_a_cluster_scoped_object_has_no_namespace():
    said = read_line(line("DELETED", kind="Node", metadata={"name": "a", "namespace": "x"}), Node)
    assert said == WatchLine(Gone(Node, ObjectName("", "a")), "")


def test_a_bookmark():
    metadata = {"resourceVersion": "12", "annotations": {"k8s.io/initial-events-end": "true"}}
    assert read_line(line("BOOKMARK", kind="Service", metadata=metadata), Service) == Bookmark("12")


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ({"code": 410, "message": "too old"}, WatchRefusal(410, "too old", 0.0)),
        ({"code": 429, "details": {"retryAfterSeconds": 3}}, WatchRefusal(429, "", 3.0)),
        ({"code": 429, "details": {"retryAfterSeconds": -3}}, WatchRefusal(429, "", 0.0)),
        ({"message": "a\nb"}, WatchRefusal(0, "a\\nb", 0.0)),
    ],
)
def test_an_error(status, expected):
    assert read_line(line("ERROR", kind="Status", **status), Service) == expected


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"<html>",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"type":"ADDED"}',
        b'{"type":"ADDED","object":null}',
        b'{"type":"ADDED","object":[]}',
        b'{"type":7,"object":{}}',
        b'{"kind":"ServiceList","items":[]}',
        b'{"type":"ERROR","object":7}',
        line("ADDED", kind="Service"),
        line("ADDED", kind="Service", metadata={"name": ""}),
        line("ADDED", kind="Service", metadata={"name": 7}),
        line("DELETED", kind="Pod", metadata={"name": "web", "namespace": "shop"}),
        line("ADDED", kind="Status", metadata={"name": "web"}),
        line("SYNC", **service()),
        line("ADDED", **service())[:-9],
    ],
)
def test_an_invalid_line_is_an_error_of_one_line(raw):
    with pytest.raises(InputError) as caught:
        read_line(raw, Service, source="https://10.0.0.1")

    assert caught.value.message.startswith("https://10.0.0.1: ")
    assert "\n" not in caught.value.message


def test_no_value_of_a_secret_is_shown():
    metadata = {"name": "tls", "namespace": "shop"}
    said = read_line(line("ADDED", kind="Secret", metadata=metadata, data={"key": "super secret"}), Secret)

    assert isinstance(said, WatchLine)
    assert "super" not in repr(said)
