"""Settings for all hosts that keep somebody out: obeyed, or whom they guard is closed; and limits of Ingresses."""

from __future__ import annotations

import re

import pytest

from rulegen.model.ingress.ir import ToUpstream
from rulegen.model.ingress.reasons import Verdict
from tests.rights import needs_nginx
from tests.strategies.ingresses import (
    API,
    NAMED,
    SETTINGS,
    WEB,
    compiled,
    config_map,
    ingress,
    path,
    refusal,
    rule,
    settings_map,
    site,
    text_of,
    verdicts,
)

GROUND = (*WEB, *API, *NAMED)
EXTERNAL = {"auth-url": "http://api.default.svc/check"}


@pytest.mark.parametrize(
    ("data", "own", "is_closed"),
    [
        ({"whitelist-source-range": "10.0.0.300"}, {}, True),
        ({"whitelist-source-range": "10.0.0.300"}, {"allowlist-source-range": "10.0.0.0/8"}, False),
        ({"whitelist-source-range": ""}, {}, False),
        ({"denylist-source-range": "everyone"}, {}, True),
        ({"denylist-source-range": "everyone"}, {"denylist-source-range": "10.0.0.0/8"}, False),
        ({"denylist-source-range": " "}, {}, False),
        ({"block-cidrs": "10.0.0.0/8, x"}, {"allowlist-source-range": "10.0.0.0/8"}, True),
        ({"block-user-agents": "~("}, {}, True),
        ({"proxy-real-ip-cidr": "10.0.0.0/99"}, {}, True),
        ({"bind-address": "everywhere"}, {}, True),
        ({"global-auth-url": "http://localhost/"}, {}, True),
        ({"global-auth-url": "http://localhost/"}, {"enable-global-auth": "false"}, False),
        ({"global-auth-url": "http://localhost/"}, EXTERNAL, False),
    ],
)
def test_an_invalid_restricting_setting_closes_its_ingresses(data, own, is_closed):
    """It is one fault of one key: reported once, where it was written."""
    result = compiled(
        *GROUND,
        ingress("site", rule("site.test"), annotations=own),
        config_map(SETTINGS.name, data, SETTINGS.namespace),
    )
    assert (re.search(r"_pass \S", text_of(result)) is None) is is_closed
    (reason,) = (reason for reason in result.model.reasons if reason.about is None)
    assert reason.path == f"ConfigMap {SETTINGS}"
    assert reason.verdict is (
        Verdict.IGNORED if data in ({"whitelist-source-range": ""}, {"denylist-source-range": " "}) else Verdict.CLOSED
    )


@pytest.mark.parametrize(
    ("own", "written"),
    [({}, []), ({"limit-rate": "0"}, ["limit_rate 0;"]), ({"limit-rate": "7"}, ["limit_rate 7k;"]),
     ({"limit-rate": "much"}, []), ({"limit-rate-after": "0"}, ["limit_rate_after 0;"])],
)  # fmt: skip
def test_the_limit_of_one_goes_over_that_of_all(own, written):
    everywhere = settings_map(limit_rate="5", limit_rate_after="3", proxy_buffering="on")
    result = compiled(*GROUND, everywhere, ingress("site", rule("site.test"), annotations=own))
    assert re.findall(r"limit_rate[^;]*;", text_of(result)) == written
    assert "limit_rate 5k;" in result.configuration.files["nginx.conf"]


@pytest.mark.parametrize("name", ["limit-rps", "limit-rpm", "limit-connections"])
@pytest.mark.parametrize("text", ["0", "-5"])
def test_a_limit_of_none_is_none_and_noted(name, text):
    result = compiled(*GROUND, ingress("site", rule("site.test"), annotations={name: text}))
    assert "limit_" not in text_of(result)
    assert verdicts(result) == {Verdict.NOTE}


def test_one_bad_address_to_listen_on_does_not_open_all_others():
    result = compiled(*GROUND, settings_map(bind_address="127.0.0.2, 10.0.0.300"), site())
    assert re.findall(r"listen ([^ ;]+)", text_of(result)) == ["127.0.0.2:8080", "127.0.0.2:8443"]
    (reason,) = (reason for reason in result.model.reasons if reason.about is None)
    assert "10.0.0.300" in reason.message


