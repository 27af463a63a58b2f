"""Each test that the pages about ingress-nginx name exists."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from integration.ingress.forms import files
from integration.ingress.scenarios import ALL
from tests.project.places import ROOT
from tests.shared import YamlLoader, shared

PAGES = ("docs/ingress-nginx.md", "docs/ingress-nginx-tests.md")
NAMES = re.compile(r"(case|feature|attack) `([^`]+)`")
PATHS = re.compile(r"`((?:tests|integration)/[^`:]+\.py)(?:::([A-Za-z_0-9]+)(?:::([a-z_0-9]+))?)?`")


def _cells() -> Iterator[tuple[str, str]]:
    """Yield each row's last cell, with the page."""
    for page in PAGES:
        for line in (ROOT / page).read_text(encoding="utf-8").splitlines():
            if line.startswith("| ") and not line.startswith("| about") and "---" not in line:
                yield page, line.rstrip(" |").rpartition(" | ")[2]


def _named(kind: str) -> set[tuple[str, str]]:
    """Return what is named of a kind, with the page."""
    return {(page, name) for page, cell in _cells() for word, name in NAMES.findall(cell) if word == kind}


def test_features() -> None:
    known, named = {scenario.name for scenario in ALL}, _named("feature")
    assert len(named) > 100
    assert sorted(f"{page}: {name}" for page, name in named if name not in known) == []


@pytest.mark.parametrize(
    ("kind", "file", "key", "word"), [("case", "cases", "cases", "name"), ("attack", "malicious", "entries", "id")]
)
def test_cases_and_attacks(kind: str, file: str, key: str, word: str) -> None:
    paths = (files.OWN / f"{file}.yaml", shared(f"ingress/{file}.yaml"))
    known = {entry[word] for path in paths for entry in YamlLoader(path.read_text(encoding="utf-8")).get_data()[key]}
    assert sorted(f"{page}: {name}" for page, name in _named(kind) if name not in known) == []


def test_functions() -> None:
    texts: dict[str, str] = {}
    missing = set()
    for page, cell in _cells():
        for path, *names in PATHS.findall(cell):
            file = ROOT / path
            text = texts.setdefault(path, file.read_text(encoding="utf-8") if file.exists() else "")
            wanted = [name for name in names if name]
            if not text or not all(re.search(rf"\b(?:def|class) {name}\b", text) for name in wanted):
                missing.add(f"{page}: {path} {wanted}")
    assert sorted(missing) == []
