"""The parser of nginx's text: what nginx's lexer makes of it, token by token, and what it refuses."""

from __future__ import annotations

import ast
import contextlib
import time
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rulegen.languages.nginx import parser
from rulegen.languages.nginx.parser import Statement, SyntaxFault, parse
from tests.sizes import examples


def tree(text: str) -> list:
    def shown(statements: tuple[Statement, ...]) -> list:
        return [[s.name, *s.args] if s.block is None else ([s.name, *s.args], shown(s.block)) for s in statements]

    return shown(parse(text))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        (" \t\r\n", []),
        ("# only a comment", []),
        ("a;", [["a"]]),
        ("a b\tc\r\nd;", [["a", "b", "c", "d"]]),
        ("a;b;", [["a"], ["b"]]),
        ("a{b;}c;", [(["a"], [["b"]]), ["c"]]),
        ("a b{}", [(["a", "b"], [])]),
        ('a "";', [["a", ""]]),
        ("'' \"\";", [["", ""]]),
        ('a "b c" \'d "e"\';', [["a", "b c", 'd "e"']]),
        ('a "b"{c;}', [(["a", "b"], [["c"]])]),
        (r'a "\"" "\'" "\\" "\t\r\n" "\x\$\ ";', [["a", '"', "'", "\\", "\t\r\n", r"\x\$" + "\\ "]]),
        (r"a \" b\;c d\ e \#;", [["a", '"', r"b\;c", r"d\ e", r"\#"]]),
        ('a b"c d"e;', [["a", 'b"c', 'd"e']]),
        ("a b#c #d\n;", [["a", "b#c"]]),
        ('a #;{}"\n;', [["a"]]),
        ('"#a" "{" ";";', [["#a", "{", ";"]]),
        ("a ${b} x${c}y $d{e;}", [(["a", "${b}", "x${c}y", "$d"], [["e"]])]),
        ("a ${{b;", [["a", "${{b"]]),
        ("a $$ {b;}", [(["a", "$$"], [["b"]])]),
        ("a }b c}d;".replace("}b", "x}b"), [["a", "x}b", "c}d"]]),
        ('a "b";c;', [["a", "b"], ["c"]]),
        ('a "b")c;', [["a", "b", ")c"]]),
        ('if ($x = "b") {c;}', [(["if", "($x", "=", "b", ")"], [["c"]])]),
        ('a "b\nc"\n;d;', [["a", "b\nc"], ["d"]]),
        ("a \xa0b\u2028 \x0b\x0c;", [["a", "\xa0b\u2028", "\x0b\x0c"]]),
        ("a b\0c;", [["a", "b\0c"]]),
        (f"a {'x' * 4094};", [["a", "x" * 4094]]),
        (f'a "{"x" * 4094}";', [["a", "x" * 4094]]),
    ],
)
def test_text_is_read_as_nginx_reads_it(text: str, expected: list):
    assert tree(text) == expected


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("a", 1, "end of file"),
        ("a ", 1, "end of file"),
        ("a # comment ;", 1, "end of file"),
        ("a b\\", 1, "end of file"),
        ('a "b"', 1, "end of file"),
        ("a {\nb;", 2, "end of file"),
        ("a;\n}", 2, 'unexpected "}"'),
        ("a {b}", 1, "end of file"),
        ("a {b }", 1, 'unexpected "}"'),
        (";", 1, 'unexpected ";"'),
        ("{}", 1, 'unexpected "{"'),
        ("a;;", 1, 'unexpected ";"'),
        ('\n\na "b', 3, 'no closing "'),
        ("a 'b\"", 1, "no closing '"),
        ('a "b\\"', 1, 'no closing "'),
        ('a "b"c;', 1, "unexpected 'c'"),
        ('a "b""c";', 1, "unexpected '\"'"),
        ('a "b"#;', 1, "unexpected '#'"),
        ('a "b"}', 1, "unexpected '}'"),
        (f'\na "{"x" * 4095}";', 2, "too long"),
        (f"a {'x' * 4096};", 1, "too long"),
        (f"a {'é' * 2100};", 1, "too long"),
        (f"#{'x' * 4095}\n", 2, "too long"),
        ("a{" * 40 + "b;" + "}" * 40, 1, "too deeply"),
    ],
)
def test_what_nginx_refuses_is_refused_with_its_line(text: str, line: int, says: str):
    with pytest.raises(SyntaxFault, match="line") as reported:
        parse(text)
    assert (reported.value.line, says in reported.value.message) == (line, True), reported.value.message


