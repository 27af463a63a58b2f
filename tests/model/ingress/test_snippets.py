"""Snippets: what one may have kept out stays out, what is harmless is reported, and nothing of one is ever written."""

from __future__ import annotations

import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rulegen.model.ingress.ir import FixedResponse
from rulegen.model.ingress.reasons import Verdict
from rulegen.model.ingress.values.snippets.judgement import SnippetPlace, judged
from rulegen.model.ingress.values.snippets.reader import read_snippet
from tests.sizes import examples
from tests.strategies.ingresses import (
    NAMED,
    NASTY,
    WEB,
    compiled,
    endpoints,
    ingress,
    path,
    reported,
    rule,
    service,
    settings_map,
    text_of,
    verdicts,
)

PROTECTING = [
    "deny 192.0.2.1;",
    "allow 10.0.0.0/8; deny all;",
    "allow 10.0.0.0/8;\n# everybody else\ndeny all ;",
    "return 403;",
    "return 302 /login;",
    'if ($http_x_api_key != "secret") { return 403; }',
    "if ($http_user_agent ~* (bot|crawler)) {\n  return 403;\n}",
    "if ($request_method = OPTIONS) { return 204; }\nif ($request_method !~ ^GET$) { return 405; }",
    "auth_basic 'Members only';\nauth_basic_user_file /etc/nginx/users;",
    "auth_request /check;",
    "location /-/reload { return 403; }",
    "location ~ ^/(?:build|tests|config|lib|3rdparty|templates|data)/ { deny all; }",
    "location = /metrics { internal; }",
    "location /static { add_header X-A b; }",
    "satisfy any;",
    "limit_req zone=a burst=5;",
    "limit_conn addr 10;",
    "limit_except GET { deny all; }",
    "ssl_verify_client on;",
    "proxy_set_header X-Webauth-User $remote_user;",
    'proxy_set_header X-Forwarded-User "";',
    "more_clear_input_headers X-User;",
    "more_set_input_headers 'X-User: $remote_user';",
    "more_set_input_headers 'X-User:';",
    "more_set_input_headers 'X-User';",
    "more_set_input_headers 'X-Role: guest';",
    "more_set_input_headers -t 'a/b' 'Host: a';",
    "proxy_set_header X-User $REMOTE_USER;",
    "proxy_set_header Host ${Remote_User};",
    "proxy_set_header X-Scope-OrgID team-a;",
    "set $e ''; proxy_set_header X-User $e;",
    "if ($http_x_token != s3cret) { set $proxy_upstream_name upstream-default-backend; }",
    "set $limit_rate 1024;",
    "if ($arg_admin) { set $args ''; }",
    "set $http_authorization '';",
    "location = /robots.txt { proxy_pass http://a; }",
    "location /robots.txt.bak { return 200; }",
    "location = /metrics { return 200; }",
    "if ($request_method = OPTIONS) { return 204; deny all; }",
    "limit_rate 10k;",
    "rewrite ^/admin /denied break;",
    "access_by_lua_block { ngx.exit(403) }",
    "a_directive_of_tomorrow on;",
    "add_header X-A b; 'deny' all;",
    'add_header X-A "a;b"; d\\eny all;',
    "add_header X-A b # comment ; \n; deny all;",
    "deny all",
    "} location /x {",
    "add_header X-A 'b;",
    "add_header X-A 'b'c;",
    "if ($a) { add_header X-A b;",
    "add_header X-A b;" * 5000,
    "{" * 100,
]
HARMLESS = [
    "add_header X-Frame-Options DENY always;",
    'more_set_headers "X-A: deny all; return 403;";',
    "proxy_set_header X-Forwarded-Proto https;",
    "proxy_set_header Accept-Encoding '';",
    'proxy_set_header Connection "";',
    "# deny all;\nproxy_read_timeout 300s;",
    "#deny all;",
    "add_header X-A '# deny all; }';",
    'add_header X-A "\\"; deny all; \\"";',
    "add_header X-A ${host};",
    "client_max_body_size 10m; gzip on; expires 1h;",
    "if ($http_origin) { add_header X-A b; }",
    "if ($request_method = 'OPTIONS') { add_header Access-Control-Allow-Origin '*'; return 204; }",
    "set $a 1;\nsub_filter a b;",
    "more_set_input_headers 'X-Forwarded-Proto: https';",
    "location = /robots.txt {\n  add_header Content-Type text/plain;\n  return 200 'User-agent: *';\n}",
    "error_page 404 /404.html;",
    "proxy_cache a; proxy_cache_valid 200 1m;",
]


def closed(site, host="site.test"):
    """Return whether all paths that an Ingress has at a host answer 503."""
    answers = [location.target for location in site.model.servers[host].locations if location.ingress]
    return bool(answers) and all(answer == FixedResponse(503) for answer in answers)


