"""Who answers a request: the compiled locations, walked as nginx walks them, against the Ingress API's own words."""

from __future__ import annotations

import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rulegen.compiler.ingress.nginx import NginxSite
from rulegen.kube.objects import structs as k
from rulegen.languages.nginx.parser import Statement, parse
from tests.sizes import examples
from tests.strategies.ingresses import backend, compiled, endpoints, ingress, path, rule, service

SERVICES = ("s0", "s1", "s2", "s3", "s4", "s5")
GROUND = tuple(each for name in SERVICES for each in (service(name), endpoints(name)))


# -- nginx, by its documentation (ngx_http_core_module: location, server_name) -----------------------------------------


def servers(site: NginxSite) -> list[Statement]:
    return [
        statement
        for name in sorted(site.configuration.files)
        if name.startswith("hosts/")
        for statement in parse(site.configuration.files[name])
        if statement.name == "server"
    ]


def server_of(result: list[Statement], host: str) -> Statement:
    """Return the server: by its exact name, then by a regular expression, then the default one."""
    named = {
        name: each
        for each in result
        for reported in each.block
        if reported.name == "server_name"
        for name in reported.args
    }
    if host in named:
        return named[host]
    matching = [each for name, each in named.items() if name.startswith("~") and re.search(name[1:], host)]
    assert len(matching) < 2
    if matching:
        return matching[0]
    (default,) = (each for each in result if any("default_server" in reported.args for reported in each.block))
    return default


def location_of(server: Statement, uri: str) -> Statement:
    """Return the location: exact, else the first regular expression, else the longest prefix."""
    result = [each for each in server.block if each.name == "location" and not each.args[0].startswith("@")]
    for each in result:
        if each.args[0] == "=" and each.args[1] == uri:
            return each
    for each in result:
        case = re.IGNORECASE if each.args[0] == "~*" else 0
        pattern = re.sub(r"^\(\*LIMIT_MATCH=[0-9]+\)", "", each.args[-1]).replace(r"\z", r"\Z")
        if each.args[0] in {"~", "~*"} and re.search(pattern, uri, case):
            return each
    fitting = [each for each in result if len(each.args) == 1 and uri.startswith(each.args[0])]
    assert len({each.args for each in result}) == len(result), "nginx refuses a location that is there twice"
    return max(fitting, key=lambda each: len(each.args[0]))


def answer(site: NginxSite, host: str, uri: str) -> str:
    return answer_of(server_of(servers(site), host), uri)


def answer_of(server: Statement, uri: str) -> str:
    """Return the Service that answers, or a status."""
    result = location_of(server, uri)
    reported = {each.name: each.args for each in result.block}
    if "return" in reported:
        return reported["return"][0]
    # nginx sends a request for /foo to /foo/ where only that is a location that passes requests on.
    if not any(each.args in {("=", uri), (uri,)} for each in server.block if each.name == "location"):
        for each in server.block:
            sent_on = each.name == "location" and each.args[-1] == f"{uri}/" and each.args[0] != "~*"
            assert not (sent_on and any(inner.name == "proxy_pass" for inner in each.block)), "301"
    return reported["proxy_pass"][0].removeprefix("http://").split(".")[1]


# -- the Ingress API, by its documentation -----------------------------------------------------------------------------


def elements(text: str) -> list[str]:
    return [element for element in text.split("/") if element]


def expected(ingresses: list[k.Ingress], host: str, uri: str) -> str:
    """Return who must answer. Ingresses come oldest first; each has rules for hosts, of which some match."""
    hosts = {rule.host for each in ingresses for rule in each.spec.rules}
    wildcard = "*." + host.partition(".")[2]
    chosen = host if host in hosts else wildcard if wildcard in hosts else ""
    paths: dict[tuple[str, bool], str] = {}
    # Of other hosts, an Ingress without rules has them before one with a rule without host, whatever its age.
    bare = [each for each in ingresses if not chosen and not each.spec.rules and each.spec.default_backend]
    default = bare[0].spec.default_backend.service.name if bare else ""
    for each in ingresses:
        for reported in each.spec.rules:
            if reported.host != chosen:
                continue
            for one_path in reported.http.paths:
                key = one_path.path, one_path.path_type == "Exact"
                paths.setdefault(key, one_path.backend.service.name)
            if each.spec.default_backend:
                default = default or each.spec.default_backend.service.name
    if not chosen and uri == "/healthz":
        return "200"  # who watches the node asks for it by address; an Ingress may take the path by naming it
    if (uri, True) in paths:
        return paths[uri, True]
    fitting = [
        (len(elements(text)), len(text), name)
        for (text, is_exact), name in paths.items()
        if not is_exact and elements(uri)[: len(elements(text))] == elements(text)
    ]
    if fitting:
        return max(fitting)[2]
    return default or "404"


