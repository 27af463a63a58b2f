"""Objects that want to break in or to break others, with HAProxy: none gets more than its due, nobody else notices."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from integration.ingress import objects
from integration.ingress.malicious import FILE, Entry, Group, Serving, control, parameters
from rulegen.languages.haproxy.parser import read_sections
from tests.shared import shared

if TYPE_CHECKING:
    from integration.ingress.lab import IngressLab
    from integration.ingress.node import Node

KNOWN_FILES = {"haproxy.cfg", "rulegen.lua", "certificates.list", "spares.list", "MANIFEST", "secrets/users.cfg"}
PLAIN_FILE = re.compile(r"maps/[a-z-]+(?:-[0-9a-f]{16})?\.map|secrets/[0-9a-f]{8,64}\.[a-z]{1,12}")
SECTIONS = {"global": 1, "defaults": 1, "frontend": 1}
FORBIDDEN = {
    "program",
    "external-check",
    "setenv",
    "presetenv",
    "insecure-fork-wanted",
    "lua-load-per-thread",
    "errorfile",
}
SECTION_NAME = re.compile(r"[bf][0-9a-f]{16}(?:\.[0-9a-f]{1,16})?|t[smc][0-9a-f]{16}|none|healthy")
OTHER_KINDS = {"resolvers", "fcgi-app"}


@pytest.fixture(scope="module")
def node(ingress_lab: IngressLab) -> Iterator[Node]:
    """Give HAProxy instead of the node's nginx."""
    if shutil.which("haproxy") is None:
        pytest.skip("not installed: haproxy")
    with ingress_lab.served_apart("haproxy", engine="haproxy") as apart:
        yield apart


@pytest.fixture(scope="module")
def serving(ingress_lab: IngressLab, node: Node) -> Serving:
    """Give the node for all entries of a group, one after the other."""
    return Serving(ingress_lab, node)


@pytest.mark.parametrize(("group", "entry"), parameters(of_entries=True))
def test_entry(serving: Serving, group: Group | None, entry: Entry | None) -> None:
    """Each of a group that is applied at once gets no more than its due, and the control answers."""
    serving.judge(group, entry)


@pytest.mark.parametrize(("group", "entry"), parameters(of_entries=False))
def test_group(ingress_lab: IngressLab, node: Node, serving: Serving, group: Group | None, entry: None) -> None:
    """What is written for a group is harmless as a whole, and a harmless change behind it goes live."""
    if group is None:
        shared(FILE)
        return
    serving.serve(group)
    world = group.world()
    wrong = [*serving.wrong, *_names(node), *_odd_lines(node)]

    node.apply([*world, objects.ingress("later", "ok2.test")])
    wrong += control(ingress_lab, world, "ok.test") + control(ingress_lab, world, "ok2.test")
    if wrong:
        serving.fail(f"{[entry['id'] for entry in group.entries]}", wrong)


def _names(node: Node) -> list[str]:
    """Check that files of the configuration are named by nothing that comes from an object."""
    current = node.outside() / "current"
    results = [str(path.relative_to(current)) for path in current.rglob("*") if path.is_file()]
    return [f"a file is named {path}" for path in results if path not in KNOWN_FILES and not PLAIN_FILE.fullmatch(path)]


def _odd_lines(node: Node) -> list[str]:
    """Check that the main file has no statement and no section that must not be there."""
    text = (node.outside() / "current" / "haproxy.cfg").read_text()
    sections = read_sections(text)
    wrong = [f"{kind} appears other than once" for kind in SECTIONS if [s.kind for s in sections].count(kind) != 1]
    for section in sections:
        if section.kind not in {*SECTIONS, *OTHER_KINDS, "backend"}:
            wrong.append(f"section {section.kind}")
        if section.kind == "backend" and not SECTION_NAME.fullmatch(section.name):
            wrong.append(f"backend {section.name}")
        for words in section.lines:
            if words[0] in FORBIDDEN or (words[0] == "lua-load" and words != ("lua-load", "rulegen.lua")):
                wrong.append(" ".join(words))
            if words[0] == "server" and not re.match(r"10\.(?:244\.100|96\.)|0\.0\.0\.0:", words[2]):
                wrong.append(" ".join(words[:3]))
            if words[:4] == ("http-request", "return", "status", "418"):
                wrong.append(" ".join(words))
            if words[0] == "user" and words[1] != "haproxy":
                wrong.append(" ".join(words))
    return wrong
