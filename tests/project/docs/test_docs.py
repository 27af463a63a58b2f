"""The documentation is true: commands parse, shown output is real, options are as in `--help`, links lead somewhere."""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace

import click
import pytest

from rulegen.cli.main import cli
from rulegen.diff.items import Action, Item, Line
from rulegen.errors import Fault, Rejected
from rulegen.kube.objects.names import ObjectKey, ObjectName
from rulegen.model.ingress.reasons import Reason, Verdict
from rulegen.model.ingress.values import settings
from rulegen.model.ingress.values.annotations.table import SECTIONS, declared_in
from rulegen.model.services.ir import ResolvedService
from rulegen.plan import show
from rulegen.plan.ingress import IngressPlan
from rulegen.plan.plan import Plan
from rulegen.plan.show import Report
from tests.project.places import ROOT, run

PAGES = sorted(
    [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").glob("*.md"),
        *(ROOT / "docs" / "recipes").glob("*.md"),
        ROOT / "deploy/README.md",
        ROOT / "nginx_templates/README.md",
    ]
)
COMMANDS = tuple(cli.list_commands(click.Context(cli)))
WIDTH = 100

_BLOCK = re.compile(r"^```(?P<language>\w*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
_OPTIONS = re.compile(r"<!-- options: (?P<command>\w+) -->\n(?:\n```text\n.*?^```\n)?", re.MULTILINE | re.DOTALL)


def blocks(page: Path, language: str) -> list[str]:
    return [m["text"] for m in _BLOCK.finditer(page.read_text(encoding="utf-8")) if m["language"] == language]


def shell_lines(page: Path) -> Iterator[str]:
    """Yield the commands of a page, continued lines joined."""
    for text in blocks(page, "sh"):
        yield from text.replace("\\\n", " ").splitlines()
    for text in blocks(page, "console"):
        yield from (line.removeprefix("$ ") for line in text.splitlines() if line.startswith("$ "))


def invocations(page: Path) -> list[str]:
    """Return the calls of rulegen on a page, each without what is before and behind it in a pipe."""
    called = []
    for line in shell_lines(page):
        part = re.search(r"(?:^|\| |sudo )\s*rulegen( [^|>#&]*)?", line)
        if part:
            called.append((part[1] or "").strip())
    return called


@pytest.mark.parametrize(
    ("page", "call"),
    [(page, call) for page in PAGES for call in invocations(page)],
    ids=lambda value: value if isinstance(value, str) else value.name,
)
def test_a_command_in_the_documentation_parses(page: Path, call: str) -> None:
    words = shlex.split(call)
    group = cli.make_context("rulegen", list(words))
    name, command, rest = cli.resolve_command(group, [*group._protected_args, *group.args])

    assert command is not None
    command.make_context(name, rest, parent=group)  # raises for an option that is not there


def test_the_documentation_shows_every_command() -> None:
    called = {call.split()[0] for page in PAGES for call in invocations(page) if call}

    assert called >= set(COMMANDS)


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "console")], ids=lambda page: page.name)
def test_output_that_is_shown_is_real(page: Path, tmp_path: Path) -> None:
    """Run a page's `console` blocks, in order; a line of … stands for any lines."""
    (tmp_path / "deploy").symlink_to(ROOT / "deploy")
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "rulegen").write_text(f'#!/bin/sh\nexec "{sys.executable}" -m rulegen "$@"\n')
    (tools / "rulegen").chmod(0o755)
    path = f"{tools}:{os.environ['PATH']}"
    for text in blocks(page, "console"):
        for command, expected in re.findall(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", text, re.MULTILINE):
            done = run("sh", "-c", command, cwd=tmp_path, PATH=path, PYTHONPATH=str(ROOT))
            lines = ("(?:.*\n)*" if line == "…\n" else re.escape(line) for line in expected.splitlines(keepends=True))

            assert re.fullmatch("".join(lines), done.stdout + done.stderr), f"{command}\n{done.stdout}{done.stderr}"


def options_of(name: str) -> str:
    """Return the list of options that `--help` shows."""
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    context = command.context_class(command, info_name=name, terminal_width=WIDTH, help_option_names=["-h", "--help"])
    return command.get_help(context).partition("\nOptions:\n")[2]


def with_options(text: str) -> str:
    """Return the page with the options as they are."""

    def written(match: re.Match[str]) -> str:
        return f"<!-- options: {match['command']} -->\n\n```text\n{options_of(match['command']).rstrip()}\n```\n"

    return _OPTIONS.sub(written, text)


def test_the_page_of_the_command_line_has_the_options_of_help() -> None:
    page = ROOT / "docs" / "cli.md"
    text = page.read_text(encoding="utf-8")
    if os.environ.get("RULEGEN_UPDATE_DOCS"):
        page.write_text(with_options(text), encoding="utf-8")

    assert page.read_text(encoding="utf-8") == with_options(text), "set RULEGEN_UPDATE_DOCS=1 to write it anew"
    assert [match["command"] for match in _OPTIONS.finditer(text)] == list(COMMANDS)


def paths(value: object, here: str = "") -> Iterator[str]:
    """Yield the path of every leaf; names that depend on the input are a star."""
    if isinstance(value, dict):
        for key, item in value.items():
            name = "*" if here in {"services", "unknownKinds"} else key
            yield from paths(item, f"{here}.{name}" if here else name)
    elif isinstance(value, list):
        for item in value:
            yield from paths(item, f"{here}[]")
    else:
        yield here


def test_the_shape_of_the_json_is_as_documented() -> None:
    name = ObjectName("shop", "web")
    item = Item(
        action=Action.ADD, language="iptables", family="IPv4", kind="rule", name="n", lines=(Line("+", "-j X", "w"),)
    )
    report = Report(
        node="n",
        mode="iptables",
        observed="nothing",
        rejected=(Rejected("Service shop/bad", "f.yaml", (Fault("spec", "is bad"),)),),
        unknown_kinds={"Deployment": 1},
        warnings=("careful",),
        site="a folder",
        made={"version": "0.1.0", "kubeProxy": "1.36", "time": "2026-01-01T00:00:00+00:00", "inputs": None},
        reasons=(Reason(ObjectKey("Ingress", ObjectName("shop", "web")), Verdict.LOST, "spec", "an older one has it"),),
        services={
            str(name): ResolvedService(
                name=name, type="NodePort", ports=(), endpoints_from="Pods", assigned=("nodePort 1",)
            )
        },
    )
    text = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    table = re.search(r"^<!-- json -->\n(.*?)\n\n", text, re.MULTILINE | re.DOTALL)
    assert table
    rows = [row.split("|")[1] for row in table[1].splitlines()[2:]]

    assert sorted(path for row in rows for path in re.findall(r"`(.+?)`", row)) == sorted(
        set(
            paths(
                show.json_document(
                    Plan(
                        items=(item,),
                        site=IngressPlan("nginx"),
                        parts={("ipvs", None): SimpleNamespace(draining=("10.244.1.1:80",))},
                    ),
                    report,
                )
            )
        )
    )
    assert ", ".join(f"`{verdict}`" for verdict in Verdict).replace(", `note`", " or `note`") in table[1]
    assert f"| `schemaVersion` | integer | {show.SCHEMA_VERSION} |" in text


def rows(heading: str) -> dict[str, list[str]]:
    """Return the tables of a section of the page on Ingresses: the other cells by the name in the first."""
    page = (ROOT / "docs" / "ingress.md").read_text(encoding="utf-8")
    section = re.search(rf"^## {heading}\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL)
    assert section
    collected: dict[str, list[str]] = {}
    for line in re.findall(r"^\| `(?:.*) \|$", section[1], re.MULTILINE):
        name, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        assert name.strip("`") not in collected, name
        collected[name.strip("`")] = cells
    return collected


@pytest.mark.not_quick
def test_names_without_effect_are_documented() -> None:
    """A name that nothing in the model or the backend asks for is checked only."""
    places = [ROOT / "rulegen/model/ingress", ROOT / "rulegen/backends/nginx"]
    texts = {path: path.read_text(encoding="utf-8") for place in places for path in place.rglob("*.py")}
    users = "".join(text for path, text in texts.items() if path.parent.name != "annotations")
    everything = "".join(texts.values())
    idle = {
        annotation.name
        for module in SECTIONS.values()
        for constant, annotation in declared_in(module).items()
        if not re.search(rf"\b{constant}\b", users)
    }
    idle |= {
        field.name.replace("_", "-")
        for field in fields(settings.Settings)
        if not re.search(rf"\.{field.name}\b", everything)
    }
    given = {**rows("Annotations"), **rows("Settings for all hosts")}

    assert {name for name, cells in given.items() if any("without effect" in cell for cell in cells)} == idle - {
        "proxy-cookie-domain",
        "proxy-cookie-path",
    }


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


def test_the_page_on_testing_names_tests_that_exist() -> None:
    page = (ROOT / "docs" / "testing.md").read_text(encoding="utf-8")
    for path, _, name in re.findall(r"`((?:tests|integration)/[\w./*]*)(::([\w.]+))?`", page):
        places = list(ROOT.glob(path))
        assert places, path
        assert not name or re.search(rf"^\s*(class|def) {name}\b", places[0].read_text(encoding="utf-8"), re.MULTILINE)


def test_every_dependency_says_why_it_is_there() -> None:
    page = (ROOT / "docs" / "dependencies.md").read_text(encoding="utf-8")
    named = {word.strip() for row in re.findall(r"^\| (.*)$", page, re.MULTILINE) for word in re.split(r"[|,]", row)}
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    needed = re.findall(
        r'^  "([A-Za-z][\w-]*)(?:[<>=~!].*)?",$', project.partition("[project.scripts]")[0], re.MULTILINE
    )

    assert {name.lower() for name in needed} <= {name.lower() for name in named}
