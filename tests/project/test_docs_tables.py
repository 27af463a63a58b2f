"""The tables of annotations and settings in docs/ are those of the declarations."""

from __future__ import annotations

from pathlib import Path

import pytest

from rulegen.model.ingress.values.annotations.annotation import Annotation
from rulegen.model.ingress.values.annotations.table import ANNOTATIONS, SECTIONS, declared_in
from rulegen.model.ingress.values.annotations.unsupported import UNSUPPORTED
from rulegen.model.ingress.values.settings import OTHER_NAMES, SETTINGS
from tests.project.docs_tables import PAGES, marked, tables, with_tables
from tests.project.places import ROOT

DECLARATIONS = ROOT / "rulegen/model/ingress/values/annotations"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_tables_are_written_from_the_declarations(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert text == with_tables(text), "write it anew: scripts/docs"


def test_each_table_stands_on_one_page() -> None:
    assert sorted(name for page in PAGES for name in marked(page.read_text(encoding="utf-8"))) == sorted(tables())


def test_each_annotation_is_declared_once() -> None:
    """A second one of the same name, or one that is also without effect, would be ignored without a word."""
    declared = [known.name for module in SECTIONS.values() for known in declared_in(module).values()]
    assert len(declared) == len(set(declared)) == len(ANNOTATIONS)
    assert not UNSUPPORTED.keys() & ANNOTATIONS.keys()
    assert not OTHER_NAMES.keys() & SETTINGS.keys()


def test_each_module_of_declarations_is_collected() -> None:
    """A module that `table` does not list has annotations that nobody reads."""
    names = {path.stem for path in DECLARATIONS.glob("*.py") if " = Annotation(" in path.read_text(encoding="utf-8")}
    assert names == {module.__name__.rpartition(".")[2] for module in SECTIONS.values()}


def test_a_constant_is_called_as_its_annotation() -> None:
    for module in SECTIONS.values():
        for constant, known in declared_in(module).items():
            assert constant == known.name.upper().replace("-", "_")


def test_a_new_declaration_is_all_that_the_table_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    module = SECTIONS["Logs"]
    monkeypatch.setattr(module, "LOG_COLOUR", Annotation("log-colour", str, "a colour"), raising=False)
    assert "| `log-colour` | a colour | ignore |" in tables()["annotations logs"]
