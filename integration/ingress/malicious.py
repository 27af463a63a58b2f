"""The corpus of hostile objects, in groups that are applied together."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any
from uuid import NAMESPACE_DNS, uuid5

from integration.ingress import certificates, objects
from integration.ingress.forms import files
from tests.shared import SHARED

if TYPE_CHECKING:
    from integration.ingress.objects import Document

FILE = "ingress/malicious.yaml"
HOST = "evil.test"
"""The host of the corpus' Ingresses; here each entry has one of its own below it."""

AT_ONCE = 12
"""How many entries are applied together."""

Entry = dict[str, Any]


@dataclass(frozen=True)
class Group:
    """Entries that are applied together: each has hosts and objects of its own, so each is judged by itself."""

    number: int
    entries: list[Entry]

    def __repr__(self) -> str:
        return f"group-{self.number}"

    def world(self) -> list[Document]:
        """Return the objects of all entries with the control, and what they may refer to."""
        return [
            objects.ingress_class(),
            objects.ingress("control", "ok.test"),
            objects.service("echo", "10.96.100.1"),
            objects.endpoint_slice("echo", ["10.244.100.1"]),
            objects.secret("ca", "Opaque", {"ca.crt": certificates.certificate("ca")}),
            *(document for entry in self.entries for document in _objects(entry)),
        ]


@cache
def groups() -> list[Group]:
    """Return the entries, each in the first group with room for it and without an object of its name."""
    known = [path for path in (files.OWN / "malicious.yaml", SHARED / FILE) if path.exists()]
    entries = [entry for path in known for entry in files.entries(path)]
    made: list[Group] = []
    for entry in map(_apart, entries):
        group = next((group for group in made if _has_room(group, entry)), None)
        if group is None:
            made.append(group := Group(len(made), []))
        group.entries.append(entry)
    return made


def _has_room(group: Group, entry: Entry) -> bool:
    names = {key for other in group.entries for key in _keys(other)}
    # A plan is searched for the names of entries: none is a part of another.
    alike = any(entry["id"] in other["id"] or other["id"] in entry["id"] for other in group.entries)
    return len(group.entries) < AT_ONCE and names.isdisjoint(_keys(entry)) and not alike


def _keys(entry: Entry) -> list[tuple[str, str]]:
    keys = [(document["kind"], document["metadata"]["name"]) for document in entry["objects"]]
    keys += [("Secret", name) for name in secrets_of(entry)]
    return keys + [("ConfigMap", configmap["name"]) for configmap in entry.get("configmaps", ())]


def host_of(entry: Entry) -> str:
    """Return the host of an entry, which nobody serves where its objects name another."""
    return f"{entry['id']}.{HOST}"


def _apart(entry: Entry) -> Entry:
    """Return an entry with a host and a name of its Ingress that no other entry has; its value stays as it is."""
    if isinstance(entry.get("objects_extra"), list):
        entry["objects"] = [*entry["objects"], *entry["objects_extra"]]
    for document in entry["objects"]:
        if document["kind"] != "Ingress":
            continue
        if document["metadata"]["name"] == "h":
            document["metadata"] |= {"name": entry["id"], "uid": str(uuid5(NAMESPACE_DNS, entry["id"]))}
        for rule in document["spec"].get("rules", ()):
            rule["host"] = host_of(entry) if rule.get("host") == HOST else rule["host"]
        for tls in document["spec"].get("tls", ()):
            tls["hosts"] = [host_of(entry) if host == HOST else host for host in tls["hosts"]]
    return entry


def _objects(entry: Entry) -> list[Document]:
    """Return an entry's objects, and what they may refer to."""
    world = list(entry["objects"])
    for name in secrets_of(entry):
        if entry["must"] == "default_cert":
            world.append(objects.described_secret({"name": name, "kind": "tls-mismatched", "cn": HOST}))
        else:
            world.append(objects.secret(name, "Opaque", {entry["value"]: certificates.password_hash("x").encode()}))
    world += [objects.config_map(configmap["name"], configmap["data"]) for configmap in entry.get("configmaps", ())]
    if entry.get("victim"):
        world += [
            objects.ingress("owner", "victim.test", "victim", namespace="victim", created="2020-01-01T00:00:00Z"),
            objects.service("victim", "10.96.100.2", "victim"),
            objects.endpoint_slice("victim", ["10.244.100.2"], "victim"),
        ]
    return world


def secrets_of(entry: Entry) -> list[str]:
    """Return the names of the Secrets in `default` that an entry about a Secret refers to."""
    results = []
    for document in entry["objects"]:
        results += [tls["secretName"] for tls in document.get("spec", {}).get("tls", ())]
        results += [
            value.removeprefix("default/")
            for key, value in document["metadata"].get("annotations", {}).items()
            if key == f"{objects.PREFIX}/auth-secret"
        ]
    return results if entry["class"] == "secret" else []
