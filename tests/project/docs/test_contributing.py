"""What CONTRIBUTING.md tells a newcomer to open or to run is there."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from rulegen.backends.table import BACKENDS
from rulegen.compiler.tables import LANGUAGES
from rulegen.kube.proxyconfig.modes import MODES
from rulegen.model.services.modes import NEEDS
from tests.project.places import ROOT

PAGE = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
PATHS = sorted(
    {
        path
        for path in re.findall(r"`((?:rulegen|tests|integration|scripts|docs)/[^\s`]*)", PAGE)
        if "NAME" not in path and not path.endswith(".md`")
    }
)
FOR_EACH = sorted(set(re.findall(r"`((?:rulegen|tests)/[^\s`]*NAME[^\s`]*)`", PAGE)))
COMMANDS = sorted(set(re.findall(r"^(?:sudo )?(scripts/[a-z-]+)", PAGE, re.MULTILINE)))

CHANGES = ("The loop", "Add an annotation", "Add a metric", "Add a language", "Add a mode", "Add an ingress engine")


@pytest.mark.parametrize("path", [*PATHS, *COMMANDS])
def test_what_is_named_is_there(path: str) -> None:
    assert (ROOT / path.partition("::")[0]).exists()


@pytest.mark.parametrize("pattern", FOR_EACH)
def test_what_is_named_for_each_kind_is_there_for_one(pattern: str) -> None:
    """`rulegen/backends/NAME/node.py`: at least one backend has that file."""
    assert list(ROOT.glob(pattern.replace("NAME", "*")))


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_language_is_made_of_the_files_that_are_listed(language: str) -> None:
    folder = Path(sys.modules[type(LANGUAGES[language]).__module__].__file__ or "").parent
    assert {"state.py", "script.py", "language.py"} <= {file.name for file in folder.iterdir()}


@pytest.mark.parametrize("mode", BACKENDS)
def test_a_mode_is_made_of_the_files_that_are_listed(mode: str) -> None:
    assert {"node.py", "service.py"} <= {file.name for file in (ROOT / "rulegen" / "backends" / mode).iterdir()}
    assert mode in NEEDS
    assert mode in MODES


@pytest.mark.parametrize("what", CHANGES)
def test_there_is_a_list_for_each_common_change(what: str) -> None:
    assert f"\n## {what}\n" in PAGE
