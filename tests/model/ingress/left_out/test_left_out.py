"""An Ingress that is not served guards what it guarded: nobody else gets its requests unguarded."""

from __future__ import annotations

import pytest
from msgspec import structs

from rulegen.kube.objects.names import ObjectName
from rulegen.model.ingress.ir import FixedResponse, MatchKind
from rulegen.model.ingress.limits import NamespaceLimits
from rulegen.model.ingress.reasons import Verdict
from rulegen.model.ingress.routing import ingresses
from tests.strategies.ingresses import (
    NAMED,
    WEB,
    compiled,
    endpoints,
    ingress,
    path,
    rule,
    service,
    settings_map,
    tls,
    verdicts,
)

OTHER = (service("web", namespace="other"), endpoints("web", namespace="other"))
CLOSED = FixedResponse(503)
NOBODY = FixedResponse(404)

OF_HOSTS = ({"auth-tls-secret": "default/ca"}, {"auth-tls-secret": "wrong"}, {"server-snippet": "deny all;"})
OF_PATHS = (
    {"auth-type": "basic", "auth-secret": "users"},
    {"auth-type": "digest", "auth-secret": "users"},
    {"auth-url": "http://api.test/"},
    {"whitelist-source-range": "10.0.0.0/8"},
    {"denylist-source-range": "10.0.0.0/8"},
    {"limit-rps": "5"},
    {"configuration-snippet": "deny all;"},
)
WAYS = ("quarantine", "limit", "rejected", "failure", "invalid")
ATTRIBUTES = [pytest.param(guard, id=str(next(iter(guard.items())))) for guard in OF_PATHS]


def _of(name, text="/", day=1, host="site.test", namespace="default", **annotations):
    texts = {key.replace("_", "-"): value for key, value in annotations.items()}
    created = f"2026-01-{day:02}T00:00:00Z"
    return ingress(name, rule(host, path(text)), annotations=texts, namespace=namespace, created=created)


def _without(way, monkeypatch, bad, *others):
    """Compile with an Ingress that is left out."""
    name = ObjectName(bad.metadata.namespace, bad.metadata.name)
    changes = {}
    if way == "rejected":
        bad.metadata.annotations["nginx.ingress.kubernetes.io/canary-by-cookie"] = "no name"
    elif way == "invalid":
        bad.metadata.annotations["not a key"] = ""
    elif way == "quarantine":
        changes["without"] = {name: "nginx rejects it"}
    elif way == "limit":
        refusal = NamespaceLimits.refusal
        monkeypatch.setattr(
            NamespaceLimits,
            "refusal",
            lambda self, known: "too many" if known.metadata.name == name.name else refusal(self, known),
        )
    else:
        policy_of = ingresses.policy_of

        def broken(namespace, annotations, referred):
            if annotations.about.name == name:
                raise ZeroDivisionError
            return policy_of(namespace, annotations, referred)

        monkeypatch.setattr(ingresses, "policy_of", broken)
    return compiled(*WEB, *OTHER, *NAMED, bad, *others, **changes)


def _answers(site, host="site.test"):
    return {location.source: location.target for location in site.model.servers[host].locations}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("guard", OF_HOSTS, ids=str)
def test_what_guards_a_host_closes_it(way, guard, monkeypatch):
    site = _without(
        way,
        monkeypatch,
        _of("bad", "/bad", 2, **guard),
        _of("first", "/", 1),
        _of("b", "/b", 3),
        _of("c", "/c", 4, namespace="other"),
    )
    assert {_answers(site)[text] for text in ("/", "/b", "/c")} == {CLOSED}
    assert verdicts(site, "default/b") == {Verdict.CLOSED}
    assert verdicts(site, "default/bad") & {Verdict.QUARANTINED, Verdict.OVER_LIMIT, Verdict.REJECTED}


@pytest.mark.parametrize("way", WAYS)
def test_a_guest_closes_its_own_namespace_alone(way, monkeypatch):
    bad = _of("bad", "/bad", 2, auth_tls_secret="default/ca")
    site = _without(way, monkeypatch, bad, _of("c", "/c", 1, namespace="other"), _of("b", "/b", 3))
    assert _answers(site)["/b"] == CLOSED
    assert _answers(site)["/c"] not in (CLOSED, NOBODY)