@pytest.mark.parametrize("name", ["configuration-snippet", "server-snippet"])
@pytest.mark.parametrize("text", PROTECTING)
def test_what_a_snippet_may_keep_out_stays_out(name, text):
    site = compiled(*WEB, ingress("site", rule("site.test", path(), path("/x", "Exact")), annotations={name: text}))
    assert closed(site)
    assert "proxy_pass" not in text_of(site)
    (reason,) = (reason for reason in reported(site) if reason.verdict is Verdict.CLOSED)
    assert name in reason.path
    assert str(reason).isprintable()


@pytest.mark.parametrize("name", ["configuration-snippet", "server-snippet"])
@pytest.mark.parametrize("text", HARMLESS)
def test_a_harmless_snippet_is_reported_and_the_rest_is_served(name, text):
    site = compiled(*WEB, ingress("site", rule("site.test"), annotations={name: text}))
    assert not closed(site)
    assert {reason.verdict for reason in reported(site)} <= {Verdict.UNSUPPORTED, Verdict.IGNORED}
    assert any(name in reason.path for reason in reported(site))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("\ndeny 192.0.2.1;", ['line 2: "deny 192.0.2.1"', "refuses addresses", "denylist-source-range"]),
        ("location /a { return 403; }", ['"return 403"', "in location /a"]),
        ("auth_request /check;", ["auth-url"]),
        ("deny all", ["line 1", "closing"]),
    ],
)
def test_the_message_names_the_directive_and_what_says_the_same(text, words):
    site = compiled(*WEB, ingress("site", rule("site.test"), annotations={"configuration-snippet": text}))
    (reason,) = reported(site)
    assert all(word in reason.message for word in words)


def test_a_harmless_snippet_is_reported_with_alternatives():
    text = "more_set_headers 'X-A: b'; proxy_read_timeout 5s;"
    site = compiled(*WEB, ingress("site", rule("site.test"), annotations={"configuration-snippet": text}))
    (reason,) = reported(site)
    assert "custom-headers" in reason.message
    assert "proxy-read-timeout" in reason.message


def _of(name, namespace, path_, created, **annotations):
    texts = {key.replace("_", "-"): text for key, text in annotations.items()}
    paths = rule("site.test", path(path_))
    return ingress(name, paths, namespace=namespace, annotations=texts, created=f"2026-01-0{created}T00:00:00Z")


def test_a_server_snippet_closes_its_host():
    """It belongs to the server: of who had the host first, it closes all; of another, only that namespace's paths."""
    other = (service("web", namespace="other"), endpoints("web", namespace="other"))
    snippet = {"server_snippet": "deny all;"}
    owners = compiled(*WEB, *other, _of("a", "default", "/", 1), _of("b", "default", "/b", 2, **snippet),
                      _of("c", "other", "/c", 3))  # fmt: skip
    assert closed(owners)
    for name in ("default/a", "default/b", "other/c"):
        assert verdicts(owners, name) == {Verdict.CLOSED}

    guests = compiled(*WEB, *other, _of("a", "default", "/", 1), _of("b", "other", "/b", 2, **snippet),
                      _of("c", "other", "/c", 3))  # fmt: skip
    answers = {location.source: location.target for location in guests.model.servers["site.test"].locations}
    assert answers["/b"] == answers["/c"] == FixedResponse(503)
    assert answers["/"] != FixedResponse(503)
    assert verdicts(guests, "default/a") == set()


@pytest.mark.parametrize(
    "guard", [{"server_snippet": "deny all;"}, {"auth_tls_secret": "default/ca"}, {"auth_tls_secret": "wrong"}]
)
@pytest.mark.parametrize("fault", [{"rewrite_target": "/x;"}, {"app_root": "no-path"}])
def test_a_rejected_ingress_still_closes_what_it_protects(guard, fault):
    other = (service("web", namespace="other"), endpoints("web", namespace="other"))
    rejected = _of("a", "default", "/", 1, **guard, **fault)
    owners = compiled(*WEB, *other, rejected, _of("b", "default", "/b", 2), _of("c", "other", "/c", 3))
    assert closed(owners)
    assert verdicts(owners, "default/a") >= {Verdict.REJECTED}
    assert verdicts(owners, "default/b") == verdicts(owners, "other/c") == {Verdict.CLOSED}

    younger = _of("a", "default", "/", 2, **guard, **fault)
    guests = compiled(*WEB, *other, _of("c", "other", "/c", 1), younger, _of("b", "default", "/b", 3))
    answers = {location.source: location.target for location in guests.model.servers["site.test"].locations}
    assert answers["/b"] == FixedResponse(503)
    assert answers["/c"] != FixedResponse(503)

    harmless = compiled(*WEB, _of("a", "default", "/", 1, **fault), _of("b", "default", "/b", 2))
    assert not closed(harmless)


