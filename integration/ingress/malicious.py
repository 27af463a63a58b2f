"""The corpus of hostile objects, in groups that are applied together, and how each is judged, with every engine."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import quote
from uuid import NAMESPACE_DNS, uuid5

import pytest

from integration.ingress import certificates, objects, reports
from integration.ingress.asking import Reply, Request, basic_auth
from integration.ingress.forms import files
from tests.shared import SHARED, shared

if TYPE_CHECKING:
    from integration.ingress.lab import IngressLab
    from integration.ingress.node import Node
    from integration.ingress.objects import Document

FILE = "ingress/malicious.yaml"
HOST = "evil.test"
"""The host of the corpus' Ingresses; here each entry has one of its own below it."""

AT_ONCE = 12
"""How many entries are applied together."""
NOT_SERVED = {404, 503}
CLOSED = {401, 403, 404, 503}
NO_CERTIFICATE = 400
"""What nginx answers to who has no client certificate, where one is needed."""

ECHO = ("default", "echo")
TARGETS = ("/", "/pwn", "/abcd", "/x", "/bla", "/ok", "/dup/x", "/%0a")

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


def parameters(*, of_entries: bool) -> list[Any]:
    """Return groups, or their entries, spread over two workers; a single one that skips where there is no such file."""
    absent = [] if (SHARED / FILE).exists() else [pytest.param(None, None, id="absent")]
    return absent + [
        pytest.param(group, entry, id=entry["id"] if of_entries else repr(group), marks=_worker(group))
        for group in groups()
        for entry in (group.entries if of_entries else [None])
    ]


def _worker(group: Group) -> pytest.MarkDecorator:
    return pytest.mark.xdist_group(f"ingress-{group.number % 2}")


class Serving:
    """The node, which serves one group at a time.

    Attributes:
        planned: What a plan says of the group.
        wrong: What is wrong with what `apply` did for the group.
    """

    def __init__(self, lab: IngressLab, node: Node) -> None:
        self._lab, self._node = lab, node
        self._group: Group | None = None
        self.planned: dict[str, Any] = {}
        self.wrong: list[str] = []

    def serve(self, group: Group) -> None:
        """Serve a group, unless it is served."""
        if self._group is group:
            return
        self._group = None
        around = _listing(self._lab)
        done = self._node.apply(group.world())
        self.planned = self._node.planned()
        self.wrong = [f"a control character in what apply prints: {done.stdout!r}"] * bool(_CONTROL.search(done.stdout))
        self.wrong += [f"written outside of the folder: {path}" for path in _listing(self._lab) - around]
        self._group = group

    def judge(self, group: Group | None, entry: Entry | None) -> None:
        """Fail if an entry of a group gets more than its due, or if the control does not answer."""
        if group is None or entry is None:
            shared(FILE)
            return
        files.check_entry(entry)
        self.serve(group)
        lab, world = self._lab, group.world()
        wrong = [*control(lab, world, "ok.test"), *_beyond_due(lab, entry, world)]
        wrong += _reported(entry, self.planned, lab)
        if wrong:
            what = f"{entry['field']} = {str(entry['value'])[:300]!r} must be {entry['must']}"
            self.fail(f"{entry['id']} in {[other['id'] for other in group.entries]}: {what}", wrong)

    def fail(self, what: str, wrong: list[str]) -> None:
        """Fail a test, and show what is served."""
        hosts = "\n".join(f"--- {path}\n{text}" for path, text in self._node.rendered().items())
        shown = f"{reports.shown(self.planned)}\n{hosts}"
        pytest.fail("\n  * ".join([what, *wrong]) + f"\n{shown}", pytrace=False)


_CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f]")


def control(lab: IngressLab, world: list[Document], host: str) -> list[str]:
    """Return what is wrong with an answer of a host that nothing is wrong with."""
    reply = lab.client.ask(Request(host=host))
    return [] if _is_from(lab, world, reply) else [f"{host}: {reply.status} {reply.failure} {reply.body[:80]!r}"]


def _is_from(lab: IngressLab, world: list[Document], reply: Reply, owner: tuple[str, str] = ECHO) -> bool:
    return reply.status == 200 and lab.facts(world).owner(reply) == owner


def _asked(lab: IngressLab, host: str, targets: tuple[str, ...] = TARGETS) -> Iterator[tuple[str, Reply]]:
    """Ask a host for some paths, over HTTP and over TLS."""
    for target in targets:
        for name in (None, host):
            reply = lab.client.ask(Request(host=host, target=target, name=name))
            yield f"{'http' if name is None else 'https'}://{host}{target}: {reply.status} {reply.failure}", reply


def _beyond_due(lab: IngressLab, entry: Entry, world: list[Document]) -> list[str]:
    """Return what an entry gets beyond its due."""
    # nginx answers 400 to whoever asks for a NUL, whatever is served.
    paths = tuple(quote(path) for path in _paths(entry) if "\0" not in path)
    asked = list(_asked(lab, host_of(entry), (*TARGETS, *paths)))
    wrong = [what for what, reply in asked if reply.status in {0, 418, 500}]
    match entry["must"]:
        case "rejected":
            wrong += [what for what, reply in asked if reply.status not in NOT_SERVED or reply.seen]
        case "fail_closed":
            asked += _asked_with_passwords(lab, host_of(entry))
            closed = CLOSED | ({NO_CERTIFICATE} if "auth-tls" in entry["field"] else set())
            wrong += [what for what, reply in asked if reply.status not in closed or reply.seen]
        case "rejected_or_literal":
            wrong += _literal(lab, entry, world, asked)
        case "annotation_ignored_or_rejected":
            wrong += [what for what, reply in asked if not _is_default(lab, world, reply)]
        case "default_cert":
            wrong += [what for what, reply in asked if what.startswith("https") and not _is_from(lab, world, reply)]
            default = lab.default_certificate()
            wrong += [f"{what}: its certificate" for what, reply in asked if reply.certificate not in {b"", default}]
        case "literal":
            hosts = {rule["host"] for document in entry["objects"] for rule in document["spec"]["rules"]}
            replies = [element for host in hosts for element in _asked(lab, host, ("/", "/x"))]
            wrong += [what for what, reply in replies if not _is_from(lab, world, reply)]
        case "reported":
            wrong += [what for what, reply in asked if not _is_from(lab, world, reply)]
        case other:
            wrong.append(f"this test does not know what must be {other}")
    if entry.get("victim"):
        victims = _asked(lab, "victim.test")
        wrong += [what for what, reply in victims if not _is_from(lab, world, reply, ("victim", "victim"))]
    if entry["class"] == "configmap":
        listening = lab.node.host.run(["ss", "-Hltn"]).stdout
        wrong += [f"listens: {line}" for line in listening.splitlines() if line.split()[3].endswith(":22")]
    return wrong