@pytest.mark.parametrize(
    ("settings", "annotations", "is_served"),
    [
        ({}, {"auth-url": "http://api.default.svc/"}, True),
        ({"annotations_risk_level": "High"}, {"auth-url": "http://api.default.svc/"}, True),
        ({"annotations_risk_level": "Medium"}, {"auth-url": "http://api.default.svc/"}, False),
        ({"annotations_risk_level": "Medium"}, {"rewrite-target": "/x"}, True),
        ({"annotations_risk_level": "Low"}, {"rewrite-target": "/x"}, False),
        ({"annotations_risk_level": "Low"}, {"use-regex": "true"}, True),
        ({"annotations_risk_level": "low"}, {"rewrite-target": "/x"}, False),
        ({"annotations_risk_level": "medium"}, {"rewrite-target": "/x"}, True),
        ({"annotations_risk_level": "CRITICAL"}, {"auth-url": "http://api.default.svc/"}, True),
        ({"annotations_risk_level": "Highest"}, {"rewrite-target": "/x"}, False),
        ({"annotation_value_word_blocklist": "load_module, _by_lua,"}, {"rewrite-target": "/x"}, True),
        ({"annotation_value_word_blocklist": "load_module, _by_lua"}, {"app-root": "/x_by_lua_y"}, False),
        ({"annotation_value_word_blocklist": "_by_lua"}, {"other.example.com/a": "x_by_lua_y"}, True),
    ],
)
def test_an_ingress_with_what_the_settings_forbid_is_rejected(settings, annotations, is_served):
    result = compiled(*GROUND, settings_map(**settings), ingress("site", rule("site.test"), annotations=annotations))
    server = result.model.servers.get("site.test")
    targets = [location.target for location in server.locations] if server is not None else []
    assert any(isinstance(target, ToUpstream) for target in targets) is is_served
    assert (Verdict.REJECTED in verdicts(result)) is not is_served


def test_all_limits_of_an_ingress_hold():
    text = text_of(compiled(*GROUND, site(limit_rps="5", limit_rpm="7", limit_connections="3")))
    assert len(re.findall(r"limit_conn \S+ 3;", text)) == 1
    assert sorted(re.findall(r"limit_req zone=\S+ burst=(\d+) nodelay;", text)) == ["25", "35"]


@needs_nginx
def test_a_client_is_counted_once_for_all_hosts_of_an_ingress(tmp_path):
    limited = {"limit-rps": "5", "limit-connections": "3", "limit-allowlist": "10.0.0.0/8"}
    older = ingress("older", rule("a.test"), created="2025-01-01T00:00:00Z")
    result = compiled(
        *GROUND,
        older,
        ingress("site", rule("a.test"), rule("site.test"), rule("z.test"), annotations=limited),
        ingress("other", rule("z.test", path("/other")), annotations=limited),
    )
    assert refusal(result.configuration, tmp_path / "nginx") == ""
    text = "".join(result.configuration.files.values())
    of_site, of_other = (
        set(re.findall(r"limit_req zone=(\w+)", text_of(result, host))) for host in ("site.test", "z.test")
    )
    assert len(of_site) == 1
    assert of_site < of_other
    assert len(of_other) == 2
    for zone in of_other:
        assert text.count(f"zone={zone}:") == 1


@pytest.mark.parametrize("text", ["no", "", "false ", "\tfalse", "false\n"])
def test_an_invalid_opt_out_of_global_auth_is_ignored(text):
    """Spaces make it invalid, as in ingress-nginx."""
    everywhere = settings_map(global_auth_url="http://api.default.svc/check")
    result = compiled(*GROUND, everywhere, site(enable_global_auth=text))
    assert "auth_request " in text_of(result)
    assert verdicts(result) == {Verdict.IGNORED}


@pytest.mark.parametrize("annotations", [{"app_root": "/app"}, {"temporal_redirect": "https://a.test/"}])
def test_a_closed_ingress_redirects_nobody(annotations):
    assert "return 302" in text_of(compiled(*GROUND, site(**annotations)))
    closed = text_of(compiled(*GROUND, site(**annotations, auth_url="not a url")))
    assert "return 302" not in closed
    assert "return 503;" in closed


@pytest.mark.parametrize(("networks", "trusted"), [({}, True), ({"proxy_real_ip_cidr": ""}, False)])
def test_with_an_empty_list_of_proxies_nobody_names_a_client(networks, trusted):
    """The list's default is all of IPv4, so an empty one must not mean the default."""
    result = compiled(*GROUND, site(), settings_map(use_forwarded_headers="true", **networks))
    assert ("set_real_ip_from" in result.configuration.files["nginx.conf"]) is trusted