@pytest.mark.parametrize("way", [way for way in WAYS if way != "limit"])
def test_whose_host_it_is_stays_theirs(way, monkeypatch):
    site = _without(
        way, monkeypatch, _of("bad", "/bad", 1, auth_tls_secret="default/ca"), _of("c", "/", 2, namespace="other")
    )
    assert _answers(site)["/"] == CLOSED


@pytest.mark.parametrize("way", [way for way in WAYS if way not in {"limit", "failure"}])
@pytest.mark.parametrize("guard", ATTRIBUTES)
def test_what_guards_a_path_closes_it_and_no_other(way, guard, monkeypatch):
    site = _without(way, monkeypatch, _of("bad", "/admin", 2, **guard), _of("app", "/", 1), _of("b", "/admin/b", 3))
    answers = _answers(site)
    assert answers["/admin"] == CLOSED
    assert answers["/"] not in (CLOSED, NOBODY)
    assert answers["/admin/b"] not in (CLOSED, NOBODY)
    assert Verdict.CLOSED in verdicts(site, "default/bad")


@pytest.mark.parametrize("guard", ATTRIBUTES)
def test_beyond_the_limit_nothing_is_written_so_all_of_the_namespace_is_closed(guard, monkeypatch):
    bad, guest = _of("bad", "/admin", 3, **guard), _of("c", "/c", 2, namespace="other")
    site = _without("limit", monkeypatch, bad, _of("app", "/", 1), guest)
    answers = _answers(site)
    assert "/admin" not in answers
    assert answers["/"] == CLOSED
    assert answers["/c"] not in (CLOSED, NOBODY)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("above", ["*.test", ""])
def test_no_wildcard_takes_what_was_guarded(way, above, monkeypatch):
    bad = _of("bad", "/", 2, auth_type="basic", auth_secret="users")
    site = _without(way, monkeypatch, bad, _of("above", "/", 1, host=above))
    taker = "site.test" if "site.test" in site.model.servers else above
    assert _answers(site, taker)["/"] == CLOSED


@pytest.mark.parametrize("way", WAYS)
def test_what_guarded_nothing_closes_nothing(way, monkeypatch):
    site = _without(way, monkeypatch, _of("bad", "/bad", 1), _of("b", "/b", 2))
    assert (_answers(site)["/b"] == CLOSED) is (way == "failure")  # nobody knows what it guarded
    assert ("/bad" in _answers(site)) is (way == "failure")


@pytest.mark.parametrize("way", ["quarantine", "rejected", "invalid"])
@pytest.mark.parametrize("text", ["/a(.*)", "/a b", "/" + "a" * 251, '/"'])
def test_paths_that_cannot_be_written_close_all_of_the_namespace(way, text, monkeypatch):
    bad = _of("bad", text, 2, auth_type="basic", auth_secret="users")
    site = _without(way, monkeypatch, bad, _of("app", "/", 1))
    assert set(_answers(site).values()) == {CLOSED}
    assert text not in _answers(site)
    alone = _without(way, monkeypatch, bad, _of("above", "/", 1, host="*.test"))
    assert set(_answers(alone).values()) == {CLOSED}


def test_expressions_are_not_written():
    bad = _of("bad", "/admin", 2, auth_type="basic", auth_secret="users", use_regex="true")
    site = compiled(*WEB, *NAMED, bad, _of("app", "/", 1), without={ObjectName("default", "bad"): "no"})
    assert set(_answers(site).values()) == {CLOSED}


def test_a_guard_of_all_guards_those_who_opt_out_of_it():
    bad = _of("bad", "/admin", 2)
    app = _of("app", "/", 1, enable_global_auth="false")
    settings = settings_map(global_auth_url="http://api.test/")
    site = compiled(*WEB, bad, app, settings, without={ObjectName("default", "bad"): "no"})
    assert _answers(site)["/admin"] == CLOSED
    assert _answers(site)["/"] not in (CLOSED, NOBODY)


def test_an_error_of_the_program_is_reported_with_its_place_and_without_its_text(monkeypatch):
    site = _without("failure", monkeypatch, _of("bad", "/bad", 1), _of("b", "/b", 2, host="other.test"))
    (reason,) = (known for known in site.model.reasons if known.verdict is Verdict.REJECTED)
    assert str(reason.about) == "Ingress default/bad"
    assert "internal error of rulegen: ZeroDivisionError at " in reason.message
    assert "test_left_out.py" in reason.message
    assert _answers(site, "other.test")["/b"] not in (CLOSED, NOBODY)


GUARD = {"auth_type": "basic", "auth_secret": "users"}


