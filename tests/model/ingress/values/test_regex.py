"""Expressions of objects: what is accepted compiles in the library that nginx uses, and comes to an end there."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rulegen.model.ingress.values import regex
from tests.pcre import MATCH_LIMIT, Pattern
from tests.sizes import examples

USUAL = (
    "/",
    "/foo",
    "/foo/.*",
    "/foo(/|$)(.*)",
    "/api/v[0-9]+/(.*)",
    "^/api/(?:users|groups)/([0-9a-f-]{36})$",
    "/(.+\\.(?:jpg|png|gif))$",
    "/(?!private)[a-z]+",
    "(?i)^/docs",
    "/([a-z]{2}(-[a-zA-Z]{2})?/)?news/?$",
    "/(?:[0-9]{1,3}\\.){3}[0-9]{1,3}",
    "/[[:alpha:]_][[:alnum:]_]*",
    "/[^/]+/[^/]+/[^/]+",
    "/\\d+/\\w*",
    "/(foo|bar)*",
    "/été/[à-ü]+",
    "CN=(a|b)\\.example\\.com",
    "a{2,5}b{3}c{1,}d?e*?f++",
    "[]a]",
    "[a-z-]",
    "a{",
    "",
)
BROKEN = (
    "(",
    ")",
    "[",
    "[]",
    "[z-a]",
    "*a",
    "+",
    "?",
    "a**",
    "a{2}{3}",
    "{2}",
    "a{5,2}",
    "a{1001}",
    "a{0,9999}",
    "\\",
    "^*",
    "$+",
    "\\b+",
    "(?i)*",
    "[\\B]",
    "[\\A]",
    "[\\d-z]",
    "[[:alpha:]-z]",
    "[:alpha:]",
    "[.a.]",
    "[[:nope:]]",
    "\\1",
    "\\k<x>",
    "\\Ka",
    "\\Qa\\E",
    "\\p{L}",
    "\\x41",
    "(?<x>a)",
    "(?P<x>a)",
    "(?<=a)b",
    "(?<!a)b",
    "(?>a)",
    "(?R)",
    "(?1)",
    "(?C1)",
    "(?#x)",
    "(?|a)",
    "a(?i)b",
    "(*ACCEPT)",
    "(*LIMIT_MATCH=1)a",
    "(?:" * 30 + "a" + ")" * 30,
    "a" * 1001,
    "a{0}",
    "a{0,0}",
    "a{,3}",
    "a{ 1,3 }",
    "a{12345}",
    "a{00000}",
    "(a{1,12345}){1,12345}",
    "a\nb",
    "a\x00",
    "\u202ea",
    "(?:(?:a{1000}){1000}){1000}",
    "((a|b){1000}){100}",
)
RUNAWAYS = (
    "(a+)+$",
    "(a*)*b",
    "(a|a)+$",
    "(a|aa)+$",
    "(a|.)+$",
    "(a|A)+$",
    "(?:ab|Ab)*!",
    "(a|b{0}a)+$",
    "(a|b{00000}a)+$",
    "(aa?)+$",
    "(?:a?){60}b",
    "(a*){30}$",
    "(a+){20}b",
    "((a{1,9}){1,9}){1,9}b",
    "(((a{0,9}){9}){9}){9}b",
    "(.*a){25}",
    "(x+x+)+y",
    "([a-z]+)*\\d",
    "(?:(?:a+)?)+b",
    "(a{1,99}){1,99}b",
    ".*.*.*.*.*.*.*b",
    ".{0,1000}.{0,1000}.{0,1000}b",
)
LETTERS = (
    *"ab/-.,:1é^$|?*+()[]{}\\",
    "(?:",
    "(?=",
    "(?!",
    "(?i)",
    "[^",
    "{2}",
    "{2,}",
    "{0,3}",
    "{1,200}",
    "{1000}",
    "{0}",
    "{,2}",
    "{12345}",
    "A",
    "|A",
    ".*",
    "\\d",
    "\\W",
    "\\b",
    "\\A",
    "\\z",
    "\\.",
    "\\]",
    "\\-",
    "[:alpha:]",
    "[[:digit:]",
)
made_up = st.lists(st.sampled_from(LETTERS), max_size=12).map("".join)
atoms = st.sampled_from(("a", "b", "[ab]", ".", "a|b", "", "/", "[^/]", "\\w", "^", "$"))
nested = st.recursive(
    atoms,
    lambda inner: st.one_of(
        st.tuples(inner, inner).map("".join),
        inner.map(lambda text: f"({text})"),
        inner.map(lambda text: f"(?={text})"),
        st.tuples(inner, st.sampled_from(("*", "+", "?", "{2}", "{0,3}", "{1,12}", "{9,}", "*?", "++"))).map(
            lambda pair: f"({pair[0]}){pair[1]}"
        ),
    ),
    max_leaves=6,
)


def is_accepted(text: str) -> bool:
    try:
        return regex.check(text) == text
    except ValueError as error:
        message = str(error)
    assert message.isprintable()
    return False


@pytest.mark.parametrize("text", USUAL)
def test_what_people_write_is_accepted_and_compiles(text):
    assert is_accepted(text)
    with Pattern(text) as pattern:
        assert pattern.error == 0


@pytest.mark.parametrize("text", BROKEN)
def test_what_is_no_expression_or_of_no_need_is_refused(text):
    assert not is_accepted(text)


@pytest.mark.parametrize("text", RUNAWAYS)
def test_what_takes_time_without_bound_is_refused(text):
    assert not is_accepted(text)


@settings(max_examples=examples(800), deadline=None)
@given(st.one_of(made_up, nested))
def test_whatever_is_accepted_compiles(text):
    for written in (text, f"^{text}", f"(?i)^{text}"):
        if is_accepted(text):
            with Pattern(written) as pattern:
                assert pattern.error == 0


SUBJECTS = ("a" * 199 + "!", "ab" * 99 + "!", "/" * 199 + "!", "a/" * 99 + "!", "/" + "b" * 198 + "\n")


@settings(max_examples=examples(250), deadline=None)
@given(st.one_of(nested, made_up).filter(lambda text: len(text) <= 40))
def test_whatever_is_accepted_comes_to_an_end(text):
    if not is_accepted(text) or text.count("*") + text.count("+") + text.count(",}") > 3:
        return
    with Pattern(f"^{text}!!$") as pattern:
        for subject in SUBJECTS:
            assert pattern.match(subject, 10_000_000) != MATCH_LIMIT  # three times `*` take 1.3 million steps here


@settings(max_examples=examples(300))
@given(st.text(alphabet=st.characters(exclude_categories=("Cs",)), max_size=20))
def test_an_escaped_text_matches_itself_and_nothing_longer(text):
    with Pattern(f"^{regex.escape(text)}\\z") as pattern:
        assert pattern.error == 0
        assert pattern.match(text) > 0
        assert pattern.match(f"{text}x") < 0


@pytest.mark.parametrize(
    ("text", "expected"),
    [("/", 0), ("/(.*)", 1), ("/(?:a)(b)(c)", 2), ("/\\((a)", 1), ("/[(](a)", 1), ("/[\\](](a)", 1), ("(?=(a))", 1)],
)
def test_groups_that_capture_are_counted(text, expected):
    assert regex.groups(regex.check(text)) == expected