texts = st.sampled_from(
    (
        "/",
        "/a",
        "/a/",
        "/a/b",
        "/a/b/",
        "/ab",
        "/A",
        "/b",
        "/a/b/c",
        "/a.b",
        "/a b",
        '/a"',
        "/a$b",
        "/é",
        "/a;b",
        "/{",
        "/~",
    )
)
hosts = st.sampled_from(("x.test", "y.x.test", "*.x.test", "", "*.y.x.test"))
kinds = st.sampled_from(("Exact", "Prefix", "ImplementationSpecific"))
names = st.sampled_from(SERVICES)
rules = st.builds(
    rule,
    hosts,
    st.builds(path, texts, kinds, names),
    st.builds(path, texts, kinds, names),
    st.builds(path, texts, kinds, names),
)
requests = (
    *("/", "/a", "/a/", "/a/b", "/a/b/", "/a/b/c", "/a/bc", "/ab", "/A", "/b", "/a.b", "/axb"),
    *("/a b", '/a"', "/a$b", "/é/x", "/a;b", "/{", "/~", "/healthz", "/c/d"),
)
asked = ("x.test", "y.x.test", "z.x.test", "w.z.x.test", "w.y.x.test", "other.test")


@st.composite
def lists(draw: st.DrawFn) -> list[k.Ingress]:
    result = []
    for number in range(draw(st.integers(1, 4))):
        reported = draw(st.lists(rules, max_size=2))
        default = draw(st.one_of(st.none(), names)) or (None if reported else "s0")
        result.append(
            ingress(
                f"i{number}",
                *reported,
                created=f"2026-01-0{number + 1}T00:00:00Z",
                default=backend(default) if default else None,
            )
        )
    return result