@pytest.mark.parametrize(
    "other", [{"app_root": "no-path"}, {"canary": "true"}, {"canary": "true", "canary_weight": "5"}], ids=str
)
def test_another_namespace_opens_no_wildcard_that_an_ingress_over_the_limit_closes(other):
    wild = _of("wild", "/", 1, host="*.test")
    guard = _of("guard", "/", 2, host="h.test", **GUARD)
    guest = _of("guest", "/", 5, host="h.test", namespace="other", **other)
    site = compiled(*WEB, *OTHER, *NAMED, wild, guard, guest, most_hosts=1)
    assert _answers(site, "*.test")["/"] == CLOSED


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("host", "below"), [("site.test", "site.test"), ("*.test", "site.test")])
def test_a_host_keeps_its_tls_and_so_its_redirects_and_client_certificates(way, host, below, monkeypatch):
    bad = _of("bad", "/bad", 1, host=host)
    bad = structs.replace(bad, spec=structs.replace(bad.spec, tls=(tls("cert", host),)))
    site = _without(way, monkeypatch, bad, _of("c", "/c", 2, host=below, auth_tls_secret="default/ca"))
    server = site.model.servers[below]
    assert server.has_tls
    assert all(
        known.policy.redirects_to_https(has_tls=server.has_tls) for known in server.locations if known.source == "/c"
    )


@pytest.mark.parametrize("way", ["quarantine", "rejected", "limit", "invalid"])
def test_more_routes_than_can_be_served_close_their_hosts(way, monkeypatch):
    paths = [path(f"/p{index}") for index in range(5001)]
    bad = ingress("bad", rule("h.test", *paths), annotations={"auth-type": "basic", "auth-secret": "users"})
    site = _without(way, monkeypatch, bad, _of("wild", "/", 1, host="*.test"))
    taker = "h.test" if "h.test" in site.model.servers else "*.test"
    assert [known.target for known in site.model.servers[taker].locations] == [CLOSED]


@pytest.mark.parametrize("way", ["quarantine", "rejected", "limit", "invalid"])
@pytest.mark.parametrize("other", [{"host": "*.test"}, {"host": "a.test", "server_alias": "h.test,x.test"}], ids=str)
def test_no_other_server_gets_the_names_of_a_host(way, other, monkeypatch):
    bad = _of("bad", "/", 2, host="h.test", server_alias="x.test", **GUARD)
    site = _without(way, monkeypatch, bad, _of("other", "/", 3, **other))
    servers = site.model.servers
    for name in ("h.test", "x.test"):
        taker = next((host for host, known in servers.items() if name in (host, *known.aliases)), "*.test")
        assert taker not in servers or _answers(site, taker)["/"] == CLOSED


@pytest.mark.parametrize("way", WAYS)
def test_an_older_ingress_keeps_its_additional_names(way, monkeypatch):
    bad = _of("bad", "/", 2, host="h.test", server_alias="x.test", **GUARD)
    site = _without(way, monkeypatch, bad, _of("a", "/", 1, host="a.test", server_alias="x.test,h.test"))
    assert site.model.servers["a.test"].aliases == ("x.test", "h.test")
    assert "h.test" not in site.model.servers
    assert _answers(site, "a.test")["/"] not in (CLOSED, NOBODY)
    assert (Verdict.LOST in verdicts(site, "default/bad")) is (way != "limit")


@pytest.mark.parametrize("way", WAYS)
def test_an_older_ingress_keeps_its_redirect_from_www(way, monkeypatch):
    bad = _of("bad", "/", 2, host="www.a.test", **GUARD)
    site = _without(way, monkeypatch, bad, _of("a", "/", 1, host="a.test", from_to_www_redirect="true"))
    assert site.model.servers["a.test"].redirects_from == "www.a.test"
    assert "www.a.test" not in site.model.servers


@pytest.mark.parametrize("way", [way for way in WAYS if way != "limit"])
def test_what_an_older_ingress_does_not_have_stays_closed(way, monkeypatch):
    bad = _of("bad", "/", 2, host="h.test", server_alias="x.test", **GUARD)
    older = _of("a", "/", 1, host="a.test", server_alias="h.test")
    site = _without(way, monkeypatch, bad, older, _of("wild", "/", 3, host="*.test", server_alias="x.test"))
    closed = next(known for host, known in site.model.servers.items() if "x.test" in (host, *known.aliases))
    assert [known.target for known in closed.locations if known.source == "/"] == [CLOSED]


