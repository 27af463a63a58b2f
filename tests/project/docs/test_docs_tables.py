"""The tables of annotations and settings in docs/ are those of the declarations."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from rulegen.kube.objects.names import ObjectKey, ObjectName
from rulegen.model.ingress.values.annotations import reading, table
from rulegen.model.ingress.values.annotations.annotation import CLOSE, Annotation
from rulegen.model.ingress.values.annotations.table import ANNOTATIONS, SECTIONS, declared_in
from rulegen.model.ingress.values.annotations.unsupported import UNSUPPORTED
from rulegen.model.ingress.values.readers import integer
from rulegen.model.ingress.values.settings import OTHER_NAMES, SETTINGS
from tests.project.docs.docs_tables import PAGES, marked, tables, with_tables
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


def test_a_declaration_is_all_that_a_new_annotation_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    """As CONTRIBUTING says: it is read, an invalid value is reported, a mistyped name is recognised, docs have it."""
    about, colour = (
        ObjectKey("Ingress", ObjectName("shop", "web")),
        Annotation("log-colour", integer(0, 9), "0-9", CLOSE),
    )
    monkeypatch.setattr(SECTIONS["Logs"], "LOG_COLOUR", colour, raising=False)
    monkeypatch.setattr(reading, "ANNOTATIONS", table.collected())
    known = reading.read_annotations(about, {"a.test/log-colour": "7"}, "a.test")
    assert (known.values[colour], known.reasons) == (7, [])
    wrong = reading.read_annotations(about, {"a.test/log-colour": "red"}, "a.test")
    assert (wrong.values[colour], wrong.outcome) == (None, CLOSE)
    mistyped = reading.read_annotations(about, {"a.test/log-color": "7"}, "a.test")
    assert [reason.message for reason in mistyped.reasons if 'did you mean "log-colour"' in reason.message]
    assert "| `log-colour` | 0-9 | close |" in tables()["annotations logs"]


def test_what_contributing_says_of_annotations_is_there() -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = page.partition("## Add an annotation\n")[2].partition("\n## ")[0]
    paths = re.findall(r"`((?:rulegen|tests|scripts|docs)/[\w./]*)`", section)
    assert len(paths) > 8
    assert [path for path in paths if not (ROOT / path).exists()] == []
