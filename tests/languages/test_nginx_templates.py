"""Templates: they print what the serializer made and nothing else, and what they print cannot move anything."""

from __future__ import annotations

from types import MappingProxyType

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rulegen.errors import ConfigError
from rulegen.languages.nginx.check import MismatchError, check_skeleton
from rulegen.languages.nginx.templates import Filling, Templates, UnquotedError, Value, argument, directives
from rulegen.languages.nginx.text import Token
from rulegen.languages.nginx.tree import Directive, Entry, KeyKind, variable
from tests.nginx_trees import trees, writable
from tests.sizes import examples

VALUES: dict[str, Value] = {
    "token": argument("a b"),
    "number": 3,
    "yes": True,
    "plain": "text",
    "none": None,
    "many": [argument("x"), argument("y")],
    "map": {"inner": argument("z"), "plain": "text"},
}


def render(source: str, **others: str) -> str:
    return Templates({"x": source, **others}).render("x", VALUES)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("{{ token }}\n", '"a b"\n'),
        ("{{ number }}", "3"),
        ("{{ number + 1 }}", "4"),
        ("{% if plain == 'text' and yes and none is none %}{{ token }}{% endif %}", '"a b"'),
        ("{% for one in many %}\n {{ one }};\n{% endfor %}", " x;\n y;\n"),
        ("{% for one in many %}{{ loop.index }}{% endfor %}", "12"),
        ("{{ map.inner }} {{ map['inner'] }}", "z z"),
        ("{{ many|first }}{{ many|length }}{{ (many|reverse|list)[0] }}", "x2y"),
        ("{{ token if yes else number }}", '"a b"'),
        ("{% set it = token %}{{ it }}", '"a b"'),
        ("{% include 'other' %}", 'other "a b"\n'),
        ("{# a comment #}{% raw %}{{ x }}{% endraw %}", "{{ x }}"),
    ],
)
def test_a_template_prints_tokens_and_numbers_and_decides(source: str, expected: str):
    assert render(source, other="other {{ token }}\n") == expected


@pytest.mark.parametrize(
    "source",
    [
        "{{ 'x' }}",
        "{{ plain }}",
        "{{ map.plain }}",
        "{{ yes }}",
        "{{ none }}",
        "{{ 1.5 }}",
        "{{ many }}",
        "{{ (token, token) }}",
        "{{ token + token }}",
        "{{ token + 'x' }}",
        "{{ 'a' + token }}",
        "{{ token * 2 }}",
        "{{ '%s' % 3 }}",
        "{{ token[0] }}",
        "{{ token[1:] }}",
        "{{ token|first }}",
        "{{ token['format'] }}",
        "{% for key in map %}{{ key }}{% endfor %}",
        "{% for letter in token %}{{ letter }}{% endfor %}",
        "{{ token if number > 5 }}",
        "{{ plain or token }}",
    ],
)
def test_nothing_else_is_printed(source: str):
    with pytest.raises((UnquotedError, ConfigError), match=r"^x:2: "):
        render(f"\n{source}")


@pytest.mark.parametrize(
    "source",
    [
        "{{ token ~ token }}",
        "{{ token|upper }}",
        "{{ token|join }}",
        "{{ token|replace('a', 'b') }}",
        "{{ token|safe }}",
        "{{ token|attr('format') }}",
        "{{ plain|format(token) }}",
        "{{ token|tojson }}",
        "{{ many|map('upper')|first }}",
        "{{ many|random }}",
        "{{ token.format(1) }}",
        "{{ token.format }}",
        "{{ token.__class__ }}",
        "{{ ''.__class__.__mro__ }}",
        "{{ many.append(1) }}",
        "{{ range(3) }}",
        "{{ lipsum() }}",
        "{{ self }}",
        "{% macro m() %}x{% endmacro %}{{ m() }}",
        "{% filter upper %}{{ token }}{% endfilter %}",
        "{% set it %}{{ token }}{% endset %}{{ it }}",
        "{% call token() %}{% endcall %}",
        "{% extends 'other' %}",
        "{% import 'other' as o %}",
        "{% block b %}{% endblock %}",
        "{{ unknown }}",
        "{{ map.unknown }}",
        "{% if unknown %}{% endif %}",
        "{{ number // 0 }}",
        "{{ number ** 9 }}",
        "{% if %}",
        "{{ number + plain }}",
        "{% for one in number %}{% endfor %}",
    ],
)
def test_what_could_reach_further_is_an_error_with_its_line(source: str):
    with pytest.raises(ConfigError, match=r"^x:2: "):
        render(f"\n{source}", other="")