def test_statements_know_the_line_they_begin_in():
    result = parse('a;\n# c\nb "x\ny"\n z {\n\n c; }\nd;')
    assert [(s.name, s.line) for s in result] == [("a", 1), ("b", 3), ("d", 8)]
    assert result[1].block == (Statement("c", (), 7),)


def letter_by_letter(text: str) -> list[list[str]]:  # noqa: PLR0915
    """Return the tokens of each statement, with the mark that ends it; an oracle that walks as nginx does."""
    reported: list[list[str]] = []
    words: list[str] = []
    raw, quote, comment, escaped, dollar, state = "", "", False, False, False, "blank"
    for c in text:
        comment = comment and c != "\n"
        if comment:
            continue
        if escaped:
            escaped, raw = False, raw + c
            continue
        if state == "closed":
            if c in " \t\r\n":
                state = "blank"
                continue
            if c in ";{":
                reported.append([*words, c])
                words, state = [], "blank"
                continue
            if c != ")":
                raise ValueError(c)
            state = "blank"
        if state == "blank":
            if c in " \t\r\n":
                continue
            if c in ";{}":
                if bool(words) is (c == "}"):
                    raise ValueError(c)
                reported.append([*words, c])
                words = []
            elif c == "#":
                comment = True
            else:
                state, quote, raw = "token", c if c in "\"'" else "", "" if c in "\"'" else c
                escaped, dollar = c == "\\", c == "$"
            continue
        if c == "{" and dollar:
            raw += c
            continue
        dollar = c == "$"
        if c in "\\$":
            raw, escaped = raw + c, c == "\\"
            continue
        if c == quote or (not quote and c in " \t\r\n;{"):
            words.append(unescaped(raw))
            state = "closed" if quote else "blank"
            if not quote and c in ";{":
                reported.append([*words, c])
                words = []
            continue
        raw += c
    if words or state != "blank":
        raise ValueError("end")
    return reported


def unescaped(raw: str) -> str:
    done, rest = "", raw
    while rest:
        pair = {'\\"': '"', "\\'": "'", "\\\\": "\\", "\\t": "\t", "\\r": "\r", "\\n": "\n"}.get(rest[:2])
        done, rest = (done + pair, rest[2:]) if pair else (done + rest[0], rest[1:])
    return done


def flat(statements: tuple[Statement, ...]) -> list[list[str]]:
    reported = []
    for statement in statements:
        if statement.block is None:
            reported.append([statement.name, *statement.args, ";"])
        else:
            reported += [[statement.name, *statement.args, "{"], *flat(statement.block), ["}"]]
    return reported


@settings(max_examples=examples(1500), deadline=None)
@given(st.text(alphabet="\"'\\${}#;) \nabt\r", max_size=14))
def test_it_agrees_with_a_walk_letter_by_letter(text: str):
    try:
        expected = letter_by_letter(text)
        depth = 0
        for words in expected:
            depth += {"{": 1, "}": -1}.get(words[-1], 0)
            assert depth >= 0
        assert depth == 0
    except (ValueError, AssertionError):
        with pytest.raises(SyntaxFault):
            parse(text)
        return
    assert flat(parse(text)) == expected


@given(st.text(alphabet="\"'\\${}#;) \nab", max_size=40), st.integers(1, 2000))
def test_no_text_takes_long(text: str, times: int):
    start = time.process_time()
    with contextlib.suppress(SyntaxFault):
        parse(text * times)
    assert time.process_time() - start < 2


def test_it_shares_no_code_with_what_it_judges():
    """A fault of the serializer must not hide in the parser."""
    allowed = {"parser.py": {"rulegen.errors"}, "grammar.py": {"rulegen.languages.nginx.sockets"}}  # names of files
    for name, modules in allowed.items():
        module = ast.parse((Path(parser.__file__).with_name(name)).read_text(encoding="utf-8"))
        result = {node.module or "" for node in ast.walk(module) if isinstance(node, ast.ImportFrom)}
        result |= {each.name for node in ast.walk(module) if isinstance(node, ast.Import) for each in node.names}
        assert {each for each in result if each.startswith("rulegen")} <= modules
