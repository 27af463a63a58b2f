"""Objects that want to break in or to break others: none gets more than its due, and nobody else notices it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from integration.ingress import objects
from integration.ingress.malicious import FILE, Entry, Group, Serving, control, host_of, parameters
from tests.shared import shared

if TYPE_CHECKING:
    from integration.ingress.lab import IngressLab
    from integration.ingress.node import Node

crossplane = pytest.importorskip("crossplane")

FORBIDDEN = re.compile(r"ssl_engine|load_module|alias|root|perl.*|js_.*|.*_by_lua.*|lua_.*")
PLAIN_NAME = re.compile(r"[0-9a-f]{8,64}(?:\.[a-z]{1,12})?")
KNOWN_NAMES = {"nginx.conf", "provenance.json", "MANIFEST"}


@pytest.fixture(scope="module")
def serving(ingress_lab: IngressLab) -> Serving:
    """Give the node for all entries of a group, one after the other."""
    return Serving(ingress_lab, ingress_lab.node)


@pytest.mark.usefixtures("ingress_node")
@pytest.mark.parametrize(("group", "entry"), parameters(of_entries=True))
def test_entry(serving: Serving, group: Group | None, entry: Entry | None) -> None:
    """Each of a group that is applied at once gets no more than its due, and the control answers."""
    serving.judge(group, entry)


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