def test_a_configuration_snippet_closes_its_own_paths():
    site = compiled(*WEB, _of("a", "default", "/", 1), _of("b", "default", "/b", 2, configuration_snippet="deny all;"))
    answers = {location.source: location.target for location in site.model.servers["site.test"].locations}
    assert answers["/b"] == FixedResponse(503)
    assert answers["/"] != FixedResponse(503)


def test_the_server_snippet_of_a_canary_has_no_effect_on_others():
    canary = _of("b", "default", "/", 2, canary="true", canary_weight="10", server_snippet="deny all;")
    assert not closed(compiled(*WEB, _of("a", "default", "/", 1), canary))


@pytest.mark.parametrize(
    ("annotations", "is_closed"),
    [
        ({"auth-snippet": "proxy_set_header X-Role admin;", "auth-url": "http://web.default.svc/"}, True),
        ({"auth-snippet": "proxy_read_timeout 5s;", "auth-url": "http://web.default.svc/"}, False),
        ({"auth-snippet": "proxy_set_header X-Role admin;"}, False),
        ({"stream-snippet": "server { listen 8000; deny all; }"}, False),
        ({"modsecurity-snippet": "SecRuleEngine On", "enable-modsecurity": "true"}, True),
        ({"modsecurity-snippet": "SecRuleEngine On"}, False),
        ({"modsecurity-snippet": "SecRuleEngine DetectionOnly", "enable-modsecurity": "true"}, False),
        ({"modsecurity-snippet": "Include /etc/rules", "enable-modsecurity": "true"}, True),
        ({"modsecurity-snippet": 'SecAction "id:1,pass,ctl:ruleEngine=On"', "enable-modsecurity": "true"}, True),
        ({"modsecurity-snippet": "'; deny all; modsecurity_rules '", "enable-modsecurity": "true"}, True),
        ({"configuration-snippet": ""}, False),
    ],
)
def test_where_else_a_snippet_protects(annotations, is_closed):
    site = compiled(*WEB, *NAMED, ingress("site", rule("site.test"), annotations=annotations))
    assert closed(site) is is_closed
    assert any("-snippet" in reason.path for reason in reported(site))


@pytest.mark.parametrize(
    ("settings_", "is_closed"),
    [
        ({"server_snippet": "deny 192.0.2.1;"}, True),
        ({"location_snippet": "if ($a) { return 403; }"}, True),
        ({"http_snippet": "deny 192.0.2.1;"}, True),
        ({"http_snippet": "map $a $b { default 1; }\nlimit_req_zone $a zone=b:1m rate=1r/s;"}, False),
        ({"main_snippet": "env A;"}, False),
        ({"modsecurity_snippet": "SecRuleEngine On", "enable_modsecurity": "true"}, True),
        ({"modsecurity_snippet": "SecRuleEngine On"}, False),
        ({"global_auth_snippet": "proxy_set_header A b;"}, False),
        ({"global_auth_snippet": "proxy_set_header A b;", "global_auth_url": "http://web.default.svc/"}, True),
    ],
)
def test_a_protecting_snippet_of_settings_closes_all(settings_, is_closed):
    site = compiled(*WEB, settings_map(**settings_), ingress("site", rule("site.test")))
    assert closed(site) is is_closed
    keys = {reason.message.partition(":")[0] for reason in site.model.reasons if reason.about is None}
    assert keys >= {f"data.{key.replace('_', '-')}" for key in settings_ if key != "global_auth_url"}
    snippets = [reason for reason in site.model.reasons if "-snippet" in reason.message.partition(":")[0]]
    assert len(snippets) == 1
    assert (snippets[0].verdict is Verdict.CLOSED) is is_closed


@pytest.mark.parametrize("text", NASTY)
@pytest.mark.parametrize("place", SnippetPlace)
def test_no_text_breaks_the_judgement(text, place):
    judgement = judged(text, place)
    assert judgement.message.isprintable()
    assert judgement.message or not text.strip() or not judgement.protects


WORDS = st.text(string.ascii_letters + string.digits + " \"'\\;{}#$\n", max_size=12)


def _spelled(word):
    return '"' + word.replace("\\", "\\\\").replace('"', '\\"') + '"'


@settings(max_examples=examples(100), deadline=None)
@given(st.lists(st.lists(WORDS, min_size=1, max_size=3), max_size=3))
def test_directives_are_read_as_they_were_written(directives):
    text = "\n".join(" ".join(map(_spelled, words)) + "; # deny all;" for words in directives)
    assert [[each.name, *each.words] for each in read_snippet(text)] == directives
