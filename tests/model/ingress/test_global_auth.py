"""An invalid key `global-auth-*`: at the start its Ingresses are closed, later the last valid settings stay."""

from __future__ import annotations

import pytest

from rulegen.model.ingress.reasons import Verdict
from rulegen.model.ingress.resolve import decide_ingress
from tests.strategies.ingresses import API, SETTINGS, WEB, options, settings_map, site, world

URL = "http://api.default.svc/check"
OPTIONS = options(config_map=SETTINGS, resolvers=())
INVALID = [
    {"url": "ftp://api.default.svc/"},
    {"url": "http://localhost/"},
    {"url": "http://$host/"},
    {"url": 'http://api.default.svc/";}'},
    {"url": URL, "signin": "javascript:alert(1)"},
    {"url": URL, "signin": "http://sso.test/", "signin-redirect-param": "a b"},
    {"url": URL, "response-headers": "X-User: root"},
    {"url": URL, "request-redirect": "no path\n"},
]


def decided(data, before=None, *more):
    texts = {f"global-auth-{key}": text for key, text in data.items()}
    objects = (*WEB, *API, site("shop.test"), site("open.test", enable_global_auth="false"), *more)
    return decide_ingress(world(*objects, settings_map(**texts)), OPTIONS, before)


def answers(decisions, host="shop.test"):
    (location,) = (known for known in decisions.model.servers[host].locations if known.path == "/")
    return location


def about_settings(decisions):
    return [reason for reason in decisions.model.reasons if reason.about is None]


@pytest.mark.parametrize("data", INVALID, ids=str)
def test_without_valid_settings_before_it_closes(data):
    decisions = decided(data)
    assert answers(decisions).policy.is_closed
    assert not answers(decisions, "open.test").policy.is_closed
    (reason,) = about_settings(decisions)
    assert reason.verdict is Verdict.CLOSED
    assert f"data.global-auth-{[*data][-1]}: " in reason.message
    # Nor are these settings used once another invalid text arrives.
    assert answers(decided(INVALID[0], decisions)).policy.is_closed


@pytest.mark.parametrize("data", INVALID, ids=str)
def test_while_it_is_invalid_the_last_valid_settings_stay(data):
    good = decided({"url": URL})
    server = answers(good).policy.external_auth
    assert server is not None
    kept = decided(data, good)
    again = decided(data, kept)
    assert [answers(known).policy for known in (kept, again)] == [answers(good).policy] * 2
    (reason,) = about_settings(again)
    assert reason.verdict is Verdict.WAITING
    assert f"data.global-auth-{[*data][-1]}: " in reason.message
    assert answers(decided({}, again)).policy.external_auth is None


def test_each_invalid_key_is_reported():
    """Whoever corrects one sees at once what else is wrong."""
    wrong = {
        "url": "ftp://api.default.svc/",
        "signin": "javascript:alert(1)",
        "signin-redirect-param": "a b",
        "response-headers": "X-User: root",
        "request-redirect": "no path\n",
        "cache-key": "$request_uri",
        "cache-duration": "5m 200",
    }
    closing = [reason.message for reason in about_settings(decided(wrong)) if reason.verdict is Verdict.CLOSED]
    assert sorted(message.partition(": ")[0] for message in closing) == sorted(
        f"data.global-auth-{key}" for key in wrong
    )


@pytest.mark.parametrize(("key", "text"), [("method", "FOO"), ("always-set-cookie", "maybe")])
def test_what_does_not_decide_who_is_let_in_is_left_out(key, text):
    """As in ingress-nginx: the auth server is asked all the same."""
    decisions = decided({"url": URL, key: text})
    assert answers(decisions).policy == answers(decided({"url": URL})).policy
    (reason,) = about_settings(decisions)
    assert reason.verdict is Verdict.IGNORED
    assert reason.message.startswith(f"data.global-auth-{key}: ")


def test_settings_without_an_auth_server_stay_as_well():
    kept = decided({"url": "http://localhost/"}, decided({}))
    assert not answers(kept).policy.is_closed
    assert answers(kept).policy.external_auth is None
    assert [reason.verdict for reason in about_settings(kept)] == [Verdict.WAITING]


def test_an_auth_server_that_has_gone_closes_also_while_running():
    good = decided({"url": URL})
    decisions = decide_ingress(world(*WEB, site("shop.test"), settings_map(global_auth_url=URL)), OPTIONS, good)
    assert answers(decisions).policy.is_closed
    assert any("data.global-auth-url: " in reason.message for reason in about_settings(decisions))


def test_keys_of_an_auth_server_that_nobody_asks_close_nothing():
    assert not answers(decided({"signin": "javascript:alert(1)"})).policy.is_closed
