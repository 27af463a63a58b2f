"""The structural check: a file says what was intended, or it is refused; judged also by a parser of others.

Known quirks of crossplane 0.5.8, allowed for here: of escapes in quotes it undoes only the quote's own, and it takes
the parentheses of an `if` away.
"""

from __future__ import annotations

import tempfile

import crossplane
import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from rulegen.languages.nginx.check import MismatchError, check_nodes
from rulegen.languages.nginx.parser import Statement, SyntaxFault, parse
from rulegen.languages.nginx.text import UnquotableError, format_nodes
from rulegen.languages.nginx.tree import Directive, Entry, Interpolated, KeyKind, Node, Variable, template, variable
from tests.nginx_trees import NASTY, texts, trees, writable
from tests.sizes import examples


def slow(usual: int) -> settings:
    checks = [HealthCheck.too_slow, HealthCheck.data_too_large]
    return settings(max_examples=examples(usual), deadline=None, suppress_health_check=checks)


def server(*nodes: Node) -> tuple[Node, ...]:
    return (Directive("server", (), nodes),)


def location(*nodes: Node) -> tuple[Node, ...]:
    return server(Directive("location", ("/",), nodes))


def meaning(statements: tuple[Statement, ...]) -> list:
    return [(s.name, s.args, None if s.block is None else meaning(s.block)) for s in statements]


def meaning_to_crossplane(text: str) -> list:
    with tempfile.NamedTemporaryFile("w", suffix=".conf", encoding="utf-8", newline="") as file:
        file.write(text)
        file.flush()
        payload = crossplane.parse(file.name, single=True, check_ctx=False, check_args=False)
    assert payload["status"] == "ok", payload["errors"]

    def unquoted(text: str) -> str:
        return text.replace("\\\\", "\\")

    def simplified(statements: list) -> list:
        return [
            (
                unquoted(s["directive"]),
                tuple(unquoted(arg) for arg in s["args"]),
                simplified(s["block"]) if "block" in s else None,
            )
            for s in statements
        ]

    return simplified(payload["config"][0]["parsed"])


def without_parentheses(statements: list) -> list:
    return [
        (
            name,
            args[1:-1] if name == "if" and block is not None else args,
            None if block is None else without_parentheses(block),
        )
        for name, args, block in statements
    ]


PLACES = {
    "text": lambda text: location(Directive("return", ("200", text))),
    "interpolated": lambda text: location(Directive("return", ("301", Interpolated((Variable("host"), text))))),
    "header": lambda text: location(Directive("add_header", ("X-A", text, "always"))),
    "path": lambda text: server(Directive("location", ("=", f"/{text}"), ())),
    "regex": lambda text: server(Directive("location", ("~*", text), ())),
    "key": lambda text: (Directive("map", (variable("host"), "$x"), (Entry(text, "1"),)),),
    "regex key": lambda text: (Directive("map", (variable("host"), "$x"), (Entry(f"^{text}", "1", KeyKind.REGEX),)),),
    "value": lambda text: (Directive("map", (variable("host"), "$x"), (Entry("a", text),)),),
    "rewritten": lambda text: location(Directive("rewrite", (text, template("/%s$1", text), "break"))),
    "name": lambda text: server(Directive("server_name", (text,))),
    "compared": lambda text: server(Directive("if", ("(", "$x", "!=", text, ")"), (Directive("return", ("403",)),))),
    "matched": lambda text: server(Directive("if", ("(", "$x", "~", text, ")"), (Directive("return", ("403",)),))),
    "realm": lambda text: location(Directive("auth_basic", (text,))),
    "upstream": lambda text: (Directive("upstream", (text,), (Directive("server", ("10.0.0.1:80",)),)),),
    "split": lambda text: (
        Directive("split_clients", (variable("request_id"), "$x"), (Entry("*", text, KeyKind.FIXED),)),
    ),
}


@slow(40)
@given(texts)
@example("\x00")
@example("a\r\nX: y")
@example("\ud800")
@example("x" * 5000)
@example("if")
@pytest.mark.parametrize("place", PLACES)
def test_any_text_is_refused_or_means_itself(place: str, text: str):
    nodes = PLACES[place](text)
    try:
        rendered = format_nodes(nodes)
    except UnquotableError:
        assert len(text.encode(errors="replace")) > 500 or not text.isprintable()
        return
    check_nodes("x.conf", rendered, nodes)
    assert meaning_to_crossplane(rendered) == without_parentheses(meaning(parse(rendered)))


@pytest.mark.parametrize("text", NASTY)
def test_nasty_texts_can_all_be_written(text: str):
    for nodes in PLACES.values():
        rendered = format_nodes(nodes(text))
        check_nodes("x.conf", rendered, nodes(text))


@slow(150)
@given(trees)
def test_any_tree_of_the_grammar_is_read_back_by_both_parsers(tree: tuple[Node, ...]):
    rendered = format_nodes(tree)
    check_nodes("x.conf", rendered, tree)
    assert meaning_to_crossplane(rendered) == without_parentheses(meaning(parse(rendered)))


