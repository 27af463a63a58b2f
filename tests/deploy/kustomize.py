"""As much of kustomize as the manifests need: resources, components, a namespace, JSON patches, and deletions.

Anything else in a kustomization.yaml is an error, so that no test looks at something else than what a cluster gets.
"""

from __future__ import annotations

import copy
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.shared import YamlLoader

Manifest = dict[str, Any]

KNOWN = {"apiVersion", "kind", "namespace", "resources", "components", "patches"}
CLUSTER_WIDE = {"Namespace", "ClusterRole", "ClusterRoleBinding", "IngressClass"}


def build(folder: Path) -> list[Manifest]:
    """Return what `kustomize build` makes of a folder."""
    return _apply(folder, [])


def read(file: Path) -> list[Manifest]:
    """Return the documents of a file, the caller's to change."""
    return copy.deepcopy(_documents(file.resolve()))


@cache
def _documents(file: Path) -> list[Manifest]:
    documents = yaml.load_all(file.read_text(encoding="utf-8"), YamlLoader)
    return [document for document in documents if document]


def name(manifest: Manifest) -> tuple[str, str, str]:
    """Return what tells a manifest from all others."""
    metadata = manifest["metadata"]
    return manifest["kind"], metadata.get("namespace", ""), metadata["name"]


def _apply(folder: Path, manifests: list[Manifest]) -> list[Manifest]:
    (settings,) = read(folder / "kustomization.yaml")
    assert set(settings) <= KNOWN, settings.keys() - KNOWN
    for entry in settings.get("resources", ()):
        place = folder / entry
        assert place.exists(), f"{folder}: there is no {entry}"
        # kubectl refuses files from above; a folder with a kustomization.yaml is another matter
        assert place.is_dir() or ".." not in Path(entry).parts, entry
        manifests = manifests + (build(place) if place.is_dir() else read(place))
    for manifest in manifests:
        if "namespace" in settings and manifest["kind"] not in CLUSTER_WIDE:
            manifest["metadata"]["namespace"] = settings["namespace"]
    for entry in settings.get("components", ()):
        manifests = _apply(folder / entry, manifests)
    for patch in settings.get("patches", ()):
        manifests = _patched(manifests, yaml.load(patch["patch"], YamlLoader), patch.get("target"))
    names = [name(manifest) for manifest in manifests]
    assert len(set(names)) == len(names), f"{folder}: twice the same: {sorted(names)}"
    return manifests


def _patched(manifests: list[Manifest], patch: Any, target: dict[str, str] | None) -> list[Manifest]:
    if isinstance(patch, dict):
        assert patch.pop("$patch") == "delete", "only deletions are needed up to now"
        kept = [manifest for manifest in manifests if name(manifest) != name(patch)]
        assert len(kept) == len(manifests) - 1, f"nothing to delete: {patch}"
        return kept
    assert target is not None
    hit = [
        manifest
        for manifest in manifests
        if (manifest["kind"], manifest["metadata"]["name"]) == (target["kind"], target["name"])
    ]
    assert len(hit) == 1, f"{target} is {len(hit)} things"
    for operation in patch:
        _operate(hit[0], operation)
    return manifests


def _operate(document: Any, operation: dict[str, Any]) -> None:
    """Do one operation of a JSON patch (RFC 6902)."""
    *path, last = (part.replace("~1", "/").replace("~0", "~") for part in operation["path"].split("/")[1:])
    place = document
    for part in path:
        place = place[int(part)] if isinstance(place, list) else place[part]
    key: Any = int(last) if isinstance(place, list) and last != "-" else last
    match operation["op"]:
        case "add" if isinstance(place, list):
            place.insert(len(place) if key == "-" else key, operation["value"])
        case "add":
            place[key] = operation["value"]
        case "replace":
            assert place[key] is not None
            place[key] = operation["value"]
        case "remove":
            del place[key]
        case "test":
            assert place[key] == operation["value"], operation
        case other:
            raise AssertionError(other)