def test_escaping_for_another_language_cannot_be_switched_on():
    with pytest.raises(ConfigError, match=r"^x:1: "):
        render("{% autoescape true %}{{ token }}{% endautoescape %}")


@pytest.mark.parametrize("source", ["{% include 'missing' %}", "{% include '/etc/passwd' %}", "{% include '../x' %}"])
def test_only_templates_that_were_given_are_there(source: str):
    with pytest.raises(ConfigError, match="there is no template"):
        render(source)


def test_a_template_that_includes_itself_is_an_error():
    with pytest.raises(ConfigError, match=r"^x:1: "):
        render("{% include 'x' %}")


def test_equal_values_give_equal_bytes():
    assert render("{{ map.inner }}{{ many|last }}") == render("{{ map.inner }}{{ many|last }}")


SKELETON = """# static
user {{ user }};
worker_processes {{ workers }};
events { worker_connections 100; }
http {
 geo $dollar { default "$"; }
{{ settings }}
{% for zone in zones %}
 limit_req_zone $binary_remote_addr zone={{ zone }}:1m rate=1r/s;
{% endfor %}
{% if workers > 1 %}
 server { location = /digest { return 200 {{ digest }}; } }
{% endif %}
}
"""
TEMPLATES = Templates({"nginx.conf.j2": SKELETON})
FILLED: MappingProxyType[str, Value] = MappingProxyType(
    {
        "user": argument("nobody"),
        "workers": 2,
        "settings": directives((Directive("proxy_read_timeout", ("60s",)), Directive("etag", ("off",)))),
        "zones": [argument("one"), argument("two")],
        "digest": argument("0123"),
    }
)


def check(templates: Templates = TEMPLATES, **changed: Value) -> None:
    values = {**FILLED, **changed}
    check_skeleton("nginx.conf", templates.render("nginx.conf.j2", values), templates, "nginx.conf.j2", values)


def test_a_skeleton_says_what_its_values_mean():
    check()
    check(settings=directives(()), zones=[], workers=1)


@settings(deadline=None, max_examples=examples(60))
@given(writable, trees, st.lists(st.sampled_from("abc"), max_size=3))
def test_any_values_are_found_where_they_are_printed(text: str, tree: tuple, zones: list[str]):
    check(digest=argument(text), settings=directives(tree), zones=[argument(zone) for zone in zones])


@pytest.mark.parametrize(
    "changed",
    [
        {"digest": Filling(Token("a; root /"), "a")},
        {"digest": Filling(Token("$host"), "$host")},
        {"digest": Filling(Token("a b"), "a b")},
        {"digest": Filling(Token('"${host}"'), variable("remote_addr"))},
        {"digest": Filling(Token("a; } location /x { return 200"), "a")},
        {"digest": Filling(Token("x #"), "x")},
        {"digest": directives((Directive("etag", ("off",)),))},
        {"digest": argument("$x", takes_variables=False)},
        {"zones": [argument("a b")]},
        {"zones": [Filling(Token("a:1m rate=9r/s;#"), "a")]},
        {"settings": argument("etag")},
        {"settings": Filling(Token("etag on;"), (Directive("etag", ("off",)),))},
        {"settings": Filling(Token("etag off; gzip on;"), (Directive("etag", ("off",)),))},
        {"settings": Filling(Token("etag off; }"), (Directive("etag", ("off",)),))},
        {"settings": Filling(Token(" "), (Directive("etag", ("off",)),))},
        {"settings": directives((Directive("alias", ("/etc",)),))},
        {"settings": directives((Directive("load_module", ("x.so",)),))},
        {"settings": directives((Directive("include", ("/etc/passwd",)),))},
        {"settings": directives((Entry("a", "b", KeyKind.FIXED),))},
        {"user": Filling(Token("root; load_module x.so"), "nobody")},
        {"user": argument(variable("host"))},
    ],
)
def test_a_value_that_says_more_than_itself_is_noticed(changed: dict[str, Value]):
    with pytest.raises(MismatchError, match=r"nginx\.conf:\d+: the file contains "):
        check(**changed)


@pytest.mark.parametrize(
    "source",
    [
        'user "{{ user }}";',
        "# {{ settings }}",
        "{% if user == '\"a b\"' %}etag off;{% endif %}",
        "{{ user }} on;",
        "events { {{ settings }} }",
        "stream { {{ settings }} }",
        "worker_processes {{ user|length }};",
        "user __value_00007__;{{ settings }}",
        "user ${{ user }};",
    ],
)
def test_a_template_that_misplaces_values_is_noticed(source: str):
    with pytest.raises(MismatchError):
        check(Templates({"nginx.conf.j2": source}), user=argument("a b"))
