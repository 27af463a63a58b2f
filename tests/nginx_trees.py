"""Hypothesis strategies: hostile texts, and trees of everything that nginx's grammar of ours allows."""

from __future__ import annotations

from hypothesis import strategies as st

from rulegen.languages.nginx.grammar import (
    ALLOWED,
    BLOCKS,
    CACHE_FOLDER,
    ENTRY_BLOCKS,
    IGNORING,
    INTERNAL_REDIRECT,
    NO_FILE,
    Reading,
    reading,
    refusal,
)
from rulegen.languages.nginx.tree import Directive, Entry, Interpolated, KeyKind, Node, Variable, Word

NASTY = (
    "",
    " ",
    "$",
    "\\",
    '"',
    "'",
    "#",
    "{",
    "}",
    ";",
    "a\\",
    'a"',
    '";',
    "; alias /etc; #",
    "} server { listen 81; }",
    "${host}",
    "$host",
    "${dollar}",
    "$$",
    "$1",
    "\\$host",
    "\\n",
    "\\\\",
    '\\"',
    "~",
    "~*x",
    "\\~",
    "default",
    "hostnames",
    "include",
    "volatile",
    "@x",
    "= /",
    "#comment",
    "a b",
    "é",
    "日本\u2028語",
    "\xa0",
    "a\u0085b",
    "on",
    "*",
    "__value_00000__",
)
pieces = st.sampled_from((*NASTY, "a", "b", "/", "x", ".", "\t", "\n", "host", "{2}"))
texts = st.one_of(
    st.sampled_from(NASTY),
    st.lists(pieces, max_size=6).map("".join),
    st.text(max_size=12),
    st.text(alphabet="\"'\\$#{};~*=() ab\t\n", max_size=12),
)
writable = texts.map(lambda text: "".join(c for c in text if c.isprintable() or c in "\xa0\u2028\x85"))
variables = st.sampled_from(("host", "request_uri", "1", "9", "upstream_http_x")).map(Variable)
interpolated = st.lists(st.one_of(writable, variables), min_size=1, max_size=4).map(
    lambda parts: Interpolated(tuple(parts))
)
files = st.sampled_from(("logs/a.log", "secrets/0123.pem", "hosts/*.conf"))


def _words(how: Reading) -> st.SearchStrategy[Word]:
    if how is Reading.TEXT:
        return st.one_of(writable, interpolated)
    return writable if how is Reading.LITERAL else writable.map(lambda text: text.replace("$", ""))


ONLY: dict[str, tuple[Word, ...]] = {
    **dict.fromkeys(IGNORING, (INTERNAL_REDIRECT,)),
    "try_files": (NO_FILE, "=404"),
    "proxy_cache_path": (CACHE_FOLDER, "keys_zone=auth:10m"),
}
"""Arguments of directives that the grammar allows in one form."""


@st.composite
def _arguments(draw: st.DrawFn, name: str) -> tuple[Word, ...]:
    if name in ONLY:
        return ONLY[name]
    if name == "location":
        modifier = draw(st.sampled_from(("", "=", "^~", "~", "~*")))
        path = f"/{draw(writable)}"
        return (modifier, path) if modifier else (path,)
    if name == "if":
        asked = draw(st.sampled_from(("$x", Interpolated((Variable("host"),)))))
        return ("(", asked, draw(st.sampled_from(("=", "!="))), draw(_words(Reading.TEXT)), ")")
    words: list[Word] = []
    for position in range(draw(st.integers(0, 3))):
        words.append(draw(_words(reading(name, (*words, ""), position))))
    return tuple(words)


@st.composite
def entries(draw: st.DrawFn, block: str) -> Entry:
    if block != "map":
        key = draw(st.sampled_from(("default", "10.0.0.0/8", "12.5%", "*")))
        return Entry(key, draw(writable), KeyKind.FIXED)
    kind = draw(st.sampled_from((KeyKind.LITERAL, KeyKind.REGEX, KeyKind.REGEX_ANY_CASE)))
    key = draw(writable)
    # A regular expression that begins with a star is none, and would be read as one of the other kind.
    key = f"^{key}" if kind is KeyKind.REGEX and key.startswith("*") else key
    return Entry(key, draw(_words(Reading.TEXT)), kind)


@st.composite
def directives(draw: st.DrawFn, context: str, depth: int) -> Directive:
    name = draw(st.sampled_from(NAMES[context]))
    block = BLOCKS.get((context, name))
    args = draw(_arguments(name))
    literals = ["" if isinstance(word, Interpolated) else word for word in args]
    if refusal(context, name, literals, block=block is not None):
        args = (draw(files), *args[1:])
    if name in {"map", "split_clients"}:
        args = (Interpolated((Variable("host"),)), "$x")
    if block is None:
        return Directive(name, args)
    return Directive(name, args, tuple(draw(st.lists(nodes(block, depth - 1), max_size=3 if depth else 0))))


def nodes(context: str, depth: int) -> st.SearchStrategy[Node]:
    """Return anything that may stand in a context, nested at most so deep."""
    if context in ENTRY_BLOCKS:
        return entries(context)
    if context == "types":
        return st.just(Directive("text/html", ("html",)))
    return directives(context, depth)


NAMES = {
    context: sorted({name for place, name in ALLOWED if place == context})
    for context in {place for place, _ in ALLOWED}
}
trees = st.lists(nodes("http", 3), max_size=4).map(tuple)
