"""Ingresses that real clusters had pass; those that attack are turned away where that is this package's part."""

from __future__ import annotations

import json
from typing import Any

import yaml

from rulegen.errors import Rejected
from rulegen.kube.build import build_world
from rulegen.kube.decode import Decoded, decode
from rulegen.kube.documents import Source, read_documents
from tests.kube.test_shared_worlds import Text
from tests.shared import shared

TURNED_AWAY = {
    "path-newline-trailing": "spec.rules[0].http.paths[0].path",
    "path-carriage-return": "spec.rules[0].http.paths[0].path",
    "path-comment-injection": "spec.rules[0].http.paths[0].path",
    "path-too-long": "spec.rules[0].http.paths[0].path",
    "host-injection": "spec.rules[0].host",
    "host-star": "spec.rules[0].host",
    "host-underscore-default": "spec.rules[0].host",
    "tls-host-injection": "spec.tls[0].hosts[0]",
    "port-name-injection": "spec.rules[0].http.paths[0].backend.service.port.name",
    "name-in-comment": "metadata.name",
    "externalname-injection": "spec.externalName",
    "tcp-configmap": "data",
}
"""Entries whose fault is in the object itself, and where; the others mean something only to the model."""


def entries(name: str, part: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = yaml.load(shared(f"ingress/{name}.yaml").read_bytes(), Loader=Text)[part]
    assert found
    return found


def verdicts(objects: list[dict[str, Any]]) -> list[Any]:
    """Return what becomes of objects, the same whether they come as JSON or as YAML."""
    told = []
    for write in (json.dumps, yaml.safe_dump):
        read = [one for each in objects for one in read_documents(Source("x", write(each).encode()))]
        told.append([one if isinstance(one, Rejected) else decode(one) for one in read])
    as_json, as_yaml = told
    assert [getattr(one, "object", one) for one in as_json] == [getattr(one, "object", one) for one in as_yaml]
    build_world(as_json)
    return as_json


def test_every_object_of_the_cases_is_taken() -> None:
    for case in entries("cases", "cases"):
        objects = [*case["ingresses"], *case["services"], *case["endpoints"], *case.get("extra_objects", [])]
        found = verdicts(objects)
        assert all(isinstance(one, Decoded) for one in found), case["name"]
        world = build_world(found)
        assert len(world.ingresses) == len(case["ingresses"])
        assert all(
            path.path_type and path.path.startswith("/") and (path.backend.service or path.backend.resource)
            for ingress in world.ingresses.values()
            for rule in ingress.spec.rules
            if rule.http
            for path in rule.http.paths
        )


def test_attacks_on_objects_are_turned_away_and_no_others() -> None:
    seen = {}
    for entry in entries("malicious", "entries"):
        rejected = [one for one in verdicts(entry["objects"]) if isinstance(one, Rejected)]
        if rejected:
            seen[entry["id"]] = rejected[0].faults[0].path
            assert entry["must"] in {"rejected", "rejected_or_literal", "fail_closed"}, entry["id"]
        for one in rejected:
            assert all(line.isprintable() and len(line) < 400 for line in one.lines())
    assert seen == TURNED_AWAY


def test_secrets_and_config_maps_that_attacks_describe() -> None:
    by_id = {entry["id"]: entry for entry in entries("malicious", "entries")}
    metadata = {"name": "m", "namespace": "default"}
    newline = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": metadata,
        "data": {by_id["htpasswd-newline"]["value"]: "eA=="},
    }
    headers = [
        {"apiVersion": "v1", "kind": "ConfigMap", **one, "metadata": {**metadata, "name": one["name"]}}
        for one in by_id["auth-proxy-set-headers"]["configmaps"]
    ]
    found = verdicts([newline, *headers])
    assert [one.object for one in found if isinstance(one, Rejected)] == [
        "Secret default/m",
        "ConfigMap default/evil-headers",
    ]
