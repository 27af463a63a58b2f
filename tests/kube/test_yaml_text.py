"""YAML is read as in kubectl, but strictly."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from rulegen.kube.reading.yaml_text import YamlDocument, YamlFault, read_yaml

SCALARS = [
    # text                     value
    ("80", 80),
    ("-80", -80),
    ("+80", 80),
    ("0", 0),
    ("00", 0),
    ("0x1F", 31),
    ("0b101", 5),
    ("0o17", "0o17"),
    ("017", 15),
    ("08", "08"),
    ("1_000", 1000),
    ("18446744073709551616", 18446744073709551616),
    ("9" * 65, math.inf),
    ("-" + "9" * 65, -math.inf),
    ("1.5", 1.5),
    (".5", 0.5),
    ("1.", 1.0),
    ("1e3", "1e3"),
    ("1.0E-2", 0.01),
    ("1.0e+999", math.inf),
    (".inf", math.inf),
    ("-.INF", -math.inf),
    ("true", True),
    ("Yes", True),
    ("on", True),
    ("FALSE", False),
    ("no", False),
    ("Off", False),
    ("y", "y"),
    ("N", "N"),
    ("tRUE", "tRUE"),
    ("null", None),
    ("~", None),
    ("", None),
    ("nULL", "nULL"),
    ("web", "web"),
    ("1:30", "1:30"),
    ("190:20:30", "190:20:30"),
    ("2026-11-23", "2026-11-23"),
    ("2026-11-23T05:34:20Z", "2026-11-23T05:34:20Z"),
    ("10.96.0.1", "10.96.0.1"),
    ("1.2.3", "1.2.3"),
    ("0x", "0x"),
    ("0xg", "0xg"),
    ("1e", "1e"),
    ("12e4567", "12e4567"),
    ("1_0.5", 10.5),
    ("+", "+"),
    (".", "."),
    ("..", ".."),
    ("--", "--"),
    ("1,000", "1,000"),
    ("=", "="),
    ('"80"', "80"),
    ("'yes'", "yes"),
    ('""', ""),
    ("'~'", "~"),
    ("!!str 80", "80"),
    ("!!str", ""),
    ("!!int '80'", 80),
    ("!!bool 'yes'", True),
    ("!!null ''", None),
    ("!!float 1", 1),
    ("!!timestamp 2026-11-23", "2026-11-23"),
    ("!!map {a: 1}", {"a": 1}),
    ("!!seq [1]", [1]),
    ("|\n  a\n  b\n", "a\nb\n"),
    (">-\n  a\n  b\n", "a b"),
]


def values(text: str) -> list[Any]:
    return [part.value if isinstance(part, YamlDocument) else part for part in read_yaml(text.encode())]


@pytest.mark.parametrize(("text", "meaning"), SCALARS)
def test_scalar(text: str, meaning: Any) -> None:
    (value,) = values(f"- {text}\n")
    assert value == [meaning]
    assert type(value[0]) is type(meaning)


def test_not_a_number() -> None:
    assert math.isnan(values(".nan")[0])


DOCUMENTS = [
    ("", []),
    ("# nothing\n", []),
    ("---\n", [None]),
    ("a: 1\n---\nb: 2\n", [{"a": 1}, {"b": 2}]),
    ("a: 1\n...\n---\n# empty\n---\nb: 2\n...\n", [{"a": 1}, None, {"b": 2}]),
    ("a: ~\nb:\nc: null\nd: [~]\n", [{"d": [None]}]),
    ("a: {b: {c: ~}}\n", [{"a": {"b": {}}}]),
    ("80: a\nyes: b\n1.5: c\ny: d\n", [{"80": "a", "true": "b", "1.5": "c", "y": "d"}]),
    ("a: &x {b: 1}\nc: *x\n", [{"a": {"b": 1}, "c": {"b": 1}}]),
    ("a: &x web\nc: *x\n", [{"a": "web", "c": "web"}]),
    ("a: &x ~\nc: *x\n", [{}]),
    ("&k a: 1\nb: *k\n", [{"a": 1, "b": "a"}]),
    ("a: &x 1\nb: &x 2\nc: *x\n", [{"a": 1, "b": 2, "c": 2}]),
    ("a: &x {p: 1, q: 2}\nb: {<<: *x, q: 3}\n", [{"a": {"p": 1, "q": 2}, "b": {"p": 1, "q": 3}}]),
    ("a: &x {p: 1, q: 2}\nb: {q: 3, <<: *x}\n", [{"a": {"p": 1, "q": 2}, "b": {"p": 1, "q": 3}}]),
    ("a: &x {p: 1, q: ~}\nb: {<<: *x}\n", [{"a": {"p": 1}, "b": {"p": 1}}]),
    ("a: &x {p: 1}\nb: {<<: *x, p: ~}\n", [{"a": {"p": 1}, "b": {}}]),
    ("- &x {p: 1}\n- &y {p: 2, q: 3}\n- {<<: [*x, *y]}\n", [[{"p": 1}, {"p": 2, "q": 3}, {"p": 1, "q": 3}]]),
    ('"<<": {p: 1}\n', [{"<<": {"p": 1}}]),
    ("- <<\n", [["<<"]]),
    ("a: <<\n", [{"a": "<<"}]),
    ("%YAML 1.1\n---\na: 1\n", [{"a": 1}]),
    ("a: 1\r\nb: 2\r\n", [{"a": 1, "b": 2}]),
    ("? a\n: b\n", [{"a": "b"}]),
    ("{a: 1, b: [2, {c: 3}]}", [{"a": 1, "b": [2, {"c": 3}]}]),
]


@pytest.mark.parametrize(("text", "meaning"), DOCUMENTS)
def test_documents(text: str, meaning: list[Any]) -> None:
    assert values(text) == meaning


def test_places() -> None:
    text = "# first\na: 1\n---\n\nkind: List\nitems:\n- b: {c: 1}\n-\n  d: 2\n- [e]\n--- {f: 3}\n"
    documents = [document for document in read_yaml(text.encode()) if isinstance(document, YamlDocument)]
    assert [(document.line, document.item_lines) for document in documents] == [(2, ()), (4, (7, 9)), (12, ())]


@pytest.mark.parametrize(
    "filler", ["", "# für\n", "# \u2028# a line of its own\n"], ids=["ascii", "utf-8", "separator"]
)
def test_a_fault_affects_only_its_document(filler: str) -> None:
    text = f"{filler}a: 1\n---\nb: [\n---\n{filler}c: 3\n---\nd: 4\nd: 5\n---\ne: 6\n"
    parts = values(text)
    assert [part for part in parts if not isinstance(part, YamlFault)] == [{"a": 1}, {"c": 3}, {"e": 6}]
    assert [part.message for part in parts if isinstance(part, YamlFault)] == [
        "not YAML: while parsing a flow node, did not find expected node content",
        'the key "d" appears twice in one mapping',
    ]


def test_lines_of_faults_count_from_the_start_of_the_file() -> None:
    parts = values("a: [\n---\nb: 1\n---\n\n\nc: @\n")
    assert [part.line for part in parts if isinstance(part, YamlFault)] == [2, 7]


def test_an_anchor_is_valid_in_its_document_only() -> None:
    assert values("a: &x 1\n---\nb: *x\n") == [{"a": 1}, YamlFault(3, "the alias *x has no anchor before it")]


TEXT = st.text(st.characters(max_codepoint=0xFFFF, exclude_categories=["Cs"]))
KEYS = st.text(st.characters(max_codepoint=0xFFFF, exclude_categories=["Cs"]), max_size=100)
"""YAML permits at most 1024 characters for a key on the line of its value, and an escape in JSON has six characters."""

PLAIN = st.recursive(
    st.booleans() | st.integers(-(2**63), 2**64) | st.floats(0.01, 10_000) | TEXT,
    lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner),
    max_leaves=30,
)


@given(PLAIN)
def test_json_is_read_back(value: Any) -> None:
    """JSON is YAML, except for characters that JSON escapes as surrogate pairs."""
    assert values(json.dumps(value)) == [value]


@given(PLAIN)
def test_yaml_is_read_back(value: Any) -> None:
    assert values(yaml.safe_dump(value)) == [value]
