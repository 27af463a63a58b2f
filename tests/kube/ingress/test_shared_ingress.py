"""Ingresses of real clusters are valid; attacks are rejected if their objects are invalid."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml

from rulegen.errors import Rejected
from rulegen.kube.objects.names import Decoded
from rulegen.kube.reading.decode import decode
from rulegen.kube.reading.documents import Source, read_documents
from rulegen.kube.snapshot.build import build_world
from tests.kube.test_shared_worlds import Text
from tests.shared import shared

NAME = re.compile(r"(\*\.)?[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
"""All hosts, and names of objects and ports, have this form; some have a stricter one."""
KEY = re.compile(r"[-._a-zA-Z0-9]{1,253}")
"""A key of a Secret or ConfigMap."""
NAMED = ("metadata.name", "spec.rules[0].host", "spec.tls[0].hosts[0]", "service.port.name", "spec.externalName")
"""Ends of the paths of fields with such names."""
CONTROL = re.compile(r"[\x00-\x1f\x7f]")


def entries(name: str, part: str) -> list[dict[str, Any]]:
    listed: list[dict[str, Any]] = yaml.load(shared(f"ingress/{name}.yaml").read_bytes(), Loader=Text)[part]
    if not listed:
        pytest.skip(f"no {part} in ingress/{name}.yaml")
    return listed


def verdicts(objects: list[dict[str, Any]]) -> list[Any]:
    """Return the results for objects, which are the same from JSON and YAML."""
    by_spelling = []
    for write in (json.dumps, yaml.safe_dump):
        read = [document for each in objects for document in read_documents(Source("x", write(each).encode()))]
        by_spelling.append([document if isinstance(document, Rejected) else decode(document) for document in read])
    as_json, as_yaml = by_spelling
    assert [getattr(verdict, "object", verdict) for verdict in as_json] == [
        getattr(verdict, "object", verdict) for verdict in as_yaml
    ]
    build_world(as_json)
    return as_json


@pytest.mark.not_quick
def test_every_object_of_the_cases_is_valid() -> None:
    for case in entries("cases", "cases"):
        objects = [*case["ingresses"], *case["services"], *case["endpoints"], *case.get("extra_objects", [])]
        objects_read = verdicts(objects)
        assert all(isinstance(verdict, Decoded) for verdict in objects_read), case["name"]
        world = build_world(objects_read)
        assert len(world.ingresses) == len(case["ingresses"])
        assert all(
            path.path_type and path.path.startswith("/") and (path.backend.service or path.backend.resource)
            for ingress in world.ingresses.values()
            for rule in ingress.spec.rules
            if rule.http
            for path in rule.http.paths
        )


def is_at_fault(entry: dict[str, Any]) -> bool:
    """Return whether an entry's value is invalid in its field, regardless of the engine."""
    field, value = entry["field"].partition(" (")[0], entry["value"]
    if field.endswith(NAMED):
        return not NAME.fullmatch(value)
    return field.endswith(".path") and bool(CONTROL.search(value))


@pytest.mark.not_quick
def test_exactly_the_attacks_on_objects_are_rejected() -> None:
    for entry in entries("malicious", "entries"):
        rejected = [refused for refused in verdicts(entry["objects"]) if isinstance(refused, Rejected)]
        assert rejected or not is_at_fault(entry), entry["id"]
        assert not rejected or entry["must"] in {"rejected", "rejected_or_literal", "fail_closed"}, entry["id"]
        for refused in rejected:
            assert refused.faults[0].path in entry["field"], entry["id"]
            assert all(line.isprintable() and len(line) < 400 for line in refused.lines())


def test_secrets_and_config_maps_of_attacks() -> None:
    metadata = {"name": "m", "namespace": "default"}
    described: list[dict[str, Any]] = []
    for entry in entries("malicious", "entries"):
        if entry["field"].startswith("Secret.data keys"):
            described.append({"kind": "Secret", "metadata": metadata, "data": {entry["value"]: "eA=="}})
        described += [
            {"kind": "ConfigMap", "metadata": {**metadata, "name": values["name"]}, "data": values["data"]}
            for values in entry.get("configmaps", ())
        ]
    if not described:
        pytest.skip("no entry of ingress/malicious.yaml describes a Secret or ConfigMap")
    for manifest in described:
        (verdict,) = verdicts([{"apiVersion": "v1", **manifest}])
        assert isinstance(verdict, Rejected) != all(KEY.fullmatch(key) for key in manifest["data"]), manifest
