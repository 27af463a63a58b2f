"""Bad input: each case gives exactly its lines, harms nobody else, and says the same each time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from rulegen.kube.objects.names import ObjectName
from rulegen.kube.reading.documents import Source
from rulegen.kube.snapshot.build import read_world
from rulegen.kube.snapshot.world import ClusterSnapshot
from tests.shared import YamlLoader

GOOD = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "good", "namespace": "default"},
    "spec": {"clusterIP": "10.96.0.1", "ports": [{"port": 443}]},
}
WEB_SPEC = {"clusterIP": "10.96.0.10", "ports": [{"port": 80}]}
CORPUS = yaml.load(Path(__file__).with_name("corpus.yaml").read_text(encoding="utf-8"), YamlLoader)


def web(case: dict[str, Any]) -> dict[str, Any]:
    if "object" in case:
        return case["object"]
    spec = {**WEB_SPEC, **case.get("spec", {})}
    collected = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": "shop"}}
    return {**collected, "spec": {k: v for k, v in spec.items() if v is not None}, "status": case.get("status", {})}


def read_beside_good(name: str, content: bytes) -> ClusterSnapshot:
    world = read_world([Source(name, content), Source("good.json", json.dumps(GOOD).encode())])
    assert ObjectName("default", "good") in world.services
    return world


def complaints(world: ClusterSnapshot) -> list[str]:
    return [line for rejected in world.rejected for line in rejected.lines()]


def cases(part: str) -> Any:
    return pytest.mark.parametrize("case", CORPUS[part], ids=lambda case: case["id"])


def assert_lines_are_harmless(lines: list[str]) -> None:
    for line in lines:
        assert line.isprintable(), line
        assert len(line) < 400


@cases("texts")
def test_text(case: dict[str, Any]) -> None:
    name = case.get("file", "bad.yaml")
    lines = complaints(read_beside_good(name, case["text"].encode()))
    assert lines == [line.replace("{file}", name) for line in case["told"]]
    assert_lines_are_harmless(lines)


@cases("services")
@pytest.mark.parametrize("write", [json.dumps, yaml.safe_dump], ids=["json", "yaml"])
def test_service(case: dict[str, Any], write: Any) -> None:
    world = read_beside_good("bad", write(web(case)).encode())
    assert complaints(world) == [f"Service shop/web: {line}" for line in case["told"]]
    assert ObjectName("shop", "web") not in world.services
    assert_lines_are_harmless(complaints(world))


@cases("objects")
@pytest.mark.parametrize("write", [json.dumps, yaml.safe_dump], ids=["json", "yaml"])
def test_object(case: dict[str, Any], write: Any) -> None:
    lines = complaints(read_beside_good("bad", write(case["object"]).encode()))
    assert lines == case["told"]
    assert_lines_are_harmless(lines)


@cases("warned")
@pytest.mark.parametrize("write", [json.dumps, yaml.safe_dump], ids=["json", "yaml"])
def test_passed_over(case: dict[str, Any], write: Any) -> None:
    world = read_beside_good("bad", write(web(case)).encode())
    assert list(world.warnings) == case["told"]
    assert complaints(world) == []
    assert_lines_are_harmless(list(world.warnings))


def test_corpus_is_large_and_its_names_differ() -> None:
    ids = [(part, case["id"]) for part in CORPUS for case in CORPUS[part]]
    assert len(ids) == len(set(ids))
    assert len(ids) >= 380
