"""Objects of real API servers and of real tests are valid."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from rulegen.kube.reading.documents import Source
from rulegen.kube.snapshot.build import read_world
from tests.shared import each, shared, worlds


class Text(yaml.CSafeLoader):
    """Timestamps stay text, as in JSON."""


Text.add_constructor("tag:yaml.org,2002:timestamp", Text.construct_yaml_str)


@pytest.mark.parametrize("folder", each(worlds("objects.yaml"), "world"), ids=lambda folder: folder.name)
def test_parity_worlds(folder: Path) -> None:
    content = (folder / "objects.yaml").read_bytes()
    world = read_world([Source("objects.yaml", content)])
    objects = [manifest for manifest in yaml.load_all(content, Loader=Text) if manifest]
    assert not [r.lines() for r in world.rejected]
    assert {str(name) for name in world.services} == {
        f"{o['metadata']['namespace']}/{o['metadata']['name']}" for o in objects if o["kind"] == "Service"
    }
    assert sorted(world.nodes) == sorted(o["metadata"]["name"] for o in objects if o["kind"] == "Node")
    assert all(service.assigned == () for service in world.services.values())
    as_json = read_world(
        [Source("objects.json", json.dumps({"apiVersion": "v1", "kind": "List", "items": objects}).encode())]
    )
    assert as_json.services == world.services
    assert as_json.nodes == world.nodes


def test_objects_of_flows() -> None:
    cases = yaml.load(shared("flows/iptables.yaml").read_bytes(), Loader=Text)["cases"]
    if not cases:
        pytest.skip("no cases in flows/iptables.yaml")
    for case in cases:
        world = read_world([Source(case["id"], json.dumps(manifest).encode()) for manifest in case["objects"]])
        assert not [r.lines() for r in world.rejected], case["id"]
        assert not world.unknown_kinds
