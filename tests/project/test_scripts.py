"""The scripts that a newcomer runs first: plain sh, clear errors, and every version pinned."""

from __future__ import annotations

import re
import tomllib
from importlib.metadata import PackageNotFoundError, requires
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.project.places import ROOT, run

SCRIPTS = sorted(path for path in (ROOT / "scripts").iterdir() if path.is_file())


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_is_plain_sh(script: Path) -> None:
    done = run("sh", "-n", script)

    assert (done.returncode, done.stderr) == (0, "")
    assert not re.search(r"\[\[|\bfunction\b|<<<|\$'|\blocal\b", script.read_text(encoding="utf-8"))


@pytest.mark.parametrize("name", ["test", "quick", "demo", "check", "bench", "mutate"])
def test_a_script_can_be_run(name: str) -> None:
    script = ROOT / "scripts" / name

    assert script.read_text(encoding="utf-8").startswith("#!/bin/sh\n")
    assert script.stat().st_mode & 0o111


def prepare(tmp_path: Path, needs: str, **environment: str) -> tuple[int, str]:
    """Run `prepare` as a user who is not root and has neither apt-get nor sudo."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for tool in ("sh", "dirname", "basename", "cat", "cksum", "grep", "python3"):
        (tools / tool).symlink_to(next(p for p in (Path("/usr/bin") / tool, Path("/bin") / tool) if p.exists()))
    (tools / "id").write_text("#!/bin/sh\necho 1000\n")
    (tools / "id").chmod(0o755)
    script = tmp_path / "scripts" / "x"
    script.parent.mkdir()
    script.write_text(f'set -eu\n. {ROOT}/scripts/prepare\nprepare "" {needs}\necho "$python"\n')
    done = run("sh", script, PATH=str(tools), **environment)
    return done.returncode, done.stdout + done.stderr


def test_packages_that_cannot_be_installed_are_named(tmp_path: Path) -> None:
    code, said = prepare(tmp_path, "no-such-tool:one-package no-other-tool:two-package", RULEGEN_PYTHON="")

    assert code == 1
    assert "x: missing, and apt-get is not available to install it: " in said
    assert said.endswith("one-package two-package\n")


def test_a_python_that_has_everything_is_used_as_it_is(tmp_path: Path) -> None:
    assert prepare(tmp_path, "no-such-tool:one-package", RULEGEN_PYTHON="/some/python") == (0, "/some/python\n")


def test_make_help_names_every_target() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    targets = re.search(r"^\.PHONY: (.*)$", makefile, re.MULTILINE)

    assert targets
    for target in targets[1].split():
        assert re.search(rf"^{target}:.*## \S", makefile, re.MULTILINE), target


def pins() -> dict[str, str]:
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = [line.partition("==") for line in lines if not line.startswith("#")]
    return {canonicalize_name(name): version for name, _, version in pinned}


def test_constraints_are_pins_and_nothing_else() -> None:
    for line in (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines():
        assert re.fullmatch(r"#.*|[A-Za-z0-9._-]+==[A-Za-z0-9.+!]+( ; .*)?", line), line


def test_every_installed_package_is_pinned_within_its_bounds() -> None:
    """Follow the requirements of the project and its extras, all the way down."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    pinned, seen = pins(), set()
    waiting = [Requirement(text) for text in project["build-system"]["requires"] + project["project"]["dependencies"]]
    for extra in project["project"]["optional-dependencies"].values():
        waiting += [Requirement(text) for text in extra]
    while waiting:
        need = waiting.pop()
        name = canonicalize_name(need.name)
        assert name in pinned, f"{name} is not in constraints.txt"
        assert need.specifier.contains(pinned[name], prereleases=True), f"{need} is not met by {pinned[name]}"
        if (name, *need.extras) in seen:
            continue
        seen.add((name, *need.extras))
        try:
            further = [Requirement(text) for text in requires(name) or ()]
        except PackageNotFoundError:
            continue  # an extra that is not installed here
        environments = [{"extra": extra} for extra in ("", *need.extras)]
        waiting += [n for n in further if n.marker is None or any(n.marker.evaluate(e) for e in environments)]

    unused = pinned.keys() - {name for name, *_ in seen} - {"setuptools"}
    assert not unused, f"nothing needs {unused}"
