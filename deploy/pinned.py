"""What deploy/Dockerfile installs with pip, with the hash of every file: `scripts/pin` writes it, tests hold it true.

The versions are those of constraints.txt; what needs what is read from the packages that are installed here. The hashes
are those that pip's index publishes (PEP 691), asked for once for each package. No index is named in what is written.
"""

# ruff: noqa: INP001 - a script, no package

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from importlib.metadata import requires
from pathlib import Path
from urllib.request import Request, urlopen

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_sdist_filename, parse_wheel_filename

ROOT = Path(__file__).resolve().parent.parent
CONSTRAINTS = ROOT / "constraints.txt"
RUN_TIME = ROOT / "deploy/requirements.txt"
BUILD_TIME = ROOT / "deploy/requirements-build.txt"

PYTHONS = ("3.11", "3.12", "3.13", "3.14")
"""Those that may run what is installed: a package that any of them needs is in the files."""

HEAD = """\
# {what}
# Made by scripts/pin from constraints.txt. For pip install --require-hashes --no-deps --only-binary :all: -r FILE
"""


class PinError(Exception):
    """A package without a pin, or an index that does not say what is asked: the message says which."""


def versions() -> dict[str, tuple[str, str]]:
    """Return name and version of each pin in constraints.txt, by its normalized name."""
    lines = CONSTRAINTS.read_text(encoding="utf-8").splitlines()
    pins = [line.partition(" ;")[0].partition("==") for line in lines if line and not line.startswith("#")]
    return {canonicalize_name(name): (name, version) for name, _, version in pins}


def needed(texts: list[str]) -> set[str]:
    """Return the normalized names of requirements and of all that these need on Linux, with any of `PYTHONS`."""
    seen: set[str] = set()
    waiting = [Requirement(text) for text in texts]
    while waiting:
        need = waiting.pop()
        name = canonicalize_name(need.name)
        further = [Requirement(text) for text in requires(name) or ()]
        environments = [
            {"extra": extra, "python_version": python, "python_full_version": f"{python}.0", "sys_platform": "linux"}
            for extra in ("", *need.extras)
            for python in PYTHONS
        ]
        chosen = [
            requirement
            for requirement in further
            if requirement.marker is None or any(map(requirement.marker.evaluate, environments))
        ]
        waiting += [
            requirement
            for requirement in chosen
            if canonicalize_name(requirement.name) not in seen or requirement.extras
        ]
        seen.add(name)
    return seen


def wanted() -> dict[Path, tuple[str, set[str]]]:
    """Return for each file its title and the normalized names of the packages in it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    return {
        RUN_TIME: ("What rulegen needs when it runs.", needed(project["project"]["dependencies"])),
        BUILD_TIME: ("What builds rulegen's wheel.", needed(project["build-system"]["requires"])),
    }


def index() -> str:
    """Return the URL of the index that pip asks on this machine."""
    if configured := os.environ.get("PIP_INDEX_URL"):
        return configured
    done = subprocess.run(
        [sys.executable, "-m", "pip", "config", "get", "global.index-url"], capture_output=True, text=True, check=False
    )
    if done.returncode == 0:
        return done.stdout.strip()
    from pip._internal.models.index import PyPI  # noqa: PLC0415 - pip has no public name for its default

    return str(PyPI.simple_url)


def hashes(name: str, version: str, url: str) -> list[str]:
    """Return the SHA-256 of each file of a version, sorted.

    Raises:
        PinError: the index has no file of it, or does not say a file's hash.
    """
    request = Request(f"{url.rstrip('/')}/{name}/", headers={"Accept": "application/vnd.pypi.simple.v1+json"})  # noqa: S310
    with urlopen(request, timeout=60) as answer:  # noqa: S310 - the index that pip uses
        files = json.load(answer)["files"]
    chosen = [file for file in files if _version(file["filename"]) == version and not file.get("yanked")]
    if not chosen:
        raise PinError(f"{name}: the index has no file of version {version}")
    if missing := [file["filename"] for file in chosen if "sha256" not in file["hashes"]]:
        raise PinError(f"{name}: the index does not say the hash of {missing[0]}")
    return sorted(file["hashes"]["sha256"] for file in chosen)


def _version(filename: str) -> str | None:
    try:
        parsed = parse_wheel_filename(filename) if filename.endswith(".whl") else parse_sdist_filename(filename)
    except ValueError:
        return None  # a format of before wheels
    return str(parsed[1])


def text(title: str, names: set[str], url: str) -> str:
    """Return a requirements file: each package with its version and the hashes of its files."""
    pins, parts = versions(), [HEAD.format(what=title)]
    if missing := names - pins.keys():
        raise PinError(f"not in constraints.txt: {', '.join(sorted(missing))}")
    for name in sorted(names):
        spelled, version = pins[name]
        lines = [f"{spelled}=={version}", *(f"    --hash=sha256:{digest}" for digest in hashes(name, version, url))]
        parts.append(" \\\n".join(lines) + "\n")
    return "".join(parts)


def main() -> None:
    """Write both files."""
    for file, (title, names) in wanted().items():
        file.write_text(text(title, names, index()), encoding="utf-8")
        print(f"{file.relative_to(ROOT)}: {len(names)} packages")  # noqa: T201


if __name__ == "__main__":
    main()