@slow(300)
@given(trees, st.data())
def test_a_file_is_refused_exactly_when_its_meaning_changed(tree: tuple[Node, ...], data: st.DataObject):
    rendered = format_nodes(tree)
    assume(rendered)
    start = data.draw(st.integers(0, len(rendered)))
    end = data.draw(st.integers(start, min(len(rendered), start + 3)))
    put = data.draw(st.text(alphabet="\"'\\${}#; \nab~", max_size=3))
    changed = rendered[:start] + put + rendered[end:]
    try:
        same = meaning(parse(changed)) == meaning(parse(rendered))
    except SyntaxFault:
        same = False
    if same:
        check_nodes("x.conf", changed, tree)
    else:
        with pytest.raises(MismatchError):
            check_nodes("x.conf", changed, tree)


@slow(100)
@given(trees, trees)
def test_one_tree_is_not_taken_for_another(each: tuple[Node, ...], other: tuple[Node, ...]):
    assume(meaning(parse(format_nodes(each))) != meaning(parse(format_nodes(other))))
    with pytest.raises(MismatchError):
        check_nodes("x.conf", format_nodes(each), other)


@given(writable, writable)
def test_different_literal_texts_are_distinguished(each: str, other: str):
    assume(each != other)
    for place in PLACES.values():
        with pytest.raises(MismatchError):
            check_nodes("x.conf", format_nodes(place(each)), place(other))


@pytest.mark.parametrize(
    ("text", "nodes", "line", "says"),
    [
        ("a", (), 1, "end of file"),
        ("server { }\nserver { }", server(), 2, "nothing"),
        ("\n", server(), 1, "server"),
        ("server {\n alias /etc;\n}", server(Directive("alias", ("/etc",))), 2, "not allowed in server"),
        ("server {\n return 200 $host;\n}", server(Directive("return", ("200", "$host"))), 2, "${dollar}host"),
        ("server {\n return 200 ${host};\n}", server(Directive("return", ("200", variable("host")))), 0, ""),
        ("server {\n return 200 $host;\n}", server(Directive("return", ("200", variable("host")))), 0, ""),
        ("server {\n return 200 $hosts;\n}", server(Directive("return", ("200", variable("host")))), 2, "${host}"),
        ("server {\n return 200 ${1};\n}", server(Directive("return", ("200", variable("1")))), 2, "$1"),
        ("server {\n listen ${host};\n}", server(Directive("listen", (variable("host"),))), 2, "takes none"),
        ("server {\n etag $x;\n}", server(Directive("etag", ("$x",))), 2, "takes none"),
        ("server {\n if ( ${x} ) {}}", server(Directive("if", ("(", variable("x"), ")"), ())), 2, "$x"),
        ("server {\n if ( $xy ) {}}", server(Directive("if", ("(", template("$x$y"), ")"), ())), 2, "takes none"),
        ("map $host $x {}", (Directive("map", ("$host", "$x"), ()),), 1, "takes none"),
        ('map ${host} $x {\n "~a" 1;}', (Directive("map", (variable("host"), "$x"), (Entry("~a", "1"),)),), 2, "~a"),
        (
            "map ${host} $x {\n default 1;}",
            (Directive("map", (variable("host"), "$x"), (Entry("default", "1"),)),),
            2,
            "",
        ),
        (
            'map ${host} $x {\n "~*a" 1;}',
            (Directive("map", (variable("host"), "$x"), (Entry("*a", "1", KeyKind.REGEX),)),),
            2,
            "regex",
        ),
        ("geo $x {\n a 1;}", (Directive("geo", ("$x",), (Entry("a", "1"),)),), 2, "of our own"),
        ("server {\n a 1;}", (Directive("server", (), (Entry("a", "1"),)),), 2, "block of entries"),
    ],
)
def test_a_mismatch_tells_file_line_and_both_sides(text: str, nodes: tuple[Node, ...], line: int, says: str):
    if not line:
        check_nodes("hosts/x.conf", text, nodes)
        return
    with pytest.raises(MismatchError) as caught:
        check_nodes("hosts/x.conf", text, nodes)
    assert (caught.value.path, caught.value.line) == ("hosts/x.conf", line)
    assert str(caught.value).startswith(f"hosts/x.conf:{line}: the file contains ")
    assert says in str(caught.value)


def test_messages_are_escaped_and_short():
    with pytest.raises(MismatchError) as caught:
        check_nodes(
            "x.conf", f'server {{ return 200 "\x1b\n{"é" * 1000}"; }}', server(Directive("return", ("200", "x")))
        )
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 400


def test_main_directives_are_checked_in_their_context():
    nodes = (Directive("events", (), (Directive("worker_connections", ("100",)),)),)
    check_nodes("nginx.conf", format_nodes(nodes), nodes, context="main")
    with pytest.raises(MismatchError, match="not allowed in http"):
        check_nodes("nginx.conf", format_nodes(nodes), nodes)
