"""The table of bounds in docs/run.md: each row names tests that exist, and the figures are those of the code."""

from __future__ import annotations

import re

import pytest

from rulegen import safe_files
from rulegen.apiserver.transport import client, tls
from rulegen.cli.wiring.inputs import MAX_CONFIGURATION
from rulegen.host.files import dumps, manifests
from rulegen.host.nginx import templates
from rulegen.host.proxy.disk import default_certificate
from rulegen.kube.reading import json_text, yaml_text
from rulegen.kube.snapshot import build
from tests.project.places import ROOT

COLUMNS = ["what is read", "size", "time", "number", "what happens above the limit", "test"]
TEST = re.compile(r"`((?:\w+/)*test_\w+\.py)(?:::(\w+))?`")


def table() -> list[list[str]]:
    section = (ROOT / "docs/run.md").read_text(encoding="utf-8").partition("\n## Bounds\n")[2].partition("\n## ")[0]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line[:1] == "|"]


ROWS = table()[2:]


def test_has_its_columns() -> None:
    assert table()[0] == COLUMNS
    assert len(ROWS) > 10


@pytest.mark.parametrize("row", ROWS, ids=[row[0] for row in ROWS])
def test_a_row_is_whole_and_names_tests_that_exist(row: list[str]) -> None:
    assert len(row) == len(COLUMNS)
    what, size, time, number, beyond, tests = row
    assert what
    assert size or time or number
    assert beyond
    named = TEST.findall(tests)
    assert named
    assert TEST.sub("", tests).strip(", ") == ""
    for file, name in named:
        texts = [path.read_text(encoding="utf-8") for path in (ROOT / "tests").rglob(file)]
        assert texts, file
        assert any(
            re.search(rf"^ *(?:class|def) {name}\b" if name else r"def test_", t, re.MULTILINE) for t in texts
        ), name


@pytest.mark.parametrize(
    ("what", "figures"),
    [
        (
            "objects of `-f`",
            [
                *(f"{manifests.MAX_BYTES >> 20} MiB a file", f"{manifests.MAX_TOTAL_BYTES >> 20} MiB together"),
                *(
                    f"{yaml_text.MAX_VALUES:,} values",
                    f"{manifests.MAX_FILES:,} files",
                    f"{manifests.MAX_ENTRIES:,} entries",
                ),
                *(f"{build.MAX_OBJECTS:,} objects", f"{yaml_text.MAX_DOCUMENT_VALUES:,} values a YAML document"),
                *(f"{json_text.MAX_PLAIN_VALUES:,} a JSON document", f"{yaml_text.MAX_DEPTH} levels"),
                f"{yaml_text.MAX_ALIASED:,} values by aliases",
            ],
        ),
        ("objects on standard input", [f"{manifests.MAX_BYTES >> 20} MiB"]),
        (
            "dumps",
            [
                *(f"{manifests.MAX_BYTES >> 20} MiB a file", f"{dumps.MAX_TOTAL_BYTES >> 20} MiB together"),
                *(f"{dumps.MAX_LINE >> 10} KiB a line", f"{dumps.MAX_LINES:,} lines", f"{dumps.MAX_FILES:,} files"),
            ],
        ),
        ("`--config`", [f"{MAX_CONFIGURATION >> 20} MiB"]),
        ("kubeconfigs", [f"{client.MAX_KUBECONFIG >> 20} MiB each"]),
        ("certificates", [f"{tls.MAX_BYTES >> 20} MiB each"]),
        ("nginx templates", [f"{templates.MAX_BYTES >> 20} MiB each", f"{templates.MAX_FILES} in a folder"]),
        ("the default certificate", [f"{default_certificate.MAX_BYTES >> 10} KiB"]),
        ("files of /proc", [f"{safe_files.KERNEL_BYTES >> 20} MiB each"]),
    ],
)
def test_the_figures_are_those_of_the_code(what: str, figures: list[str]) -> None:
    (row,) = [row for row in ROWS if row[0].startswith(what)]
    for figure in figures:
        assert figure in " | ".join(row[1:4])
