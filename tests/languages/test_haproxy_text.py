"""Texts of objects for HAProxy: any bytes come back as they were, or are refused; never as anything else."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from rulegen.languages.haproxy.check import (
    DifferenceError,
    check_certificates,
    check_map,
    check_sections,
)
from rulegen.languages.haproxy.parser import UnreadableError, read_command, read_sections, read_words
from rulegen.languages.haproxy.text import (
    UnwritableError,
    certificate_line,
    format_map,
    format_sections,
    socket_command,
)
from rulegen.languages.haproxy.tree import ConfigSection, log_format, matches, sample, statement
from tests.sizes import examples

HOSTILE = st.lists(
    st.sampled_from([*" ;\\#'\"%$<>{}[]()|,!-\n\r\t\0", "a", "é", "%[", "${HOME}", "<<", "\\n", "'\\''", "\ud800"])
    | st.characters(),
    max_size=8,
).map("".join)


def written(*words):
    """Return a section with one line, and its text."""
    section = ConfigSection("backend", "b", (statement(*words),))
    return section, format_sections([section])


@pytest.mark.not_quick
@settings(max_examples=examples(1000), deadline=None)
@example("a'b")
@example("a\\")
@example("# x")
@example("a  b")
@example("  ")
@example("%[env(HOME)]")
@given(HOSTILE)
def test_a_text_in_a_file_is_read_back_as_itself(text):
    expression = sample("var", "txn.x").then("lower")
    section = ConfigSection(
        "backend",
        "b",
        (
            statement("http-request", "set-header", "X", text, when=matches(expression, "str", text)),
            statement("http-request", "set-header", "X", log_format(text, expression, text)),
        ),
    )
    try:
        config = format_sections([section])
    except UnwritableError:
        assert text == "}" or any(ord(c) < 32 or ord(c) == 127 or "\ud800" <= c <= "\udfff" for c in text)
        return
    assert config.count("\n") == 3
    check_sections("haproxy.cfg", config, [section])


@settings(max_examples=examples(1000), deadline=None)
@given(st.lists(st.tuples(HOSTILE, HOSTILE), max_size=4))
@pytest.mark.slow
def test_the_entries_of_a_map_are_read_back_as_themselves(entries):
    try:
        text = format_map(entries)
    except UnwritableError:
        assert any(
            not key or not value or " " in key or key.startswith("#") or value != value.strip(" ")
            or any(ord(c) < 32 or ord(c) == 127 or "\ud800" <= c <= "\udfff" for c in key + value)
            for key, value in entries
        )  # fmt: skip
        return
    check_map("x.map", text, entries)


@settings(max_examples=examples(500), deadline=None)
@given(HOSTILE, st.lists(HOSTILE, max_size=3))
def test_a_line_of_certificates_is_read_back_as_itself(path, names):
    try:
        line = certificate_line(path, names)
    except UnwritableError:
        return
    check_certificates("list", f"{line}\n", [(path, tuple(names))])


@settings(max_examples=examples(1000), deadline=None)
@example(["add", "map", "a b;c\\"])
@given(st.lists(HOSTILE, min_size=1, max_size=4))
@pytest.mark.slow
def test_a_command_for_the_socket_is_one_command_with_its_words(words):
    try:
        line = socket_command(*words)
    except UnwritableError:
        return
    assert read_command(line) == words


@settings(max_examples=examples(300), deadline=None)
@given(HOSTILE)
def test_an_argument_of_an_expression_ends_no_expression(text):
    try:
        section, config = written("http-request", "set-header", "X", log_format(sample("req.fhdr", text)))
    except UnwritableError:
        return
    check_sections("haproxy.cfg", config, [section])


@pytest.mark.parametrize("name", ["a b", "a\nglobal", "a#", "'", "${X}"])
def test_a_name_of_a_section_has_no_characters_with_a_meaning(name):
    with pytest.raises(UnwritableError):
        format_sections([ConfigSection("backend", name, ())])


@pytest.mark.parametrize(
    "change",
    [
        lambda text: text.replace("'a b'", "a b"),
        lambda text: text.replace("'a b'", "'a c'"),
        lambda text: text + "    option httpclose\n",
        lambda text: text + "global\n",
        lambda text: text.replace("backend b", "backend c"),
        lambda text: text.replace("%[var", "%[env"),
        lambda text: text.replace("'a b'", '"$HOME"'),
        lambda text: text.replace("'a b'", "'a b"),
    ],
)
def test_a_changed_file_is_refused(change):
    section, text = written("http-request", "set-header", "a b", log_format("x", sample("var", "txn.x")))
    check_sections("haproxy.cfg", text, [section])
    assert change(text) != text
    with pytest.raises(DifferenceError):
        check_sections("haproxy.cfg", change(text), [section])


@pytest.mark.parametrize("change", [lambda text: text + "b c\n", lambda text: text.replace("x", "y"), lambda text: "a"])
def test_a_changed_map_is_refused(change):
    text = format_map([("a", "x y")])
    check_map("a.map", text, [("a", "x y")])
    with pytest.raises(DifferenceError):
        check_map("a.map", change(text), [("a", "x y")])


@pytest.mark.parametrize("text", ["a b;c\n", "a\nb\n", "a", "a <<\n"])
def test_more_than_one_command_is_refused(text):
    with pytest.raises(UnreadableError):
        read_command(text)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (r"a\ b c", ["a b", "c"]),
        (r"a 'b #' # c", ["a", "b #"]),
        (r'a "b \" c"', ["a", 'b " c']),
        (r"\x41\#\\\n", ["A#\\\n"]),
        ("a '' b", ["a", "", "b"]),
        ("   ", []),
    ],
)
def test_the_lexer_of_haproxy_is_read(line, words):
    assert read_words(line) == words


def test_a_line_before_the_first_section_is_refused():
    with pytest.raises(UnreadableError):
        read_sections("mode http\n")
