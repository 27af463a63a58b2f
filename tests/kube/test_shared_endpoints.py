"""Endpoints from Pods are those that the real EndpointSlice controller wrote, for every recorded world."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml

from rulegen.cli.main import main
from rulegen.compiler.services.compile import Compiled, compile_model, printed
from rulegen.compiler.services.incremental import ServiceRules
from rulegen.kube.endpoints_from import EndpointsFrom
from rulegen.kube.objects.events import Listed
from rulegen.kube.objects.names import Decoded
from rulegen.kube.objects.structs import EndpointSlice, Node, Pod, Service
from rulegen.kube.reading.decode import decode
from rulegen.kube.reading.documents import Source, read_documents
from rulegen.kube.snapshot.build import read_world
from rulegen.kube.snapshot.cluster import Cluster
from rulegen.model.host.facts import HostFacts
from rulegen.model.services.options import Options
from rulegen.model.services.resolve import resolve
from tests.shared import SHARED, YamlLoader, each

WORLDS = sorted(path.parent for path in SHARED.glob("endpoints/*/endpointslices.yaml"))
FACTS = HostFacts()


def sets(slices: Iterable[dict[str, Any]]) -> dict[tuple[str, ...], list[str]]:
    """Return the endpoints by Service, family, labels, owners and ports; names and the order do not count."""
    result = defaultdict(list)
    for slice_ in slices:
        metadata, endpoints = slice_["metadata"], slice_["endpoints"] or []
        assert len(endpoints) <= 100, metadata["name"]
        ports = sorted(json.dumps(port, sort_keys=True) for port in slice_["ports"] or [])
        parts = metadata["namespace"], slice_["addressType"], metadata["labels"], metadata["ownerReferences"], ports
        key = tuple(json.dumps(part, sort_keys=True) for part in parts)
        result[key] += [json.dumps(endpoint, sort_keys=True) for endpoint in endpoints]
    return {key: sorted(endpoints) for key, endpoints in result.items()}


@pytest.mark.parametrize("world", each(WORLDS, "endpoints"), ids=lambda world: world.name)
def test_exported_slices_are_those_of_the_controller(world: Path, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as stop:
        main(["export", "--endpointslices", "-f", str(world / "objects.yaml")])
    text = capsys.readouterr().out
    exported = [each for each in yaml.load_all(text, YamlLoader) if each]
    recorded = [each for each in yaml.load_all((world / "endpointslices.yaml").read_bytes(), YamlLoader) if each]
    assert not stop.value.code
    assert sets(exported) == sets(recorded)
    assert len({slice_["metadata"]["name"] for slice_ in exported}) == len(exported)


def rules(compiled: Compiled) -> dict[str, str]:
    return {each.file: each.text for each in printed(compiled)}


def live(source: EndpointsFrom, node: str, objects: list[Decoded]) -> Cluster:
    """Return the cluster as an agent knows it after its first lists."""
    cluster = Cluster(source, node)
    for kind in (Node, Pod, Service, EndpointSlice):
        cluster.apply_event(Listed(kind, tuple(entry for entry in objects if isinstance(entry.object, kind))))
    return cluster


@pytest.mark.parametrize("world", each(WORLDS, "endpoints"), ids=lambda world: world.name)
def test_rules_from_pods_are_those_from_slices(world: Path):
    sources = [Source(name, (world / name).read_bytes()) for name in ("objects.yaml", "endpointslices.yaml")]
    from_files, from_slices = read_world(sources[:1]), read_world(sources)
    objects = [decode(document) for document in read_documents(sources[0])]
    pods = [entry for entry in objects if isinstance(entry, Decoded) and isinstance(entry.object, Pod)]
    assert pods or not from_files.pods
    for node in sorted(from_files.nodes):
        options = Options(node_name=node)
        wanted = rules(compile_model(resolve(from_slices, options, FACTS), options.mode, counts=False))
        assert rules(compile_model(resolve(from_files, options, FACTS), options.mode, counts=False)) == wanted
        for source in (EndpointsFrom.PODS, EndpointsFrom.AUTO):
            cluster = live(source, node, objects)
            assert rules(ServiceRules(cluster, options, FACTS, counts=False).compiled()) == wanted, source
