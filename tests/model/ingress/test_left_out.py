"""An Ingress that is not served guards what it guarded: nobody else gets its requests unguarded."""

from __future__ import annotations

import pytest

from rulegen.kube.objects.names import ObjectName
from rulegen.model.ingress import resolve
from rulegen.model.ingress.ir import FixedResponse
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
WAYS = ("quarantine", "limit", "rejected", "failure")
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
        bad.metadata.annotations["nginx.ingress.kubernetes.io/app-root"] = "no-path"
    elif way == "quarantine":
        changes["without"] = {name: "nginx rejects it"}
    elif way == "limit":
        refusal = resolve.NamespaceLimits.refusal
        monkeypatch.setattr(
            resolve.NamespaceLimits,
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


@pytest.mark.parametrize("way", ["quarantine", "rejected"])
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