def _asked_with_passwords(lab: IngressLab, host: str) -> list[tuple[str, Reply]]:
    users = [("root", ""), ("root", "x"), ("user", "x"), ("user\nroot", "x"), ("foo", "bar")]
    requests = [Request(host=host, headers=basic_auth(*user)) for user in users]
    return [(f"as {user}", lab.client.ask(request)) for user, request in zip(users, requests, strict=True)]


def _paths(entry: Entry) -> list[str]:
    rules = [
        rule
        for document in entry["objects"]
        if document["kind"] == "Ingress"
        for rule in document["spec"].get("rules", ())
    ]
    return [path["path"][:4000] for rule in rules for path in rule.get("http", {}).get("paths", ()) if "path" in path]


def _literal(lab: IngressLab, entry: Entry, world: list[Document], asked: list[tuple[str, Reply]]) -> list[str]:
    """Check that only the literal paths are served, if any is; no reply takes long."""
    slow = lab.client.ask(Request(host=host_of(entry), target="/" + "a" * 32 + "!"))
    wrong = [f"{slow.elapsed_s:.1f} s for an answer"] if slow.elapsed_s > 1 or slow.status == 0 else []
    paths = _paths(entry)
    for what, reply in asked:
        target = reply.seen.get("path")
        if target is None:
            wrong += [what] * (reply.status not in NOT_SERVED)
            continue
        literal = any(target.startswith(quote(path)) for path in paths)
        wrong += [f"{what}: served"] * (not literal or not _is_from(lab, world, reply))
    return wrong


def _is_default(lab: IngressLab, world: list[Document], reply: Reply) -> bool:
    """Tell whether a host is served as without its annotation, or not at all; a redirect is another annotation's."""
    if reply.status in {301, 302}:
        return reply.all("Location") == ["http://x.test"] and "Set-Cookie" not in dict(reply.headers)
    return reply.status in NOT_SERVED or _is_from(lab, world, reply)


def _reported(entry: Entry, planned: dict[str, Any], lab: IngressLab) -> list[str]:
    """Check that a plan names the object with the field and a reason, unless nothing is wrong with it."""
    if entry["must"] in {"literal", "rejected_or_literal"} or entry.get("render_ok"):
        served = lab.client.ask(Request(host=host_of(entry), target=quote(_paths(entry)[0]))).status == 200
        if served or entry["must"] == "literal":
            return []
    name, field = _named(entry)
    results = reports.about(planned, name, field)
    wrong = [] if results else [f"plan does not tell {field} of {name}"]
    return wrong + [
        f"plan tells {len(element)} characters: {element[:200]!r}" for element in results if len(element) > 3000
    ]


def _named(entry: Entry) -> tuple[str, str]:
    """Return the name of the object at fault and the field, as a plan must tell them."""
    metadata = next(document for document in entry["objects"] if document["kind"] in {"Ingress", "ConfigMap"})[
        "metadata"
    ]
    name = metadata["name"].encode("unicode_escape").decode()
    field = entry["field"].partition(" (")[0]
    if annotation := re.fullmatch(r'metadata\.annotations\["(.+)"\]', field):
        field = annotation[1]
    match entry["class"]:
        case "service":
            name, field = _name_of(entry, "Service"), "externalName"
        case "endpointslice":
            name, field = _name_of(entry, "EndpointSlice"), "addresses[0]"
        case "secret" if entry["must"] == "default_cert":
            name, field = secrets_of(entry)[0], "tls"
        case "secret":
            name, field = f"default/{secrets_of(entry)[0]}", "data"
        case "configmap":
            field = ""
        case _ if field == "metadata.annotations":
            field = entry["value"].partition(" = ")[0].partition("/")[2]
        case _ if entry.get("configmaps"):
            name, field = entry["configmaps"][0]["name"], "data"
        case _ if field.startswith(f"{objects.PREFIX}/canary-"):
            # Alone, a canary is of no Ingress, whatever it says: that is what is told.
            field = "canary"
    return name, field


def _name_of(entry: Entry, kind: str) -> str:
    """Return the name of an entry's first object of a kind."""
    names = (document["metadata"]["name"] for document in entry["objects"] if document["kind"] == kind)
    return str(next(names))


def _listing(lab: IngressLab) -> set[str]:
    """Return what there is in the lab's folder, outside of the folders that are rulegen's."""
    ours = ("nginx", "export", "bytecode", "objects.json")
    results = (path.relative_to(lab.folder) for path in lab.folder.rglob("*"))
    return {
        str(path)
        for path in results
        if path.parts[0] not in ours and not path.parts[0].startswith(("run-", "tmp", "haproxy-"))
    }