@pytest.mark.parametrize("way", [way for way in WAYS if way != "limit"])
def test_a_host_of_a_served_ingress_is_no_additional_name(way, monkeypatch):
    bad, served = _of("bad", "/", 2, host="h.test", **GUARD), _of("b", "/b", 3, host="h.test")
    site = _without(way, monkeypatch, bad, served, _of("a", "/", 1, host="a.test", server_alias="h.test"))
    assert site.model.servers["a.test"].aliases == ()
    assert _answers(site, "h.test")["/"] == CLOSED


@pytest.mark.parametrize("way", [way for way in WAYS if way != "failure"])
def test_who_had_the_host_first_closes_it_for_all(way, monkeypatch):
    bad = _of("bad", "/bad", 1, auth_tls_secret="default/ca")
    site = _without(way, monkeypatch, bad, _of("c", "/", 2, namespace="other"))
    assert _answers(site)["/"] == CLOSED


@pytest.mark.parametrize("way", [way for way in WAYS if way != "failure"])
def test_paths_of_a_host_remain_expressions(way, monkeypatch):
    guard, app = _of("guard", "/admin", 2, **GUARD), _of("app", "/", 3)
    site = _without(way, monkeypatch, _of("bad", "/x", 1, use_regex="true"), guard, app)
    (admin,) = (known for known in site.model.servers["site.test"].locations if known.source == "/admin")
    assert (admin.kind, admin.path) == (MatchKind.REGEX, "^/admin")


@pytest.mark.parametrize("way", [way for way in WAYS if way != "failure"])
def test_expressions_that_an_older_ingress_had_change_nothing(way, monkeypatch):
    site = _without(way, monkeypatch, _of("bad", "/x", 2, use_regex="true"), _of("app", "/x", 1))
    assert not site.model.servers["site.test"].is_regex


@pytest.mark.parametrize("way", ["quarantine", "rejected", "limit", "invalid"])
def test_a_canary_closes_no_host_of_another_namespace(way, monkeypatch):
    bad = _of("bad", "/", 1, canary="true", canary_weight="1", auth_tls_secret="default/ca")
    site = _without(way, monkeypatch, bad, _of("c", "/", 2, namespace="other"))
    assert _answers(site)["/"] not in (CLOSED, NOBODY)
    site = _without(way, monkeypatch, bad, _of("c", "/", 2))
    assert _answers(site)["/"] == CLOSED


@pytest.mark.parametrize("way", ["quarantine", "rejected", "limit", "invalid"])
@pytest.mark.parametrize("canary", [{}, {"canary": "true", "canary_weight": "1"}], ids=["main", "canary"])
def test_a_host_that_still_verifies_the_same_certificates_is_served(way, canary, monkeypatch):
    bad = _of("bad", "/bad", 2, auth_tls_secret="default/ca", **canary)
    site = _without(way, monkeypatch, bad, _of("c", "/", 1, auth_tls_secret="default/ca"))
    assert _answers(site)["/"] not in (CLOSED, NOBODY)
    assert site.model.servers["site.test"].client_auth is not None
    other = _without(way, monkeypatch, bad, _of("c", "/", 1, auth_tls_secret="default/ca", auth_tls_verify_depth="2"))
    assert _answers(other)["/"] == CLOSED


@pytest.mark.parametrize("way", ["quarantine", "rejected", "invalid"])
def test_no_other_ingress_gets_a_path_that_it_did_not_have(way, monkeypatch):
    bad = _of("bad", "/metrics", 1, permanent_redirect="https://x.test/")
    site = _without(way, monkeypatch, bad, _of("app", "/", 2))
    assert _answers(site)["/metrics"] == CLOSED
    assert _answers(site)["/"] not in (CLOSED, NOBODY)


@pytest.mark.parametrize(
    "settings", [{"block_cidrs": "203.0.113.9/40"}, {"whitelist_source_range": "no network"}], ids=str
)
def test_settings_that_stay_in_use_keep_closed_what_a_snippet_closed(settings):
    app = _of("app", "/", 1)
    before = compiled(*WEB, app, settings_map(server_snippet="deny 203.0.113.9;"))
    assert _answers(before)["/"] == CLOSED
    after = compiled(*WEB, app, settings_map(**settings), before=before)
    assert _answers(after)["/"] == CLOSED
    assert _answers(compiled(*WEB, app, settings_map(), before=after))["/"] not in (CLOSED, NOBODY)
