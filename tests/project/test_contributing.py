"""What CONTRIBUTING.md tells a newcomer to open or to run is there."""

from __future__ import annotations

import re

import pytest

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


@pytest.mark.parametrize("path", [*PATHS, *COMMANDS])
def test_what_is_named_is_there(path: str) -> None:
    assert (ROOT / path.partition("::")[0]).exists()


@pytest.mark.parametrize("pattern", FOR_EACH)
def test_what_is_named_for_each_kind_is_there_for_one(pattern: str) -> None:
    """`rulegen/backends/NAME/node.py`: at least one backend has that file."""
    assert list(ROOT.glob(pattern.replace("NAME", "*")))


@pytest.mark.parametrize("what", ["The loop", "Add an annotation", "Add a metric", "Add an ingress engine"])
def test_there_is_a_list_for_each_common_change(what: str) -> None:
    assert f"\n## {what}\n" in PAGE
