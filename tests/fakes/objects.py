"""The objects that the fake API server keeps, with their versions and changes."""

from __future__ import annotations

import re
import threading
from bisect import bisect_right
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.fakes.requests import COLLECTIONS
from tests.fakes.watches import Change
from tests.fakes.writes import RefusalError, changed, check, patched


@dataclass(frozen=True)
class Backup:
    """What a server kept at a version: all objects by collection and name."""

    version: int
    objects: dict[str, dict[tuple[str, str], dict[str, Any]]]


@dataclass
class KeptObjects:
    """Objects by collection and name, and all that happened to them; each change has a version."""

    _objects: dict[str, dict[tuple[str, str], dict[str, Any]]] = field(default_factory=lambda: defaultdict(dict))
    _changes: list[Change] = field(default_factory=list)
    _version: int = 100
    _oldest: int = 0
    _changed: threading.Condition = field(default_factory=lambda: threading.Condition(threading.RLock()))

    def put(self, collection: str, *objects: dict[str, Any]) -> None:
        """Keep objects; one of the same name replaces the older."""
        _, api_version, kind = COLLECTIONS[collection]
        for each in objects:
            with self._changed:
                self._version += 1
                metadata = {**each.get("metadata", {}), "resourceVersion": str(self._version)}
                kept = {"apiVersion": api_version, "kind": kind, **each, "metadata": metadata}
                key = metadata.get("namespace", ""), metadata["name"]
                self._change(collection, self._objects[collection].get(key), kept)
                self._objects[collection][key] = kept

    def delete(self, collection: str, namespace: str, name: str) -> None:
        """Let go of an object, if it is there."""
        with self._changed:
            old = self._objects[collection].pop((namespace, name), None)
            if old is not None:
                self._version += 1
                self._change(collection, old, None)

    def kept(self, collection: str) -> dict[tuple[str, str], dict[str, Any]]:
        """Return all objects of a collection, by namespace and name."""
        with self._changed:
            return dict(self._objects[collection])

    def _change(self, collection: str, old: dict[str, Any] | None, new: dict[str, Any] | None) -> None:
        self._changes.append(Change(self._version, collection, old, new))
        self._changed.notify_all()

    def compact(self) -> None:
        """Forget all changes up to now: a watch cannot go on from before. Open ones are not harmed."""
        with self._changed:
            self._oldest = self._version

    def set_back(self) -> None:
        """Put the server to a backup that is exactly as it is now, but for its version, which is that of long ago."""
        with self._changed:
            self._version = self._version // 2
            self._changes.clear()
            self._oldest = self._version

    def backup(self) -> Backup:
        """Return all that is kept now, and its version."""
        with self._changed:
            objects = {collection: dict(kept) for collection, kept in self._objects.items()}
            return Backup(self._version, objects)

    def _written(
        self, method: str, kind: str, path: str, collection: str, name: tuple[str, str] | None, sub: str, document: Any
    ) -> dict[str, Any]:
        if method == "POST":
            inside = re.search(r"/namespaces/([^/]+)/[^/]+$", path)
            metadata = {**document["metadata"], **({"namespace": unquote(inside[1])} if inside else {})}
            if document["metadata"].get("namespace", metadata.get("namespace")) != metadata.get("namespace"):
                raise RefusalError(400, "the namespace of the object does not match that of the request")
            key = metadata.get("namespace", ""), metadata.get("name", "")
            if key in self._objects[collection]:
                raise RefusalError(409, f'{collection} "{key[1]}" already exists')
            if "resourceVersion" in metadata:
                raise RefusalError(400, "resourceVersion should not be set on objects to be created")
            new = {**document, "metadata": {**metadata, "uid": f"uid-{self._version + 1}"}}
            check(collection, new)
        else:
            old = self._objects[collection].get(name) if name else None
            if old is None:
                raise RefusalError(404, f"{collection} {name} not found")
            wanted = patched(old, document, kind) if method == "PATCH" else document
            new = changed(old, wanted, sub)
            check(collection, new, old)
            if {**new, "metadata": {**new["metadata"], "resourceVersion": ""}} == {
                **old,
                "metadata": {**old["metadata"], "resourceVersion": ""},
            }:
                return old
        self.put(collection, new)
        return self._objects[collection][new["metadata"].get("namespace", ""), new["metadata"]["name"]]

    def _candidates(self, collection: str, path: str) -> list[tuple[tuple[str, str], dict[str, Any]]]:
        """Return the objects that a path and a selector of a name leave, in order; quick for one name of many."""
        url = urlsplit(path)
        inside = re.search(r"/namespaces/([^/]+)/[^/]+$", url.path)
        named = re.fullmatch("metadata.name=(.+)", parse_qs(url.query).get("fieldSelector", [""])[0])
        objects = self._objects[collection]
        if inside and named:
            key = inside[1], named[1]
            return [(key, objects[key])] if key in objects else []
        return sorted(
            ((key, each) for key, each in objects.items() if not inside or key[0] == inside[1]),
            key=lambda each: each[0],
        )

    def _settled(self, collection: str, version: int) -> int:
        """Return the latest version up to which a watch that is at `version` has told all."""
        with self._changed:
            if any(each.collection == collection for each in self._since(version)):
                return version
            return self._version

    def _since(self, version: int) -> list[Change]:
        return self._changes[bisect_right(self._changes, version, key=lambda each: each.version) :]