@settings(max_examples=examples(50), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(lists(), st.randoms(use_true_random=False))
@pytest.mark.slow
def test_the_same_backend_answers_as_the_api_says(ingresses, chance):
    shuffled = list(ingresses)
    chance.shuffle(shuffled)
    result = servers(compiled(*GROUND, *shuffled))
    for host in asked:
        server = server_of(result, host)
        for uri in requests:
            assert answer_of(server, uri) == expected(ingresses, host, uri), (host, uri)


TABLE = [
    # paths with their types; request; who answers ("" for 404)
    ((("/", "Prefix"),), "/any", "/"),
    ((("/foo", "Exact"),), "/foo", "/foo"),
    ((("/foo", "Exact"),), "/bar", ""),
    ((("/foo", "Exact"),), "/foo/", ""),
    ((("/foo", "Exact"),), "/FOO", ""),
    ((("/foo", "Exact"),), "/foo/bar", ""),
    ((("/foo/", "Exact"),), "/foo/", "/foo/"),
    ((("/foo/", "Exact"),), "/foo", ""),
    ((("/foo", "Prefix"),), "/foo", "/foo"),
    ((("/foo", "Prefix"),), "/foo/", "/foo"),
    ((("/foo", "Prefix"),), "/foo/bar", "/foo"),
    ((("/foo", "Prefix"),), "/foobar", ""),
    ((("/foo", "Prefix"),), "/FOO", ""),
    ((("/foo/", "Prefix"),), "/foo", "/foo/"),
    ((("/foo/", "Prefix"),), "/foo/", "/foo/"),
    ((("/aaa/bb", "Prefix"),), "/aaa/bbb", ""),
    ((("/aaa/bbb", "Prefix"),), "/aaa/bbb", "/aaa/bbb"),
    ((("/aaa/bbb", "Prefix"),), "/aaa/bbb/", "/aaa/bbb"),
    ((("/aaa/bbb", "Prefix"),), "/aaa/bbb/ccc", "/aaa/bbb"),
    ((("/aaa/bbb", "Prefix"),), "/aaa/bbbxyz", ""),
    ((("/aaa/bbb/", "Prefix"),), "/aaa/bbb", "/aaa/bbb/"),
    ((("/", "Prefix"), ("/aaa", "Prefix")), "/aaa/ccc", "/aaa"),
    ((("/", "Prefix"), ("/aaa", "Prefix"), ("/aaa/bbb", "Prefix")), "/aaa/bbb", "/aaa/bbb"),
    ((("/", "Prefix"), ("/aaa", "Prefix"), ("/aaa/bbb", "Prefix")), "/ccc", "/"),
    ((("/aaa", "Prefix"),), "/ccc", ""),
    ((("/foo", "Prefix"), ("/foo", "Exact")), "/foo", "/foo Exact"),
    ((("/foo", "Exact"), ("/foo", "Prefix")), "/foo", "/foo Exact"),
    ((("/foo", "Prefix"), ("/foo/", "Prefix")), "/foo", "/foo/"),
    ((("/foo", "Prefix"), ("/foo/", "Prefix")), "/foo/x", "/foo/"),
    ((("/foo", "Exact"), ("/foo/", "Prefix")), "/foo", "/foo Exact"),
    ((("/foo/", "Exact"), ("/", "Prefix")), "/foo", "/"),
]


@pytest.mark.parametrize(("paths", "uri", "who"), TABLE)
def test_documented_examples(paths, uri, who):
    reported = [path(text, kind, SERVICES[number]) for number, (text, kind) in enumerate(paths)]
    names = {"": "404"}
    for number, (text, kind) in enumerate(paths):
        names.setdefault(text if who != f"{text} Exact" or kind != "Exact" else who, SERVICES[number])
    for order in (reported, reported[::-1]):
        site = compiled(*GROUND, ingress("i", rule("h.test", *order)))
        assert answer(site, "h.test", uri) == names[who]


@pytest.mark.parametrize(
    ("host", "expected"),
    [("bar.foo.com", "s0"), ("baz.bar.foo.com", "404"), ("foo.com", "404"), ("x_y.foo.com", "s0"), (".foo.com", "404")],
)
def test_a_wildcard_stands_for_one_label(host, expected):
    site = compiled(*GROUND, ingress("i", rule("*.foo.com", path(to="s0"))))
    assert answer(site, host, "/") == expected


GUESTS = [
    # of another namespace: its paths, uri, who answers; the older one has /, /login (exact) and /app
    (["/(.*)"], "/", "s0"),
    (["/(.*)"], "/x", "s0"),
    (["/(.*)xxxxxxxxxxxxxxxxxxxxxxxxx|/"], "/login", "s1"),
    (["/[a-z/]{1,99}"], "/login", "s1"),
    (["/[a-z/]{1,99}"], "/app/x", "s2"),
    (["/[a-z/]{1,99}"], "/other", "s3"),
    (["/(?:app|xxxxxxxxxxxxxxx)"], "/app", "s2"),
    (["/(api|v2)(/|$)(.*)"], "/api/x", "s3"),
    (["/(api|v2)(/|$)(.*)"], "/x", "s0"),
    (["/app/new(/|$)"], "/app/new/x", "s3"),
    (["/app/new(/|$)"], "/app/old", "s2"),
    (["/[^?]{3}"], "/\u00e9", "s4"),
    # what the older one says goes on meaning what it says
    (["/z.*"], "/loginx", "s0"),
    (["/z.*"], "/Login", "s0"),
    (["/z.*"], "/login/", "s0"),
    (["/z.*"], "/apple", "s0"),
    (["/z.*"], "/app", "s2"),
    (["/z.*"], "/Z", "s3"),
]


@pytest.mark.parametrize(("paths", "uri", "who"), GUESTS)
def test_expressions_of_others_take_nothing_an_older_one_names(paths, uri, who):
    home = ingress(
        "home",
        rule(
            "h.test",
            path("/", to="s0"),
            path("/login", "Exact", "s1"),
            path("/app", "Prefix", "s2"),
            path("/\u00e9", "Prefix", "s4"),
        ),
    )
    guest = ingress(
        "guest",
        rule("h.test", *(path(text, "ImplementationSpecific", "s3") for text in paths)),
        annotations={"use-regex": "true"},
        namespace="other",
        created="2026-02-01T00:00:00Z",
    )
    there = (service("s3", namespace="other"), endpoints("s3", namespace="other"))
    site = compiled(*GROUND, *there, home, guest)
    assert answer(site, "h.test", uri) == who
    assert not [reason for reason in site.model.reasons if str(reason.about) == "Ingress default/home"]


def test_a_younger_exact_expression_takes_no_older_prefix():
    reported = {"use-regex": "true"}
    home = ingress("home", rule("h.test", path("/foo", to="s0")), annotations=reported)
    guest = ingress(
        "guest",
        rule("h.test", path("/foo", "Exact", "s3")),
        annotations=reported,
        namespace="other",
        created="2026-02-01T00:00:00Z",
    )
    there = (service("s3", namespace="other"), endpoints("s3", namespace="other"))
    assert answer(compiled(*GROUND, *there, home, guest), "h.test", "/foo/x") == "s0"


@pytest.mark.not_quick
@pytest.mark.parametrize("count", [10, 2000])
def test_long_expressions_of_others_come_behind_however_many(count):
    home = ingress("home", rule("h.test", path("/", to="s0")))
    paths = [path(f"/.*|{n:x<99}", "ImplementationSpecific", "s3") for n in range(count)]
    guest = ingress(
        "guest",
        rule("h.test", *paths),
        annotations={"use-regex": "true"},
        namespace="other",
        created="2026-02-01T00:00:00Z",
    )
    there = (service("s3", namespace="other"), endpoints("s3", namespace="other"))
    assert answer(compiled(*GROUND, *there, home, guest), "h.test", "/x") == "s0"


def test_regex_mode_takes_the_longest_pattern_first():
    regex = ingress("i", rule("h.test", path("/a/.*", "ImplementationSpecific", "s0"), path("/", "Prefix", "s1")),
                    annotations={"use-regex": "true"})  # fmt: skip
    plain = ingress("j", rule("h.test", path("/a/b.c", "Prefix", "s2"), path("/x", "Exact", "s3")))
    site = compiled(*GROUND, regex, plain)
    for uri, who in (("/A/z", "s0"), ("/a/b.c/d", "s2"), ("/a/bxc", "s0"), ("/xyz", "s3"), ("/q", "s1")):
        assert answer(site, "h.test", uri) == who
    about_j = [reason for reason in site.model.reasons if str(reason.about) == "Ingress default/j"]
    assert any("expressions" in reason.message for reason in about_j)
