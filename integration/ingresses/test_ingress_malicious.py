"""Objects that want to break in or to break others: none gets more than its due, and nobody else notices it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

from integration.ingress import objects, reports
from integration.ingress.asking import Reply, Request, basic_auth
from integration.ingress.forms import files
from integration.ingress.malicious import FILE, Entry, Group, groups, host_of, secrets_of
from tests.shared import SHARED, shared

if TYPE_CHECKING:
    from integration.ingress.lab import IngressLab
    from integration.ingress.node import Node
    from integration.ingress.objects import Document

crossplane = pytest.importorskip("crossplane")

NOT_SERVED = {404, 503}
CLOSED = {401, 403, 404, 503}
NO_CERTIFICATE = 400
"""What nginx answers to who has no client certificate, where one is needed."""
FORBIDDEN = re.compile(r"ssl_engine|load_module|alias|root|perl.*|js_.*|.*_by_lua.*|lua_.*")
PLAIN_NAME = re.compile(r"[0-9a-f]{8,64}(?:\.[a-z]{1,12})?")
KNOWN_NAMES = {"nginx.conf", "provenance.json", "MANIFEST"}

ECHO = ("default", "echo")
TARGETS = ("/", "/pwn", "/abcd", "/x", "/bla", "/ok", "/dup/x", "/%0a")


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

    def fail(self, what: str, wrong: list[str]) -> None:
        """Fail a test, and show what is served."""
        hosts = "\n".join(f"--- {path}\n{text}" for path, text in self._node.rendered().items())
        shown = f"{reports.shown(self.planned)}\n{hosts}"
        pytest.fail("\n  * ".join([what, *wrong]) + f"\n{shown}", pytrace=False)


@pytest.fixture(scope="module")
def serving(ingress_lab: IngressLab) -> Serving:
    """Give the node for all entries of a group, one after the other."""
    return Serving(ingress_lab, ingress_lab.node)


@pytest.mark.usefixtures("ingress_node")
@pytest.mark.parametrize(("group", "entry"), parameters(of_entries=True))
def test_entry(ingress_lab: IngressLab, serving: Serving, group: Group | None, entry: Entry | None) -> None:
    """Each of a group that is applied at once gets no more than its due, and the control answers."""
    if group is None or entry is None:
        shared(FILE)
        return
    files.check_entry(entry)
    serving.serve(group)
    world = group.world()
    wrong = [*control(ingress_lab, world, "ok.test"), *ends_as_it_must(ingress_lab, entry, world)]
    wrong += reported(entry, serving.planned, ingress_lab)
    if wrong:
        what = f"{entry['field']} = {str(entry['value'])[:300]!r} must be {entry['must']}"
        serving.fail(f"{entry['id']} in {[other['id'] for other in group.entries]}: {what}", wrong)


@pytest.mark.parametrize(("group", "entry"), parameters(of_entries=False))
def test_group(ingress_lab: IngressLab, ingress_node: Node, serving: Serving, group: Group | None, entry: None) -> None:
    """What is written for a group is harmless as a whole, and a harmless change behind it goes live."""
    if group is None:
        shared(FILE)
        return
    serving.serve(group)
    world = group.world()
    wrong = [*serving.wrong, *_exported(ingress_lab, group), *_names(ingress_lab)]

    ingress_node.apply([*world, objects.ingress("later", "ok2.test")])
    wrong += control(ingress_lab, world, "ok.test") + control(ingress_lab, world, "ok2.test")
    if wrong:
        serving.fail(f"{[entry['id'] for entry in group.entries]}", wrong)


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


def ends_as_it_must(lab: IngressLab, entry: Entry, world: list[Document]) -> list[str]:
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


def reported(entry: Entry, planned: dict[str, Any], lab: IngressLab) -> list[str]:
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


def _exported(lab: IngressLab, group: Group) -> list[str]:
    """Check an exported configuration: nginx takes it, and another parser finds nothing in it that must not be."""
    folder = lab.folder / "export" / repr(group)
    lab.node.run("export", "--nginx", str(folder)).check()
    (folder / "run").mkdir(exist_ok=True)
    (folder / "logs").mkdir(exist_ok=True)
    tested = lab.node.host.run(["nginx", "-t", "-p", f"{folder}/", "-c", str(folder / "nginx.conf")])
    wrong = [f"nginx -t of the export: {tested.stderr}"] if tested.code != 0 else []
    parsed = crossplane.parse(str(folder / "nginx.conf"))
    wrong += [f"crossplane: {error}" for error in parsed["errors"]]
    hosts = {"ok.test", "ok2.test", "victim.test", "", "_", "localhost", *map(host_of, group.entries)}
    hosts |= {entry["value"] for entry in group.entries if entry["must"] == "literal"}
    for file in parsed["config"]:
        wrong += [f"{element} in {Path(file['file']).name}" for element in _forbidden(file["parsed"], hosts)]
    return wrong


def _forbidden(block: list[dict[str, Any]], hosts: set[str]) -> Iterator[str]:
    for directive in block:
        name, arguments = directive["directive"], directive["args"]
        if FORBIDDEN.fullmatch(name):
            yield f"{name} {arguments}"
        if name == "return" and arguments[:1] == ["418"]:
            yield "return 418"
        if name == "location" and arguments[-1].startswith(("/pwn", "/abcd", "^/abcd")):
            yield f"location {arguments}"
        if name == "server_name" and set(arguments) - hosts:
            yield f"server_name {arguments}"
        if name in {"server", "proxy_pass"} and re.search(r"169\.254|127\.0\.0|evil:80|1\.2\.3\.4", "".join(arguments)):
            yield f"{name} {arguments}"
        if name == "server" and arguments and "backup" not in arguments and "10.244.100." not in arguments[0]:
            yield f"server {arguments}"
        yield from _forbidden(directive.get("block") or [], hosts)


def _names(lab: IngressLab) -> list[str]:
    """Check that files of the configuration are named by nothing that comes from an object."""
    current = lab.node.outside() / "current"
    results = [path.relative_to(current) for path in current.rglob("*") if path.is_file()]
    odd = [path for path in results if path.name not in KNOWN_NAMES and not PLAIN_NAME.fullmatch(path.name)]
    return [f"a file is named {path}" for path in odd]


def _listing(lab: IngressLab) -> set[str]:
    """Return what there is in the lab's folder, outside of the folders that are rulegen's."""
    ours = ("nginx", "export", "bytecode", "objects.json")
    results = (path.relative_to(lab.folder) for path in lab.folder.rglob("*"))
    return {
        str(path)
        for path in results
        if path.parts[0] not in ours and not path.parts[0].startswith(("run-", "tmp", "haproxy-"))
    }
